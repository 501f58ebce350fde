//! What stands in a video packet's payload so that a viewer can tell whether a decoder would take it.

use arrayvec::ArrayVec;

/// VP8 payload descriptor with picture id, TL0PICIDX and temporal layer; the codec's own header follows.
pub(super) const DESCRIPTOR: usize = 6;
/// Frames that one depends on at most.
const MAX_NEEDS: usize = 2;

/// Written behind the VP8 payload descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) layer: u8,
    /// Counts the publisher's starts.
    pub(super) start: u8,
    pub(super) keyframe: bool,
    /// First packet of its frame.
    pub(super) first: bool,
    pub(super) temporal: u8,
    /// Counts the layer's frames.
    pub(super) number: u16,
    /// Frames it depends on, as the distance to each.
    pub(super) needs: ArrayVec<u8, MAX_NEEDS>,
}

impl Label {
    /// Temporal layer, whether it depends on the lowest one only (VP8's layer sync), and on which frames, of the frame so
    /// far behind a keyframe: three layers, every other group begins them anew.
    pub(super) fn pattern(place: usize) -> (u8, bool, ArrayVec<u8, MAX_NEEDS>) {
        let anew = (place / 4).is_multiple_of(2);
        let needs: &[u8] = match (place, place % 4, anew) {
            (0, ..) => &[],
            (_, 0, _) => &[4],
            (_, 1, true) => &[1],
            (_, 2, true) => &[2],
            (_, 3, true) => &[1],
            (_, 2, false) => &[2, 4],
            _ => &[1, 2],
        };
        let temporal = [0, 2, 1, 2][place % 4];
        (temporal, anew && place % 4 < 3, needs.iter().copied().collect())
    }

    pub(super) fn write(&self, payload: &mut Vec<u8>) {
        payload.extend([u8::from(!self.keyframe), self.layer, self.start]);
        payload.extend(self.number.to_be_bytes());
        payload.extend((0..MAX_NEEDS).map(|place| self.needs.get(place).copied().unwrap_or(0)));
    }

    pub(super) fn read(payload: &[u8]) -> Self {
        let [header, layer, start, high, low, needs @ ..] = *payload[DESCRIPTOR..].first_chunk::<7>().unwrap();
        Self {
            layer,
            start,
            keyframe: header & 1 == 0,
            first: payload[0] & 0x10 != 0,
            temporal: payload[5] >> 6,
            number: u16::from_be_bytes([high, low]),
            needs: needs.into_iter().filter(|need| *need > 0).collect(),
        }
    }
}
