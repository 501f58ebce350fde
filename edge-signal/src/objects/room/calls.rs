//! Callers that wait for a participant's answer. In memory alone: a caller waits no longer than the object lives.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::{Either, select};
use worker::Delay;

use crate::room::call::{ACK_TIMEOUT_MS, Called, Failure, Heard, answered_error};
use crate::room::service::{Answer, Error};

/// Who waits for which call.
#[derive(Default)]
pub(super) struct Calls(RefCell<HashMap<String, Waiting>>);

struct Waiting {
    /// Until the call has come.
    acknowledged: Option<oneshot::Sender<()>>,
    answered: Option<oneshot::Sender<Result<String, (u32, String)>>>,
}

impl Calls {
    /// A participant says something of a call. Without a caller it is nobody's.
    pub(super) fn hear(&self, id: &str, heard: Heard) {
        let mut calls = self.0.borrow_mut();
        let Some(waiting) = calls.get_mut(id) else { return };
        if let Some(acknowledged) = waiting.acknowledged.take() {
            // A caller that is gone does not care; nor below.
            let _ = acknowledged.send(());
        }
        if let Heard::Answered(answer) = heard
            && let Some(answered) = waiting.answered.take()
        {
            let _ = answered.send(answer);
        }
    }

    /// Waits for the answer.
    pub(super) async fn wait(&self, called: Called) -> Result<Answer, Error> {
        let (acknowledge, acknowledged) = oneshot::channel();
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting { acknowledged: Some(acknowledge), answered: Some(answer) };
        self.0.borrow_mut().insert(called.id.clone(), waiting);
        let outcome = async {
            let limit = Duration::from_millis(ACK_TIMEOUT_MS.min(called.timeout_ms).into());
            if let Either::Right(_) = select(acknowledged, Delay::from(limit)).await {
                return Err(Failure::ConnectionTimeout.error());
            }
            let rest = Duration::from_millis(called.timeout_ms.into());
            match select(answered, Delay::from(rest)).await {
                Either::Left((Ok(Ok(payload)), _)) => Ok(Answer::Reply(payload)),
                Either::Left((Ok(Err((code, text))), _)) => Err(answered_error(code, &text)),
                Either::Left((Err(_), _)) | Either::Right(_) => Err(Failure::ResponseTimeout.error()),
            }
        };
        let _waits = Waits { calls: self, id: &called.id };
        outcome.await
    }
}

/// Somebody waits; **no longer when dropped, also when the caller is gone**.
struct Waits<'a> {
    calls: &'a Calls,
    id: &'a str,
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.calls.0.borrow_mut().remove(self.id);
    }
}
