//! A stream that a viewer receives: what came, what is missing and asked for again, what was given up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A packet this late is of no use.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);

/// A packet, and when its first copy came.
#[derive(Debug, Clone)]
pub(super) struct Got {
    pub(super) at: Instant,
    pub(super) marker: bool,
    pub(super) timestamp: u32,
    /// Dependency descriptor, where there is one.
    pub(super) dependency: Vec<u8>,
    pub(super) payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Hole {
    since: Instant,
    asked: Option<Instant>,
    requests: u32,
}

/// A packet that was given up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    pub(super) at: Instant,
    pub(super) requests: u32,
}

/// One of them, by extended sequence number.
#[derive(Debug, Default)]
pub(super) struct Stream {
    pub(super) packets: BTreeMap<u64, Got>,
    pub(super) highest: Option<u64>,
    holes: BTreeMap<u64, Hole>,
    pub(super) lost: BTreeMap<u64, Lost>,
}

impl Stream {
    pub(super) fn take(&mut self, sequence: u16, got: Got, again: bool) {
        let highest = self.highest.unwrap_or(0x1_0000 + u64::from(sequence));
        let delta = sequence.wrapping_sub(u16::try_from(highest & 0xffff).unwrap()).cast_signed();
        let number = highest.checked_add_signed(delta.into()).unwrap();
        assert!(!again || number <= highest, "sent again before it was sent");
        let hole = Hole { since: got.at, asked: None, requests: 0 };
        if self.highest.is_some() {
            self.holes.extend((highest + 1..number).map(|number| (number, hole)));
        }
        let first = self.packets.first_key_value().map(|(first, _)| *first);
        if let Some(first) = first.filter(|first| number < *first) {
            // The very first ones came in another order.
            self.holes.extend((number + 1..first).map(|number| (number, hole)));
        }
        self.highest = Some(highest.max(number));
        self.holes.remove(&number);
        self.lost.remove(&number);
        let same = |a: &Got, b: &Got| (a.marker, a.timestamp, &a.payload) == (b.marker, b.timestamp, &b.payload);
        match self.packets.get(&number) {
            Some(before) => assert!(same(before, &got), "the second copy of {number} is another packet"),
            None => drop(self.packets.insert(number, got)),
        }
    }

    /// What to ask for again; not more often than every `retry`.
    pub(super) fn due(&mut self, now: Instant, retry: Duration) -> Vec<u16> {
        let due = |hole: &Hole| hole.asked.is_none_or(|asked| now - asked >= retry);
        let mut missing = Vec::new();
        for (number, hole) in self.holes.iter_mut().filter(|(_, hole)| due(hole)) {
            hole.asked = Some(now);
            hole.requests += 1;
            missing.push(u16::try_from(number & 0xffff).unwrap());
        }
        missing
    }

    /// True: something is given up.
    pub(super) fn give_up(&mut self, now: Instant) -> bool {
        let before = self.lost.len();
        self.holes.retain(|number, hole| {
            let waits = now - hole.since < PATIENCE;
            if !waits {
                self.lost.insert(*number, Lost { at: now, requests: hole.requests });
            }
            waits
        });
        self.lost.len() > before
    }

    /// With a whole keyframe nobody waits any more for what is missing before it.
    pub(super) fn skip_to(&mut self, keyframe: u64, now: Instant) {
        let later = self.holes.split_off(&keyframe);
        let lost = std::mem::replace(&mut self.holes, later);
        let lost = lost.into_keys().map(|number| (number, Lost { at: now, requests: u32::MAX }));
        self.lost.extend(lost);
    }

    /// Leaves out what is so new that it may still be asked for.
    pub(super) fn cut(&mut self, now: Instant) {
        self.give_up(now);
        if let Some((oldest, _)) = self.holes.first_key_value() {
            let oldest = *oldest;
            self.packets.split_off(&oldest);
            self.holes.clear();
            self.highest = self.packets.last_key_value().map(|(number, _)| *number);
        }
    }

    /// Every number is there or was given up.
    pub(super) fn assert_whole(&self) {
        let (Some((first, _)), Some(last)) = (self.packets.first_key_value(), self.highest) else { return };
        let missing: Vec<u64> = (*first..=last).filter(|number| !self.packets.contains_key(number)).collect();
        assert!(missing.iter().all(|number| self.lost.contains_key(number)), "{missing:?}");
    }

    /// Times go up with numbers; nothing comes twice.
    pub(super) fn assert_in_step(&self) {
        let packets: Vec<&Got> = self.packets.values().collect();
        for pair in packets.windows(2) {
            assert!(pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed() > 0);
            assert_ne!(pair[0].payload, pair[1].payload);
        }
    }
}
