//! The deployed environments limit how often one client may ask; the limits are those of wrangler.toml.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, TcpListener};

use shared::control::ADDRESS_PATH;
use xtask::edge::{Edge, EdgeConfig, Mode};
use xtask::process::Output;
use xtask::secrets::Secrets;
use xtask::stack::API_KEY;
use xtask::wasm::{self, Profile};

/// `DOOR_LIMIT` of wrangler.toml.
const DOOR_LIMIT: usize = 120;
/// `JOIN_LIMIT` of wrangler.toml.
const JOIN_LIMIT: usize = 600;

fn staging(state_dir: std::path::PathBuf) -> Edge {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    Edge::start(EdgeConfig {
        bundle: wasm::build(Profile::Dev).unwrap(),
        mode: Mode::Wrangler,
        environment: Some("staging"),
        address: Ipv4Addr::LOCALHOST.into(),
        port: free,
        vars: Secrets::load_or_make(&state_dir).unwrap().vars().unwrap(),
        output: Output::File(state_dir.join("edge.log")),
        state_dir: state_dir.join("edge"),
    })
    .unwrap()
}

#[tokio::test]
async fn who_asks_too_often_gets_429_and_others_get_answers() {
    let state_dir = std::env::temp_dir().join(format!("meridian-limits-{}", std::process::id()));
    let started = state_dir.clone();
    let edge = tokio::task::spawn_blocking(move || staging(started)).await.unwrap();
    let client = reqwest::Client::new();
    let ask = async |path: &str| client.get(format!("{}{path}", edge.url())).send().await.unwrap().status().as_u16();

    let mut answered = 0;
    // A new minute may begin in between, and with it another such lot.
    while ask(ADDRESS_PATH).await == 200 {
        answered += 1;
        assert!(answered <= 2 * DOOR_LIMIT, "no limit");
    }
    assert!(answered >= DOOR_LIMIT, "{answered}");
    assert_eq!(ask("/healthz").await, 200, "what costs nothing is not limited");
    assert_eq!(ask("/rtc/v1/validate").await, 401, "joins have a limit of their own");

    // Guesses of a secret, too.
    let guess = || client.post(format!("{}/token", edge.url())).basic_auth(API_KEY, Some("guess")).send();
    let mut guesses = 0;
    while guess().await.unwrap().status().as_u16() == 401 {
        guesses += 1;
        assert!(guesses <= 2 * JOIN_LIMIT, "no limit");
    }
    assert!(guesses + 1 >= JOIN_LIMIT, "{guesses}");
    assert_eq!(guess().await.unwrap().status().as_u16(), 429);
    assert_eq!(ask("/healthz").await, 200);
    drop(edge);
    std::fs::remove_dir_all(state_dir).unwrap();
}
