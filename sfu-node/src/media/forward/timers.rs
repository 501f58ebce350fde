//! Deadlines of transports and tracks, in milliseconds: a deadline is met in the one it ends in, never before.

use crate::media::forward::clock::{TICK, Time};
use crate::media::wheel::Wheel;

/// Whose deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Slot of a transport.
    Transport(usize),
    /// Slot of a track.
    Track(usize),
}

/// All deadlines; an owner has one at most.
#[derive(Debug)]
pub(crate) struct Timers {
    wheel: Wheel,
}

impl Timers {
    /// None yet.
    pub(crate) fn new() -> Self {
        Self { wheel: Wheel::new() }
    }

    /// Wakes `owner` at `at`, or sooner if that is set already.
    pub(crate) fn arm(&mut self, owner: Owner, at: Time) {
        let (place, tick) = (owner.place(), at.0.div_ceil(TICK));
        if self.wheel.deadline(place).is_none_or(|set| tick < set) {
            self.wheel.set(place, tick);
        }
    }

    /// Something is to happen to `owner`.
    pub(crate) fn is_armed(&self, owner: Owner) -> bool {
        self.wheel.deadline(owner.place()).is_some()
    }

    /// Nothing is to happen to `owner` any more.
    pub(crate) fn disarm(&mut self, owner: Owner) {
        self.wheel.clear(owner.place());
    }

    /// When to look for what is due.
    pub(crate) fn next(&self) -> Option<Time> {
        self.wheel.next().map(|tick| Time(tick.saturating_mul(TICK)))
    }

    /// An owner that is due, and since when; it is not armed any more.
    pub(crate) fn take_due(&mut self, now: Time) -> Option<(Time, Owner)> {
        let (tick, place) = self.wheel.take_due(now.0 / TICK)?;
        Some((Time(tick.saturating_mul(TICK)), Owner::at(place)))
    }
}

impl Owner {
    fn place(self) -> usize {
        match self {
            Self::Transport(slot) => 2 * slot,
            Self::Track(slot) => 2 * slot + 1,
        }
    }

    fn at(place: usize) -> Self {
        if place.is_multiple_of(2) { Self::Transport(place / 2) } else { Self::Track(place / 2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soonest_wins_and_none_is_met_early() {
        let mut timers = Timers::new();
        timers.arm(Owner::Track(1), Time(20_000));
        timers.arm(Owner::Track(1), Time(10_001));
        timers.arm(Owner::Track(1), Time(30_000));
        timers.arm(Owner::Transport(1), Time(12_000));
        assert_eq!(timers.next(), Some(Time(11_000)));
        assert_eq!(timers.take_due(Time(10_999)), None);
        assert_eq!(timers.take_due(Time(11_000)), Some((Time(11_000), Owner::Track(1))));
        assert!(!timers.is_armed(Owner::Track(1)) && timers.is_armed(Owner::Transport(1)));
        timers.disarm(Owner::Transport(1));
        assert_eq!((timers.next(), timers.take_due(Time(50_000))), (None, None));
    }
}
