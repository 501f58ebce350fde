//! Sequence numbers of one received stream: extension over wraps, duplicates, reordering, jumps (RFC 3550 appendix A.1).

use crate::media::forward::clock::wrap16;

/// Late packets still told apart from duplicates. A power of two.
const WINDOW: u64 = 1024;
/// Largest step forward taken as loss (RFC 3550 appendix A.1, `MAX_DROPOUT`).
const MAX_SKIP: u16 = 3000;
/// Two wraps: no number of a run before a restart comes again after it.
const RESTART_GAP: u64 = 0x2_0000;
const WORDS: usize = 16;

/// What a packet's sequence number says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The newest so far.
    Newest {
        /// Extended number.
        sequence: u64,
        /// Numbers passed over.
        skipped: u64,
        /// First of a new run: nothing before it belongs to it.
        first: bool,
    },
    /// Fills a hole.
    Late {
        /// Extended number.
        sequence: u64,
    },
    /// Seen before, too old to tell, or a jump that the next packet has to confirm.
    Unusable,
}

/// The last numbers seen.
#[derive(Debug)]
pub(crate) struct Window {
    highest: Option<u64>,
    /// Extended numbers of this run start here; a multiple of 65536.
    base: u64,
    seen: [u64; WORDS],
    /// The number that confirms a jump.
    expected_after_jump: Option<u16>,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self { highest: None, base: RESTART_GAP, seen: [0; WORDS], expected_after_jump: None }
    }

    /// Forgets the run: the next packet starts another, with numbers above all before.
    pub(crate) fn restart(&mut self) {
        if let Some(highest) = self.highest.take() {
            self.base = (highest & !0xffff) + RESTART_GAP;
        }
        self.seen = [0; WORDS];
        self.expected_after_jump = None;
    }

    /// Highest extended number as reception reports give it: wraps counted from the run's start.
    pub(crate) fn reported(&self) -> u64 {
        self.highest.map_or(0, |highest| highest - self.base)
    }

    /// The extended number nearest to the highest; `None` before the first packet.
    pub(crate) fn extend(&self, sequence: u16) -> Option<u64> {
        let highest = self.highest?;
        let delta = sequence.wrapping_sub(wrap16(highest)).cast_signed();
        highest.checked_add_signed(i64::from(delta))
    }

    /// Takes a packet of the stream itself.
    pub(crate) fn observe(&mut self, sequence: u16) -> Arrival {
        let (Some(highest), Some(extended)) = (self.highest, self.extend(sequence)) else {
            return self.begin(sequence);
        };
        if extended > highest && extended - highest <= u64::from(MAX_SKIP) {
            self.expected_after_jump = None;
            let skipped = extended - highest - 1;
            for hole in highest + 1..=highest + skipped.min(WINDOW) {
                self.unmark(hole);
            }
            // A skip longer than the window clears it from its far end too.
            if skipped >= WINDOW {
                self.seen = [0; WORDS];
            }
            self.highest = Some(extended);
            self.unmark(extended);
            self.mark(extended);
            return Arrival::Newest { sequence: extended, skipped, first: false };
        }
        if extended <= highest && highest - extended < WINDOW {
            return self.fill(extended);
        }
        if self.expected_after_jump == Some(sequence) {
            self.restart();
            return self.begin(sequence);
        }
        self.expected_after_jump = Some(sequence.wrapping_add(1));
        Arrival::Unusable
    }

    /// Takes a packet that came back by RTX: it fills a hole or is of no use.
    pub(crate) fn recover(&mut self, sequence: u16) -> Arrival {
        match (self.highest, self.extend(sequence)) {
            (Some(highest), Some(extended)) if extended <= highest && highest - extended < WINDOW => {
                self.fill(extended)
            }
            _ => Arrival::Unusable,
        }
    }

    fn begin(&mut self, sequence: u16) -> Arrival {
        let extended = self.base + u64::from(sequence);
        self.highest = Some(extended);
        self.mark(extended);
        Arrival::Newest { sequence: extended, skipped: 0, first: true }
    }

    fn fill(&mut self, extended: u64) -> Arrival {
        if self.mark(extended) { Arrival::Late { sequence: extended } } else { Arrival::Unusable }
    }

    /// True when it was not marked.
    fn mark(&mut self, extended: u64) -> bool {
        let (word, bit) = place(extended);
        let Some(word) = self.seen.get_mut(word) else { return false };
        let fresh = *word & bit == 0;
        *word |= bit;
        fresh
    }

    fn unmark(&mut self, extended: u64) {
        let (word, bit) = place(extended);
        if let Some(word) = self.seen.get_mut(word) {
            *word &= !bit;
        }
    }
}

fn place(extended: u64) -> (usize, u64) {
    let slot = extended % WINDOW;
    (usize::try_from(slot / 64).unwrap_or(0), 1 << (slot % 64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn newest(arrival: Arrival) -> (u64, u64) {
        match arrival {
            Arrival::Newest { sequence, skipped, .. } => (sequence, skipped),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_extend_over_a_wrap() {
        let mut window = Window::new();
        let (a, _) = newest(window.observe(65534));
        let (b, skipped) = newest(window.observe(1));
        assert_eq!((b - a, skipped), (3, 2));
        assert_eq!(window.observe(65535), Arrival::Late { sequence: a + 1 });
        assert_eq!(window.observe(65535), Arrival::Unusable, "duplicate");
        assert_eq!(window.observe(1), Arrival::Unusable, "duplicate of the newest");
        assert_eq!(window.recover(0), Arrival::Late { sequence: a + 2 });
        assert_eq!(window.recover(2), Arrival::Unusable, "not asked for");
    }

    #[test]
    fn a_jump_needs_two_packets_and_starts_a_new_run() {
        let mut window = Window::new();
        let (a, _) = newest(window.observe(100));
        assert_eq!(window.observe(40_000), Arrival::Unusable);
        assert_eq!(newest(window.observe(101)), (a + 1, 0), "the old run goes on");
        assert_eq!(window.observe(40_000), Arrival::Unusable);
        let Arrival::Newest { sequence, first: true, .. } = window.observe(40_001) else { panic!("not confirmed") };
        assert_eq!(wrap16(sequence), 40_001);
        assert!(sequence > a + 65_536);
    }

    #[test]
    fn a_long_skip_forgets_the_window() {
        let mut window = Window::new();
        let (a, _) = newest(window.observe(0));
        for s in 1..1024 {
            window.observe(s);
        }
        let (b, skipped) = newest(window.observe(3500));
        assert_eq!((b - a, skipped), (3500, 2476));
        assert_eq!(window.observe(3000), Arrival::Late { sequence: a + 3000 });
        assert_eq!(window.observe(2000), Arrival::Unusable, "older than the window");
    }
}
