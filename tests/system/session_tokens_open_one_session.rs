//! A node opens a session for a token of the edge that names this node and this room, once, and for nothing else.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use meridian_tests::client::DEADLINE;
use meridian_tests::edge_impostor::EdgeImpostor;
use meridian_tests::node_impostor::fresh_key;
use meridian_tests::token::{forge, unix_now};
use serde_json::json;
use shared::claims::SessionClaims;
use shared::control::{NodeToRoom, RefusalReason};
use shared::ids::{NodeId, RoomName};
use xtask::node::{Node, NodeConfig, Profile, build};
use xtask::process::Output;

/// A real node that believes in a lying edge.
struct Believer {
    edge: EdgeImpostor,
    node: Node,
    state_dir: PathBuf,
}

impl Believer {
    async fn start() -> Self {
        let edge = EdgeImpostor::start().await.unwrap();
        let state_dir = std::env::temp_dir().join(format!("meridian-believer-{}", std::process::id()));
        std::fs::create_dir_all(&state_dir).unwrap();
        let config = NodeConfig {
            binary: build(Profile::Dev).unwrap(),
            region: "local-a@0,0".to_owned(),
            edge_url: edge.url(),
            enrolment_token: "anything".to_owned(),
            state_dir: state_dir.clone(),
            udp_port: UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            shards: 1,
            args: Vec::new(),
            http_port: TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port(),
            output: Output::File(state_dir.join("node.log")),
            wrapper: Vec::new(),
            address: Ipv4Addr::LOCALHOST.into(),
            public_address: None,
        };
        let node = Node::start("believer", config).unwrap();
        Self { edge, node, state_dir }
    }

    /// What the node says to a session with this token.
    async fn answer(&mut self, token: String) -> Result<(), (RefusalReason, String)> {
        self.edge.open_session(token).await.unwrap();
        loop {
            match tokio::time::timeout(DEADLINE, self.edge.hear()).await.unwrap().unwrap() {
                NodeToRoom::SessionRefused { reason, detail, .. } => return Err((reason, detail)),
                // A session with a subscriber connection begins with an offer.
                NodeToRoom::Offer { .. } => return Ok(()),
                _ => {}
            }
        }
    }
}

impl Drop for Believer {
    fn drop(&mut self) {
        self.node.process.kill();
        let _ = std::fs::remove_dir_all(&self.state_dir);
    }
}

fn assert_refused(why: &str, answer: &Result<(), (RefusalReason, String)>, reason: &str) {
    let as_meant = matches!(answer, Err((RefusalReason::BadToken, detail)) if detail.contains(reason));
    assert!(as_meant, "{why}: {answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_token_is_refused() {
    let mut believer = Believer::start().await;
    let claims = |who: &str| believer.edge.claims(who).unwrap();
    let changed = |who: &str, change: fn(&mut SessionClaims)| {
        let mut claims = claims(who);
        change(&mut claims);
        believer.edge.key.sign(&claims).unwrap()
    };
    let good = believer.edge.key.sign(&claims("good")).unwrap();
    let (head, end) = good.rsplit_once('.').unwrap();
    let flipped = if end.starts_with('A') { 'B' } else { 'A' };
    let kid = believer.edge.key.public_jwk().kid;
    let as_json = serde_json::to_value(claims("hmac")).unwrap();
    let public = believer.edge.key.public_x().to_owned();
    let raw = URL_SAFE_NO_PAD.decode(&public).unwrap();
    let hmac = |secret: &[u8]| forge(&json!({ "alg": "HS256", "kid": kid }), &as_json, Some(secret));
    // The reason is looked at too: another check behind the one meant would refuse some of them as well.
    let (signature, nonsense) = ("signature is invalid", "invalid authorization token");
    let cases = [
        ("another node", changed("a1", |c| c.aud = NodeId::try_from("ND_other0000001").unwrap()), "another audience"),
        ("another room", changed("a2", |c| c.room = RoomName::try_from("attic").unwrap()), "another room"),
        ("expired", changed("a3", |c| c.exp = unix_now() - 120), "token is expired"),
        ("tampered", format!("{head}.{flipped}{}", &end[1..]), signature),
        ("another key of the same id", fresh_key(&kid).unwrap().sign(&claims("a4")).unwrap(), signature),
        ("unknown key id", fresh_key("edge-2").unwrap().sign(&claims("a5")).unwrap(), "unknown key"),
        ("HS256 with the public key's text", hmac(public.as_bytes()), signature),
        ("HS256 with the public key", hmac(&raw), signature),
        ("alg none", forge(&json!({ "alg": "none", "kid": kid }), &as_json, None), nonsense),
        ("not a token", "nonsense".to_owned(), nonsense),
    ];
    for (why, token, reason) in cases {
        assert_refused(why, &believer.answer(token).await, reason);
    }
    assert_eq!(believer.answer(good.clone()).await, Ok(()), "the good one opens a session");
    assert_refused("used twice", &believer.answer(good).await, "used before");
}
