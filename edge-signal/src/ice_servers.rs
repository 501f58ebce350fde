//! ICE servers that clients are told of: STUN, and TURN for networks without UDP. Credentials are of the scheme that TURN
//! servers call shared or static secret (`draft-uberti-behave-turn-rest-00`): the server needs no list of users. **Pure.**

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use livekit_protocol as proto;
use sha1::Sha1;
use url::Url;

use crate::listed::listed;

/// Most servers of a kind: clients gather candidates of each.
pub const MAX_URLS: usize = 8;
/// How long credentials are good, seconds: TURN servers ask for them again in mid-call, so longer than calls last.
pub const CREDENTIALS_TTL_SECS: u64 = 24 * 60 * 60;

/// STUN and TURN servers of a deployment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IceServers {
    stun: Vec<String>,
    turn: Vec<String>,
    secret: String,
}

/// What of the configuration cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Not `stun:` URLs (RFC 7064), or more than [`MAX_URLS`]: browsers refuse to connect at all with one that is wrong.
    #[error("not stun: URLs")]
    Stun,
    /// Not `turn:` or `turns:` URLs (RFC 7065), or more than [`MAX_URLS`].
    #[error("not turn: URLs")]
    Turn,
    /// TURN servers without a secret that they share.
    #[error("no secret")]
    Secret,
}

impl IceServers {
    /// Reads URLs, one a line or separated by commas or blanks, and the secret that the TURN servers share.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn read(stun: Option<&str>, turn: Option<&str>, secret: Option<&str>) -> Result<Self, Malformed> {
        let stun = urls(stun, &["stun"]).ok_or(Malformed::Stun)?;
        let turn = urls(turn, &["turn", "turns"]).ok_or(Malformed::Turn)?;
        let secret = secret.unwrap_or_default().trim().to_owned();
        if !turn.is_empty() && secret.is_empty() {
            return Err(Malformed::Secret);
        }
        Ok(Self { stun, turn, secret })
    }

    /// As `JoinResponse` and `ReconnectResponse` list them, with credentials of `user`'s own, made at `now_secs` (Unix
    /// seconds).
    #[must_use]
    pub fn of(&self, user: &str, now_secs: u64) -> Vec<proto::IceServer> {
        let mut servers = Vec::new();
        if !self.stun.is_empty() {
            servers.push(proto::IceServer { urls: self.stun.clone(), ..Default::default() });
        }
        if !self.turn.is_empty() {
            let username = format!("{}:{user}", now_secs.saturating_add(CREDENTIALS_TTL_SECS));
            let credential = self.credential(&username);
            servers.push(proto::IceServer { urls: self.turn.clone(), username, credential });
        }
        servers
    }

    fn credential(&self, username: &str) -> String {
        // HMAC takes keys of any length (RFC 2104 section 2).
        let mac = Hmac::<Sha1>::new_from_slice(self.secret.as_bytes()).map(|mac| mac.chain_update(username));
        mac.map(|mac| STANDARD.encode(mac.finalize().into_bytes())).unwrap_or_default()
    }
}

/// Whether media can go through a TURN server of these.
#[must_use]
pub fn has_relay(servers: &[proto::IceServer]) -> bool {
    servers.iter().any(|server| !server.credential.is_empty())
}

/// URLs of these schemes, as they were written; `None`: one is malformed, or there are too many.
fn urls(text: Option<&str>, schemes: &[&str]) -> Option<Vec<String>> {
    let mut urls: Vec<String> = Vec::new();
    for url in listed(text) {
        let (scheme, rest) = url.split_once(':')?;
        // They have no `//`; with it, host, port and query are where every URL has them.
        let parsed = Url::parse(&format!("{scheme}://{rest}")).ok()?;
        let transport = match parsed.query() {
            None => true,
            Some(query) => scheme != "stun" && matches!(query, "transport=udp" | "transport=tcp"),
        };
        let bare = parsed.path().is_empty() && parsed.username().is_empty() && parsed.fragment().is_none();
        let has_host = parsed.host_str().is_some_and(|host| !host.is_empty());
        if !(schemes.contains(&scheme) && transport && bare && has_host) || urls.len() == MAX_URLS {
            return None;
        }
        urls.push(url.to_owned());
    }
    Some(urls)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: &str = "turn:turn.example.com:3478?transport=tcp, turns:[2001:db8::1]:443\nturn:turn.example.com";

    #[test]
    fn urls_are_those_that_browsers_take() {
        let read = IceServers::read(Some("stun:stun.example.com:3478"), Some(TURN), Some("s")).unwrap();
        assert_eq!(read.stun, ["stun:stun.example.com:3478"]);
        let turn = ["turn:turn.example.com:3478?transport=tcp", "turns:[2001:db8::1]:443", "turn:turn.example.com"];
        assert_eq!(read.turn, turn);
        for bad in ["turn.example.com", "https://turn.example.com", "stun://host", "stun:host?transport=udp", "stun:"] {
            assert_eq!(IceServers::read(Some(bad), None, None), Err(Malformed::Stun), "{bad}");
        }
        for bad in ["stun:host", "turn:host?transport=tls", "turn:host:port", "turn:host/path", "turn:u@host", "turn:"]
        {
            assert_eq!(IceServers::read(None, Some(bad), Some("s")), Err(Malformed::Turn), "{bad}");
        }
        let many = "turn:host ".repeat(MAX_URLS + 1);
        assert_eq!(IceServers::read(None, Some(&many), Some("s")), Err(Malformed::Turn));
        assert_eq!(IceServers::read(None, Some(TURN), Some(" ")), Err(Malformed::Secret));
    }

    #[test]
    fn credentials_are_what_a_turn_server_computes() {
        let servers = IceServers::read(None, Some("turn:host"), Some("north")).unwrap().of("PA_1", 1_400_000_000);
        assert_eq!(servers[0].username, "1400086400:PA_1");
        // printf 1400086400:PA_1 | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(servers[0].credential, "VI/sosBg+4/h3jftR8sg8TjlSJk=");
        assert!(has_relay(&servers));
        let stun = IceServers::read(Some("stun:host"), None, None).unwrap().of("PA_1", 0);
        assert!(!has_relay(&stun) && stun.len() == 1);
        assert!(IceServers::default().of("PA_1", 0).is_empty());
    }
}
