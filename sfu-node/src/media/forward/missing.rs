//! Holes in a received stream: which packets to ask for again, when, and how often (RFC 4585 section 6.2.1).

use std::time::Duration;

use arrayvec::ArrayVec;

use crate::media::forward::clock::Time;

/// Most holes followed; more at once is an outage that only a keyframe heals.
pub(crate) const MAX_MISSING: usize = 128;

/// Reordered packets get this long before they are asked for.
const REORDER_WAIT: Duration = Duration::from_millis(10);
/// Wait after the first request; doubled by each further one.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// Requests for one packet; the last is 1.55 s after the first.
const MAX_REQUESTS: u8 = 6;

#[derive(Debug, Clone, Copy)]
struct Hole {
    sequence: u64,
    due: Time,
    requests: u8,
}

/// The holes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Missing {
    holes: ArrayVec<Hole, MAX_MISSING>,
}

impl Missing {
    /// Notes `count` holes before `newest`. False: more than can be followed, all are forgotten.
    pub(crate) fn open(&mut self, now: Time, newest: u64, count: u64) -> bool {
        if count > (MAX_MISSING - self.holes.len()) as u64 {
            self.holes.clear();
            return false;
        }
        let due = now.plus(REORDER_WAIT).deadline();
        self.holes.extend((newest - count..newest).map(|sequence| Hole { sequence, due, requests: 0 }));
        true
    }

    /// A packet came late or by RTX.
    pub(crate) fn fill(&mut self, sequence: u64) {
        self.holes.retain(|hole| hole.sequence != sequence);
    }

    pub(crate) fn clear(&mut self) {
        self.holes.clear();
    }

    /// When the next request is due.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.holes.iter().map(|hole| hole.due).min()
    }

    /// The packets to ask for now; those asked for often enough are given up.
    pub(crate) fn take_due(&mut self, now: Time) -> ArrayVec<u64, MAX_MISSING> {
        let mut due = ArrayVec::new();
        self.holes.retain(|hole| {
            if hole.due > now {
                return true;
            }
            if hole.requests == MAX_REQUESTS {
                return false;
            }
            hole.due = now.plus(FIRST_RETRY * (1 << hole.requests)).deadline();
            hole.requests += 1;
            due.push(hole.sequence);
            true
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_is_asked_for_a_bounded_number_of_times() {
        let mut missing = Missing::default();
        assert!(missing.open(Time(0), 12, 2));
        assert!(missing.take_due(Time(9_999)).is_empty(), "may only be reordered");
        let mut requests = 0;
        while let Some(due) = missing.next_due() {
            requests += missing.take_due(due).len();
        }
        assert_eq!(requests, 2 * usize::from(MAX_REQUESTS));
    }

    #[test]
    fn what_came_is_not_asked_for() {
        let mut missing = Missing::default();
        missing.open(Time(0), 12, 3);
        missing.fill(10);
        assert_eq!(missing.take_due(Time(10_000)).as_slice(), [9, 11]);
    }

    #[test]
    fn an_outage_is_not_followed() {
        let mut missing = Missing::default();
        assert!(missing.open(Time(0), 1000, 100));
        assert!(!missing.open(Time(0), 2000, 100));
        assert_eq!(missing.next_due(), None);
    }
}
