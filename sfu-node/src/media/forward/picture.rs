//! Picture id and TL0PICIDX in VP8 (RFC 7741) and VP9 (RFC 9628) payload descriptors: read, and rewrite so that they go
//! on over a change of layer.

use crate::media::api::Codec;

/// Where a payload's picture ids stand and what they say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PictureIds {
    picture: Option<PictureId>,
    /// Offset and value.
    tl0: Option<(usize, u8)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PictureId {
    offset: usize,
    value: u16,
    /// 15 bits instead of 7.
    wide: bool,
}

/// What a subscriber adds to the source's ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PictureShift {
    pub(crate) picture: u16,
    pub(crate) tl0: u8,
}

impl PictureIds {
    /// Reads a payload; nothing for a codec without such ids or a descriptor cut off.
    pub(crate) fn read(codec: Codec, payload: &[u8]) -> Self {
        match codec {
            Codec::Vp8 => Self::vp8(payload).unwrap_or_default(),
            Codec::Vp9 => Self::vp9(payload).unwrap_or_default(),
            _ => Self::default(),
        }
    }

    /// Picture id, where there is one.
    pub(crate) fn picture(&self) -> Option<u16> {
        self.picture.map(|id| id.value)
    }

    /// TL0PICIDX, where there is one.
    pub(crate) fn tl0(&self) -> Option<u8> {
        self.tl0.map(|(_, value)| value)
    }

    /// Writes the shifted ids into `payload`, which these ids were read from.
    pub(crate) fn rewrite(&self, payload: &mut [u8], shift: PictureShift) {
        if let Some(id) = self.picture {
            let value = id.value.wrapping_add(shift.picture);
            let [high, low] = value.to_be_bytes();
            match payload.get_mut(id.offset..) {
                Some([first, second, ..]) if id.wide => [*first, *second] = [high | 0x80, low],
                Some([first, ..]) if !id.wide => *first = low & 0x7f,
                _ => {}
            }
        }
        if let Some((offset, value)) = self.tl0
            && let Some(byte) = payload.get_mut(offset)
        {
            *byte = value.wrapping_add(shift.tl0);
        }
    }

    fn vp8(payload: &[u8]) -> Option<Self> {
        if payload.first()? & 0x80 == 0 {
            return Some(Self::default());
        }
        let flags = payload.get(1)?;
        let mut offset = 2;
        let picture = read_picture_id(payload, flags & 0x80 != 0, &mut offset)?;
        let tl0 = if flags & 0x40 != 0 { Some((offset, *payload.get(offset)?)) } else { None };
        Some(Self { picture, tl0 })
    }

    fn vp9(payload: &[u8]) -> Option<Self> {
        let first = payload.first()?;
        let mut offset = 1;
        let picture = read_picture_id(payload, first & 0x80 != 0, &mut offset)?;
        // TL0PICIDX follows the layer indices, in non-flexible mode only.
        let tl0 = if first & 0x30 == 0x20 { Some((offset + 1, *payload.get(offset + 1)?)) } else { None };
        Some(Self { picture, tl0 })
    }
}

/// 7 or 15 bits, told by the first bit; moves `offset` past it.
fn read_picture_id(payload: &[u8], present: bool, offset: &mut usize) -> Option<Option<PictureId>> {
    if !present {
        return Some(None);
    }
    let at = *offset;
    let first = *payload.get(at)?;
    if first & 0x80 == 0 {
        *offset += 1;
        return Some(Some(PictureId { offset: at, value: u16::from(first), wide: false }));
    }
    *offset += 2;
    let value = u16::from_be_bytes([first & 0x7f, *payload.get(at + 1)?]);
    Some(Some(PictureId { offset: at, value, wide: true }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vp8_ids_are_read_and_shifted() {
        let mut payload = [0x90, 0xe0, 0xff, 0xfe, 0xff, 0x20, 0x10];
        let ids = PictureIds::read(Codec::Vp8, &payload);
        assert_eq!((ids.picture(), ids.tl0()), (Some(0x7ffe), Some(0xff)));
        ids.rewrite(&mut payload, PictureShift { picture: 3, tl0: 2 });
        assert_eq!(payload, [0x90, 0xe0, 0x80, 0x01, 0x01, 0x20, 0x10]);
        let mut narrow = [0x90, 0x80, 0x7f, 0x10];
        PictureIds::read(Codec::Vp8, &narrow).rewrite(&mut narrow, PictureShift { picture: 1, tl0: 0 });
        assert_eq!(narrow, [0x90, 0x80, 0x00, 0x10]);
    }

    #[test]
    fn vp9_ids_are_read_and_shifted() {
        let mut payload = [0xa8, 0x81, 0x00, 0x00, 0x07, 0x01];
        let ids = PictureIds::read(Codec::Vp9, &payload);
        assert_eq!((ids.picture(), ids.tl0()), (Some(0x100), Some(7)));
        ids.rewrite(&mut payload, PictureShift { picture: 0xffff, tl0: 1 });
        assert_eq!(payload, [0xa8, 0x80, 0xff, 0x00, 0x08, 0x01]);
        let flexible = PictureIds::read(Codec::Vp9, &[0xb8, 0x01, 0x00, 0x07]);
        assert_eq!((flexible.picture(), flexible.tl0()), (Some(1), None));
    }

    #[test]
    fn descriptors_cut_off_have_no_ids() {
        assert_eq!(PictureIds::read(Codec::Vp8, &[0x90, 0xe0, 0x80]), PictureIds::default());
        assert_eq!(PictureIds::read(Codec::Vp9, &[0xa8]), PictureIds::default());
        assert_eq!(PictureIds::read(Codec::H264, &[0xff; 8]), PictureIds::default());
    }
}
