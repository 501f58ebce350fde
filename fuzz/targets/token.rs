//! Tokens: as they come, and with claims that somebody who has the key wrote as he liked.
#![no_main]

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde::de::IgnoredAny;
use shared::claims::{
    ApiKeys, PrivateJwk, SigningKey, claimed_node, claimed_room, key_id, verify_enrol, verify_node, verify_session,
    verify_ticket,
};
use shared::ids::NodeId;

const SECRET: &str = "a-secret-that-nobody-can-guess-from-here";
/// The public half of some Ed25519 key.
const KEY_X: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

/// What a token must have. Of other members only the form is looked at, as by who verifies: a number may be too large.
#[derive(Default, Deserialize)]
struct Wanted {
    exp: Option<IgnoredAny>,
    aud: Option<serde_json::Value>,
}

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    let keys = ApiKeys::parse(&format!("devkey: {SECRET}"));
    let node = NodeId::try_from("ND_1").ok();
    let _ = (key_id(&text), claimed_node(&text), claimed_room(&text), SigningKey::from_jwk(&text));
    let _ = serde_json::from_str::<PrivateJwk>(&text);
    assert!(keys.verify(&text).is_err() && verify_enrol(&text, SECRET).is_err(), "nobody signed it");
    assert!(verify_ticket(&text, KEY_X).is_err() && verify_node(&text, KEY_X).is_err());
    assert!(node.is_none_or(|node| verify_session(&text, KEY_X, &node).is_err()));

    // Header and claims, each a line.
    let Some((header, claims)) = text.split_once('\n') else { return };
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes()), signed.as_bytes());
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
    let wanted: Wanted = serde_json::from_str(claims).unwrap_or_default();
    if let Ok(verified) = keys.verify(&token) {
        assert_eq!((verified.iss.as_str(), header.contains("HS256")), ("devkey", true), "the algorithm is pinned");
        assert!(wanted.exp.is_some(), "no token without an end");
        // What is read is minted and read the same.
        assert_eq!(keys.mint(&verified).and_then(|again| keys.verify(&again)), Ok(verified));
    }
    if verify_enrol(&token, SECRET).is_ok() {
        assert!(wanted.exp.is_some() && wanted.aud.is_some_and(|aud| aud.to_string().contains("meridian:enrol")));
    }
    assert!(verify_ticket(&token, KEY_X).is_err() && verify_node(&token, KEY_X).is_err(), "HMAC is not EdDSA");
});
