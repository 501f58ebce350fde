//! Deadlines by the clock, in milliseconds: a deadline is met in the one it ends in, never before.

use std::time::{Duration, Instant};

use crate::media::wheel::Wheel;

/// Nanoseconds of a tick.
const TICK: u128 = 1_000_000;

/// One deadline at most for each transport, by its place.
#[derive(Debug)]
pub(super) struct Deadlines {
    wheel: Wheel,
    /// Tick 0.
    start: Option<Instant>,
}

impl Deadlines {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { wheel: Wheel::new(), start: None }
    }

    /// Sets or takes away the deadline of `place`.
    pub(super) fn set(&mut self, now: Instant, place: usize, at: Option<Instant>) {
        let Some(at) = at else { return self.wheel.clear(place) };
        let start = *self.start.get_or_insert(now);
        let tick = at.saturating_duration_since(start).as_nanos().div_ceil(TICK);
        let tick = u64::try_from(tick).unwrap_or(u64::MAX);
        if self.wheel.deadline(place) != Some(tick) {
            self.wheel.set(place, tick);
        }
    }

    /// When to look for what is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.start?.checked_add(Duration::from_millis(self.wheel.next()?))
    }

    /// A place whose deadline is not after `now`; it has none any more.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<usize> {
        let passed = now.saturating_duration_since(self.start?).as_nanos() / TICK;
        self.wheel.take_due(u64::try_from(passed).unwrap_or(u64::MAX)).map(|(_, place)| place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_met_within_a_millisecond_and_never_early() {
        let (mut deadlines, start) = (Deadlines::new(), Instant::now());
        let micros = |n| start + Duration::from_micros(n);
        deadlines.set(start, 4, Some(micros(2_500)));
        deadlines.set(start, 5, Some(micros(9_000)));
        assert_eq!(deadlines.next(), Some(micros(3_000)));
        assert_eq!(deadlines.take_due(micros(2_999)), None);
        assert_eq!(deadlines.take_due(micros(3_000)), Some(4));
        deadlines.set(start, 5, None);
        assert_eq!(deadlines.take_due(micros(20_000)), None);
        deadlines.set(start, 5, Some(micros(1)));
        assert_eq!(deadlines.take_due(micros(20_000)), Some(5), "past when it was set");
    }
}
