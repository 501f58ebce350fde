//! When a shard takes the datagrams that come. While it has few transports: at once. Else a moment later, so that the
//! packets of a video frame, which come one by one, go to each subscriber with one system call, and many peers' packets
//! cost one wake-up. While something comes every moment, that moment is all it waits for: it asks the system for
//! datagrams without having been told of any. Where nothing flows, nobody waits for more than the answer to a consent
//! check. **Pure: times are given.**

use std::time::Duration;

/// Longest time a datagram waits to be taken, on a shard whose turns are short.
const LONGEST: Duration = Duration::from_millis(3);
/// The same where turns are long: what waits then also waits for the turn. Enough for the packets of a frame to come.
const LONGEST_BESIDE_WORK: Duration = Duration::from_millis(1);
/// The same while nothing flows: a wake-up then costs more than all it is for. Too short to be heard or seen, once.
const LONGEST_QUIET: Duration = Duration::from_millis(20);
/// Below so many transports what is saved is not worth the wait.
const MIN_TRANSPORTS: usize = 16;
/// Polls in a row that were answered within [`LONGEST`], after which no more are made.
const STEADY_AFTER: u8 = 4;
/// Of the longest turn lately, what is forgotten a turn: one in so many parts. Frames of a large room are some turns apart.
const FORGET: u32 = 32;

/// Decides when the next turn begins.
#[derive(Debug, Default)]
pub(super) struct Gather {
    last_turn: Duration,
    /// Longest turn lately.
    long_turn: Duration,
    /// Polls in a row that were soon answered.
    soon: u8,
}

impl Gather {
    /// How long to wait for more once there is something. What came during the last turn has waited already, and a shard
    /// that is busy for longer never waits. `quiet`: nothing flows.
    pub(super) fn time(&self, transports: usize, quiet: bool) -> Duration {
        if transports < MIN_TRANSPORTS {
            return Duration::ZERO;
        }
        let beside_work = LONGEST.saturating_sub(2 * self.long_turn).max(LONGEST_BESIDE_WORK);
        let longest = if quiet { LONGEST_QUIET } else { beside_work };
        longest.saturating_sub(self.last_turn)
    }

    /// How long to wait without a poll, as something will have come by then.
    pub(super) fn steady(&self, transports: usize, quiet: bool) -> Option<Duration> {
        (self.soon >= STEADY_AFTER && transports >= MIN_TRANSPORTS).then(|| self.time(transports, quiet))
    }

    /// A poll told of something after `waited`.
    pub(super) fn note_told(&mut self, waited: Duration) {
        self.soon = if waited <= LONGEST { self.soon.saturating_add(1) } else { 0 };
    }

    /// A turn took `turn`. `as_expected`: it found what was waited for without a poll, or nothing was.
    pub(super) fn note_turn(&mut self, turn: Duration, as_expected: bool) {
        self.last_turn = turn;
        self.long_turn = turn.max(self.long_turn - self.long_turn / FORGET);
        if !as_expected {
            self.soon = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn after(turns: impl IntoIterator<Item = Duration>) -> Gather {
        let mut gather = Gather::default();
        turns.into_iter().for_each(|turn| gather.note_turn(turn, true));
        gather
    }

    #[test]
    fn few_transports_are_served_at_once() {
        let mut gather = Gather::default();
        (0..STEADY_AFTER).for_each(|_| gather.note_told(MILLI));
        assert_eq!((gather.time(15, true), gather.steady(15, false)), (Duration::ZERO, None));
        assert_eq!((gather.time(16, true), gather.time(16, false)), (LONGEST_QUIET, LONGEST));
    }

    #[test]
    fn long_turns_leave_less_time_to_wait_and_a_busy_shard_never_waits() {
        assert_eq!(after([MILLI / 2]).time(100, false), LONGEST - MILLI - MILLI / 2);
        assert_eq!(after([5 * MILLI]).time(100, false), Duration::ZERO);
        assert_eq!(after([5 * MILLI, MILLI / 4]).time(100, false), LONGEST_BESIDE_WORK - MILLI / 4);
        let forgotten = after([5 * MILLI].into_iter().chain([Duration::ZERO; 200]));
        assert!(forgotten.time(100, false) > LONGEST - MILLI / 10, "{:?}", forgotten.time(100, false));
    }

    #[test]
    fn while_something_comes_every_moment_no_poll_is_made() {
        let mut gather = Gather::default();
        for waited in [MILLI, 4 * MILLI, MILLI, MILLI, MILLI] {
            gather.note_told(waited);
            assert_eq!(gather.steady(100, false), None);
        }
        gather.note_told(MILLI);
        assert_eq!((gather.steady(100, false), gather.steady(100, true)), (Some(LONGEST), Some(LONGEST_QUIET)));
        gather.note_turn(Duration::ZERO, true);
        assert_eq!(gather.steady(100, false), Some(LONGEST));
        gather.note_turn(Duration::ZERO, false);
        assert_eq!(gather.steady(100, false), None);
    }
}
