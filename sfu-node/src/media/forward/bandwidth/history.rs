//! What was sent to a transport with a transport-wide number, until its feedback tells what became of it.

use std::time::Duration;

use crate::media::forward::clock::{Time, micros, wrap16};

/// Packets remembered at first; a power of two. A quarter of a second of 3 Mbit/s: feedback comes every 100 ms.
const FIRST_LEN: usize = 64;
/// Packets remembered of a peer that has not given feedback yet, if it ever does.
const UNANSWERED_LEN: usize = 256;
/// Packets remembered at most: two seconds of 40 Mbit/s.
const MAX_LEN: usize = 8192;
/// Feedback on older packets is of no use.
const MAX_AGE: Duration = Duration::from_secs(2);

/// A packet sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Extended transport-wide number.
    pub(crate) number: u64,
    pub(crate) at: Time,
    /// Bytes on the wire.
    pub(crate) size: u16,
    /// The probe cluster it is part of; 0: none.
    pub(crate) cluster: u8,
    /// It was held before, and belongs to what went out before it.
    pub(crate) held: bool,
    /// It is one of a probe's, or met the queue that one left.
    pub(crate) in_wake: bool,
    /// Feedback has told of it.
    pub(super) told: bool,
}

/// The last packets, by number.
#[derive(Debug)]
pub(crate) struct History {
    ring: Box<[Sent]>,
    /// Next extended number; starts above one wrap, so that none before it exists.
    next: u64,
    /// Those before went another way.
    first: u64,
    /// Feedback comes at all: without it much memory would be of no use.
    answered: bool,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { ring: vec![Sent::default(); FIRST_LEN].into_boxed_slice(), next: 0x1_0000, first: 0, answered: false }
    }

    /// The number the next packet goes out with.
    pub(crate) fn next(&self) -> u16 {
        wrap16(self.next)
    }

    /// The packet with [`History::next`] went out; its `number` is that.
    pub(crate) fn record(&mut self, sent: Sent) {
        let is_young = |old: &Sent| old.number != 0 && !old.told && sent.at.since(old.at) < micros(MAX_AGE);
        let young = self.ring.get(self.index(self.next)).is_some_and(is_young);
        let longest = if self.answered { MAX_LEN } else { UNANSWERED_LEN };
        if young && self.ring.len() < longest {
            self.grow();
        }
        let (number, index) = (self.next, self.index(self.next));
        if let Some(entry) = self.ring.get_mut(index) {
            *entry = Sent { number, ..sent };
        }
        self.next += 1;
    }

    /// What was sent so far is not told of any more.
    pub(crate) fn forget(&mut self) {
        self.first = self.next;
    }

    /// The peer has received the packet with this number. Beyond the last one sent it is one of another node that served the
    /// peer before: the next goes out with the number after, or what is sent would be taken for what came long ago, as may be
    /// what was sent so far.
    pub(crate) fn follow(&mut self, received: u16) {
        let ahead = received.wrapping_sub(self.next());
        if ahead.cast_signed() >= 0 {
            self.next += u64::from(ahead) + 1;
            self.forget();
        }
    }

    /// The packet that feedback tells of, the first time it does.
    pub(crate) fn take(&mut self, number: u16) -> Option<Sent> {
        let newest = self.next - 1;
        let back = wrap16(newest).wrapping_sub(number);
        let number = newest.checked_sub(back.into()).filter(|number| *number >= self.first)?;
        let index = self.index(number);
        let entry = self.ring.get_mut(index).filter(|entry| entry.number == number && !entry.told)?;
        entry.told = true;
        self.answered = true;
        Some(*entry)
    }

    fn index(&self, number: u64) -> usize {
        usize::try_from(number % self.ring.len().max(1) as u64).unwrap_or(0)
    }

    fn grow(&mut self) {
        let wider = vec![Sent::default(); 2 * self.ring.len()].into_boxed_slice();
        let old = std::mem::replace(&mut self.ring, wider);
        for sent in old {
            let index = self.index(sent.number);
            if let Some(entry) = self.ring.get_mut(index).filter(|_| sent.number != 0) {
                *entry = sent;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(at: u64, cluster: u8) -> Sent {
        Sent { at: Time(at), size: 100, cluster, ..Sent::default() }
    }

    #[test]
    fn each_packet_is_told_of_once() {
        let mut history = History::new();
        let first = history.next();
        history.record(sent(5, 3));
        assert_eq!(history.take(first.wrapping_add(1)), None, "not sent yet");
        let told = history.take(first).unwrap();
        assert_eq!((told.at, told.size, told.cluster), (Time(5), 100, 3));
        assert_eq!(history.take(first), None);
        assert_eq!(history.take(first.wrapping_sub(1)), None, "before the first");
        history.record(sent(6, 0));
        history.forget();
        history.record(sent(7, 0));
        assert_eq!(history.take(first.wrapping_add(1)), None, "forgotten");
        assert_eq!(history.take(first.wrapping_add(2)).unwrap().at, Time(7));
    }

    #[test]
    fn it_goes_on_where_the_peers_count_is() {
        let mut history = History::new();
        let first = history.next();
        (0..3).for_each(|n| history.record(sent(n, 0)));
        history.follow(first.wrapping_add(2));
        assert_eq!(history.next(), first.wrapping_add(3), "no more than was sent");
        history.follow(first.wrapping_add(0x7000));
        assert_eq!(history.next(), first.wrapping_add(0x7001));
        assert_eq!(history.take(first.wrapping_add(1)), None, "what is told of it may be of another one's");
        assert_eq!(history.take(first.wrapping_add(0x6000)), None, "never sent");
        let next = history.next();
        history.record(sent(9, 0));
        history.follow(next.wrapping_sub(1));
        assert_eq!((history.next(), history.take(next).unwrap().at), (next.wrapping_add(1), Time(9)));
    }

    #[test]
    fn it_grows_while_feedback_is_awaited_and_is_bounded() {
        let mut history = History::new();
        let first = history.next();
        (0..1000).for_each(|_| history.record(sent(0, 0)));
        assert_eq!(history.ring.len(), UNANSWERED_LEN, "nobody answers");
        assert_eq!(history.take(first), None, "overwritten");
        let second = history.next();
        (0..1000).for_each(|_| {
            history.record(sent(0, 0));
            history.take(second);
        });
        assert_eq!(history.ring.len(), 2048, "for all that is not told of");
        assert!(history.take(second.wrapping_add(1)).is_some(), "moved along");
        (0..20_000).for_each(|_| history.record(sent(0, 0)));
        assert_eq!(history.ring.len(), MAX_LEN);
        let mut quiet = History::new();
        (0..5000_u64).for_each(|n| quiet.record(sent(n * 40_000, 0)));
        assert_eq!(quiet.ring.len(), FIRST_LEN, "without feedback old entries are given up");
    }
}
