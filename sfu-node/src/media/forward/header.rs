//! Writes the RTP header of a forwarded packet: the subscriber's numbers and header-extension ids (RFC 8285).

use crate::media::api::ExtensionIds;
use crate::media::forward::rtp::Extensions;

/// Longest header written: fixed part, and all elements in two-byte form with the longest dependency descriptor.
pub(crate) const MAX_HEADER: usize = 352;
/// Longest mid written (one-byte element, RFC 8285 section 4.2).
pub(crate) const MAX_MID: usize = 16;

const FIXED_LEN: usize = 12;
const BLOCK_HEADER_LEN: usize = 4;
const MAX_ONE_BYTE_ELEMENT: usize = 16;

/// The fixed part (RFC 3550 section 5.1).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fixed {
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
}

/// Extensions copied from the source packet; empty: absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Copied<'a> {
    pub(crate) audio_level: &'a [u8],
    pub(crate) dependency: &'a [u8],
    pub(crate) capture_time: &'a [u8],
}

impl<'a> Copied<'a> {
    /// What of a received packet is copied; `ids` are those of its section.
    pub(crate) fn read(extensions: &Extensions<'a>, ids: &ExtensionIds) -> Self {
        let element = |id: Option<u8>| extensions.element(id).unwrap_or_default();
        Self {
            audio_level: element(ids.audio_level),
            dependency: element(ids.dependency_descriptor),
            capture_time: element(ids.abs_capture_time),
        }
    }
}

/// Extensions this hop writes anew.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    /// Empty: not needed.
    pub(crate) mid: &'a [u8],
    pub(crate) abs_send_time: [u8; 3],
    pub(crate) transport_cc: u16,
    pub(crate) playout_delay: [u8; 3],
    /// Added to the dependency descriptor's frame number.
    pub(crate) frame_delta: u16,
}

/// Writes a header into `buf` and gives the part written.
pub(crate) fn write<'b>(
    buf: &'b mut [u8; MAX_HEADER],
    fixed: &Fixed,
    ids: &ExtensionIds,
    own: &Own<'_>,
    copied: &Copied<'_>,
) -> &'b [u8] {
    let two_byte = ids.dependency_descriptor.is_some() && copied.dependency.len() > MAX_ONE_BYTE_ELEMENT;
    let mut out = Elements { buf, len: FIXED_LEN + BLOCK_HEADER_LEN, two_byte };
    out.push(ids.mid, own.mid);
    out.push(ids.abs_send_time, &own.abs_send_time);
    out.push(ids.transport_cc, &own.transport_cc.to_be_bytes());
    out.push(ids.audio_level, copied.audio_level);
    out.push(ids.abs_capture_time, copied.capture_time);
    out.push(ids.playout_delay, &own.playout_delay);
    if let Some(at) = out.push(ids.dependency_descriptor, copied.dependency) {
        out.shift_frame_number(at, own.frame_delta);
    }
    let len = out.close();
    let extended = len > FIXED_LEN;
    let [s0, s1] = fixed.sequence.to_be_bytes();
    let [t0, t1, t2, t3] = fixed.timestamp.to_be_bytes();
    let [c0, c1, c2, c3] = fixed.ssrc.to_be_bytes();
    let b0 = if extended { 0x90 } else { 0x80 };
    let b1 = fixed.payload_type & 0x7f | if fixed.marker { 0x80 } else { 0 };
    if let Some(head) = buf.first_chunk_mut::<FIXED_LEN>() {
        *head = [b0, b1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3];
    }
    buf.get(..len).unwrap_or_default()
}

struct Elements<'b> {
    buf: &'b mut [u8; MAX_HEADER],
    len: usize,
    two_byte: bool,
}

impl Elements<'_> {
    /// Appends an element where negotiated and not empty; gives the place of its data.
    fn push(&mut self, id: Option<u8>, data: &[u8]) -> Option<usize> {
        let id = id?;
        let data_len = u8::try_from(data.len()).ok().filter(|len| *len > 0)?;
        let mut head = [0; 2];
        let head = if self.two_byte {
            head = [id, data_len];
            head.as_slice()
        } else {
            if data.len() > MAX_ONE_BYTE_ELEMENT {
                return None;
            }
            head[0] = id << 4 | (data_len - 1);
            head.get(..1)?
        };
        let at = self.len + head.len();
        let end = at + data.len();
        self.buf.get_mut(self.len..at)?.copy_from_slice(head);
        self.buf.get_mut(at..end)?.copy_from_slice(data);
        self.len = end;
        Some(at)
    }

    /// Bytes 1 and 2 of a dependency descriptor are the frame number (AV1 RTP payload format, appendix A.8.2).
    fn shift_frame_number(&mut self, at: usize, delta: u16) {
        if let Some([_, high, low]) = self.buf.get_mut(at..at + 3) {
            [*high, *low] = u16::from_be_bytes([*high, *low]).wrapping_add(delta).to_be_bytes();
        }
    }

    /// Pads to 32 bits and writes the block header; gives the whole header's length.
    fn close(self) -> usize {
        let start = FIXED_LEN + BLOCK_HEADER_LEN;
        if self.len == start {
            return FIXED_LEN;
        }
        let end = self.len.next_multiple_of(4).min(MAX_HEADER);
        if let Some(padding) = self.buf.get_mut(self.len..end) {
            padding.fill(0);
        }
        let [p0, p1] = if self.two_byte { [0x10, 0x00] } else { [0xbe, 0xde] };
        let words = u8::try_from((end - start) / 4).unwrap_or(u8::MAX);
        if let Some(head) = self.buf.get_mut(FIXED_LEN..start) {
            head.copy_from_slice(&[p0, p1, 0, words]);
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::forward::rtp::RtpPacket;

    const FIXED: Fixed = Fixed { marker: true, payload_type: 100, sequence: 65535, timestamp: 7, ssrc: 9 };
    const OWN: Own<'_> =
        Own { mid: b"3", abs_send_time: [1, 2, 3], transport_cc: 0x0405, playout_delay: [1, 1, 1], frame_delta: 2 };

    fn ids() -> ExtensionIds {
        ExtensionIds {
            mid: Some(1),
            transport_cc: Some(2),
            abs_send_time: Some(3),
            audio_level: Some(4),
            dependency_descriptor: Some(5),
            abs_capture_time: Some(6),
            playout_delay: Some(7),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_written_parses_back() {
        for dependency in [&[0x80, 0xff, 0xff][..], &[9; 255][..]] {
            let mut buf = [0xaa; MAX_HEADER];
            let copied = Copied { audio_level: &[0x7f], dependency, capture_time: &[8; 16] };
            let rtp = RtpPacket::parse(write(&mut buf, &FIXED, &ids(), &OWN, &copied)).unwrap();
            assert_eq!((rtp.payload_type, rtp.marker, rtp.sequence, rtp.timestamp, rtp.ssrc), (100, true, 65535, 7, 9));
            assert_eq!(rtp.extensions.element(Some(1)), Some(&b"3"[..]));
            assert_eq!(rtp.extensions.element(Some(2)), Some(&[4, 5][..]));
            assert_eq!(rtp.extensions.element(Some(3)), Some(&[1, 2, 3][..]));
            assert_eq!(rtp.extensions.element(Some(4)), Some(&[0x7f][..]));
            assert_eq!(rtp.extensions.element(Some(6)), Some(&[8; 16][..]));
            assert_eq!(rtp.extensions.element(Some(7)), Some(&[1, 1, 1][..]));
            let sent = rtp.extensions.element(Some(5)).unwrap();
            assert_eq!(sent.len(), dependency.len());
            let number = |d: &[u8]| u16::from_be_bytes([d[1], d[2]]);
            assert_eq!(number(sent), number(dependency).wrapping_add(2));
        }
    }

    #[test]
    fn nothing_negotiated_means_no_extension_block() {
        let mut buf = [0; MAX_HEADER];
        let header = write(&mut buf, &FIXED, &ExtensionIds::default(), &OWN, &Copied::default());
        assert_eq!(header.len(), FIXED_LEN);
        assert!(RtpPacket::parse(header).is_ok());
    }
}
