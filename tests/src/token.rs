//! Access tokens as an app server would mint them, and the broken ones the tests need.

use std::time::{SystemTime, UNIX_EPOCH};

use shared::claims::{AccessClaims, ApiKeys, TokenError, VideoGrant};

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

/// A token for `identity` in `room`, signed with the deployment's first key.
///
/// # Errors
/// [`TokenError::UnknownKey`] when `keys` is empty.
pub fn join_token(keys: &ApiKeys, room: &str, identity: &str) -> Result<String, TokenError> {
    let (key, _) = keys.first().ok_or(TokenError::UnknownKey)?;
    keys.mint(&join_claims(key, room, identity))
}
