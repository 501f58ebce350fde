//! An encoder of a scalable stream in one SSRC, and what a test decoder wants to know of its packets.

use crate::media::forward::dependency::tests::{Kind, kind, mandatory, put_structure};

/// Temporal layers of the units of a group.
const PATTERN: [u8; 4] = [0, 2, 1, 2];

/// A packet, but for what its way through the network adds.
pub(crate) struct Coded {
    pub(crate) marker: bool,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    /// Dependency descriptor; empty: none.
    pub(crate) descriptor: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

/// An encoder of three spatial and three temporal layers.
pub(crate) struct Encoder3 {
    /// Upper layers depend on lower ones in keyframes only.
    key: bool,
    pub(crate) kinds: Vec<Kind>,
    /// Id of the first template.
    pub(crate) offset: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) number: u16,
    /// Units since the keyframe.
    pub(crate) unit: usize,
    /// Says so in dependency descriptors.
    pub(crate) describes: bool,
    /// Targets that are on, said with the next unit.
    pub(crate) active: Option<u32>,
    pub(crate) spatial: u8,
    /// Bytes of a payload.
    pub(crate) size: usize,
}

impl Encoder3 {
    pub(crate) fn new(key: bool) -> Self {
        let rest = |s: u8, letter: &str, own: &str| {
            let upper = if key { "---".to_owned() } else { letter.to_owned() };
            format!("{}{own}{}", "---".repeat(s.into()), upper.repeat(usize::from(2 - s)))
        };
        let below = |s: u8, back: u32| if s > 0 && !key { vec![back, 1] } else { vec![back] };
        let mut kinds = vec![];
        for s in 0..3 {
            let first = format!("{}{}", "---".repeat(s.into()), "SSS".repeat(usize::from(3 - s)));
            kinds.push(kind(s, 0, &first, if s > 0 { &[1] } else { &[] }));
            kinds.push(kind(s, 0, &rest(s, "RRR", "SSS"), &below(s, 12)));
            kinds.push(kind(s, 1, &rest(s, "-RR", "-DS"), &below(s, 6)));
            kinds.push(kind(s, 2, &rest(s, "--R", "--D"), &below(s, 3)));
        }
        Self {
            key,
            kinds,
            offset: 50,
            sequence: 65_500,
            timestamp: 0xffff_0000,
            number: 65_530,
            unit: 0,
            describes: true,
            active: None,
            spatial: 3,
            size: 1000,
        }
    }

    /// The packets of the next temporal unit.
    pub(crate) fn unit(&mut self, keyframe: bool) -> Vec<Coded> {
        if keyframe {
            self.unit = 0;
        }
        let temporal = PATTERN[self.unit % 4];
        self.timestamp = self.timestamp.wrapping_add(3000);
        let mut packets = vec![];
        for spatial in 0..self.spatial {
            let place = 4 * spatial + if keyframe { 0 } else { temporal + 1 };
            let kind = self.kinds[usize::from(place)].clone();
            let count = [1, 2, 3][usize::from(spatial)];
            for index in 0..count {
                let (first, last) = (index == 0, index + 1 == count);
                let mut descriptor = mandatory(first, last, (self.offset + u32::from(place)) & 0x3f, self.number);
                if keyframe && first && spatial == 0 {
                    descriptor.put(if self.active.is_some() { 0b11000 } else { 0b10000 }, 5);
                    put_structure(&mut descriptor, self.offset, &self.kinds, true);
                    self.active.map(|active| descriptor.put(active, 9));
                } else if let Some(active) = self.active.filter(|_| first && spatial == 0) {
                    descriptor.put(0b01000, 5).put(active, 9);
                }
                let descriptor = if self.describes { descriptor.bytes() } else { Vec::new() };
                let payload = self.payload(keyframe, &kind, first, last);
                self.sequence = self.sequence.wrapping_add(1);
                let marker = last && spatial + 1 == self.spatial;
                let (sequence, timestamp) = (self.sequence, self.timestamp);
                packets.push(Coded { marker, sequence, timestamp, descriptor, payload });
            }
            // All three spatial layers count, sent or not: the structure's differences stay what they are.
            self.number = self.number.wrapping_add(1);
        }
        self.number = self.number.wrapping_add(u16::from(3 - self.spatial));
        self.unit += 1;
        packets
    }

    /// A VP9 payload descriptor, and behind it what a test decoder wants to know: number, layers, frames needed.
    fn payload(&self, keyframe: bool, kind: &Kind, first: bool, last: bool) -> Vec<u8> {
        let predicted = if keyframe { 0 } else { 0x40 };
        let ends = u8::from(first) << 3 | u8::from(last) << 2;
        let useless_above = u8::from(self.key && !keyframe || kind.spatial == 2);
        let up = u8::from(!kind.indications.contains('D') && kind.temporal == 0) << 4;
        let layer = kind.temporal << 5 | up | kind.spatial << 1 | u8::from(kind.spatial > 0 && useless_above == 0);
        let [high, low] = self.number.to_be_bytes();
        let mut payload = vec![0x80 | 0x20 | 0x10 | predicted | ends | useless_above, 0x05, layer];
        payload.extend([high, low, kind.spatial, kind.temporal, u8::try_from(kind.diffs.len()).unwrap()]);
        payload.extend(kind.diffs.iter().map(|diff| u8::try_from(*diff).unwrap()));
        payload.resize(self.size, 0);
        payload
    }
}
