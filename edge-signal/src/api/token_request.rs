//! `POST /token`: LiveKit's TokenSource request as the claims of an access token.

use std::collections::BTreeMap;

use livekit_protocol::RoomConfiguration;
use serde::{Deserialize, Serialize};
use shared::claims::{AccessClaims, VideoGrant};
use shared::ids::{IdError, Identity, MAX_NAME_LEN, RANDOM_LEN, RoomName, random_part};

use super::json;
use crate::refusal::{Reason, Refusal};
use crate::report::Report;
use crate::room::configuration as room;

mod grants;

pub use grants::Grants;

/// Most bytes of a request body.
pub const MAX_BODY: usize = 64 * 1024;
/// Life of a token that asks for none, seconds.
pub const DEFAULT_TTL_SECS: u64 = 60 * 60;
/// Longest life of a token, seconds.
pub const MAX_TTL_SECS: u64 = 24 * 60 * 60;
/// Longest life of a token that anybody can have (`OPEN_MEETINGS`), seconds. A client in a room gets fresh ones.
pub const OPEN_TTL_SECS: u64 = 10 * 60;

/// The body. Every field may be left out.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct TokenRequest {
    room_name: Option<String>,
    participant_name: Option<String>,
    participant_identity: Option<String>,
    participant_metadata: Option<String>,
    participant_attributes: BTreeMap<String, String>,
    room_config: Option<RoomConfiguration>,
    /// Ours: seconds the token shall live.
    #[serde(deserialize_with = "json::whole")]
    ttl: Option<u64>,
    /// Ours: what it allows beyond joining.
    #[serde(deserialize_with = "json::object")]
    grants: Grants,
    /// Ours: it lets in once.
    single_use: bool,
}

/// The answer, as LiveKit's TokenSource clients read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TokenResponse {
    /// `ws(s)://…`.
    pub server_url: String,
    /// The access token.
    pub participant_token: String,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// Holds this API key.
    Key(String),
    /// Holds a token made with it.
    Token {
        /// The API key.
        key: String,
        /// What the token grants.
        grant: Box<VideoGrant>,
    },
    /// Nobody known, where meetings are open; tokens are made with this API key.
    Anybody(String),
}

/// Time and randomness of a request.
#[derive(Debug, Clone, Copy)]
pub struct Chance {
    /// Unix seconds.
    pub now: u64,
    /// For the token's id and the names that are left out.
    pub random: [u8; 3 * RANDOM_LEN],
}

/// A token to mint, and what is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Minted {
    /// The claims.
    pub claims: AccessClaims,
    /// Who asked: `key`, `token` or `anybody`.
    by: &'static str,
    /// What it grants that is more than a participant's own.
    powers: Vec<&'static str>,
    /// How long it lives, seconds.
    ttl: u64,
}

impl Minted {
    /// The line of the audit log. **It has the token's id, which is in the token, and nobody's name.**
    #[must_use]
    pub fn report(&self) -> Report<'_> {
        Report::Minted {
            token: &self.claims.jti,
            api_key: &self.claims.iss,
            by: self.by,
            powers: &self.powers,
            single_use: self.claims.single_use,
            seconds: self.ttl,
        }
    }
}

impl TokenRequest {
    /// Reads a body; an empty one asks for all defaults.
    ///
    /// # Errors
    /// 400 or 413 with the reason.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        if body.len() > MAX_BODY {
            return Err(Refusal::new(Reason::BodyTooLarge, "the request is longer than 65536 bytes"));
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        json::parse(body).map_err(|error| Refusal::new(Reason::BodyMalformed, &format!("malformed request: {error}")))
    }

    /// What it gets.
    ///
    /// # Errors
    /// 400 or 403 with the reason.
    pub fn mint(self, caller: Caller, chance: Chance) -> Result<Minted, Refusal> {
        let (key, by, max_ttl, own) = match caller {
            Caller::Key(key) => (key, "key", MAX_TTL_SECS, None),
            Caller::Token { key, grant } => (key, "token", MAX_TTL_SECS, Some(*grant)),
            Caller::Anybody(key) => (key, "anybody", OPEN_TTL_SECS, Some(VideoGrant::default())),
        };
        let ttl = match self.ttl {
            None => DEFAULT_TTL_SECS.min(max_ttl),
            Some(ttl) if (1..=max_ttl).contains(&ttl) => ttl,
            Some(_) => return Err(Refusal::new(Reason::TtlOutOfRange, &format!("ttl must be 1 to {max_ttl} seconds"))),
        };
        let (for_room, rest) = chance.random.split_at(RANDOM_LEN);
        let (for_identity, for_id) = rest.split_at(RANDOM_LEN);
        let room = given(self.room_name).unwrap_or_else(|| format!("room-{}", random_text(for_room)));
        let room = RoomName::try_from(room).map_err(|error| bad(Reason::RoomNameTooLong, "room_name", &error))?;
        let identity =
            given(self.participant_identity).unwrap_or_else(|| format!("participant-{}", random_text(for_identity)));
        let identity = Identity::try_from(identity)
            .map_err(|error| bad(Reason::IdentityTooLong, "participant_identity", &error))?;
        let name = given(self.participant_name).unwrap_or_default();
        if name.len() > MAX_NAME_LEN {
            return Err(bad(Reason::NameTooLong, "participant_name", &IdError::TooLong));
        }
        if self.room_config.as_ref().is_some_and(|config| config.egress.is_some()) {
            let text = "room_config: egress is not implemented: ask without";
            return Err(Refusal::new(Reason::RoomConfigUnsupported, text));
        }
        let malformed =
            |error: &dyn std::fmt::Display| Refusal::new(Reason::RoomConfigMalformed, &format!("room_config: {error}"));
        let check = |config: &RoomConfiguration| room::check(config).map_err(|error| malformed(&error.text));
        self.room_config.as_ref().map(check).transpose()?;
        let written = |config: &RoomConfiguration| serde_json::from_str(&serde_json::to_string(config)?);
        let room_config = self.room_config.as_ref().map(written).transpose();
        let room_config = room_config.map_err(|error: serde_json::Error| malformed(&error))?;
        if let Some(power) = own.and_then(|own| self.grants.beyond(&own, room.as_str())) {
            return Err(Refusal::new(Reason::GrantNotAllowed, &format!("you may not grant {power}")));
        }
        let powers = self.grants.powers();
        let claims = AccessClaims {
            iss: key,
            sub: identity.into(),
            jti: random_text(for_id),
            name,
            metadata: self.participant_metadata.unwrap_or_default(),
            attributes: self.participant_attributes,
            nbf: Some(chance.now),
            iat: Some(chance.now),
            exp: chance.now.saturating_add(ttl),
            video: Some(self.grants.in_room(room.into())),
            room_config,
            single_use: self.single_use,
            ..AccessClaims::default()
        };
        Ok(Minted { claims, by, powers, ttl })
    }
}

fn given(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

fn bad(reason: Reason, field: &str, error: &IdError) -> Refusal {
    Refusal::new(reason, &format!("{field}: {error}"))
}

fn random_text(bytes: &[u8]) -> String {
    let mut random = [0; RANDOM_LEN];
    random.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
    random_part(random)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHANCE: Chance = Chance { now: 1_000, random: [7; 3 * RANDOM_LEN] };

    fn claims(body: &str) -> Result<AccessClaims, Refusal> {
        let minted = TokenRequest::parse(body.as_bytes())?.mint(Caller::Key("devkey".into()), CHANCE);
        minted.map(|minted| minted.claims)
    }

    #[test]
    fn an_empty_request_gets_defaults() {
        let claims = claims("").unwrap();
        assert_eq!((claims.iss.as_str(), claims.exp), ("devkey", 1_000 + DEFAULT_TTL_SECS));
        assert!(claims.sub.starts_with("participant-"));
        let grant = claims.video.unwrap();
        assert!(grant.room_join && grant.room.starts_with("room-") && !grant.room_create && !grant.room_admin);
        assert_eq!((claims.jti.len(), claims.iat, claims.single_use), (RANDOM_LEN, Some(1_000), false));
    }

    #[test]
    fn what_is_asked_is_in_the_token() {
        let claims = claims(
            r#"{"room_name":"den","participant_name":"Ada","participant_identity":"ada","participant_metadata":"m",
            "participant_attributes":{"a":"b"},"ttl":60,"room_config":{"empty_timeout":9},"something_new":1}"#,
        )
        .unwrap();
        assert_eq!([&*claims.sub, &*claims.name, &*claims.metadata], ["ada", "Ada", "m"]);
        assert_eq!(claims.video.unwrap().room, "den");
        assert_eq!(claims.attributes.get("a").map(String::as_str), Some("b"));
        assert_eq!(claims.exp, 1_060);
        assert_eq!(claims.room_config.unwrap()["emptyTimeout"], 9);
    }

    #[test]
    fn limits() {
        let refused = |body: &str| claims(body).unwrap_err();
        assert_eq!(refused(r#"{"ttl":0}"#).reason, Reason::TtlOutOfRange);
        assert_eq!(refused(&format!(r#"{{"ttl":{}}}"#, MAX_TTL_SECS + 1)).text, "ttl must be 1 to 86400 seconds");
        assert_eq!(refused(&format!(r#"{{"room_name":"{}"}}"#, "x".repeat(257))).reason, Reason::RoomNameTooLong);
        assert_eq!(refused(&format!(r#"{{"participant_name":"{}"}}"#, "x".repeat(257))).reason, Reason::NameTooLong);
        for malformed in ["[", "[]", r#"{"grants":[]}"#, r#"{"ttl":1.5}"#, r#"{"ttl":"60"}"#] {
            assert_eq!(refused(malformed).reason, Reason::BodyMalformed, "{malformed}");
        }
        let recorded = r#"{"room_config":{"egress":{"room":{"room_name":"r"}}}}"#;
        assert_eq!(refused(recorded).reason, Reason::RoomConfigUnsupported);
        let delayed = refused(r#"{"room_config":{"min_playout_delay":20000}}"#);
        assert_eq!(delayed.reason, Reason::RoomConfigMalformed);
        assert_eq!(delayed.text, "room_config: playout delays are at most 10000 ms");
        assert_eq!(refused(r#"{"room_name":5}"#).reason, Reason::BodyMalformed);
        assert_eq!(refused(r#"{"grants":{"canPublsh":false}}"#).reason, Reason::BodyMalformed);
        assert_eq!(refused(&" ".repeat(MAX_BODY + 1)).reason, Reason::BodyTooLarge);
    }

    #[test]
    fn anybodys_token_is_short() {
        let mint =
            |body: &str| TokenRequest::parse(body.as_bytes()).unwrap().mint(Caller::Anybody("devkey".into()), CHANCE);
        assert_eq!(mint("").unwrap().claims.exp, 1_000 + OPEN_TTL_SECS);
        assert_eq!(mint(r#"{"ttl":3600}"#).unwrap_err().reason, Reason::TtlOutOfRange);
        assert_eq!(mint(r#"{"grants":{"roomAdmin":true}}"#).unwrap_err().text, "you may not grant roomAdmin");
    }

    #[test]
    fn a_token_gives_what_it_has() {
        let grant = VideoGrant { room_create: true, room_admin: true, room: "den".into(), ..VideoGrant::default() };
        let mint = |body: &str| {
            let caller = Caller::Token { key: "devkey".into(), grant: Box::new(grant.clone()) };
            TokenRequest::parse(body.as_bytes()).unwrap().mint(caller, CHANCE)
        };
        let admin = mint(r#"{"room_name":"den","grants":{"roomAdmin":true,"canPublish":false},"single_use":true}"#);
        let admin = admin.unwrap();
        let video = admin.claims.video.clone().unwrap();
        assert!(video.room_admin && video.can_publish == Some(false) && admin.claims.single_use);
        let other = mint(r#"{"room_name":"attic","grants":{"roomAdmin":true}}"#).unwrap_err();
        assert_eq!((other.reason, other.text.as_str()), (Reason::GrantNotAllowed, "you may not grant roomAdmin"));
        let report = admin.report();
        let told = Report::Minted {
            token: &admin.claims.jti,
            api_key: "devkey",
            by: "token",
            powers: &["roomAdmin"],
            single_use: true,
            seconds: DEFAULT_TTL_SECS,
        };
        assert_eq!(report, told);
    }
}
