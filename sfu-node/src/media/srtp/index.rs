//! Packet indexes: the 48-bit index behind a 16-bit sequence number, and which indexes were used.

use std::hint::black_box;

/// Indexes a replay window remembers. RFC 3711 section 3.3.2 asks for 64 at least; a late retransmission of a fast
/// stream needs more.
const WINDOW: u64 = 1024;
const WORDS: usize = 16;
/// Indexes per sequence-number cycle.
const CYCLE: u64 = 1 << 16;
/// A packet counts as older or newer than the newest by the shorter way round (RFC 3711 section 3.3.1).
const HALF: u64 = CYCLE / 2;
/// Indexes are 48 bits: the rollover counter has 32.
const END: u64 = 1 << 48;

/// Which of the latest [`WINDOW`] indexes were used (RFC 3711 section 3.3.2).
#[derive(Debug, Default)]
pub(super) struct Window {
    /// One past the highest index used.
    end: u64,
    used: [u64; WORDS],
}

impl Window {
    /// The index of a packet with this sequence number (RFC 3711 section 3.3.1); `None` if it would lie before the first
    /// or after the last.
    pub(super) fn index_of(&self, sequence: u16) -> Option<u64> {
        let sequence = u64::from(sequence);
        let Some(newest) = self.end.checked_sub(1) else { return Some(sequence) };
        let same_cycle = newest - newest % CYCLE + sequence;
        let index = if same_cycle > newest + HALF {
            same_cycle.checked_sub(CYCLE)?
        } else if same_cycle + HALF < newest {
            same_cycle + CYCLE
        } else {
            same_cycle
        };
        (index < END).then_some(index)
    }

    /// Whether `index` was not used and is young enough to tell.
    pub(super) fn is_new(&self, index: u64) -> bool {
        let (word, bit) = place(index);
        index >= self.end || (self.end - index <= WINDOW && self.used.get(word).is_some_and(|w| w & bit == 0))
    }

    /// Asks for the memory that the next index needs.
    pub(super) fn expect(&self) {
        black_box(self.used.get(place(self.end).0));
    }

    /// Marks `index` as used.
    pub(super) fn accept(&mut self, index: u64) {
        if index >= self.end {
            let skipped = self.end.max(index.saturating_sub(WINDOW - 1))..=index;
            for stale in skipped {
                let (word, bit) = place(stale);
                if let Some(w) = self.used.get_mut(word) {
                    *w &= !bit;
                }
            }
            self.end = index + 1;
        }
        let (word, bit) = place(index);
        if let Some(w) = self.used.get_mut(word) {
            *w |= bit;
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "below WORDS")]
fn place(index: u64) -> (usize, u64) {
    (((index % WINDOW) / 64) as usize, 1 << (index % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn indexes_follow_wraps_both_ways() {
        let mut window = Window::default();
        window.accept(window.index_of(65_530).unwrap());
        assert_eq!(window.index_of(3), Some(CYCLE + 3));
        window.accept(CYCLE + 3);
        assert_eq!(window.index_of(65_535), Some(65_535));
        assert_eq!(window.index_of(4), Some(CYCLE + 4));
    }

    #[test]
    fn nothing_lies_before_the_first_cycle() {
        let mut window = Window::default();
        window.accept(2);
        assert_eq!(window.index_of(65_535), None);
    }

    #[test]
    fn the_window_agrees_with_a_set() {
        let mut rng = StdRng::seed_from_u64(3711);
        let (mut window, mut used, mut top) = (Window::default(), HashSet::new(), 0u64);
        for _ in 0..200_000 {
            let jump = if rng.random_ratio(1, 500) { 5000 } else { 4 };
            let index = (top + rng.random_range(0..jump)).saturating_sub(rng.random_range(0..2500));
            let young = used.is_empty() || index > top || top - index < WINDOW;
            assert_eq!(window.is_new(index), young && !used.contains(&index), "index {index} of {top}");
            if window.is_new(index) {
                window.accept(index);
                used.insert(index);
                top = top.max(index);
            }
        }
    }
}
