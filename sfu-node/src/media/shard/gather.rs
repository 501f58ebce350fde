//! When a shard takes the datagrams that come. While it has few transports: at once. Else a moment later, so that the
//! packets of a video frame, which come one by one, go to each subscriber with one system call, and many peers' packets
//! cost one wake-up. While something comes every moment, that moment is all it waits for: it asks the system for
//! datagrams without having been told of any. Where nothing flows, nobody waits for more than the answer to a consent
//! check. **Pure: times are given.**

use std::time::Duration;

/// Longest time a datagram waits to be taken, on a shard whose turns are short.
const LONGEST: Duration = Duration::from_millis(3);
/// Of this, the longest turns lately leave what remains when they are taken away twice: what waits then also waits for a
/// turn that began just before it came, and for its own.
const LONGEST_WITH_TURNS: Duration = Duration::from_millis(5);
/// The same where turns are long. Enough for the packets of a frame to come.
const LONGEST_BESIDE_WORK: Duration = Duration::from_millis(1);
/// The same while nothing flows: a wake-up then costs more than all it is for. Too short to be heard or seen, once.
const LONGEST_QUIET: Duration = Duration::from_millis(20);
/// Below so many transports what is saved is not worth the wait.
pub(super) const MIN_TRANSPORTS: usize = 16;
/// Polls in a row that were answered within the longest time to wait, after which no more are made.
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
        let beside_work = LONGEST_WITH_TURNS.saturating_sub(2 * self.long_turn).clamp(LONGEST_BESIDE_WORK, LONGEST);
        let longest = if quiet { LONGEST_QUIET } else { beside_work };
        longest.saturating_sub(self.last_turn)
    }

    /// How long to wait without a poll, as something will have come by then.
    pub(super) fn steady(&self, transports: usize, quiet: bool) -> Option<Duration> {
        (self.soon >= STEADY_AFTER && transports >= MIN_TRANSPORTS).then(|| self.time(transports, quiet))
    }

    /// How long to wait for a timer that is due after `until`. Where nothing flows none is so urgent that it could not wait
    /// for datagrams: each would wake the thread for itself.
    pub(super) fn timer(&self, transports: usize, quiet: bool, until: Duration) -> Duration {
        if quiet { until.max(self.time(transports, quiet)) } else { until }
    }

    /// A poll told of something after `waited`.
    pub(super) fn note_told(&mut self, waited: Duration, quiet: bool) {
        let longest = if quiet { LONGEST_QUIET } else { LONGEST };
        self.soon = if waited <= longest { self.soon.saturating_add(1) } else { 0 };
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
        (0..STEADY_AFTER).for_each(|_| gather.note_told(MILLI, false));
        assert_eq!((gather.time(15, true), gather.steady(15, false)), (Duration::ZERO, None));
        assert_eq!((gather.time(16, true), gather.time(16, false)), (LONGEST_QUIET, LONGEST));
    }

    #[test]
    fn long_turns_leave_less_time_to_wait_and_a_busy_shard_never_waits() {
        assert_eq!(after([MILLI]).time(100, false), LONGEST - MILLI);
        assert_eq!(
            after([2 * MILLI, MILLI / 4]).time(100, false),
            LONGEST_WITH_TURNS - 4 * MILLI + MILLI / 8 - MILLI / 4
        );
        assert_eq!(after([5 * MILLI]).time(100, false), Duration::ZERO);
        assert_eq!(after([5 * MILLI, MILLI / 4]).time(100, false), LONGEST_BESIDE_WORK - MILLI / 4);
        let forgotten = after([5 * MILLI].into_iter().chain([Duration::ZERO; 200]));
        assert!(forgotten.time(100, false) > LONGEST - MILLI / 10, "{:?}", forgotten.time(100, false));
    }

    #[test]
    fn while_something_comes_every_moment_no_poll_is_made() {
        let mut gather = Gather::default();
        for waited in [MILLI, 4 * MILLI, MILLI, MILLI, MILLI] {
            gather.note_told(waited, false);
            assert_eq!(gather.steady(100, false), None);
        }
        gather.note_told(MILLI, false);
        assert_eq!((gather.steady(100, false), gather.steady(100, true)), (Some(LONGEST), Some(LONGEST_QUIET)));
        gather.note_turn(Duration::ZERO, true);
        assert_eq!(gather.steady(100, false), Some(LONGEST));
        gather.note_turn(Duration::ZERO, false);
        assert_eq!(gather.steady(100, false), None);
    }
    #[test]
    fn where_nothing_flows_checks_come_every_moment_and_timers_wait_for_them() {
        let mut gather = Gather::default();
        (0..STEADY_AFTER).for_each(|_| gather.note_told(LONGEST_QUIET, true));
        assert_eq!(gather.steady(100, true), Some(LONGEST_QUIET));
        gather.note_told(LONGEST_QUIET + MILLI, true);
        assert_eq!(gather.steady(100, true), None);

        assert_eq!(gather.timer(100, true, MILLI), LONGEST_QUIET);
        assert_eq!(gather.timer(100, true, 2 * LONGEST_QUIET), 2 * LONGEST_QUIET);
        assert_eq!((gather.timer(100, false, MILLI), gather.timer(15, true, MILLI)), (MILLI, MILLI));
    }
}
