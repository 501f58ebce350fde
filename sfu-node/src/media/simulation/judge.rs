//! What a decoder makes of a video stream: which frames it can show and when. Panics at what a real one would stumble
//! over.

use std::collections::BTreeSet;
use std::time::Instant;

use super::label::Label;
use super::publisher::{CAMERA, SCREEN};
use super::stream::{Got, Stream};
use crate::media::api::TrackKey;
use crate::media::forward::dependency::{Extended, Mandatory, Structure};

/// A frame that could be shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    pub(super) at: Instant,
    pub(super) layer: u8,
    pub(super) temporal: u8,
}

/// Frames put together, and those a decoder can do something with.
#[derive(Default)]
struct Decoder {
    complete: BTreeSet<u16>,
    /// Nothing is missing since the last keyframe.
    clean: bool,
    now: Option<Instant>,
    shown: Vec<Shown>,
}

struct Frame {
    number: u16,
    needs: Vec<u16>,
    keyframe: bool,
    whole: bool,
    layer: u8,
    temporal: u8,
}

impl Decoder {
    /// Nothing of what comes later can be shown before.
    fn wait(&mut self, at: Instant) {
        self.now = Some(self.now.map_or(at, |now| now.max(at)));
    }

    fn gap(&mut self) {
        self.clean = false;
    }

    fn take(&mut self, frame: &Frame) {
        let Frame { number, ref needs, keyframe, whole, layer, temporal } = *frame;
        if keyframe && whole {
            self.clean = true;
            self.complete.clear();
        }
        let decodes = whole && needs.iter().all(|need| self.complete.contains(&number.wrapping_sub(*need)));
        // A frame that was cut off is the last before a pause or a switch.
        assert!(decodes || !whole || !self.clean, "{number} ({layer}/{temporal}) needs {needs:?}");
        self.clean &= whole;
        if decodes && (keyframe || !self.complete.is_empty()) {
            self.complete.insert(number);
            self.shown.push(Shown { at: self.now.unwrap(), layer, temporal });
        }
    }
}

/// The payload is of a keyframe's lowest layer.
pub(super) fn begins(source: TrackKey, payload: &[u8]) -> bool {
    match source {
        _ if payload.is_empty() => false,
        CAMERA => Label::read(payload).keyframe,
        _ => payload[0] & 0x48 == 0x08 && payload[5] == 0,
    }
}

/// Number of the first packet of the camera's newest keyframe of which everything came.
pub(super) fn whole_keyframe(stream: &Stream) -> Option<u64> {
    let recent = stream.packets.iter().rev().take(100);
    let of_keyframe = |got: &Got| !got.payload.is_empty() && Label::read(&got.payload).keyframe;
    let (last, _) = recent.clone().find(|(_, got)| got.marker && of_keyframe(got))?;
    let mut number = *last;
    loop {
        let got = stream.packets.get(&number).filter(|got| of_keyframe(got))?;
        if Label::read(&got.payload).first {
            return Some(number);
        }
        number -= 1;
    }
}

/// Packets before the first keyframe are of no use.
fn useful(source: TrackKey, stream: &Stream) -> Vec<(u64, &Got)> {
    let before = |(_, got): &(u64, &Got)| !begins(source, &got.payload);
    let packets = stream.packets.iter().map(|(number, got)| (*number, got));
    let useless = packets.clone().take_while(before).count();
    // All of the first keyframe may have been lost: another one comes when that is told.
    assert!(useless < 150, "{useless} packets before a keyframe");
    packets.skip(useless).collect()
}

/// Lets the decoder wait for what comes before this packet, or until it was given up.
fn await_packet(decoder: &mut Decoder, stream: &Stream, before: Option<u64>, number: u64, got: &Got) -> bool {
    let gap = before.is_some_and(|before| before + 1 != number);
    if gap {
        let lost = stream.lost.range(before.unwrap()..number).map(|(_, lost)| lost.at).max();
        decoder.gap();
        lost.into_iter().for_each(|at| decoder.wait(at));
    }
    decoder.wait(got.at);
    gap
}

/// The camera's frames.
pub(super) fn camera(stream: &Stream) -> Vec<Shown> {
    let packets = useful(CAMERA, stream);
    let mut decoder = Decoder::default();
    let (mut before, mut begun) = (None, false);
    for (place, (number, got)) in packets.iter().enumerate() {
        let gap = await_packet(&mut decoder, stream, before, *number, got);
        begun &= !gap;
        before = Some(*number);
        if got.payload.is_empty() {
            continue;
        }
        let label = Label::read(&got.payload);
        begun |= label.first;
        let next = packets[place + 1..].iter().find(|(_, next)| !next.payload.is_empty());
        let ends = next.is_none_or(|(_, next)| next.timestamp != got.timestamp);
        if ends {
            decoder.take(&Frame {
                number: label.number,
                needs: label.needs.iter().map(|need| u16::from(*need)).collect(),
                keyframe: label.keyframe,
                whole: begun && got.marker,
                layer: label.layer,
                temporal: label.temporal,
            });
            begun = false;
        }
    }
    decoder.shown
}

/// The screen's frames. The dependency descriptors must tell what is in them.
pub(super) fn screen(stream: &Stream) -> Vec<Shown> {
    let packets = useful(SCREEN, stream);
    let mut decoder = Decoder::default();
    let mut structure: Option<Structure> = None;
    let (mut before, mut begun) = (None, false);
    // Number in the descriptor less the encoder's.
    let mut shift: Option<u16> = None;
    let mut open: Option<u32> = None;
    for (number, got) in &packets {
        let gap = await_packet(&mut decoder, stream, before, *number, got);
        begun &= !gap;
        before = Some(*number);
        open = open.filter(|_| !gap);
        let Some([high, low, spatial, temporal, needed]) = got.payload.get(3..).and_then(|rest| rest.first_chunk())
        else {
            continue;
        };
        let restarts = begins(SCREEN, &got.payload);
        let goes_on = open.is_none_or(|open| open == got.timestamp);
        // A unit that was cut off is followed by a keyframe.
        assert!(goes_on || restarts, "the unit before {number} has no marker");
        open = (!got.marker).then_some(got.timestamp);
        let frame = u16::from_be_bytes([*high, *low]);
        let (first, last) = (got.payload[0] & 0x08 != 0, got.payload[0] & 0x04 != 0);
        let keyframe = got.payload[0] & 0x40 == 0;
        let told = Mandatory::read(&got.dependency).unwrap();
        assert_eq!((told.first, told.last), (first, last));
        if restarts || gap {
            // A publisher that comes again counts anew.
            shift = shift.filter(|shift| told.number.wrapping_sub(frame) == *shift);
        }
        assert_eq!(told.number.wrapping_sub(*shift.get_or_insert(told.number.wrapping_sub(frame))), frame);
        if got.dependency.len() > 3 {
            let extended = Extended::read(&got.dependency, structure.as_ref()).unwrap();
            structure = extended.structure.or(structure.take());
        }
        begun |= first;
        if restarts && decoder.clean {
            decoder.complete.clear();
        }
        if last {
            let needs = &got.payload[8..8 + usize::from(*needed)];
            decoder.take(&Frame {
                number: frame,
                needs: needs.iter().map(|need| u16::from(*need)).collect(),
                keyframe: keyframe && *spatial == 0,
                whole: begun,
                layer: *spatial,
                temporal: *temporal,
            });
            begun = false;
        }
    }
    decoder.shown
}
