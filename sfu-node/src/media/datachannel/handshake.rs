//! What of SCTP's handshake must be told apart before the library sees it (RFC 9260 section 3).

/// Source and destination port, tag and checksum.
const COMMON_HEADER: usize = 12;
/// Section 3.3.2.
const INIT: u8 = 1;
/// Section 3.3.11.
const COOKIE_ECHO: u8 = 10;
/// Section 3.3.12.
const COOKIE_ACK: u8 = 11;

/// The Initiate Tag of an INIT, which is alone in its packet.
pub(super) fn initiate_tag(packet: &[u8]) -> Option<u32> {
    // Behind the chunk's type, flags and length.
    kind(packet).filter(|kind| *kind == INIT).and_then(|_| number(packet, COMMON_HEADER + 4))
}

/// The tag of the peer with which this packet of ours makes an association. Its chunk is the first of its packet.
pub(super) fn agreed_with(packet: &[u8]) -> Option<u32> {
    // Behind the ports.
    kind(packet).filter(|kind| matches!(*kind, COOKIE_ECHO | COOKIE_ACK)).and_then(|_| number(packet, 4))
}

fn kind(packet: &[u8]) -> Option<u8> {
    packet.get(COMMON_HEADER).copied()
}

fn number(packet: &[u8], at: usize) -> Option<u32> {
    packet.get(at..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_be_bytes)
}
