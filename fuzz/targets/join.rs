//! What a client may ask of the edge over HTTP: the first byte says whether the rest is a query string or the body of a
//! token request.
#![no_main]

use edge_signal::api::join_query::Query;
use edge_signal::api::join_request::MAX_JOIN_REQUEST;
use edge_signal::api::route::{Route, Signaling};
use edge_signal::api::token_request::{Caller, Chance, MAX_BODY, MAX_TTL_SECS, OPEN_TTL_SECS, TokenRequest};
use libfuzzer_sys::fuzz_target;
use prost::Message;
use shared::ids::RANDOM_LEN;

fuzz_target!(|input: &[u8]| {
    let Some((mode, rest)) = input.split_first() else { return };
    match mode & 1 {
        0 => query(&String::from_utf8_lossy(rest)),
        _ => token(mode & 2 != 0, rest),
    }
});

fn query(text: &str) {
    let _ = Route::of(text).name();
    let query = Query::parse(text);
    for signaling in [Signaling::Single, Signaling::Dual] {
        match query.ask(signaling) {
            Ok(ask) => {
                assert!(ask.single_peer_connection || signaling == Signaling::Dual);
                let request = ask.request.encode_to_vec();
                // What was inflated is bounded; what the parameters say is no longer than they are.
                assert!(request.len() <= 2 * MAX_JOIN_REQUEST.max(text.len()));
            }
            Err(refusal) => assert_eq!(refusal.reason.status(), 400),
        }
    }
}

fn token(anybody: bool, body: &[u8]) {
    let Ok(request) = TokenRequest::parse(body) else { return };
    assert!(body.len() <= MAX_BODY);
    let (caller, most) = if anybody {
        (Caller::Anybody("devkey".into()), OPEN_TTL_SECS)
    } else {
        (Caller::Key("devkey".into()), MAX_TTL_SECS)
    };
    let Ok(minted) = request.mint(caller, Chance { now: 1_000, random: [7; 3 * RANDOM_LEN] }) else { return };
    let claims = minted.claims;
    assert!(claims.exp <= 1_000 + most && claims.iss == "devkey" && !claims.sub.is_empty());
    let video = claims.video.unwrap_or_default();
    assert!(video.room_join && !video.room.is_empty());
    let powers = video.room_admin || video.room_create || video.room_list || video.room_record;
    assert!(!(anybody && powers), "no more than a place in a room");
}
