//! Descriptors as encoders write them, by a writer of their own.

use super::*;
use crate::media::forward::layering::Reach;

/// Bits, the highest of each byte first.
#[derive(Debug, Default)]
pub(crate) struct Coder(Vec<bool>);

impl Coder {
    pub(crate) fn put(&mut self, value: u32, count: u32) -> &mut Self {
        self.0.extend((0..count).rev().map(|bit| value >> bit & 1 == 1));
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let byte = |bits: &[bool]| bits.iter().zip(0..).fold(0, |byte, (bit, n)| byte | u8::from(*bit) << (7 - n));
        self.0.chunks(8).map(byte).collect()
    }
}

/// A kind of frame of a test structure: layers, indications as in `-DSR`, frames back it depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    pub(crate) indications: String,
    pub(crate) diffs: Vec<u32>,
}

pub(crate) fn kind(spatial: u8, temporal: u8, indications: &str, diffs: &[u32]) -> Kind {
    Kind { spatial, temporal, indications: indications.into(), diffs: diffs.into() }
}

fn put_indications(coder: &mut Coder, indications: &str) {
    for indication in indications.chars() {
        coder.put(u32::try_from("-DSR".find(indication).unwrap()).unwrap(), 2);
    }
}

/// Writes a structure without chains behind the five flags.
pub(crate) fn put_structure(coder: &mut Coder, offset: u32, kinds: &[Kind], resolutions: bool) {
    let targets = u32::try_from(kinds[0].indications.len()).unwrap();
    coder.put(offset, 6).put(targets - 1, 5);
    for pair in kinds.windows(2) {
        let same_spatial = pair[0].spatial == pair[1].spatial;
        let next = if !same_spatial { 2 } else { u32::from(pair[0].temporal != pair[1].temporal) };
        coder.put(next, 2);
    }
    coder.put(3, 2);
    kinds.iter().for_each(|kind| put_indications(coder, &kind.indications));
    for kind in kinds {
        for diff in &kind.diffs {
            coder.put(1, 1).put(diff - 1, 4);
        }
        coder.put(0, 1);
    }
    // No chains: the least value of its `ns(n)`.
    coder.put(0, (targets + 1).ilog2());
    coder.put(u32::from(resolutions), 1);
    if resolutions {
        for _ in 0..=kinds.last().unwrap().spatial {
            coder.put(1279, 16).put(719, 16);
        }
    }
}

pub(crate) fn mandatory(first: bool, last: bool, template: u32, number: u16) -> Coder {
    let mut coder = Coder::default();
    coder.put(u32::from(first), 1).put(u32::from(last), 1).put(template, 6).put(number.into(), 16);
    coder
}

/// As libwebrtc describes L2T2 (full) and L2T2_KEY.
pub(crate) fn two_by_two(key: bool) -> Vec<Kind> {
    let full = if key { "SS--" } else { "SSRR" };
    let upper: fn(u32) -> Vec<u32> = if key { |back| vec![back] } else { |back| vec![back, 1] };
    vec![
        kind(0, 0, "SSSS", &[]),
        kind(0, 0, full, &[4]),
        kind(0, 1, if key { "-D--" } else { "-D-R" }, &[2]),
        kind(1, 0, "--SS", &[1]),
        kind(1, 0, "--SS", &upper(4)),
        kind(1, 1, "---D", &upper(2)),
    ]
}

fn keyframe(kinds: &[Kind]) -> Vec<u8> {
    let mut coder = mandatory(true, false, 60, 7);
    coder.put(0b10000, 5);
    put_structure(&mut coder, 60, kinds, true);
    coder.bytes()
}

#[test]
fn a_structure_is_read_with_its_first_frame() {
    for key in [true, false] {
        let kinds = two_by_two(key);
        let extended = Extended::read(&keyframe(&kinds), None).unwrap();
        let structure = extended.structure.unwrap();
        assert_eq!((extended.active, structure.all()), (Some(0b1111), 0b1111));
        assert_eq!(extended.frame.switches, 0b1111);
        for (id, kind) in (60..).zip(&kinds) {
            let template = structure.template(id & 0x3f).unwrap();
            let bits = |which: &str| {
                let at = kind.indications.chars().enumerate().filter(|(_, c)| which.contains(*c));
                at.fold(0, |bits, (n, _)| bits | 1 << n)
            };
            let needs = kind.diffs.iter().fold(0, |needs, diff| needs | 1 << diff);
            let expected = (kind.spatial, kind.temporal, bits("DSR"), bits("S"), needs);
            let Template { spatial, temporal, targets, switches, needs } = template;
            assert_eq!((spatial, temporal, targets, switches, needs), expected);
        }
        assert_eq!(structure.template(59), None);
        let targets = structure.targets();
        let all: Vec<_> = targets.iter().map(|target| (target.spatial, target.temporal)).collect();
        assert_eq!(all, [(0, 0), (0, 1), (1, 0), (1, 1)]);
        let choose = |spatial, temporal| targets.choose(0b1111, Reach { spatial, temporal });
        assert_eq!(choose(9, 9).index, 3);
        assert_eq!(choose(9, 9).whole, !key, "without what the upper layer does not need");
        assert_eq!((choose(0, 9).index, choose(9, 0).index), (1, 2));
        assert_eq!(targets.choose(0b0011, Reach { spatial: 9, temporal: 9 }).index, 1, "only what is on");
        assert_eq!(targets.includes(choose(9, 9), choose(0, 9)), !key);
        assert!(targets.includes(choose(9, 9), choose(9, 0)));
    }
}

#[test]
fn a_frame_may_differ_from_its_template() {
    let structure = Extended::read(&keyframe(&two_by_two(true)), None).unwrap().structure.unwrap();
    let mut coder = mandatory(true, true, 61, 99);
    coder.put(0b01110, 5).put(0b0111, 4);
    put_indications(&mut coder, "S-DR");
    // Two frames back in four bits, 80 in eight, 1,000 in twelve.
    coder.put(1, 2).put(1, 4).put(2, 2).put(79, 8).put(3, 2).put(999, 12).put(0, 2);
    let extended = Extended::read(&coder.bytes(), Some(&structure)).unwrap();
    assert_eq!(extended.active, Some(0b0111));
    assert_eq!((extended.frame.targets, extended.frame.switches), (0b1101, 0b0001));
    assert_eq!(extended.frame.needs, 0b100 | 1, "what is too far back is never there");
    assert!(extended.structure.is_none());
}

#[test]
fn what_is_cut_off_or_of_no_structure_is_refused() {
    let whole = keyframe(&two_by_two(false));
    // The last byte holds resolutions only in part.
    for len in 0..whole.len() {
        assert!(Extended::read(&whole[..len], None).is_err(), "{len}");
    }
    let mut coder = mandatory(true, true, 3, 1);
    assert!(Extended::read(&coder.put(0, 5).bytes(), None).is_err());
    assert!(Extended::read(&[0xff; 255], None).is_err());
    assert!(Extended::read(&[0; 255], None).is_err());
}

#[test]
fn the_targets_that_are_on_are_written() {
    let structure = Extended::read(&keyframe(&two_by_two(true)), None).unwrap().structure.unwrap();
    let mut own = mandatory(true, true, 61, 99);
    own.put(0b00110, 5);
    put_indications(&mut own, "S-DR");
    own.put(1, 2).put(1, 4).put(0, 2);
    let mut told = mandatory(true, false, 62, 9);
    told.put(0b01000, 5).put(0b1111, 4);
    let plain = mandatory(false, true, 61, 0x1234).bytes();
    for descriptor in [keyframe(&two_by_two(true)), own.bytes(), told.bytes(), plain] {
        let mut room = [0xff; 255];
        let len = write_active(&descriptor, &structure, 0b0011, &mut room).unwrap();
        let written = &room[..len];
        assert_eq!(Mandatory::read(written), Mandatory::read(&descriptor));
        let read = Extended::read(written, Some(&structure)).unwrap();
        assert_eq!(read.active, Some(0b0011));
        let template = Mandatory::read(&descriptor).unwrap().template;
        let before = Extended::read(&descriptor, Some(&structure));
        let frame = before.as_ref().map_or(structure.template(template).unwrap(), |before| before.frame);
        assert_eq!(read.frame, frame);
        assert_eq!(read.structure, before.ok().and_then(|before| before.structure));
        assert!(write_active(&descriptor, &structure, 1, &mut room[..len - 1]).is_none(), "no room");
    }
}
