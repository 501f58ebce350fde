use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::*;

const KEYS: &str = "devkey: secret\nother: another-secret";
/// RFC 8037 appendix A.1.
const JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","kid":"k1","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
/// RFC 8032 section 7.1, test 2.
const OTHER_SEED: [u8; 32] = [
    0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11, 0x4e, 0x0f, 0x5b, 0x8a, 0x31,
    0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed, 0x4f, 0xb8, 0xa6, 0xfb,
];
const OTHER_PUBLIC: [u8; 32] = [
    0x3d, 0x40, 0x17, 0xc3, 0xe8, 0x43, 0x89, 0x5a, 0x92, 0xb7, 0x0a, 0xa7, 0x4d, 0x1b, 0x7e, 0xbc, 0x9c, 0x98, 0x2c,
    0xcf, 0x2e, 0xc4, 0x96, 0x8c, 0xc0, 0xcd, 0x55, 0xf1, 0x2a, 0xf4, 0x66, 0x0c,
];

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn edge_key() -> SigningKey {
    SigningKey::from_jwk(JWK).unwrap()
}

fn other_key() -> SigningKey {
    SigningKey::try_from(&PrivateJwk::new("k2".into(), &OTHER_SEED, &OTHER_PUBLIC)).unwrap()
}

fn node() -> NodeId {
    NodeId::try_from("ND_abcdefghijkm").unwrap()
}

fn access(claims: &Value) -> String {
    hs256(claims, "secret")
}

fn hs256(claims: &Value, secret: &str) -> String {
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

fn unsigned(claims: &Value) -> String {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
    format!("{header}.{}.", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

fn verify(token: &str) -> Result<AccessClaims, TokenError> {
    ApiKeys::parse(KEYS).verify(token)
}

fn session_claims() -> SessionClaims {
    SessionClaims {
        aud: node(),
        room: RoomName::try_from("room").unwrap(),
        sub: ParticipantSid::try_from("PA_abcdefghijkm").unwrap(),
        identity: Identity::try_from("ada").unwrap(),
        generation: Generation(3),
        grants: MediaGrants { can_publish_data: false, ..MediaGrants::all() },
        jti: "once".into(),
        exp: now() + SESSION_TTL_SECS,
    }
}

#[test]
fn api_keys_in_both_forms() {
    let keys = ApiKeys::parse(": nobody's\na: s1, b:s2\nbroken\n c : s3 \nd:");
    assert_eq!(keys.first(), Some(("a", "s1")));
    assert_eq!(keys.secret("b"), Some("s2"));
    assert_eq!(keys.secret("c"), Some("s3"));
    assert_eq!(keys.secret("broken"), None);
    assert_eq!(keys.secret("d"), None);
    assert_eq!(keys.secret(""), None, "a token without an issuer must not find a secret");
}

#[test]
fn access_token_round_trips() {
    let claims = AccessClaims {
        iss: "devkey".into(),
        sub: "ada".into(),
        exp: now() + 60,
        name: "Ada".into(),
        attributes: BTreeMap::from([("k".into(), "v".into())]),
        video: Some(VideoGrant {
            room_join: true,
            room: "room".into(),
            can_publish: Some(false),
            ..VideoGrant::default()
        }),
        ..AccessClaims::default()
    };
    let token = ApiKeys::parse(KEYS).mint(&claims).unwrap();
    assert_eq!(verify(&token), Ok(claims));
}

#[test]
fn a_token_says_only_what_it_grants() {
    let grant = VideoGrant { room_join: true, room: "den".into(), ..VideoGrant::default() };
    assert_eq!(serde_json::to_value(grant).unwrap(), json!({ "roomJoin": true, "room": "den" }));
}

#[test]
fn access_token_refusals_carry_livekits_texts() {
    let (past, ahead) = (now() - ACCESS_LEEWAY_SECS - 5, now() + ACCESS_LEEWAY_SECS + 5);
    let cases: Vec<(&str, String, &str)> = vec![
        ("not a token", "abc".into(), "invalid authorization token"),
        (
            "wrong secret",
            hs256(&json!({"iss": "devkey", "exp": ahead}), "guess"),
            "invalid authorization token: token signature is invalid: signature is invalid",
        ),
        (
            "another key's secret",
            hs256(&json!({"iss": "devkey", "exp": ahead}), "another-secret"),
            "invalid authorization token: token signature is invalid: signature is invalid",
        ),
        (
            "expired",
            access(&json!({"iss": "devkey", "exp": past})),
            "invalid authorization token: token has invalid claims: token is expired",
        ),
        (
            "not valid yet",
            access(&json!({"iss": "devkey", "exp": ahead + 60, "nbf": ahead})),
            "invalid authorization token: token has invalid claims: token is not valid yet",
        ),
        (
            "no expiry",
            access(&json!({"iss": "devkey"})),
            "invalid authorization token: token has invalid claims: token is missing required claim: exp claim is required",
        ),
        ("unknown key", access(&json!({"iss": "nobody", "exp": ahead})), "invalid API key"),
        ("no key", access(&json!({"exp": ahead})), "invalid API key"),
    ];
    for (case, token, text) in cases {
        assert_eq!(verify(&token).unwrap_err().to_string(), text, "{case}");
    }
}

#[test]
fn access_token_leeway_is_a_minute_either_way() {
    let claims = json!({"iss": "devkey", "exp": now() - ACCESS_LEEWAY_SECS + 5, "nbf": now() + ACCESS_LEEWAY_SECS - 5});
    assert!(verify(&access(&claims)).is_ok());
}

#[test]
fn no_other_algorithm_opens_the_door() {
    let claims = json!({"iss": "devkey", "exp": now() + 60, "video": {"roomJoin": true, "room": "r"}});
    assert!(verify(&unsigned(&claims)).is_err(), "alg none");
    assert_eq!(verify(&edge_key().sign(&claims).unwrap()), Err(TokenError::BadSignature), "EdDSA");
    let hs512 = jsonwebtoken::encode(&Header::new(Algorithm::HS512), &claims, &EncodingKey::from_secret(b"secret"));
    assert_eq!(verify(&hs512.unwrap()), Err(TokenError::BadSignature), "HS512 with the right secret");
}

#[test]
fn session_token_round_trips_and_is_bound_to_its_node() {
    let key = edge_key();
    let token = key.sign(&session_claims()).unwrap();
    assert_eq!(key_id(&token).as_deref(), Some("k1"));
    assert_eq!(verify_session(&token, key.public_x(), &node()), Ok(session_claims()));
    let other = NodeId::try_from("ND_other").unwrap();
    assert_eq!(verify_session(&token, key.public_x(), &other), Err(TokenError::WrongAudience));
    assert_eq!(verify_session(&token, other_key().public_x(), &node()), Err(TokenError::BadSignature));
}

#[test]
fn eddsa_tokens_accept_neither_none_nor_the_public_key_as_a_secret() {
    let key = edge_key();
    let claims = serde_json::to_value(session_claims()).unwrap();
    let public = URL_SAFE_NO_PAD.decode(key.public_x()).unwrap();
    for secret in [public.as_slice(), key.public_x().as_bytes()] {
        let forged =
            jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).unwrap();
        assert_eq!(verify_session(&forged, key.public_x(), &node()), Err(TokenError::BadSignature));
    }
    assert!(verify_session(&unsigned(&claims), key.public_x(), &node()).is_err());
}

#[test]
fn session_token_expires_and_must_say_when() {
    let key = edge_key();
    let late = SessionClaims { exp: now() - INTERNAL_LEEWAY_SECS - 5, ..session_claims() };
    assert_eq!(verify_session(&key.sign(&late).unwrap(), key.public_x(), &node()), Err(TokenError::Expired));
    let mut endless = serde_json::to_value(session_claims()).unwrap();
    endless.as_object_mut().unwrap().remove("exp");
    assert_eq!(verify_session(&key.sign(&endless).unwrap(), key.public_x(), &node()), Err(TokenError::NoExpiry));
    let mut early = serde_json::to_value(session_claims()).unwrap();
    early["nbf"] = json!(now() + INTERNAL_LEEWAY_SECS + 30);
    assert_eq!(verify_session(&key.sign(&early).unwrap(), key.public_x(), &node()), Err(TokenError::NotYetValid));
}

#[test]
fn a_tampered_token_is_refused() {
    let key = edge_key();
    let token = key.sign(&session_claims()).unwrap();
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    let mut claims = serde_json::to_value(session_claims()).unwrap();
    claims["grants"]["can_publish_data"] = json!(true);
    parts[1] = URL_SAFE_NO_PAD.encode(claims.to_string());
    assert_eq!(verify_session(&parts.join("."), key.public_x(), &node()), Err(TokenError::BadSignature));
}

#[test]
fn ticket_node_and_enrolment_tokens_round_trip_and_do_not_stand_in_for_each_other() {
    let (key, node_key) = (edge_key(), other_key());
    let bound = NodeKey { x: node_key.public_x().to_owned() };
    assert!(bound.is_legal());
    let room = RoomName::try_from("room").unwrap();
    let ticket = TicketClaims::new(node(), room, bound, "local-a".into(), "once".into(), now() + TICKET_TTL_SECS);
    let ticket_token = key.sign(&ticket).unwrap();
    assert_eq!(claimed_room(&ticket_token), Some(ticket.room.clone()));
    assert_eq!(verify_ticket(&ticket_token, key.public_x()), Ok(ticket));
    assert_eq!(verify_ticket(&ticket_token, node_key.public_x()), Err(TokenError::BadSignature));

    let claims = NodeClaims::new(node(), now() + NODE_TTL_SECS);
    let token = node_key.sign(&claims).unwrap();
    assert_eq!(claimed_node(&token), Some(node()));
    assert_eq!(verify_node(&token, node_key.public_x()), Ok(claims));
    assert_eq!(verify_node(&token, key.public_x()), Err(TokenError::BadSignature));
    assert_eq!(verify_ticket(&token, node_key.public_x()), Err(TokenError::WrongAudience));
    assert_eq!(verify_node(&ticket_token, key.public_x()), Err(TokenError::WrongAudience));

    let enrol = EnrolClaims::new(now() + 60);
    let token = mint_enrol(&enrol, "fleet").unwrap();
    assert_eq!(verify_enrol(&token, "fleet"), Ok(enrol));
    assert_eq!(verify_enrol(&token, "guess"), Err(TokenError::BadSignature));
    let foreign = hs256(&json!({"aud": "someone", "exp": now() + 60}), "fleet");
    assert_eq!(verify_enrol(&foreign, "fleet"), Err(TokenError::WrongAudience));
    let no_audience = hs256(&json!({"exp": now() + 60}), "fleet");
    assert_eq!(verify_enrol(&no_audience, "fleet"), Err(TokenError::WrongAudience));
    let late = mint_enrol(&EnrolClaims::new(now() - INTERNAL_LEEWAY_SECS - 5), "fleet").unwrap();
    assert_eq!(verify_enrol(&late, "fleet"), Err(TokenError::Expired));
}

#[test]
fn a_key_whose_halves_do_not_match_is_refused() {
    let jwk: PrivateJwk = serde_json::from_str(JWK).unwrap();
    let crossed = PrivateJwk { x: other_key().public_x().to_owned(), ..jwk.clone() };
    assert_eq!(SigningKey::try_from(&crossed).err(), Some(TokenError::Malformed));
    let short = PrivateJwk { d: "AAAA".into(), ..jwk.clone() };
    assert_eq!(SigningKey::try_from(&short).err(), Some(TokenError::Malformed));
    let wrong_curve = PrivateJwk { crv: "Ed448".into(), ..jwk };
    assert_eq!(SigningKey::try_from(&wrong_curve).err(), Some(TokenError::Malformed));
    assert!(!NodeKey { x: "AAAA".into() }.is_legal());
    assert!(SigningKey::from_jwk("{}").is_err());
}
