//! Access tokens on requests: where they stand, whether they let in. Texts are LiveKit's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shared::claims::{AccessClaims, ApiKeys};
use shared::ids::{IdError, Identity, RoomName};
use subtle::ConstantTimeEq;

use super::token_request::Caller;
use crate::refusal::{Reason, Refusal};

const NO_PERMISSIONS: &str = "no permissions to access the room";

/// The bearer token of a request: the header, else the query. `None`: there is neither.
///
/// # Errors
/// 401 when the header is there and is no bearer token.
pub fn bearer<'a>(authorization: Option<&'a str>, query: Option<&'a str>) -> Result<Option<&'a str>, Refusal> {
    match authorization {
        None => Ok(query.filter(|token| !token.is_empty())),
        Some(header) => header
            .strip_prefix("Bearer ")
            .map(Some)
            .ok_or_else(|| Refusal::new(Reason::NotBearer, "invalid authorization header. Must start with Bearer ")),
    }
}

/// Verifies the token of a join and checks all that needs no room.
///
/// # Errors
/// What LiveKit answers.
pub fn join(keys: &ApiKeys, token: Option<&str>) -> Result<(AccessClaims, RoomName), Refusal> {
    let token = token.ok_or_else(|| Refusal::new(Reason::TokenMissing, NO_PERMISSIONS))?;
    let claims = keys.verify(token).map_err(|error| Refusal::token(&error))?;
    let grant = claims.video.as_ref().ok_or_else(|| Refusal::new(Reason::GrantMissing, NO_PERMISSIONS))?;
    if !grant.room_join {
        return Err(Refusal::new(Reason::JoinNotGranted, "permissions denied"));
    }
    let room = RoomName::try_from(grant.room.as_str()).map_err(|error| match error {
        IdError::TooLong => Refusal::new(Reason::RoomNameTooLong, "room name length exceeds limits: max length 256"),
        _ => Refusal::new(Reason::RoomNameMissing, "no room name"),
    })?;
    let identity = if claims.sub.is_empty() { &claims.jti } else { &claims.sub };
    Identity::try_from(identity.as_str()).map_err(|error| match error {
        IdError::TooLong => {
            Refusal::new(Reason::IdentityTooLong, "participant identity length exceeds limits: max length 256")
        }
        _ => Refusal::new(Reason::IdentityMissing, "identity cannot be empty"),
    })?;
    Ok((claims, room))
}

/// Verifies the token of a call of the server API; which grants it wants is the method's to say.
///
/// # Errors
/// What LiveKit answers.
pub fn server(keys: &ApiKeys, authorization: Option<&str>) -> Result<AccessClaims, Refusal> {
    let token = bearer(authorization, None)?;
    let token = token.ok_or_else(|| Refusal::new(Reason::TokenMissing, "permissions denied"))?;
    keys.verify(token).map_err(|error| Refusal::token(&error))
}

/// Verifies the token of an agent worker.
///
/// # Errors
/// What LiveKit answers.
pub fn agent_worker(keys: &ApiKeys, token: Option<&str>) -> Result<(), Refusal> {
    let token = token.ok_or_else(|| Refusal::new(Reason::TokenMissing, NO_PERMISSIONS))?;
    let claims = keys.verify(token).map_err(|error| Refusal::token(&error))?;
    let granted = claims.video.is_some_and(|grant| grant.agent);
    granted.then_some(()).ok_or_else(|| Refusal::new(Reason::AgentNotGranted, NO_PERMISSIONS))
}

/// `publish`, the second connection of very old clients: another identity that only publishes.
///
/// # Errors
/// 401 without `canPublish`.
pub fn publish_only(claims: &mut AccessClaims, suffix: &str) -> Result<(), Refusal> {
    let grant = claims.video.as_mut().filter(|grant| grant.can_publish != Some(false));
    let grant = grant.ok_or_else(|| Refusal::new(Reason::PublishNotGranted, NO_PERMISSIONS))?;
    grant.can_subscribe = Some(false);
    claims.sub = format!("{}#{suffix}", claims.sub);
    Ok(())
}

/// Who asks for tokens. Without an `Authorization` header: anybody, where meetings are open.
///
/// # Errors
/// 401 or 403 with the reason.
pub fn caller(keys: &ApiKeys, authorization: Option<&str>, open_meetings: bool) -> Result<Caller, Refusal> {
    match authorization {
        Some(authorization) => minter(keys, authorization),
        None if open_meetings => {
            let first = keys.first().map(|(key, _)| key.to_owned());
            first.map(Caller::Anybody).ok_or_else(|| Refusal::new(Reason::NotConfigured, "no API key"))
        }
        None => {
            let text = "an API key and secret, or a token with roomCreate, is required";
            Err(Refusal::new(Reason::TokenMissing, text))
        }
    }
}

/// Whether a caller may mint tokens: HTTP Basic with an API key and its secret, or a token with `roomCreate`.
/// Says who it is.
///
/// # Errors
/// 401 or 403 with the reason.
fn minter(keys: &ApiKeys, authorization: &str) -> Result<Caller, Refusal> {
    if let Some(credentials) = authorization.strip_prefix("Basic ") {
        return basic(keys, credentials)
            .map(Caller::Key)
            .ok_or_else(|| Refusal::new(Reason::CredentialsWrong, "invalid API key or secret"));
    }
    let token = bearer(Some(authorization), None)?.unwrap_or_default();
    let claims = keys.verify(token).map_err(|error| Refusal::token(&error))?;
    let grant = claims.video.filter(|grant| grant.room_create);
    let grant = grant.ok_or_else(|| Refusal::new(Reason::CreateNotGranted, "the token does not grant roomCreate"))?;
    Ok(Caller::Token { key: claims.iss, grant: Box::new(grant) })
}

fn basic(keys: &ApiKeys, credentials: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?;
    let (key, secret) = text.split_once(':')?;
    // An unknown key costs as long as a wrong secret.
    let expected = keys.secret(key);
    let equal = bool::from(secret.as_bytes().ct_eq(expected.unwrap_or("\0").as_bytes()));
    (equal && expected.is_some()).then(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use shared::claims::VideoGrant;

    use super::*;

    fn keys() -> ApiKeys {
        ApiKeys::parse("devkey: secret")
    }

    fn token(sub: &str, video: Option<VideoGrant>) -> String {
        let claims = AccessClaims {
            iss: "devkey".into(),
            sub: sub.into(),
            exp: 4_000_000_000,
            video,
            ..AccessClaims::default()
        };
        keys().mint(&claims).unwrap()
    }

    fn grant(room: &str) -> Option<VideoGrant> {
        Some(VideoGrant { room_join: true, room: room.into(), ..VideoGrant::default() })
    }

    fn refused(token: Option<&str>) -> (Reason, String) {
        let refusal = join(&keys(), token).unwrap_err();
        (refusal.reason, refusal.text)
    }

    #[test]
    fn a_good_token_names_its_room() {
        let (claims, room) = join(&keys(), Some(&token("ada", grant("den")))).unwrap();
        assert_eq!((claims.sub.as_str(), room.as_str()), ("ada", "den"));
    }

    #[test]
    fn refusals_are_livekits() {
        let long = "x".repeat(257);
        let cases = [
            (None, Reason::TokenMissing, "no permissions to access the room"),
            (Some("abc".to_owned()), Reason::TokenMalformed, "invalid authorization token"),
            (Some(token("ada", None)), Reason::GrantMissing, "no permissions to access the room"),
            (
                Some(token("ada", Some(VideoGrant { room: "den".into(), ..VideoGrant::default() }))),
                Reason::JoinNotGranted,
                "permissions denied",
            ),
            (Some(token("ada", grant(""))), Reason::RoomNameMissing, "no room name"),
            (
                Some(token("ada", grant(&long))),
                Reason::RoomNameTooLong,
                "room name length exceeds limits: max length 256",
            ),
            (Some(token("", grant("den"))), Reason::IdentityMissing, "identity cannot be empty"),
            (
                Some(token(&long, grant("den"))),
                Reason::IdentityTooLong,
                "participant identity length exceeds limits: max length 256",
            ),
        ];
        for (token, reason, text) in cases {
            assert_eq!(refused(token.as_deref()), (reason, text.to_owned()));
        }
    }

    #[test]
    fn workers_need_the_agent_grant() {
        let agent = VideoGrant { agent: true, ..VideoGrant::default() };
        assert_eq!(agent_worker(&keys(), Some(&token("", Some(agent)))), Ok(()));
        for (refused, reason) in [
            (None, Reason::TokenMissing),
            (Some(token("", grant("den"))), Reason::AgentNotGranted),
            (Some(token("", None)), Reason::AgentNotGranted),
            (Some("abc".to_owned()), Reason::TokenMalformed),
        ] {
            assert_eq!(agent_worker(&keys(), refused.as_deref()).unwrap_err().reason, reason);
        }
    }

    #[test]
    fn the_header_wins_and_must_be_bearer() {
        assert_eq!(bearer(Some("Bearer a"), Some("b")), Ok(Some("a")));
        assert_eq!(bearer(None, Some("b")), Ok(Some("b")));
        assert_eq!(bearer(None, Some("")), Ok(None));
        let refusal = bearer(Some("Basic a"), Some("b")).unwrap_err();
        assert_eq!(refusal, Refusal::new(Reason::NotBearer, "invalid authorization header. Must start with Bearer "));
    }

    #[test]
    fn publish_only_needs_can_publish() {
        let (mut claims, _) = join(&keys(), Some(&token("ada", grant("den")))).unwrap();
        publish_only(&mut claims, "screen").unwrap();
        assert_eq!(claims.sub, "ada#screen");
        let video = claims.video.as_mut().unwrap();
        assert_eq!(video.can_subscribe, Some(false));
        video.can_publish = Some(false);
        assert_eq!(publish_only(&mut claims, "x").unwrap_err().reason, Reason::PublishNotGranted);
    }

    #[test]
    fn who_shows_nothing_gets_tokens_only_where_meetings_are_open() {
        assert_eq!(caller(&keys(), None, true), Ok(Caller::Anybody("devkey".into())));
        assert_eq!(caller(&keys(), None, false).unwrap_err().reason, Reason::TokenMissing);
        // Who shows something wrong is nobody's anybody.
        let wrong = format!("Basic {}", STANDARD.encode("devkey:guess"));
        assert_eq!(caller(&keys(), Some(&wrong), true).unwrap_err().reason, Reason::CredentialsWrong);
        let right = format!("Basic {}", STANDARD.encode("devkey:secret"));
        assert_eq!(caller(&keys(), Some(&right), false), Ok(Caller::Key("devkey".into())));
    }

    #[test]
    fn who_may_mint() {
        let basic = |text: &str| minter(&keys(), &format!("Basic {}", STANDARD.encode(text)));
        assert_eq!(basic("devkey:secret"), Ok(Caller::Key("devkey".into())));
        for wrong in ["devkey:secre", "devkey:", "other:secret", "other:\0", "devkey"] {
            assert_eq!(basic(wrong).unwrap_err().reason, Reason::CredentialsWrong, "{wrong}");
        }
        let creates = VideoGrant { room_create: true, ..VideoGrant::default() };
        let create = token("app", Some(creates.clone()));
        let caller = Caller::Token { key: "devkey".into(), grant: Box::new(creates) };
        assert_eq!(minter(&keys(), &format!("Bearer {create}")), Ok(caller));
        let joiner = token("ada", grant("den"));
        assert_eq!(minter(&keys(), &format!("Bearer {joiner}")).unwrap_err().reason, Reason::CreateNotGranted);
        assert_eq!(minter(&keys(), "Bearer abc").unwrap_err().reason, Reason::TokenMalformed);
    }
}
