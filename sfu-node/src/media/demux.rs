//! Tells the protocols of one port apart by their first bytes (RFC 7983 section 7). Never looks further.

use super::api::PipeNumber;

/// What a datagram claims to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 8489.
    Stun,
    /// RFC 6347 record.
    Dtls,
    /// Protected RTP.
    Rtp,
    /// Protected RTCP (RFC 5761 section 4).
    Rtcp,
    /// Any of them, of another node, behind the number of the pipe.
    Pipe,
}

/// RTP header (RFC 3550 section 5.1), also more than the smallest RTCP packet.
const RTP_HEADER_LEN: usize = 12;
/// RTCP header with the sender's SSRC.
const RTCP_HEADER_LEN: usize = 8;
/// STUN header (RFC 8489 section 5).
const STUN_HEADER_LEN: usize = 20;
/// The number of a pipe.
const PIPE_HEADER_LEN: usize = PipeNumber::LEN;
/// DTLS record header (RFC 6347 section 4.1).
const DTLS_HEADER_LEN: usize = 13;

/// Classifies a datagram; `None` if it is too short for what its first byte says, or nothing we speak.
#[must_use]
pub fn classify(datagram: &[u8]) -> Option<Protocol> {
    let (first, second) = (*datagram.first()?, *datagram.get(1)?);
    let (protocol, least) = match first {
        0..=3 => (Protocol::Stun, STUN_HEADER_LEN),
        20..=63 => (Protocol::Dtls, DTLS_HEADER_LEN),
        64..=79 => (Protocol::Pipe, PIPE_HEADER_LEN),
        // RFC 5761: payload types 64 to 95 with the marker bit are RTCP packet types 192 to 223.
        128..=191 if (192..=223).contains(&second) => (Protocol::Rtcp, RTCP_HEADER_LEN),
        128..=191 => (Protocol::Rtp, RTP_HEADER_LEN),
        _ => return None,
    };
    (datagram.len() >= least).then_some(protocol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_decide() {
        let with = |first: u8, second: u8| classify(&[&[first, second][..], &[0; 30]].concat());
        assert_eq!(with(0, 1), Some(Protocol::Stun));
        assert_eq!(with(22, 254), Some(Protocol::Dtls));
        assert_eq!(with(0x80, 96), Some(Protocol::Rtp));
        assert_eq!(with(0x90, 0x80 | 111), Some(Protocol::Rtp));
        assert_eq!(with(0x81, 201), Some(Protocol::Rtcp));
        assert_eq!(with(64, 0), Some(Protocol::Pipe));
        for unknown in [4, 19, 80, 127, 192, 255] {
            assert_eq!(with(unknown, 0), None);
        }
    }

    #[test]
    fn short_datagrams_are_nothing() {
        for len in 0..8 {
            assert_eq!(classify(&vec![0x80; len]), None);
            assert_eq!(classify(&vec![0; len]), None);
            assert_eq!(classify(&vec![22; len]), None);
        }
    }
}
