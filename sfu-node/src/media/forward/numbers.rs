//! Where a source's packets go in a subscriber's stream: runs of numbers, and what was left out of them. **A number sent
//! is a function of the source's number, so a packet that comes late finds its own place.**

use crate::media::forward::clock::wrap16;
use crate::media::forward::layering::Target;
use crate::media::forward::picture::PictureShift;

/// Runs remembered: packets of older ones are neither placed nor retransmitted.
const MAX_RUNS: usize = 32;
/// First place lies above this, so that no number wraps below zero.
const FIRST_PLACE: u64 = 0x1_0000;
/// Places remembered once something was left out; older packets are neither placed nor retransmitted. The cache holds
/// half as many.
const WINDOW: u64 = 1024;
const WORDS: usize = 16;

/// A stretch of a source's numbers that goes out in one row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    pub(crate) layer: u8,
    pub(crate) epoch: u32,
    /// Extended source number it begins with.
    pub(crate) source_start: u64,
    /// Place it begins at.
    pub(crate) start: u64,
    pub(crate) shift: Shift,
    /// What of the source goes out.
    pub(crate) target: Target,
}

/// What is added to a source packet's ids.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Shift {
    pub(crate) timestamp: u32,
    pub(crate) picture: PictureShift,
    pub(crate) frame: u16,
}

/// See the file's head. Every source number of a run has a **place**; places without those left out are the numbers sent.
#[derive(Debug)]
pub(crate) struct Numbers {
    /// Few have more than one.
    runs: Vec<Run>,
    /// Above all places in use.
    next: u64,
    /// `None`: nothing was left out yet.
    gaps: Option<Box<Gaps>>,
}

/// What was left out.
#[derive(Debug, Default)]
struct Gaps {
    packets: Bits,
    packets_total: u64,
    /// First packets of whole pictures left out.
    pictures: Bits,
    pictures_total: u64,
    /// Source's id of the picture left out last.
    last_picture: Option<u16>,
}

impl Numbers {
    /// `random` gives the first number (RFC 3550 section 5.1): below the middle, so that a receiver that misses the first
    /// packets cannot take them for a wrap.
    pub(crate) fn new(random: u64) -> Self {
        Self { runs: Vec::new(), next: FIRST_PLACE + (random & 0x7fff), gaps: None }
    }

    /// Another source from now on: its packets have nothing to do with the places of before.
    pub(crate) fn forget_source(&mut self) {
        self.runs.clear();
    }

    /// The run that is going on, or was last.
    pub(crate) fn last(&self) -> Option<&Run> {
        self.runs.last()
    }

    /// Above all places in use.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    /// Begins a run. Nothing of it may have been placed in the run before.
    pub(crate) fn push(&mut self, run: Run) {
        if self.runs.last().is_some_and(|last| last.start >= run.start) {
            self.runs.pop();
        }
        if self.runs.len() >= MAX_RUNS {
            self.runs.remove(0);
        }
        if let Some(gaps) = self.gaps.as_mut() {
            gaps.last_picture = None;
        }
        self.runs.push(run);
    }

    /// Run and place of a source packet. `open`: the layer goes out still, new packets of it are placed as well.
    pub(crate) fn place(&self, layer: u8, source: u64, open: bool) -> Option<(Run, u64)> {
        let mut limit = if open { u64::MAX } else { self.next };
        for run in self.runs.iter().rev() {
            if run.layer == layer && source >= run.source_start {
                let place = run.start + (source - run.source_start);
                return (place < limit).then_some((*run, place));
            }
            limit = run.start;
        }
        None
    }

    /// The number that goes out at a place; `None`: too old to tell.
    pub(crate) fn number(&self, place: u64) -> Option<u64> {
        let Some(gaps) = self.gaps.as_ref() else { return Some(place) };
        Some(place - (gaps.packets_total - gaps.packets.count(place, self.next)?))
    }

    /// How many whole pictures were left out before a place, as their ids count.
    pub(crate) fn pictures_left_out(&self, place: u64) -> u16 {
        let Some(gaps) = self.gaps.as_ref() else { return 0 };
        wrap16(gaps.pictures_total - gaps.pictures.count(place, self.next).unwrap_or(0))
    }

    /// The place is in use; those passed over are kept for packets that come late.
    pub(crate) fn take(&mut self, place: u64) {
        if place < self.next {
            return;
        }
        if let Some(gaps) = self.gaps.as_mut() {
            gaps.packets.clear(self.next, place);
            gaps.pictures.clear(self.next, place);
        }
        self.next = place + 1;
    }

    /// The packet at this place, a new one, is not sent and leaves no gap; `picture`: nor is any other of its picture.
    pub(crate) fn leave_out(&mut self, place: u64, picture: Option<u16>) {
        debug_assert!(place >= self.next, "what was passed over keeps its number");
        self.gaps.get_or_insert_default();
        self.take(place);
        let Some(gaps) = self.gaps.as_mut() else { return };
        gaps.packets.set(place);
        gaps.packets_total += 1;
        if picture.is_some() && gaps.last_picture != picture {
            gaps.last_picture = picture;
            gaps.pictures.set(place);
            gaps.pictures_total += 1;
        }
    }

    /// Run and place of the packet that went out with this number.
    pub(crate) fn sent(&self, number: u16) -> Option<(Run, u64)> {
        let newest = self.number(self.next)?.checked_sub(1)?;
        let back = u64::from(wrap16(newest).wrapping_sub(number));
        let place = match self.gaps.as_ref() {
            None => newest.checked_sub(back)?,
            Some(gaps) => gaps.packets.nth_unset_before(self.next, back)?,
        };
        let run = self.runs.iter().rev().find(|run| run.start <= place)?;
        Some((*run, place))
    }
}

/// One bit for each of the last places.
#[derive(Debug, Default)]
struct Bits([u64; WORDS]);

impl Bits {
    fn set(&mut self, place: u64) {
        if let Some(word) = self.0.get_mut(word_of(place)) {
            *word |= 1 << (place % 64);
        }
    }

    /// Clears from `from` up to and with `to`.
    fn clear(&mut self, from: u64, to: u64) {
        if to - from >= WINDOW {
            self.0 = [0; WORDS];
            return;
        }
        for place in from..=to {
            if let Some(word) = self.0.get_mut(word_of(place)) {
                *word &= !(1 << (place % 64));
            }
        }
    }

    /// Bits set from `from` up to `to`, without it; `None`: further apart than is remembered.
    fn count(&self, from: u64, to: u64) -> Option<u64> {
        if from >= to {
            return Some(0);
        }
        if to - from > WINDOW {
            return None;
        }
        let (mut at, mut count) = (from, 0);
        while at < to {
            let len = (64 - at % 64).min(to - at);
            count += u64::from(self.word(at, len).count_ones());
            at += len;
        }
        Some(count)
    }

    /// The place below `top` with a bit unset that has `skip` such places between itself and `top`.
    fn nth_unset_before(&self, top: u64, mut skip: u64) -> Option<u64> {
        let bottom = top.saturating_sub(WINDOW);
        let mut at = top;
        while at > bottom {
            let len = ((at - 1) % 64 + 1).min(at - bottom);
            let start = at - len;
            let ones = self.word(start, len);
            let unset = len - u64::from(ones.count_ones());
            if skip < unset {
                let mut candidates = (start..at).rev().filter(|place| ones >> (place - start) & 1 == 0);
                return candidates.nth(usize::try_from(skip).ok()?);
            }
            skip -= unset;
            at = start;
        }
        None
    }

    /// `len` bits from `at` on, which lie in one word.
    fn word(&self, at: u64, len: u64) -> u64 {
        let word = self.0.get(word_of(at)).copied().unwrap_or(0) >> (at % 64);
        if len < 64 { word & ((1 << len) - 1) } else { word }
    }
}

fn word_of(place: u64) -> usize {
    usize::try_from(place % WINDOW / 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(layer: u8, source_start: u64, start: u64) -> Run {
        Run { layer, epoch: 0, source_start, start, shift: Shift::default(), target: Target::WHOLE }
    }

    /// Sends what `wanted` says of the source numbers in `order`; gives the numbers they went out with.
    fn send(numbers: &mut Numbers, order: &[u64], wanted: impl Fn(u64) -> bool) -> Vec<(u64, u64)> {
        let mut sent = vec![];
        for source in order {
            let (_, place) = numbers.place(0, *source, true).unwrap();
            if wanted(*source) || place < numbers.next() {
                sent.push((*source, numbers.number(place).unwrap()));
                numbers.take(place);
            } else {
                numbers.leave_out(place, Some(wrap16(*source / 2)));
            }
        }
        sent
    }

    #[test]
    fn what_is_left_out_leaves_no_gap() {
        let mut numbers = Numbers::new(7);
        let first = numbers.next();
        numbers.push(run(0, 100, first));
        let order: Vec<u64> = (100..3000).collect();
        let sent = send(&mut numbers, &order, |source| source % 4 < 2);
        assert!(sent.iter().zip(first..).all(|((_, number), expected)| *number == expected));
        // 450 back of the numbers are 900 back of the places.
        for (source, number) in &sent[sent.len() - 450..] {
            let (run, place) = numbers.sent(wrap16(*number)).unwrap();
            assert_eq!(run.source_start + (place - run.start), *source);
            assert_eq!(numbers.number(place), Some(*number));
        }
        let (_, number) = sent[sent.len() - 600];
        assert!(numbers.sent(wrap16(number)).is_none(), "too old");
    }

    #[test]
    fn a_late_packet_gets_the_number_kept_for_it() {
        let mut numbers = Numbers::new(0);
        let first = numbers.next();
        numbers.push(run(0, 10, first));
        // 13 and 16 are late; 16 would not have been wanted, but its number is kept already.
        let sent = send(&mut numbers, &[10, 11, 12, 14, 15, 17, 13, 16, 18], |source| source % 4 < 2);
        let expected = [(12, 0), (17, 3), (13, 1), (16, 2)];
        assert_eq!(sent, expected.map(|(source, place)| (source, first + place)));
    }

    #[test]
    fn pictures_left_out_are_counted_once_each() {
        let mut numbers = Numbers::new(0);
        let first = numbers.next();
        numbers.push(run(0, 0, first));
        // Pictures of two packets each; every second one is left out, 12 comes late.
        let order: Vec<u64> = (0..20).filter(|source| *source != 12).collect();
        send(&mut numbers, &order, |source| source % 4 < 2);
        let (_, place) = numbers.place(0, 12, true).unwrap();
        assert_eq!((numbers.pictures_left_out(place), numbers.pictures_left_out(numbers.next())), (3, 5));
    }

    #[test]
    fn runs_follow_each_other_whatever_was_left_out() {
        let mut numbers = Numbers::new(0);
        let first = numbers.next();
        numbers.push(run(0, 0, first));
        send(&mut numbers, &(0..10).collect::<Vec<_>>(), |source| source % 2 == 0);
        numbers.push(run(1, 500, numbers.next()));
        let (_, place) = numbers.place(1, 500, true).unwrap();
        assert_eq!(numbers.number(place), Some(first + 5));
        numbers.take(place);
        assert!(numbers.place(0, 10, false).is_none(), "the first run ended");
        let (run, place) = numbers.sent(wrap16(first + 4)).unwrap();
        assert_eq!((run.layer, place - run.start), (0, 8));
        assert!(numbers.sent(wrap16(first + 6)).is_none(), "never sent");
    }

    #[test]
    fn a_long_silence_forgets_what_was_left_out() {
        let mut numbers = Numbers::new(0);
        let first = numbers.next();
        numbers.push(run(0, 0, first));
        send(&mut numbers, &[0, 1, 2, 3], |source| source == 0);
        let sent = send(&mut numbers, &[5000, 5001], |_| true);
        assert_eq!(sent, [(5000, first + 5000 - 3), (5001, first + 5001 - 3)]);
        let (_, place) = numbers.place(0, 2, true).unwrap();
        assert_eq!(numbers.number(place), None);
    }
}
