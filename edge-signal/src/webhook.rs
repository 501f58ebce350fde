//! Webhooks as LiveKit sends them: where they go, how one is signed, and when one that did not arrive goes again. **Pure:
//! times and randomness are given.** What is told is the room's (`room::webhook`).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use shared::claims::{ApiKeys, TokenError};
use url::Url;

use crate::listed::listed;

/// Content type of an event, which receivers look for.
pub const CONTENT_TYPE: &str = "application/webhook+json";
/// Most receivers of a deployment: each is told every event.
pub const MAX_RECEIVERS: usize = 8;
/// Events of a room that wait for one receiver at most; the oldest is lost to the next one.
pub const MAX_WAITING: u32 = 10_000;
/// How long an event goes again and again, milliseconds.
pub const KEPT_FOR_MS: u64 = 24 * 60 * 60 * 1000;
/// How long a receiver may take to answer, milliseconds.
pub const ANSWER_LIMIT_MS: u64 = 10_000;
/// Wait after a first failure, milliseconds (LiveKit's); it doubles with each.
const FIRST_RETRY_MS: u64 = 1_000;
/// Longest wait, milliseconds: so long a receiver that is back may wait to hear so.
const LONGEST_RETRY_MS: u64 = 5 * 60 * 1000;
/// How long a signature is good, seconds (LiveKit's).
const SIGNED_FOR_SECS: u64 = 5 * 60;

/// Where webhooks go, and whose key signs them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Webhooks {
    urls: Vec<String>,
    key: String,
}

/// What of the configuration cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not a URL of HTTP or HTTPS, or more than [`MAX_RECEIVERS`].
    #[error("not URLs that webhooks can go to")]
    Url,
    /// Not one of the API keys.
    #[error("no such API key")]
    Key,
}

/// Claims of a webhook's `Authorization`.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    nbf: u64,
    exp: u64,
    /// Base64 of the body's SHA-256.
    sha256: String,
}

impl Webhooks {
    /// Reads URLs, one a line or separated by commas or blanks, and the name of the key; the first key signs without one.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(keys: &ApiKeys, urls: Option<&str>, key: Option<&str>) -> Result<Self, Malformed> {
        let listed = listed(urls);
        let mut urls: Vec<String> = Vec::new();
        for url in listed {
            let url = Url::parse(url).map_err(|_| Malformed::Url)?;
            if !matches!(url.scheme(), "http" | "https") || urls.len() == MAX_RECEIVERS {
                return Err(Malformed::Url);
            }
            let url = String::from(url);
            if !urls.contains(&url) {
                urls.push(url);
            }
        }
        let named = key.map(str::trim).filter(|key| !key.is_empty());
        let key = named.or_else(|| Some(keys.first()?.0)).filter(|key| keys.secret(key).is_some());
        let key = key.ok_or(Malformed::Key)?.to_owned();
        Ok(Self { urls, key })
    }

    /// The receivers.
    #[must_use]
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// The `Authorization` of a body that is sent at `now_secs` (Unix seconds).
    ///
    /// # Errors
    /// [`TokenError::UnknownKey`] if these are not the keys that it was read with.
    pub fn authorization(&self, keys: &ApiKeys, body: &str, now_secs: u64) -> Result<String, TokenError> {
        let sha256 = STANDARD.encode(Sha256::digest(body));
        keys.sign(&self.key, &Claims { iss: &self.key, nbf: now_secs, exp: now_secs + SIGNED_FOR_SECS, sha256 })
    }
}

/// How long to wait after so many failures in a row (1 or more), milliseconds: twice as long each time, and up to a quarter
/// less, as `random` wants it, so that the rooms that wait for one receiver do not all come at once.
#[must_use]
pub fn retry_after_ms(failures: u32, random: u8) -> u64 {
    let longest = (FIRST_RETRY_MS << failures.saturating_sub(1).min(16)).min(LONGEST_RETRY_MS);
    longest - longest / 4 * u64::from(random) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> ApiKeys {
        ApiKeys::parse("first: one, second: two")
    }

    #[test]
    fn receivers_are_urls_and_the_first_key_signs() {
        let read = |urls, key| Webhooks::read(&keys(), urls, key);
        let two = read(Some("https://app.example/hook, http://127.0.0.1:9/x\nhttps://app.example/hook"), None).unwrap();
        assert_eq!(two.urls(), ["https://app.example/hook", "http://127.0.0.1:9/x"]);
        assert_eq!((two.key.as_str(), read(None, Some("second")).unwrap().key.as_str()), ("first", "second"));
        assert_eq!(read(None, None).unwrap().urls(), [""; 0]);
        for bad in ["app.example", "ftp://app.example", "https://"] {
            assert_eq!(read(Some(bad), None), Err(Malformed::Url));
        }
        let many: String = (0..=MAX_RECEIVERS).map(|n| format!("https://app.example/{n} ")).collect();
        assert_eq!(read(Some(&many), None), Err(Malformed::Url));
        assert_eq!(read(None, Some("third")), Err(Malformed::Key));
    }

    #[test]
    fn a_signature_names_the_body_and_lets_nobody_in() {
        let token = Webhooks::read(&keys(), None, None).unwrap().authorization(&keys(), "{}", u64::MAX / 4).unwrap();
        let claims = keys().verify(&token);
        assert!(claims.is_err(), "not valid yet");
        let payload = token.split('.').nth(1).unwrap();
        let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        // printf '{}' | openssl dgst -sha256 -binary | base64
        assert_eq!(claims["sha256"], "RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=");
        assert_eq!((&claims["iss"], claims.get("video")), (&"first".into(), None));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), SIGNED_FOR_SECS);
    }

    #[test]
    fn waits_double_up_to_a_limit() {
        let waits: Vec<u64> = [0, 1, 2, 3, 9, 10, 40, u32::MAX].map(|failures| retry_after_ms(failures, 0)).into();
        assert_eq!(waits, [1_000, 1_000, 2_000, 4_000, 256_000, 300_000, 300_000, 300_000]);
        assert_eq!((retry_after_ms(2, 255), retry_after_ms(99, 255)), (1_500, 225_000));
    }
}
