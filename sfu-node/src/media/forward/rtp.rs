//! A received RTP packet as a view (RFC 3550 section 5.1) with its header extensions (RFC 8285). Borrows, never copies.

use crate::media::srtp::MAX_OVERHEAD;

/// Longest RTP packet taken, bytes; longer ones do not come in one unfragmented datagram.
pub(crate) const MAX_RTP_LEN: usize = 1500;
/// Longest RTP packet sent, bytes: with SRTP's overhead it crosses an Ethernet over IPv6 unfragmented. The kernel refuses
/// longer ones in a segmented send, some versions with an error that says segmentation is not to be had at all.
pub(crate) const MAX_RTP_SENT_LEN: usize = 1500 - 40 - 8 - MAX_OVERHEAD;

const FIXED_LEN: usize = 12;
const ONE_BYTE_PROFILE: u16 = 0xbede;
const TWO_BYTE_PROFILE: u16 = 0x1000;
const EXTENSION_SLOTS: usize = 15;

/// The packet is not RTP, or its parts do not fit into it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// One RTP packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RtpPacket<'a> {
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) extensions: Extensions<'a>,
    /// Without padding.
    pub(crate) payload: &'a [u8],
}

impl<'a> RtpPacket<'a> {
    /// Reads a whole plain packet.
    pub(crate) fn parse(packet: &'a [u8]) -> Result<Self, Malformed> {
        if packet.len() > MAX_RTP_LEN {
            return Err(Malformed);
        }
        let (fixed, rest) = packet.split_first_chunk::<FIXED_LEN>().ok_or(Malformed)?;
        let [b0, b1, s0, s1, t0, t1, t2, t3, c0, c1, c2, c3] = *fixed;
        if b0 >> 6 != 2 {
            return Err(Malformed);
        }
        let (_csrcs, mut rest) = rest.split_at_checked(4 * usize::from(b0 & 0x0f)).ok_or(Malformed)?;
        let mut extensions = Extensions::NONE;
        if b0 & 0x10 != 0 {
            let ([p0, p1, l0, l1], tail) = rest.split_first_chunk::<4>().ok_or(Malformed)?;
            let len = 4 * usize::from(u16::from_be_bytes([*l0, *l1]));
            let (block, tail) = tail.split_at_checked(len).ok_or(Malformed)?;
            extensions = Extensions::parse(u16::from_be_bytes([*p0, *p1]), block)?;
            rest = tail;
        }
        if b0 & 0x20 != 0 {
            let padding = usize::from(*rest.last().ok_or(Malformed)?);
            let len = rest.len().checked_sub(padding).filter(|_| padding > 0).ok_or(Malformed)?;
            rest = rest.get(..len).ok_or(Malformed)?;
        }
        Ok(Self {
            marker: b1 & 0x80 != 0,
            payload_type: b1 & 0x7f,
            sequence: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([c0, c1, c2, c3]),
            extensions,
            payload: rest,
        })
    }
}

/// Where each header extension of a packet lies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extensions<'a> {
    block: &'a [u8],
    /// Offset and length by id; length 0: absent.
    at: [(u16, u8); EXTENSION_SLOTS],
}

impl<'a> Extensions<'a> {
    const NONE: Self = Self { block: &[], at: [(0, 0); EXTENSION_SLOTS] };

    fn parse(profile: u16, block: &'a [u8]) -> Result<Self, Malformed> {
        let one_byte = profile == ONE_BYTE_PROFILE;
        if !one_byte && profile & 0xfff0 != TWO_BYTE_PROFILE {
            return Ok(Self::NONE);
        }
        let mut found = Self { block, ..Self::NONE };
        let mut offset = 0_usize;
        while let Some(first) = block.get(offset).copied() {
            offset += 1;
            if first == 0 {
                continue;
            }
            let (id, len) = if one_byte {
                if first >> 4 == 15 {
                    break;
                }
                (first >> 4, (first & 0x0f) + 1)
            } else {
                let len = *block.get(offset).ok_or(Malformed)?;
                offset += 1;
                (first, len)
            };
            let end = offset + usize::from(len);
            if end > block.len() {
                return Err(Malformed);
            }
            if let (Some(slot), Ok(start)) = (found.at.get_mut(usize::from(id)), u16::try_from(offset)) {
                *slot = (start, len);
            }
            offset = end;
        }
        Ok(found)
    }

    /// The element with this id; `None` when not negotiated, absent or empty.
    pub(crate) fn element(&self, id: Option<u8>) -> Option<&'a [u8]> {
        let (start, len) = *self.at.get(usize::from(id?))?;
        let start = usize::from(start);
        self.block.get(start..start + usize::from(len)).filter(|data| !data.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_byte_extensions_and_padding_are_read() {
        let packet = [
            0xb1, 0xe0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, // fixed: padding, extension, one CSRC
            1, 2, 3, 4, // CSRC
            0xbe, 0xde, 0, 2, 0x10, b'a', 0x31, 1, 2, 0, 0, 0, // id 1 'a', id 3 [1, 2]
            9, 9, 0, 2,
        ];
        let rtp = RtpPacket::parse(&packet).unwrap();
        assert!(rtp.marker);
        assert_eq!((rtp.payload_type, rtp.sequence, rtp.timestamp, rtp.ssrc), (96, 7, 9, 5));
        assert_eq!(rtp.extensions.element(Some(1)), Some(&b"a"[..]));
        assert_eq!(rtp.extensions.element(Some(3)), Some(&[1, 2][..]));
        assert_eq!(rtp.extensions.element(Some(2)), None);
        assert_eq!(rtp.extensions.element(None), None);
        assert_eq!(rtp.payload, [9, 9]);
    }

    #[test]
    fn two_byte_extensions_are_read() {
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 0, 0, 6, 4, 20];
        packet.extend_from_slice(&[7; 20]);
        packet.extend_from_slice(&[0, 0, 42]);
        let rtp = RtpPacket::parse(&packet).unwrap();
        assert_eq!(rtp.extensions.element(Some(4)), Some(&[7; 20][..]));
        assert_eq!(rtp.payload, [42]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(RtpPacket::parse(&[]).is_err());
        assert!(RtpPacket::parse(&[0x40; 12]).is_err(), "version 1");
        assert!(RtpPacket::parse(&[0x8f; 12]).is_err(), "15 CSRCs missing");
        assert!(RtpPacket::parse(&[0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 9]).is_err(), "extension");
        let element = [0x90, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0xbe, 0xde, 0, 1, 0x1f, 0, 0, 0];
        assert!(RtpPacket::parse(&element).is_err(), "element longer than its block");
        assert!(RtpPacket::parse(&[0xa0, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 5]).is_err(), "padding");
        assert!(RtpPacket::parse(&[0xa0, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0]).is_err(), "no padding");
        let mut long = vec![0; MAX_RTP_LEN + 1];
        long[0] = 0x80;
        assert!(RtpPacket::parse(&long).is_err(), "too long");
    }
}
