//! Layers as VP8 (RFC 7741 section 4.2) and VP9 (RFC 9628 section 4.2) payload descriptors name them, for streams without
//! a dependency descriptor.

use crate::media::api::Codec;
use crate::media::forward::keyframe::starts_keyframe;
use crate::media::forward::layering::{Frame, Targets};

/// Temporal layers told apart (two bits in VP8).
const TEMPORAL: u8 = 4;
/// Spatial layers told apart.
const SPATIAL: u8 = 3;

/// A packet's place in its stream's layers; `None`: it names none.
pub(crate) fn frame(codec: Codec, payload: &[u8], marker: bool) -> Option<Frame> {
    match codec {
        Codec::Vp8 => vp8(payload, marker),
        Codec::Vp9 => vp9(payload),
        _ => None,
    }
}

/// The decode targets of a stream that is described so.
pub(crate) fn targets(codec: Codec) -> Targets {
    let spatial = if codec == Codec::Vp9 { SPATIAL } else { 1 };
    // That a picture has all its lower layers cannot be relied on.
    let kinds = (0..spatial).flat_map(|s| (0..TEMPORAL).map(move |t| (s, t, from_temporal(s, t))));
    Targets::of(usize::from(spatial * TEMPORAL), kinds)
}

/// Targets of a spatial layer that show this temporal layer.
fn from_temporal(spatial: u8, temporal: u8) -> u32 {
    (0b1111 << temporal & 0b1111) << (spatial * TEMPORAL)
}

fn vp8(payload: &[u8], marker: bool) -> Option<Frame> {
    let first = *payload.first()?;
    let flags = if first & 0x80 != 0 { *payload.get(1)? } else { return None };
    let wide = flags & 0x80 != 0 && payload.get(2)? & 0x80 != 0;
    let picture_len = usize::from(flags & 0x80 != 0) + usize::from(wide);
    if flags & 0x20 == 0 {
        return None;
    }
    let layer = payload.get(2 + picture_len + usize::from(flags & 0x40 != 0))?;
    let temporal = layer >> 6;
    let starts = first & 0x10 != 0 && first & 0x07 == 0;
    let sync = layer & 0x20 != 0;
    let targets = from_temporal(0, temporal);
    let keyframe = starts && starts_keyframe(Codec::Vp8, payload);
    // Layer sync: nothing from here on depends on frames of upper layers before it.
    let switches = if keyframe {
        u32::MAX
    } else if sync {
        targets
    } else {
        0
    };
    let number = 0;
    Some(Frame { number, first: starts, last: marker, temporal, targets, switches, ..Frame::default() })
}

fn vp9(payload: &[u8]) -> Option<Frame> {
    let first = *payload.first()?;
    if first & 0x20 == 0 {
        return None;
    }
    let wide = first & 0x80 != 0 && payload.get(1)? & 0x80 != 0;
    let layer = *payload.get(1 + usize::from(first & 0x80 != 0) + usize::from(wide))?;
    let (temporal, spatial) = ((layer >> 5).min(TEMPORAL - 1), (layer >> 1 & 0x07).min(SPATIAL - 1));
    let starts = first & 0x08 != 0;
    let own = from_temporal(spatial, temporal);
    let upper = (spatial + 1..SPATIAL).fold(0, |upper, spatial| upper | from_temporal(spatial, temporal));
    let no_reference = first & 0x01 != 0;
    let switching_up = layer & 0x10 != 0;
    let switches = match (starts_keyframe(Codec::Vp9, payload), switching_up) {
        (true, _) => u32::MAX,
        (false, true) => own,
        (false, false) => 0,
    };
    Some(Frame {
        first: starts,
        last: first & 0x04 != 0,
        spatial,
        temporal,
        targets: if no_reference { own } else { own | upper },
        switches,
        ..Frame::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vp8_names_temporal_layers_and_where_to_switch_up() {
        let read = |tid: u8, sync: u8, p: u8| vp8(&[0x90, 0xe0, 0x81, 2, 3, tid << 6 | sync << 5, p], true).unwrap();
        let frame = read(1, 1, 1);
        assert_eq!((frame.temporal, frame.targets, frame.switches), (1, 0b1110, 0b1110));
        assert!(frame.first && frame.last);
        assert_eq!(read(2, 0, 1).switches, 0);
        assert_eq!((read(0, 0, 0).targets, read(0, 0, 0).switches), (0b1111, u32::MAX), "a keyframe");
        assert_eq!(vp8(&[0x90, 0x80, 5, 0], true), None, "no temporal layers");
        assert_eq!(vp8(&[0x90, 0xe0, 0x81, 2, 3], true), None, "cut off");
    }

    #[test]
    fn vp9_names_spatial_layers_and_which_are_of_use_above() {
        let read = |first: u8, layer: u8| vp9(&[0xa0 | first, 0x85, 0x00, layer, 0]).unwrap();
        let frame = read(0x4c, 0b0011_0010);
        assert_eq!((frame.spatial, frame.temporal, frame.first, frame.last), (1, 1, true, true));
        assert_eq!((frame.targets, frame.switches), (0b1110_1110_0000, 0b1110_0000));
        assert_eq!(read(0x4d, 0b0010_0010).targets, 0b1110_0000, "no reference for the layer above");
        assert_eq!(read(0x0c, 0).switches, u32::MAX, "a keyframe");
        assert_eq!(vp9(&[0x8c, 0x05, 0]), None, "no layers");
        let high = read(0x4c, 0b1111_1110);
        assert_eq!((high.spatial, high.temporal), (2, 3), "more than are told apart");
    }

    #[test]
    fn targets_of_vp8_are_nested() {
        let targets = targets(Codec::Vp8);
        let all: Vec<_> = targets.iter().collect();
        assert_eq!(
            all.iter().map(|t| (t.temporal, t.whole)).collect::<Vec<_>>(),
            [(0, false), (1, false), (2, false), (3, true)]
        );
        assert!(targets.includes(all[2], all[1]) && !targets.includes(all[1], all[2]));
    }
}
