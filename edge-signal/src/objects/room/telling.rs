//! Telling other objects what they do not know: in the background, to each kind one thing after the other, and again after a
//! while where it could not be told. **What is to be told is kept in rows until it was**; here is only whose turn it is.

use std::cell::Cell;
use std::rc::Rc;

use futures_util::lock::{Mutex, MutexGuard};
use worker::{Result, console_error, console_log};

use super::Shell;
use crate::room::event::UnixMs;
use crate::runtime;

/// How it stands with telling one kind of objects.
pub(super) struct Telling {
    /// For the log.
    whom: &'static str,
    /// How long until it is tried again, milliseconds.
    retry_ms: u64,
    turn: Mutex<()>,
    deaf_until: Cell<UnixMs>,
    /// Whether anything is kept; `None`: not looked yet.
    waits: Cell<Option<bool>>,
}

impl Telling {
    pub(super) fn of(whom: &'static str, retry_ms: u64) -> Self {
        let (deaf_until, waits) = (Cell::new(UnixMs(0)), Cell::new(None));
        Self { whom, retry_ms, turn: Mutex::new(()), deaf_until, waits }
    }

    /// Something was kept.
    pub(super) fn keeps(&self) {
        self.waits.set(Some(true));
    }

    /// What is kept, read only where there may be something.
    pub(super) fn kept<T>(&self, read: impl FnOnce() -> Result<Vec<T>>) -> Result<Vec<T>> {
        if self.waits.get() == Some(false) {
            return Ok(Vec::new());
        }
        let kept = read()?;
        self.waits.set(Some(!kept.is_empty()));
        Ok(kept)
    }

    /// Nobody else tells meanwhile.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }
}

impl Shell {
    /// Has somebody told, unless that is under way or was in vain just now; when to look again.
    pub(super) fn tell<F>(self: &Rc<Self>, whom: fn(&Self) -> &Telling, told: fn(Rc<Self>) -> F) -> UnixMs
    where
        F: Future<Output = Result<()>> + 'static,
    {
        let (now, telling) = (runtime::now(), whom(self));
        if now >= telling.deaf_until.get() && telling.turn.try_lock().is_some() {
            let shell = Rc::clone(self);
            self.state.wait_until(async move {
                shell.told(whom(&shell), told(Rc::clone(&shell))).await;
                if let Err(error) = shell.settle().await {
                    console_error!("after telling {}: {error}", whom(&shell).whom);
                }
            });
        }
        now.after(telling.retry_ms)
    }

    /// Returns when it is told, or could not be.
    pub(super) async fn told(&self, telling: &Telling, told: impl Future<Output = Result<()>>) {
        let _turn = telling.turn().await;
        if let Err(error) = told.await {
            console_log!("{} cannot be told yet: {error}", telling.whom);
            telling.deaf_until.set(runtime::now().after(telling.retry_ms));
        }
    }
}
