//! Rooms leave a node that drains a few at a time: where few calls move at once, each has its pictures back sooner.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// Sessions that are on their way at once; a room with more goes alone.
const AT_ONCE: usize = 4;
/// Who has not left by then keeps no others waiting: they are away, or nothing else takes them.
const PATIENCE: Duration = Duration::from_secs(1);

/// What all rooms of a node leave by.
#[derive(Debug, Clone)]
pub(crate) struct Exit(Arc<Semaphore>);

/// Whether a room has been told to leave, or when it will be.
#[derive(Default)]
pub(crate) enum Departure {
    /// It may stay.
    #[default]
    Stays,
    /// Others go first.
    Waits(Pin<Box<dyn Future<Output = Option<OwnedSemaphorePermit>> + Send + Sync>>),
    /// It goes. Others wait for it until then.
    Goes { _permit: Option<OwnedSemaphorePermit>, until: Instant },
    /// It goes, or cannot.
    Told,
}

impl Exit {
    /// For a few at a time.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }

    /// So many sessions are to have been told within half of `limit`, in which they may go on.
    pub(crate) fn widen(&self, sessions: usize, limit: Duration) {
        let half = (limit / 2).as_millis().max(1);
        let at_once = (sessions as u128 * PATIENCE.as_millis()).div_ceil(half);
        let most = Semaphore::MAX_PERMITS / 2;
        self.0.add_permits(usize::try_from(at_once).unwrap_or(most).min(most).saturating_sub(AT_ONCE));
    }
}

impl Departure {
    /// A room of so many sessions is to leave, when its turn has come.
    pub(crate) fn of(sessions: usize, exit: &Exit) -> Self {
        let permits = u32::try_from(sessions.clamp(1, AT_ONCE)).unwrap_or(1);
        let exit = exit.0.clone();
        Self::Waits(Box::pin(async move { exit.acquire_many_owned(permits).await.ok() }))
    }

    /// It is to leave, now or when its turn has come.
    pub(crate) fn is_set(&self) -> bool {
        !matches!(self, Self::Stays)
    }

    /// Its turn has come.
    pub(crate) fn has_come(&self) -> bool {
        matches!(self, Self::Goes { .. } | Self::Told)
    }

    /// Waits for what comes next; for ever if nothing does. May be cancelled.
    pub(crate) async fn next(&mut self) {
        *self = match self {
            Self::Waits(turn) => Self::Goes { _permit: turn.await, until: Instant::now() + PATIENCE },
            Self::Goes { until, .. } => {
                sleep_until(*until).await;
                Self::Told
            }
            Self::Stays | Self::Told => std::future::pending().await,
        };
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    async fn comes(departure: &mut Departure) -> bool {
        let _ = timeout(SOON, departure.next()).await;
        departure.has_come()
    }

    #[tokio::test(start_paused = true)]
    async fn rooms_go_a_few_at_a_time() {
        let exit = Exit::new();
        let (mut first, mut second) = (Departure::of(AT_ONCE / 2, &exit), Departure::of(AT_ONCE / 2, &exit));
        let (mut third, mut fourth) = (Departure::of(1000, &exit), Departure::of(0, &exit));
        assert!(comes(&mut first).await && comes(&mut second).await);
        assert!(!comes(&mut third).await && !comes(&mut fourth).await);
        drop(first);
        assert!(!comes(&mut third).await, "there is room for half of it");
        drop(second);
        assert!(comes(&mut third).await);
        assert!(!comes(&mut fourth).await);
        // It has nowhere to go.
        timeout(PATIENCE, third.next()).await.unwrap();
        assert!(comes(&mut fourth).await && third.has_come());
    }

    #[tokio::test(start_paused = true)]
    async fn all_have_been_told_in_time() {
        for (limit, sessions) in [(0, 100), (3, 100), (120, 10_000), (600, 10)] {
            let (exit, limit) = (Exit::new(), Duration::from_secs(limit));
            exit.widen(sessions, limit);
            let mut all: Vec<_> = (0..sessions / 2).map(|_| Departure::of(2, &exit)).collect();
            let began = Instant::now();
            // None of them can leave.
            for room in &mut all {
                while !room.has_come() {
                    room.next().await;
                }
                tokio::spawn({
                    let mut room = std::mem::take(room);
                    async move { room.next().await }
                });
            }
            assert!(began.elapsed() <= limit / 2 + PATIENCE, "{:?} of {limit:?}", began.elapsed());
        }
    }
}
