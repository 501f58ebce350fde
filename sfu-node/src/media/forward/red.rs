//! Redundant audio (RFC 2198): finds the primary block.

/// Most redundant blocks in a packet; libwebrtc sends one or two.
const MAX_BLOCKS: usize = 8;

/// Payload type and data of the primary block; `None` when the packet does not parse.
pub(crate) fn primary(payload: &[u8]) -> Option<(u8, &[u8])> {
    let mut headers = payload;
    let mut redundant = 0_usize;
    for _ in 0..=MAX_BLOCKS {
        let (first, rest) = headers.split_first()?;
        if first & 0x80 == 0 {
            return Some((first & 0x7f, rest.get(redundant..)?));
        }
        let ([_, high, low], rest) = rest.split_first_chunk::<3>()?;
        redundant += usize::from(u16::from_be_bytes([high & 0x03, *low]));
        headers = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_primary_block_is_the_last() {
        assert_eq!(primary(&[111, 1, 2]), Some((111, &[1, 2][..])));
        assert_eq!(primary(&[0x80 | 111, 0, 0, 2, 111, 8, 8, 1, 2]), Some((111, &[1, 2][..])));
        assert_eq!(primary(&[0x80 | 111, 0, 0, 9, 111, 8, 8]), None, "block longer than the packet");
        assert_eq!(primary(&[0x80 | 111, 0, 0]), None);
        assert_eq!(primary(&[0xff; 64]), None);
        assert_eq!(primary(&[]), None);
    }
}
