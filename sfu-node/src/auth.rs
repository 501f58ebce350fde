//! Verifies session tokens against the edge's published keys (RFC 7517). **A token is used once, on this node, in its room.**

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use shared::claims::{INTERNAL_LEEWAY_SECS, JwkSet, SessionClaims, TokenError, key_id, verify_session};
use shared::ids::{NodeId, RoomName, SessionKey};
use tokio::sync::Mutex;
use url::Url;

/// Token ids remembered at most; ids live a minute, so this is far above what a node opens.
const MAX_USED_TOKENS: usize = 100_000;
/// Keys taken of the edge's set.
const MAX_KEYS: usize = 16;
/// Least time between two fetches of the key set.
const REFRESH_INTERVAL: Duration = Duration::from_secs(2);
/// The same after one that failed: the edge may have come up since, and its first session must not be refused.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Longest a fetch may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest key set taken, bytes.
const MAX_JWKS_LEN: usize = 64 * 1024;

/// Why a session token is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenRefusal {
    /// Signature, algorithm, audience or expiry is wrong, or it is no token.
    #[error(transparent)]
    Invalid(#[from] TokenError),
    /// Signed with a key the edge does not publish.
    #[error("signed with an unknown key")]
    UnknownKey,
    /// For another room than the link's.
    #[error("for another room")]
    WrongRoom,
    /// Shown before.
    #[error("used before")]
    Reused,
    /// More tokens in a minute than can be remembered.
    #[error("too many tokens to remember")]
    Overloaded,
}

impl TokenRefusal {
    /// Short name for metrics.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Invalid(TokenError::BadSignature) => "bad_signature",
            Self::Invalid(TokenError::Expired | TokenError::NoExpiry | TokenError::NotYetValid) => "expired",
            Self::Invalid(TokenError::WrongAudience) => "wrong_node",
            Self::Invalid(_) => "malformed",
            Self::UnknownKey => "unknown_key",
            Self::WrongRoom => "wrong_room",
            Self::Reused => "reused",
            Self::Overloaded => "overloaded",
        }
    }
}

/// The checks, without I/O.
#[derive(Debug)]
struct Checks {
    node: NodeId,
    /// JWK `x` by key id.
    keys: HashMap<String, String>,
    /// Expiry (Unix seconds) by token id.
    used: HashMap<String, u64>,
}

impl Checks {
    fn check(&mut self, token: &str, room: &RoomName, now: u64) -> Result<SessionClaims, TokenRefusal> {
        let kid = key_id(token).ok_or(TokenError::Malformed)?;
        let key = self.keys.get(&kid).ok_or(TokenRefusal::UnknownKey)?;
        let claims = verify_session(token, key, &self.node)?;
        if claims.room != *room {
            return Err(TokenRefusal::WrongRoom);
        }
        if self.used.len() >= MAX_USED_TOKENS {
            self.used.retain(|_, expiry| expiry.saturating_add(INTERNAL_LEEWAY_SECS) >= now);
        }
        if self.used.contains_key(&claims.jti) {
            return Err(TokenRefusal::Reused);
        }
        if self.used.len() >= MAX_USED_TOKENS {
            return Err(TokenRefusal::Overloaded);
        }
        self.used.insert(claims.jti.clone(), claims.exp);
        Ok(claims)
    }
}

/// Verifies this node's session tokens.
#[derive(Debug)]
pub(crate) struct Verifier {
    url: Url,
    http: reqwest::Client,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    checks: Checks,
    /// When the keys may be fetched again.
    fetch_from: Option<Instant>,
}

impl Verifier {
    /// For tokens of `node`, with the keys at `url`.
    pub(crate) fn new(node: NodeId, url: Url, http: reqwest::Client) -> Self {
        let checks = Checks { node, keys: HashMap::new(), used: HashMap::new() };
        Self { url, http, state: Mutex::new(State { checks, fetch_from: None }) }
    }

    /// Verifies a token shown for a session in `room`, and remembers that it was used. An unknown key id makes it look
    /// for new keys once.
    ///
    /// # Errors
    /// [`TokenRefusal`].
    pub(crate) async fn verify(&self, token: &str, room: &RoomName) -> Result<SessionClaims, TokenRefusal> {
        // Held over the fetch: one fetch serves all that wait for it.
        let mut state = self.state.lock().await;
        match state.checks.check(token, room, unix_seconds()) {
            Err(TokenRefusal::UnknownKey) => {}
            result => return result,
        }
        self.refresh(&mut state).await;
        state.checks.check(token, room, unix_seconds())
    }

    /// Fetches the keys now, so that the first session does not wait for them.
    pub(crate) async fn prefetch(&self) {
        self.refresh(&mut *self.state.lock().await).await;
    }

    async fn refresh(&self, state: &mut State) {
        if state.fetch_from.is_some_and(|from| Instant::now() < from) {
            return;
        }
        let fetched = self.fetch().await;
        let wait = if fetched.is_ok() { REFRESH_INTERVAL } else { RETRY_INTERVAL };
        state.fetch_from = Some(Instant::now() + wait);
        match fetched {
            Ok(set) => {
                state.checks.keys = set.keys.into_iter().take(MAX_KEYS).map(|key| (key.kid, key.x)).collect();
                tracing::debug!(keys = state.checks.keys.len(), "fetched the edge's keys");
            }
            Err(error) => tracing::warn!(%error, "cannot fetch the edge's keys"),
        }
    }

    async fn fetch(&self) -> Result<JwkSet, FetchError> {
        let mut response = self.http.get(self.url.clone()).timeout(FETCH_TIMEOUT).send().await?.error_for_status()?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_JWKS_LEN {
                return Err(FetchError::TooLong);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("longer than {MAX_JWKS_LEN} bytes")]
    TooLong,
    #[error("not a key set: {0}")]
    Syntax(#[from] serde_json::Error),
}

/// Which session a refused token speaks of, so that the room can tell; **unverified**.
pub(crate) fn claimed_session(token: &str) -> Option<SessionKey> {
    #[derive(Clone, serde::Deserialize)]
    struct Claimed {
        sub: shared::ids::ParticipantSid,
        generation: shared::ids::Generation,
    }
    let claimed = jsonwebtoken::dangerous::insecure_decode::<Claimed>(token).ok()?.claims;
    Some(SessionKey { participant: claimed.sub, generation: claimed.generation })
}

/// Now, Unix seconds.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests;
