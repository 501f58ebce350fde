//! When a shard takes the datagrams it is told of: at once while it has few transports; else a moment later, so that the
//! packets of a video frame, which come one by one, go to each subscriber with one system call, and many peers' reports
//! cost one wake-up. Where nothing flows, nobody waits for more than the answer to a consent check.

use std::time::Duration;

/// Longest time a datagram waits to be taken.
const LONGEST: Duration = Duration::from_millis(1);
/// The same while nothing flows: a wake-up then costs more than all it is for. Too short to be heard or seen, once.
const LONGEST_QUIET: Duration = Duration::from_millis(20);
/// Below so many transports what is saved is not worth the wait.
const MIN_TRANSPORTS: usize = 16;

/// How long to let datagrams gather, after a turn that took `last_turn`: what came during it has waited already, and a
/// shard that is busy for longer never waits. `quiet`: nothing flows.
pub(super) fn time(transports: usize, quiet: bool, last_turn: Duration) -> Duration {
    let longest = if quiet { LONGEST_QUIET } else { LONGEST };
    if transports < MIN_TRANSPORTS { Duration::ZERO } else { longest.saturating_sub(last_turn) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_transports_are_served_at_once() {
        assert_eq!(time(15, true, Duration::ZERO), Duration::ZERO);
        assert_eq!(time(16, true, Duration::ZERO), LONGEST_QUIET);
        assert_eq!(time(16, false, Duration::ZERO), LONGEST);
    }

    #[test]
    fn turns_begin_a_millisecond_apart_and_a_busy_shard_never_waits() {
        assert_eq!(time(100, false, Duration::from_micros(300)), Duration::from_micros(700));
        assert_eq!(time(100, false, Duration::from_millis(5)), Duration::ZERO);
    }
}
