//! Keeps FORWARD-TSN chunks that skip too much from the SCTP library: `rtc-sctp` 0.21.1 counts up to the number they name
//! one by one, for one packet up to two thousand million steps. **What is acknowledged is the library's own word.**

/// Numbers skipped at once: as many small messages as fit into the receive buffer.
const MAX_SKIPPED: u32 = 16_384;
/// Source and destination port, tag and checksum (RFC 9260 section 3.1).
const COMMON_HEADER: usize = 12;
/// Type, flags, length.
const CHUNK_HEADER: usize = 4;
const SACK: u8 = 3;
/// RFC 3758 section 3.2, RFC 8260 section 2.3.1.
const FORWARD_TSN: u8 = 192;
const I_FORWARD_TSN: u8 = 194;

/// How far the peer's numbers are acknowledged.
#[derive(Debug, Default)]
pub(super) struct Acknowledged(Option<u32>);

impl Acknowledged {
    /// Notes what a packet of ours acknowledges.
    pub(super) fn note(&mut self, packet: &[u8]) {
        let sack = Chunks(packet.get(COMMON_HEADER..).unwrap_or_default()).filter(|(kind, _)| *kind == SACK).last();
        self.0 = sack.and_then(|(_, body)| first_number(body)).or(self.0);
    }

    /// Whether the library may see a packet of the peer. Before anything is acknowledged there is nothing to skip.
    pub(super) fn lets_in(&self, packet: &[u8]) -> bool {
        let bounded = |body: &[u8]| match (self.0, first_number(body)) {
            (Some(acknowledged), Some(new)) => {
                let ahead = new.wrapping_sub(acknowledged).cast_signed();
                ahead <= MAX_SKIPPED.cast_signed()
            }
            _ => false,
        };
        let mut chunks = Chunks(packet.get(COMMON_HEADER..).unwrap_or_default());
        chunks.all(|(kind, body)| !matches!(kind, FORWARD_TSN | I_FORWARD_TSN) || bounded(body))
    }
}

fn first_number(body: &[u8]) -> Option<u32> {
    body.first_chunk().copied().map(u32::from_be_bytes)
}

/// Type and value of each chunk (RFC 9260 section 3.2); ends where one does not fit.
struct Chunks<'a>(&'a [u8]);

impl<'a> Iterator for Chunks<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind, _flags, high, low] = *self.0.first_chunk::<CHUNK_HEADER>()?;
        let len = usize::from(u16::from_be_bytes([high, low]));
        let body = self.0.get(CHUNK_HEADER..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}
