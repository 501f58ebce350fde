//! The edge's HTTP: tokens for app servers, the key set, health, what browsers of other origins may read, and one log
//! line with a stable reason for each refusal.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meridian_tests::client::{Client, ClientOptions, DEADLINE};
use meridian_tests::node_impostor::fresh_key;
use meridian_tests::scene::Scene;
use meridian_tests::signal::{join_request, wrap};
use meridian_tests::token::unix_now;
use reqwest::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderName, ORIGIN, VARY,
    WWW_AUTHENTICATE,
};
use reqwest::{Client as Http, Method, RequestBuilder, Response};
use serde_json::{Value, json};
use shared::claims::{AccessClaims, ApiKeys, NodeClaims, VideoGrant};
use shared::ids::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use xtask::stack::{API_KEY, API_SECRET};

/// Where a browser's page came from.
const PAGE: &str = "https://app.example";
/// Documented limits of `POST /token`, seconds: default, longest, and longest for anybody where meetings are open.
const DEFAULT_TTL: u64 = 3600;
const MAX_TTL: u64 = 24 * 3600;
const OPEN_TTL: u64 = 600;
/// Longest body of `POST /token`, bytes.
const MAX_BODY: usize = 64 * 1024;

fn header(answer: &Response, name: HeaderName) -> Option<String> {
    Some(answer.headers().get(name)?.to_str().unwrap().to_owned())
}

/// `POST /token` of an app server that holds the API key.
fn ask_token(scene: &Scene) -> RequestBuilder {
    Http::new().post(format!("{}/token", scene.url())).basic_auth(API_KEY, Some(API_SECRET))
}

/// The claims of a token that must have been minted.
async fn minted(asked: RequestBuilder) -> AccessClaims {
    let answer = asked.send().await.unwrap();
    let (status, body) = (answer.status().as_u16(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, 201, "{body}");
    ApiKeys::parse(&format!("{API_KEY}: {API_SECRET}")).verify(body["participant_token"].as_str().unwrap()).unwrap()
}

async fn refused(asked: RequestBuilder) -> (u16, String) {
    let answer = asked.send().await.unwrap();
    let status = answer.status().as_u16();
    let body: Value = answer.json().await.unwrap();
    (status, body["error"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_token_source_gets_a_token_that_joins() {
    let scene = Scene::open().await.unwrap();
    let asked = json!({
        "room_name": scene.room, "participant_name": "Ada L.", "participant_identity": "ada",
        "participant_metadata": "m", "participant_attributes": { "a": "b" }, "room_config": { "max_participants": 7 },
        "ttl": 120, "a_field_of_tomorrow": true,
    });
    let before = unix_now();
    let answer = ask_token(&scene).json(&asked).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(header(&answer, CONTENT_TYPE).as_deref(), Some("application/json"));
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body.as_object().unwrap().len(), 2, "server_url and participant_token: {:?}", body["server_url"]);
    assert_eq!(body["server_url"], scene.url().replacen("http", "ws", 1));

    let token = body["participant_token"].as_str().unwrap();
    let claims = ApiKeys::parse(&format!("{API_KEY}: {API_SECRET}")).verify(token).unwrap();
    assert!((before + 120..=unix_now() + 120).contains(&claims.exp), "{}", claims.exp);
    assert_eq!(claims.room_config, Some(json!({ "maxParticipants": 7 })));
    let only_join = VideoGrant { room_join: true, room: scene.room.clone(), ..VideoGrant::default() };
    assert_eq!(claims.video, Some(only_join), "and nothing that was not asked for");

    let ada = Client::join(ClientOptions::new(body["server_url"].as_str().unwrap(), token)).await.unwrap();
    let me = ada.observe(|o| o.join.as_ref().unwrap().participant.clone()).unwrap();
    assert_eq!([&*me.identity, &*me.name, &*me.metadata], ["ada", "Ada L.", "m"]);
    assert_eq!(me.attributes.get("a").map(String::as_str), Some("b"));
}

#[tokio::test]
async fn what_is_left_out_has_defaults() {
    let scene = Scene::open().await.unwrap();
    let before = unix_now();
    let (first, second) = (minted(ask_token(&scene)).await, minted(ask_token(&scene).body(" {} ")).await);
    assert!((before + DEFAULT_TTL..=unix_now() + DEFAULT_TTL).contains(&first.exp), "{}", first.exp);
    let room = |claims: &AccessClaims| claims.video.clone().unwrap().room;
    assert!(first.sub.starts_with("participant-") && room(&first).starts_with("room-"), "{first:?}");
    assert!(first.sub != second.sub && room(&first) != room(&second), "names nobody chose are nobody else's");
}

#[tokio::test]
async fn a_token_lives_from_a_second_to_a_day() {
    let scene = Scene::open().await.unwrap();
    for ttl in [1, MAX_TTL] {
        let before = unix_now();
        let claims = minted(ask_token(&scene).json(&json!({ "ttl": ttl }))).await;
        assert!((before + ttl..=unix_now() + ttl).contains(&claims.exp), "{ttl}: {}", claims.exp);
    }
    for ttl in [0, MAX_TTL + 1] {
        let got = refused(ask_token(&scene).json(&json!({ "ttl": ttl }))).await;
        assert_eq!(got, (400, "ttl must be 1 to 86400 seconds".to_owned()), "{ttl}");
    }
}

#[tokio::test]
async fn where_meetings_are_open_anybody_gets_a_short_token() {
    let scene = Scene::open().await.unwrap();
    let anybody = || Http::new().post(format!("{}/token", scene.url()));
    let before = unix_now();
    let claims = minted(anybody()).await;
    assert!((before + OPEN_TTL..=unix_now() + OPEN_TTL).contains(&claims.exp), "{}", claims.exp);
    let got = refused(anybody().json(&json!({ "ttl": OPEN_TTL + 1 }))).await;
    assert_eq!(got, (400, "ttl must be 1 to 600 seconds".to_owned()));
}

#[tokio::test]
async fn a_body_may_have_64_kibibytes() {
    let scene = Scene::open().await.unwrap();
    let padded = |length: usize| format!("{{}}{}", " ".repeat(length - 2));
    minted(ask_token(&scene).body(padded(MAX_BODY))).await;
    let too_large = (413, "the request is longer than 65536 bytes".to_owned());
    assert_eq!(refused(ask_token(&scene).body(padded(MAX_BODY + 1))).await, too_large);
}

#[tokio::test]
async fn a_body_without_a_length_is_read_no_further_than_the_limit() {
    let scene = Scene::open().await.unwrap();
    let host = scene.url().strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(host).await.unwrap();
    let head = format!("POST /token HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n");
    socket.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("{:x}\r\n{}\r\n", MAX_BODY + 1, " ".repeat(MAX_BODY + 1));
    socket.write_all(chunk.as_bytes()).await.unwrap();
    // There could be more: the last chunk, of length zero, is not sent.
    let mut answer = [0; 12];
    tokio::time::timeout(DEADLINE, socket.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}

#[tokio::test]
async fn tokens_are_minted_for_who_may() {
    let scene = Scene::open().await.unwrap();
    let url = format!("{}/token", scene.url());
    let token = |grant: Option<VideoGrant>| {
        let claims = AccessClaims { video: grant, sub: "app".into(), ..scene.claims("app") };
        scene.sign(&claims).unwrap()
    };
    let creator = token(Some(VideoGrant { room_create: true, ..VideoGrant::default() }));
    assert_eq!(minted(Http::new().post(&url).bearer_auth(creator)).await.iss, API_KEY);

    let expired = AccessClaims { exp: unix_now() - 120, ..scene.claims("app") };
    let cases = [
        ("wrong secret", Http::new().post(&url).basic_auth(API_KEY, Some("guess")), 401, "invalid API key or secret"),
        ("no secret", Http::new().post(&url).basic_auth(API_KEY, None::<&str>), 401, "invalid API key or secret"),
        (
            "unknown key",
            Http::new().post(&url).basic_auth("nobody", Some(API_SECRET)),
            401,
            "invalid API key or secret",
        ),
        (
            "another scheme",
            Http::new().post(&url).header(AUTHORIZATION, "Digest x"),
            401,
            "invalid authorization header. Must start with Bearer ",
        ),
        ("not a token", Http::new().post(&url).bearer_auth("nonsense"), 401, "invalid authorization token"),
        (
            "expired",
            Http::new().post(&url).bearer_auth(scene.sign(&expired).unwrap()),
            401,
            "invalid authorization token: token has invalid claims: token is expired",
        ),
        (
            "may join",
            Http::new().post(&url).bearer_auth(token(scene.claims("app").video)),
            403,
            "the token does not grant roomCreate",
        ),
        ("no grant", Http::new().post(&url).bearer_auth(token(None)), 403, "the token does not grant roomCreate"),
    ];
    for (why, asked, status, text) in cases {
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{why}");
        let challenge = (status == 401).then(|| "Basic realm=\"API key and secret\"".to_owned());
        assert_eq!(header(&answer, WWW_AUTHENTICATE), challenge, "{why}");
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "error": text }), "{why}");
    }
}

#[tokio::test]
async fn each_token_minted_leaves_one_line_with_its_id_and_no_secret() {
    let scene = Scene::alone(0).await.unwrap();
    let asked = json!({ "participant_identity": "ada-lovelace", "ttl": 60, "single_use": true, "grants": { "roomAdmin": true } });
    let answers = [ask_token(&scene).json(&asked), ask_token(&scene)].map(RequestBuilder::send);
    let mut tokens = Vec::new();
    for answer in answers {
        let body: Value = answer.await.unwrap().json().await.unwrap();
        tokens.push(body["participant_token"].as_str().unwrap().to_owned());
    }
    let keys = ApiKeys::parse(&format!("{API_KEY}: {API_SECRET}"));
    let ids: Vec<String> = tokens.iter().map(|token| keys.verify(token).unwrap().jti).collect();
    let line = |line: &str| {
        let line: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
        (line["event"] == "minted").then_some(line)
    };
    let deadline = Instant::now() + DEADLINE;
    let lines = loop {
        let lines: Vec<Value> = scene.deployment.edge_log().lines().filter_map(line).collect();
        if lines.len() >= ids.len() || Instant::now() > deadline {
            break lines;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let wanted = [(60, true, json!(["roomAdmin"])), (DEFAULT_TTL, false, json!([]))];
    let wanted = ids.iter().zip(wanted).map(|(id, (seconds, single_use, grants))| {
        json!({
            "event": "minted", "token": id, "api_key": API_KEY, "by": "key", "grants": grants, "single_use": single_use,
            "seconds": seconds,
        })
    });
    assert_eq!(lines, wanted.collect::<Vec<_>>());
    let log = scene.deployment.edge_log();
    assert!(!log.contains("ada-lovelace") && tokens.iter().all(|token| !log.contains(token)), "{log}");
}

#[tokio::test]
async fn a_body_that_is_no_token_request_is_refused() {
    let scene = Scene::open().await.unwrap();
    for body in ["[", "5", r#"{"room_name":5}"#, r#"{"participant_attributes":{"a":1}}"#, r#"{"ttl":-1}"#] {
        let (status, text) = refused(ask_token(&scene).body(body)).await;
        assert_eq!(status, 400, "{body}");
        assert!(text.starts_with("malformed request: "), "{text}");
    }
    let long = "x".repeat(257);
    for field in ["room_name", "participant_identity", "participant_name"] {
        let got = refused(ask_token(&scene).json(&json!({ field: long }))).await;
        assert_eq!(got, (400, format!("{field}: longer than 256 bytes")));
    }
    let got = refused(Http::new().get(format!("{}/token", scene.url())).basic_auth(API_KEY, Some(API_SECRET))).await;
    assert_eq!(got, (405, "use POST".to_owned()));
}

#[tokio::test]
async fn a_preflight_allows_what_a_page_asks_for() {
    let scene = Scene::open().await.unwrap();
    for path in ["/token", "/rtc/v1/validate", "/rtc/validate", "/", "/settings/regions"] {
        let asked = Http::new()
            .request(Method::OPTIONS, format!("{}{path}", scene.url()))
            .header(ORIGIN, PAGE)
            .header(ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(ACCESS_CONTROL_REQUEST_HEADERS, "authorization,content-type");
        let answer = asked.send().await.unwrap();
        assert_eq!(answer.status(), 204, "{path}");
        for (name, value) in [
            (ACCESS_CONTROL_ALLOW_ORIGIN, PAGE),
            (ACCESS_CONTROL_ALLOW_METHODS, "POST"),
            (ACCESS_CONTROL_ALLOW_HEADERS, "authorization,content-type"),
            (ACCESS_CONTROL_MAX_AGE, "86400"),
            (VARY, "Origin"),
        ] {
            assert_eq!(header(&answer, name.clone()).as_deref(), Some(value), "{name} of {path}");
        }
    }
}

#[tokio::test]
async fn a_page_of_another_origin_reads_answers_and_refusals() {
    let scene = Scene::open().await.unwrap();
    let url = |path: &str| format!("{}{path}", scene.url());
    let http = Http::new;
    let asked = || {
        [
            ("mint", 201, ask_token(&scene)),
            ("refused mint", 401, http().post(url("/token")).basic_auth(API_KEY, Some("guess"))),
            ("HEAD /", 200, http().head(url("/"))),
            ("health", 200, http().get(url("/healthz"))),
            ("keys", 200, http().get(url("/.well-known/jwks.json"))),
            ("regions", 404, http().get(url("/settings/regions"))),
            ("no upgrade", 404, http().get(url("/rtc/v1"))),
            ("a refused node", 401, http().post(url("/node/enrol"))),
        ]
    };
    for (what, status, request) in asked() {
        let answer = request.header(ORIGIN, PAGE).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{what}");
        assert_eq!(header(&answer, ACCESS_CONTROL_ALLOW_ORIGIN).as_deref(), Some(PAGE), "{what}");
        assert_eq!(header(&answer, ACCESS_CONTROL_EXPOSE_HEADERS).as_deref(), Some("*"), "{what}");
        assert_eq!(header(&answer, VARY).as_deref(), Some("Origin"), "{what}");
    }
    for (what, status, request) in asked() {
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{what}");
        assert_eq!(header(&answer, ACCESS_CONTROL_ALLOW_ORIGIN), None, "{what} without an origin");
        assert_eq!(header(&answer, VARY).as_deref(), Some("Origin"), "a cache must tell them apart: {what}");
    }
    // LiveKit's clients ask it from anywhere, and so may everybody.
    for path in ["/rtc/v1/validate", "/rtc/validate"] {
        let answer = http().get(url(path)).header(ORIGIN, PAGE).send().await.unwrap();
        assert_eq!(answer.status(), 401);
        assert_eq!(header(&answer, ACCESS_CONTROL_ALLOW_ORIGIN).as_deref(), Some("*"), "{path}");
    }
}

#[tokio::test]
async fn probes_are_answered() {
    let scene = Scene::open().await.unwrap();
    let answer = Http::new().head(format!("{}/", scene.url())).send().await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, ""));
    let answer = reqwest::get(format!("{}/healthz", scene.url())).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.text().await.unwrap().as_str()), (200, "OK"));
}

#[tokio::test]
async fn the_key_set_has_the_public_key_and_nothing_else() {
    let scene = Scene::open().await.unwrap();
    let answer = reqwest::get(format!("{}/.well-known/jwks.json", scene.url())).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(header(&answer, CONTENT_TYPE).as_deref(), Some("application/json"));
    assert_eq!(header(&answer, CACHE_CONTROL).as_deref(), Some("max-age=300"));
    let set: Value = answer.json().await.unwrap();
    let secret: Value =
        serde_json::from_str(&scene.deployment.stack().secrets().vars().unwrap()["SESSION_SIGNING_KEY"]).unwrap();
    let public = json!({
        "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": secret["kid"], "x": secret["x"],
    });
    assert_eq!(set, json!({ "keys": [public] }), "no private half");
    assert_eq!(URL_SAFE_NO_PAD.decode(secret["x"].as_str().unwrap()).unwrap().len(), 32);
}

/// `validate` as LiveKit's clients ask it when an upgrade failed.
async fn validate(scene: &Scene, path: &str, claims: &AccessClaims, parameters: &[(&str, &str)]) -> (u16, String) {
    let mut url = url::Url::parse(&format!("{}{path}", scene.url())).unwrap();
    url.query_pairs_mut().append_pair("access_token", &scene.sign(claims).unwrap()).extend_pairs(parameters);
    let answer = reqwest::get(url).await.unwrap();
    assert_eq!(header(&answer, CONTENT_TYPE).as_deref(), Some("text/plain; charset=utf-8"));
    (answer.status().as_u16(), answer.text().await.unwrap())
}

#[tokio::test]
async fn validate_says_why_a_join_would_fail() {
    let scene = Scene::open().await.unwrap();
    let claims = scene.claims("ada");
    let good = wrap(&join_request());
    let ok = (200, "success".to_owned());
    assert_eq!(validate(&scene, "/rtc/v1/validate", &claims, &[("join_request", &good)]).await, ok);
    assert_eq!(validate(&scene, "/rtc/validate", &claims, &[]).await, ok);

    let granting = |change: fn(&mut VideoGrant)| {
        let mut claims = scene.claims("ada");
        change(claims.video.as_mut().unwrap());
        claims
    };
    let bringing = |change: fn(&mut livekit_protocol::JoinRequest)| {
        let mut request = join_request();
        change(&mut request);
        wrap(&request)
    };
    let attributes = bringing(|r| drop(r.participant_attributes.insert("k".into(), "v".repeat(64 * 1024))));
    let metadata = bringing(|r| r.metadata = "m".repeat(512 * 1024 + 1));
    let own = granting(|grant| grant.can_update_own_metadata = Some(true));
    let (v1, dual) = ("/rtc/v1/validate", "/rtc/validate");
    let broken = AccessClaims { room_config: Some(json!({ "maxParticipants": "many" })), ..scene.claims("ada") };
    let no_publish = granting(|grant| grant.can_publish = Some(false));
    let cases = [
        (v1, &claims, vec![], 400, "join_request is required"),
        (v1, &claims, vec![("join_request", "***")], 400, "cannot base64 decode wrapped join request"),
        (dual, &claims, vec![("join_request", "***")], 400, "cannot base64 decode wrapped join request"),
        (dual, &claims, vec![("attributes", "***")], 400, "cannot base64 decode attributes"),
        (dual, &claims, vec![("attributes", "W10=")], 400, "cannot unmarshal attributes"),
        (dual, &claims, vec![("attributes", "eyJhIjoiYiJ9")], 401, "no permissions to access the room"),
        (dual, &own, vec![("attributes", "eyJhIjoiYiJ9")], 200, "success"),
        (v1, &own, vec![("join_request", &*attributes)], 400, "exceeds attributes size limit"),
        (v1, &own, vec![("join_request", &*metadata)], 400, "exceeds metadata size limit"),
        (dual, &claims, vec![("publish", "screen")], 200, "success"),
        (dual, &no_publish, vec![("publish", "screen")], 401, "no permissions to access the room"),
    ];
    for (path, claims, parameters, status, text) in cases {
        let got = validate(&scene, path, claims, &parameters).await;
        assert_eq!(got, (status, text.to_owned()), "{path} {text}");
    }
    let got = validate(&scene, dual, &broken, &[]).await;
    assert_eq!(got.0, 400, "{got:?}");
    assert!(got.1.starts_with("roomConfig of the token: "), "{got:?}");
}

#[tokio::test]
async fn validate_knows_the_room() {
    let scene = Scene::open().await.unwrap();
    let small =
        |identity: &str| AccessClaims { room_config: Some(json!({ "maxParticipants": 1 })), ..scene.claims(identity) };
    let token = scene.sign(&small("ada")).unwrap();
    let _ada = Client::join(ClientOptions::new(scene.url(), &token)).await.unwrap();
    let got = validate(&scene, "/rtc/validate", &small("bob"), &[]).await;
    assert_eq!(got, (403, "room is full".to_owned()));
    assert_eq!(validate(&scene, "/rtc/validate", &small("ada"), &[]).await.0, 200, "who is in may come again");
}

/// Every refusal in the edge's log so far, once there are `wanted` or the deadline has passed: route, status, reason.
async fn logged(scene: &Scene, wanted: usize) -> Vec<(String, u64, String)> {
    let refusal = |line: &str| {
        let line: Value = serde_json::from_str(line.get(line.find('{')?..)?).ok()?;
        let text = |name: &str| Some(line[name].as_str()?.to_owned());
        (line["event"] == "refused").then(|| Some((text("route")?, line["status"].as_u64()?, text("reason")?)))?
    };
    let deadline = Instant::now() + DEADLINE;
    loop {
        let refusals: Vec<_> = scene.deployment.edge_log().lines().filter_map(refusal).collect();
        if refusals.len() >= wanted || Instant::now() > deadline {
            return refusals;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn each_refusal_is_one_log_line_with_its_reason_and_no_secret() {
    // Without a node, and without anybody else's requests in its log.
    let scene = Scene::alone(0).await.unwrap();
    let url = |path: &str| format!("{}{path}", scene.url());
    let enrolment = scene.deployment.stack().secrets().enrolment_token().unwrap();
    let stranger = fresh_key("node").unwrap();
    let node_token =
        stranger.sign(&NodeClaims::new(NodeId::try_from("ND_stranger0001").unwrap(), unix_now() + 60)).unwrap();
    let access = scene.sign(&scene.claims("ada")).unwrap();
    let expired = scene.sign(&AccessClaims { exp: unix_now() - 120, ..scene.claims("ada") }).unwrap();
    let http = Http::new;
    let upgrade = |path: &str| {
        let request = http().get(url(path)).header("Connection", "Upgrade").header("Upgrade", "websocket");
        request.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let with = |path: &str, token: &str| url::Url::parse_with_params(&url(path), [("access_token", token)]).unwrap();
    let cases = [
        ("token", 401, "credentials_wrong", http().post(url("/token")).basic_auth(API_KEY, Some("my-secret-guess"))),
        ("token", 401, "token_malformed", http().post(url("/token")).bearer_auth("my-secret-guess")),
        ("token", 401, "token_expired", http().post(url("/token")).bearer_auth(&expired)),
        ("token", 403, "create_not_granted", http().post(url("/token")).bearer_auth(&access)),
        ("token", 400, "body_malformed", ask_token(&scene).body(r#"{"ttl":"my-secret-guess"}"#)),
        ("token", 400, "ttl_out_of_range", ask_token(&scene).body(r#"{"ttl":0}"#)),
        ("token", 413, "body_too_large", ask_token(&scene).body("x".repeat(MAX_BODY + 1))),
        ("token", 405, "method_not_allowed", http().get(url("/token"))),
        ("rtc_v1", 404, "upgrade_missing", http().get(with("/rtc/v1", &access))),
        ("rtc_v1", 401, "token_missing", upgrade("/rtc/v1")),
        ("rtc_v1", 400, "join_request_missing", upgrade("/rtc/v1").bearer_auth(&access)),
        ("rtc", 401, "token_expired", upgrade("/rtc").bearer_auth(&expired)),
        ("rtc", 503, "no_node", upgrade("/rtc").bearer_auth(&access)),
        ("rtc_validate", 503, "no_node", http().get(with("/rtc/validate", &access))),
        ("rtc_v1_validate", 401, "token_malformed", http().get(with("/rtc/v1/validate", "my-secret-guess"))),
        ("settings_regions", 404, "not_found", http().get(url("/settings/regions"))),
        ("node_enrol", 401, "token_missing", http().post(url("/node/enrol"))),
        ("node_enrol", 401, "token_bad_signature", http().post(url("/node/enrol")).bearer_auth(&access)),
        (
            "node_enrol",
            400,
            "node_key_malformed",
            http().post(url("/node/enrol")).bearer_auth(&enrolment).body(r#"{"public_key":"my-secret-guess"}"#),
        ),
        (
            "node_revoke",
            404,
            "node_not_found",
            http().post(url("/node/revoke")).bearer_auth(&enrolment).body(r#"{"node":"ND_stranger0001"}"#),
        ),
        ("node_fleet", 426, "upgrade_required", http().get(url("/node/fleet"))),
        ("node_fleet", 401, "token_missing", upgrade("/node/fleet")),
        ("node_fleet", 403, "node_unknown", upgrade("/node/fleet").bearer_auth(&node_token)),
        ("node_room", 401, "ticket_missing", upgrade("/node/room").bearer_auth(&node_token)),
        ("node_room", 401, "ticket_malformed", upgrade("/node/room?ticket=my-secret-guess").bearer_auth(&node_token)),
    ];
    let mut expected = Vec::new();
    for (route, status, reason, request) in cases {
        assert_eq!(u64::from(request.send().await.unwrap().status().as_u16()), status, "{route} {reason}");
        expected.push((route.to_owned(), status, reason.to_owned()));
    }
    assert_eq!(logged(&scene, expected.len()).await, expected);

    let log = scene.deployment.edge_log();
    let fleet_secret = scene.deployment.stack().secrets().vars().unwrap()["FLEET_SECRET"].clone();
    for shown in ["my-secret-guess", &*enrolment, &*node_token, &*access, &*expired, &*fleet_secret] {
        assert!(!log.contains(shown), "the log repeats {shown}");
        // Nor a token without its signature.
        assert!(shown.rsplit_once('.').is_none_or(|(signed, _)| !log.contains(signed)), "the log repeats {shown}");
    }
}
