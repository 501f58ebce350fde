//! When a shard takes the datagrams it is told of: at once while it has few transports; else a moment later, so that the
//! packets of a video frame, which come one by one, go to each subscriber with one system call, and many peers' reports
//! cost one wake-up.

use std::time::Duration;

/// Longest time a datagram waits to be taken.
const LONGEST: Duration = Duration::from_millis(1);
/// Below so many transports what is saved is not worth the wait.
const MIN_TRANSPORTS: usize = 16;

/// How long to let datagrams gather, after a turn that took `last_turn`: what came during it has waited already, and a
/// shard that is busy for longer never waits.
pub(super) fn time(transports: usize, last_turn: Duration) -> Duration {
    if transports < MIN_TRANSPORTS { Duration::ZERO } else { LONGEST.saturating_sub(last_turn) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_transports_are_served_at_once() {
        assert_eq!(time(15, Duration::ZERO), Duration::ZERO);
        assert_eq!(time(16, Duration::ZERO), LONGEST);
    }

    #[test]
    fn turns_begin_a_millisecond_apart_and_a_busy_shard_never_waits() {
        assert_eq!(time(100, Duration::from_micros(300)), Duration::from_micros(700));
        assert_eq!(time(100, Duration::from_millis(5)), Duration::ZERO);
    }
}
