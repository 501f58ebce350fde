//! A token that is not right gets the status and the text LiveKit's clients expect, on the upgrade and on `validate`.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use meridian_tests::client::Client;
use meridian_tests::scene::Scene;
use meridian_tests::signal::{join_request, wrap};
use meridian_tests::token::{forge, unix_now};
use reqwest::header::{AUTHORIZATION, CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use serde_json::{Value, json};
use shared::claims::VideoGrant;
use xtask::stack::API_SECRET;

/// How a token is shown.
enum Shown {
    Nothing,
    Query(String),
    Header(String),
}

/// What is wrong, how it is shown, and the answer.
type Case = (&'static str, Shown, u16, &'static str);

const BAD_SIGNATURE: &str = "invalid authorization token: token signature is invalid: signature is invalid";
const EXPIRED: &str = "invalid authorization token: token has invalid claims: token is expired";
const NOT_YET: &str = "invalid authorization token: token has invalid claims: token is not valid yet";
const NO_EXPIRY: &str =
    "invalid authorization token: token has invalid claims: token is missing required claim: exp claim is required";

async fn cases(scene: &Scene) -> Vec<Case> {
    let claims = || serde_json::to_value(scene.claims("mallory")).unwrap();
    let hs256 = json!({ "alg": "HS256", "typ": "JWT" });
    let signed = |claims: &Value| forge(&hs256, claims, Some(API_SECRET.as_bytes()));
    let with = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        Shown::Query(signed(&claims))
    };
    let granting = |change: fn(&mut VideoGrant)| {
        let mut claims = scene.claims("mallory");
        change(claims.video.as_mut().unwrap());
        Shown::Query(signed(&serde_json::to_value(claims).unwrap()))
    };
    let without = |key: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(key);
        Shown::Query(signed(&claims))
    };
    let unsigned = forge(&json!({ "alg": "none", "typ": "JWT" }), &claims(), None);
    let with_public_key = forge(&hs256, &claims(), Some(public_key(scene.url()).await.as_bytes()));
    let good = signed(&claims());
    let (two_parts, _) = good.rsplit_once('.').unwrap();
    vec![
        ("missing", Shown::Nothing, 401, "no permissions to access the room"),
        ("not a token", Shown::Query("nonsense".to_owned()), 401, "invalid authorization token"),
        ("two parts", Shown::Query(two_parts.to_owned()), 401, "invalid authorization token"),
        ("another secret", Shown::Query(forge(&hs256, &claims(), Some(b"wrong"))), 401, BAD_SIGNATURE),
        ("alg none", Shown::Query(unsigned), 401, "invalid authorization token"),
        ("HS256 with the public key", Shown::Query(with_public_key), 401, BAD_SIGNATURE),
        ("expired", with("exp", json!(unix_now() - 120)), 401, EXPIRED),
        ("not yet valid", with("nbf", json!(unix_now() + 120)), 401, NOT_YET),
        ("without expiry", without("exp"), 401, NO_EXPIRY),
        ("unknown key", with("iss", json!("nobody")), 401, "invalid API key"),
        ("without grant", without("video"), 401, "no permissions to access the room"),
        ("may not join", granting(|g| g.room_join = false), 401, "permissions denied"),
        ("for no room", granting(|g| g.room.clear()), 400, "no room name"),
        ("long room", granting(|g| g.room = "x".repeat(257)), 400, "room name length exceeds limits: max length 256"),
        ("without identity", without("sub"), 400, "identity cannot be empty"),
        ("no Bearer", Shown::Header(good), 401, "invalid authorization header. Must start with Bearer "),
    ]
}

/// The edge's public key: what a confused verifier would take as an HMAC secret.
async fn public_key(url: &str) -> String {
    let set: Value = reqwest::get(format!("{url}/.well-known/jwks.json")).await.unwrap().json().await.unwrap();
    set["keys"][0]["x"].as_str().unwrap().to_owned()
}

/// A GET as a client makes it, with or without the upgrade.
async fn ask(scene: &Scene, path: &str, shown: &Shown, upgrade: bool) -> (u16, String) {
    let mut url = url::Url::parse(&format!("{}{path}", scene.url())).unwrap();
    url.query_pairs_mut().append_pair("join_request", &wrap(&join_request()));
    if let Shown::Query(token) = shown {
        url.query_pairs_mut().append_pair("access_token", token);
    }
    let mut request = reqwest::Client::new().get(url);
    if upgrade {
        request = request
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    }
    if let Shown::Header(value) = shown {
        request = request.header(AUTHORIZATION, value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn each_bad_token_gets_livekits_answer() {
    let scene = Scene::open().await.unwrap();
    let mut wrong = Vec::new();
    for (name, shown, status, text) in cases(&scene).await {
        for (path, upgrade) in
            [("/rtc/v1", true), ("/rtc", true), ("/rtc/v1/validate", false), ("/rtc/validate", false)]
        {
            let got = ask(&scene, path, &shown, upgrade).await;
            if got != (status, text.to_owned()) {
                wrong.push(format!("{name} on {path}: {got:?}, not {:?}", (status, text)));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_good_token_is_valid_in_query_and_header() {
    let scene = Scene::open().await.unwrap();
    let token = scene.sign(&scene.claims("ada")).unwrap();
    for shown in [Shown::Query(token.clone()), Shown::Header(format!("Bearer {token}"))] {
        for path in ["/rtc/v1/validate", "/rtc/validate"] {
            assert_eq!(ask(&scene, path, &shown, false).await, (200, "success".to_owned()), "{path}");
        }
    }
}

#[tokio::test]
async fn a_token_opens_its_own_room_only() {
    let (here, there) = (Scene::open().await.unwrap(), Scene::open().await.unwrap());
    let ada = here.join("ada").await.unwrap();
    let mallory = there.join("mallory").await.unwrap();
    let room_of = |c: &Client| c.observe(|o| o.join.as_ref().unwrap().room.as_ref().unwrap().name.clone());
    assert_eq!((room_of(&ada), room_of(&mallory)), (here.room.clone(), there.room.clone()));
    // Bob's arrival reaches everyone who can see this room; afterwards nobody may have seen somebody else.
    let mut bob = here.join("bob").await.unwrap();
    bob.until("ada", |o| o.participants.contains_key("ada").then_some(())).await.unwrap();
    assert!(bob.observe(|o| !o.participants.contains_key("mallory")));
    assert!(mallory.observe(|o| o.participants.keys().all(|k| k == "mallory")));
}
