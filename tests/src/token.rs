//! Access tokens as an app server would mint them, and the broken ones the tests need.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use shared::claims::{AccessClaims, VideoGrant};

/// Life of a token minted here, seconds.
const TTL_SECS: u64 = 3600;

/// Seconds since the Unix epoch.
#[must_use]
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Claims that let `identity` join `room` with every default permission; change them before minting as a test needs.
#[must_use]
pub fn join_claims(key: &str, room: &str, identity: &str) -> AccessClaims {
    AccessClaims {
        iss: key.to_owned(),
        sub: identity.to_owned(),
        exp: unix_now() + TTL_SECS,
        video: Some(VideoGrant { room_join: true, room: room.to_owned(), ..VideoGrant::default() }),
        ..AccessClaims::default()
    }
}

/// A JWT with any header and any claims, signed HS256 with `secret`; no signature without one.
#[must_use]
pub fn forge(header: &Value, claims: &Value, secret: Option<&[u8]>) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = secret.map(|secret| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), signed.as_bytes()));
    format!("{signed}.{}", signature.map(|s| URL_SAFE_NO_PAD.encode(s)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use shared::claims::ApiKeys;

    use super::*;

    #[test]
    fn a_token_forged_with_the_right_secret_is_right() {
        let claims = serde_json::to_value(join_claims("key", "den", "ada")).unwrap();
        let token = forge(&json!({ "alg": "HS256", "typ": "JWT" }), &claims, Some(b"secret"));
        assert_eq!(ApiKeys::parse("key: secret").verify(&token).unwrap().sub, "ada");
    }
}
