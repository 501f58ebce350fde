//! Deadlines of transports and tracks. Entries are never removed: one that comes up and is not the owner's is stale.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::media::forward::clock::Time;

/// Whose deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Owner {
    /// Slot of a transport.
    Transport(usize),
    /// Slot of a track.
    Track(usize),
}

/// One owner's place in the queue.
#[derive(Debug, Default)]
pub(crate) struct Armed(Option<Time>);

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, Owner)>>,
}

impl Timers {
    /// Wakes `owner` at `at`, or sooner if that is set already.
    pub(crate) fn arm(&mut self, owner: Owner, armed: &mut Armed, at: Time) {
        if armed.0.is_none_or(|set| at < set) {
            armed.0 = Some(at);
            self.heap.push(Reverse((at, owner)));
        }
    }

    /// When the next entry comes up.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes an entry that is due.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<(Time, Owner)> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse(entry)| entry)
    }
}

impl Armed {
    /// True when the entry taken is this owner's current one; it is disarmed.
    pub(crate) fn fires(&mut self, at: Time) -> bool {
        let current = self.0 == Some(at);
        if current {
            self.0 = None;
        }
        current
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soonest_wins_and_stale_entries_do_nothing() {
        let (mut timers, mut armed) = (Timers::default(), Armed::default());
        timers.arm(Owner::Track(1), &mut armed, Time(20));
        timers.arm(Owner::Track(1), &mut armed, Time(10));
        timers.arm(Owner::Track(1), &mut armed, Time(30));
        assert_eq!(timers.next(), Some(Time(10)));
        assert_eq!(timers.take_due(Time(9)), None);
        let (at, _) = timers.take_due(Time(25)).unwrap();
        assert!(armed.fires(at));
        let (at, _) = timers.take_due(Time(25)).unwrap();
        assert!(!armed.fires(at), "stale");
        assert_eq!(timers.take_due(Time(25)), None);
    }
}
