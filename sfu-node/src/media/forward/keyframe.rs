//! Does a packet start a keyframe? Bounded looks at payload descriptors; the codec's bits are never decoded.

use crate::media::api::Codec;

/// Most NAL units looked at in an aggregation packet.
const MAX_AGGREGATED: usize = 16;

/// True for the first packet of a keyframe, where a decoder can begin.
pub(crate) fn starts_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Vp8 => vp8(payload),
        Codec::Vp9 => vp9(payload),
        Codec::H264 => h264(payload),
        Codec::H265 => h265(payload),
        Codec::Av1 => av1(payload),
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => true,
    }
}

/// RFC 7741: start of partition 0 (section 4.2), then P = 0 in the frame header (section 4.3).
fn vp8(payload: &[u8]) -> bool {
    let Some(first) = payload.first() else { return false };
    let starts = first & 0x10 != 0 && first & 0x07 == 0;
    let Some(header) = vp8_descriptor_len(payload).and_then(|len| payload.get(len)) else { return false };
    starts && header & 0x01 == 0
}

/// Length of a VP8 payload descriptor (RFC 7741 section 4.2).
fn vp8_descriptor_len(payload: &[u8]) -> Option<usize> {
    let mut len = 1;
    if payload.first()? & 0x80 == 0 {
        return Some(len);
    }
    let flags = payload.get(1)?;
    len += 1;
    if flags & 0x80 != 0 {
        len += if payload.get(2)? & 0x80 != 0 { 2 } else { 1 };
    }
    len += usize::from(flags & 0x40 != 0);
    len += usize::from(flags & 0x30 != 0);
    Some(len)
}

/// RFC 9628 section 4.2: not inter-picture predicted, start of frame, lowest spatial layer.
fn vp9(payload: &[u8]) -> bool {
    let Some(first) = payload.first() else { return false };
    if first & 0x40 != 0 || first & 0x08 == 0 {
        return false;
    }
    if first & 0x20 == 0 {
        return true;
    }
    let picture_id_len = match (first & 0x80 != 0, payload.get(1)) {
        (false, _) => 0,
        (true, Some(id)) if id & 0x80 != 0 => 2,
        (true, _) => 1,
    };
    payload.get(1 + picture_id_len).is_some_and(|layer| layer & 0x0e == 0)
}

/// RFC 6184: a sequence parameter set, alone or aggregated, precedes each keyframe.
fn h264(payload: &[u8]) -> bool {
    const SPS: u8 = 7;
    const STAP_A: u8 = 24;
    let Some((first, rest)) = payload.split_first() else { return false };
    match first & 0x1f {
        SPS => true,
        STAP_A => aggregated(rest).any(|unit| unit.first().is_some_and(|nal| nal & 0x1f == SPS)),
        _ => false,
    }
}

/// RFC 7798: a video or sequence parameter set, alone or aggregated, precedes each keyframe.
fn h265(payload: &[u8]) -> bool {
    const AP: u8 = 48;
    let parameter_set = |nal: &u8| matches!(nal >> 1 & 0x3f, 32 | 33);
    match payload {
        [first, _, rest @ ..] if first >> 1 & 0x3f == AP => {
            aggregated(rest).any(|u| u.first().is_some_and(parameter_set))
        }
        [first, _, ..] => parameter_set(first),
        _ => false,
    }
}

/// AV1 RTP payload format section 4.4: N marks the first packet of a coded video sequence; Z a continued unit.
fn av1(payload: &[u8]) -> bool {
    payload.len() > 1 && payload.first().is_some_and(|header| header & 0x88 == 0x08)
}

/// The NAL units of an aggregation packet, each behind its 16-bit size.
fn aggregated(mut rest: &[u8]) -> impl Iterator<Item = &[u8]> {
    let next = move || {
        let (size, tail) = rest.split_first_chunk::<2>()?;
        let (unit, tail) = tail.split_at_checked(usize::from(u16::from_be_bytes(*size)))?;
        rest = tail;
        Some(unit)
    };
    std::iter::from_fn(next).take(MAX_AGGREGATED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyframes_start_where_a_decoder_can() {
        assert!(starts_keyframe(Codec::Vp8, &[0x10, 0x00]));
        assert!(starts_keyframe(Codec::Vp8, &[0x90, 0xe0, 0x81, 0x02, 0x03, 0x20, 0x10]));
        assert!(!starts_keyframe(Codec::Vp8, &[0x90, 0xe0, 0x81, 0x02, 0x03, 0x20, 0x11]), "delta frame");
        assert!(!starts_keyframe(Codec::Vp8, &[0x80, 0xe0, 0x81, 0x02, 0x03, 0x20, 0x10]), "not the start");
        assert!(starts_keyframe(Codec::Vp9, &[0x88, 0x05, 0x00]));
        assert!(starts_keyframe(Codec::Vp9, &[0xa8, 0x85, 0x00, 0x00, 0x01]));
        assert!(!starts_keyframe(Codec::Vp9, &[0xa8, 0x85, 0x00, 0x02, 0x01]), "upper spatial layer");
        assert!(!starts_keyframe(Codec::Vp9, &[0xc8, 0x05]), "predicted");
        assert!(starts_keyframe(Codec::H264, &[0x67, 1]));
        assert!(starts_keyframe(Codec::H264, &[0x78, 0, 1, 0x09, 0, 2, 0x67, 1]));
        assert!(!starts_keyframe(Codec::H264, &[0x78, 0, 1, 0x09, 0, 9, 0x67, 1]), "unit cut off");
        assert!(!starts_keyframe(Codec::H264, &[0x61, 1]));
        assert!(starts_keyframe(Codec::H265, &[0x40, 1]));
        assert!(starts_keyframe(Codec::H265, &[0x60, 1, 0, 2, 0x42, 1]));
        assert!(!starts_keyframe(Codec::H265, &[0x02, 1]));
        assert!(starts_keyframe(Codec::Av1, &[0x18, 0x0a]));
        assert!(!starts_keyframe(Codec::Av1, &[0x98, 0x0a]), "continued");
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::H265, Codec::Av1] {
            assert!(!starts_keyframe(codec, &[]));
        }
    }
}
