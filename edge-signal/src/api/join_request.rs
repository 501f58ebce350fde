//! `join_request`: base64 of a wrapped, perhaps compressed `JoinRequest`. **Bounded before and after inflating.**

use std::io::Read;

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::GzDecoder;
use livekit_protocol::wrapped_join_request::Compression;
use livekit_protocol::{JoinRequest, WrappedJoinRequest};
use prost::Message;

use crate::refusal::{Reason, Refusal};

/// Most bytes of a join request, compressed or inflated (LiveKit's).
pub const MAX_JOIN_REQUEST: usize = 1024 * 1024;

/// LiveKit's server wants the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// Decodes the query parameter.
///
/// # Errors
/// 400 with LiveKit's text where it has one.
pub fn decode(parameter: &str) -> Result<JoinRequest, Refusal> {
    if parameter.is_empty() {
        return Err(Refusal::new(Reason::JoinRequestMissing, "join_request is required"));
    }
    let bytes = BASE64.decode(parameter).map_err(|_| malformed("cannot base64 decode wrapped join request"))?;
    let wrapped =
        WrappedJoinRequest::decode(bytes.as_slice()).map_err(|_| malformed("cannot unmarshal wrapped join request"))?;
    let inner = match wrapped.compression() {
        Compression::None if wrapped.join_request.len() > MAX_JOIN_REQUEST => return Err(too_large()),
        Compression::None => wrapped.join_request,
        Compression::Gzip => inflate(&wrapped.join_request)?,
    };
    JoinRequest::decode(inner.as_slice()).map_err(|_| malformed("cannot unmarshal join request"))
}

fn inflate(compressed: &[u8]) -> Result<Vec<u8>, Refusal> {
    let mut inflated = Vec::new();
    // One byte more than allowed tells "at the limit" from "over it".
    let mut limited = GzDecoder::new(compressed).take(MAX_JOIN_REQUEST as u64 + 1);
    limited.read_to_end(&mut inflated).map_err(|_| malformed("cannot decompress join request"))?;
    if inflated.len() > MAX_JOIN_REQUEST { Err(too_large()) } else { Ok(inflated) }
}

fn malformed(text: &str) -> Refusal {
    Refusal::new(Reason::JoinRequestMalformed, text)
}

fn too_large() -> Refusal {
    Refusal::new(Reason::JoinRequestTooLarge, "join request exceeds the limit of 1048576 bytes")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use flate2::Compression as Level;
    use flate2::write::GzEncoder;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Level::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    fn wrap(compression: Compression, bytes: Vec<u8>) -> String {
        let wrapped = WrappedJoinRequest { compression: compression as i32, join_request: bytes };
        BASE64.encode(wrapped.encode_to_vec())
    }

    fn refusal(parameter: &str) -> Refusal {
        decode(parameter).unwrap_err()
    }

    #[test]
    fn plain_and_compressed() {
        let request = JoinRequest { metadata: "m".repeat(1000), ..JoinRequest::default() };
        assert_eq!(decode(&wrap(Compression::None, request.encode_to_vec())), Ok(request.clone()));
        assert_eq!(decode(&wrap(Compression::Gzip, gzip(&request.encode_to_vec()))), Ok(request));
    }

    #[test]
    fn what_cannot_be_decoded() {
        assert_eq!(refusal(""), Refusal::new(Reason::JoinRequestMissing, "join_request is required"));
        assert_eq!(refusal("!!"), malformed("cannot base64 decode wrapped join request"));
        let unpadded = URL_SAFE_NO_PAD.encode([8, 1, 18, 0, 0]);
        assert_eq!(refusal(&unpadded), malformed("cannot base64 decode wrapped join request"));
        assert_eq!(refusal(&BASE64.encode([255; 6])), malformed("cannot unmarshal wrapped join request"));
        assert_eq!(
            refusal(&wrap(Compression::Gzip, b"not gzip".to_vec())),
            malformed("cannot decompress join request")
        );
        assert_eq!(refusal(&wrap(Compression::None, vec![255; 6])), malformed("cannot unmarshal join request"));
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_inflated_whole() {
        let bomb = gzip(&vec![0; 64 * MAX_JOIN_REQUEST]);
        assert!(bomb.len() < MAX_JOIN_REQUEST);
        // Who reads on to the end finds it broken.
        let unfinished = bomb[..bomb.len() / 2].to_vec();
        assert_eq!(refusal(&wrap(Compression::Gzip, unfinished)), too_large());
        assert_eq!(refusal(&wrap(Compression::Gzip, bomb)), too_large());
        assert_eq!(refusal(&wrap(Compression::None, vec![0; MAX_JOIN_REQUEST + 1])), too_large());
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        let mut request = JoinRequest { metadata: String::new(), ..JoinRequest::default() };
        // Tag and length of the field take four bytes.
        request.metadata = "m".repeat(MAX_JOIN_REQUEST - 4);
        assert_eq!(request.encoded_len(), MAX_JOIN_REQUEST);
        assert!(decode(&wrap(Compression::Gzip, gzip(&request.encode_to_vec()))).is_ok());
        request.metadata.push('m');
        assert_eq!(refusal(&wrap(Compression::Gzip, gzip(&request.encode_to_vec()))), too_large());
    }
}
