//! LiveKit's server API, as app servers call it: rooms over HTTP, and tokens that are void.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use livekit_protocol::DisconnectReason;
use meridian_tests::app_server::AppServer;
use meridian_tests::client::{Client, ClientOptions, DEADLINE};
use meridian_tests::node_impostor::post;
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::token::unix_now;
use serde_json::{Value, json};
use shared::claims::AccessClaims;
use shared::control::{DRAIN_PATH, DrainRequest, NODES_PATH, NodeStatus};

/// What the upgrade of a join with these claims is refused with.
async fn refusal(scene: &Scene, claims: &AccessClaims) -> Option<String> {
    let options = ClientOptions::new(scene.url(), &scene.sign(claims).unwrap());
    Client::join(options).await.err().map(|error| format!("{error:#}"))
}

/// The room as `ListRooms` has it: rooms tell the directory a little later.
async fn listed(scene: &Scene, server: &AppServer, wanted: impl Fn(Option<&Value>) -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let rooms = server.ask("ListRooms", json!({ "names": [scene.room] })).await.unwrap();
        let room = rooms["rooms"].as_array().and_then(|rooms| rooms.first());
        if wanted(room) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{rooms}");
    }
}

#[tokio::test]
async fn a_room_is_made_listed_changed_and_deleted() {
    let scene = Scene::open().await.unwrap();
    let server = AppServer::of(&scene).unwrap();
    let made =
        server.ask("CreateRoom", json!({ "name": scene.room, "emptyTimeout": 60, "metadata": "m" })).await.unwrap();
    assert_eq!((made["empty_timeout"].as_u64(), made["metadata"].as_str()), (Some(60), Some("m")));
    listed(&scene, &server, |room| room.is_some_and(|room| room["sid"] == made["sid"])).await;
    let ada = scene.join("ada").await.unwrap();
    let all = server.ask("ListParticipants", json!({ "room": scene.room })).await.unwrap();
    assert_eq!(all["participants"][0]["identity"], "ada");
    server.ask("UpdateRoomMetadata", json!({ "room": scene.room, "metadata": "n" })).await.unwrap();
    listed(&scene, &server, |room| room.is_some_and(|room| room["metadata"] == "n" && room["num_participants"] == 1))
        .await;
    server.ask("DeleteRoom", json!({ "room": scene.room })).await.unwrap();
    listed(&scene, &server, |room| room.is_none()).await;
    let gone = server.call("DeleteRoom", json!({ "room": scene.room })).await.unwrap();
    assert_eq!((gone.status, gone.body["msg"].as_str()), (404, Some("requested room does not exist")));
    drop(ada);
}

/// `nodeId` of `CreateRoom`.
#[tokio::test]
async fn a_room_is_on_the_node_that_its_maker_names() {
    let deployment = tokio::task::spawn_blocking(|| Deployment::start(2)).await.unwrap().unwrap();
    let operator = deployment.stack().secrets().enrolment_token().unwrap();
    let (_, text) = post(deployment.url(), NODES_PATH, Some(&operator), &json!({})).await.unwrap();
    let nodes: Vec<NodeStatus> = serde_json::from_str(&text).unwrap();
    assert_eq!(nodes.len(), 2, "{text}");
    let mut scenes = Vec::new();
    for (node, other) in nodes.iter().zip(nodes.iter().rev()) {
        let scene = Scene::on(deployment.clone());
        let server = AppServer::of(&scene).unwrap();
        server.ask("CreateRoom", json!({ "name": scene.room, "nodeId": node.node })).await.unwrap();
        let near_the_other = ClientOptions { place: Some(other.info.place), ..scene.options("ada").unwrap() };
        let mut ada = Client::join(near_the_other).await.unwrap();
        ada.connected().await.unwrap();
        let region = ada.observe(|o| o.join.as_ref().map(|join| join.server_region.clone()));
        assert_eq!(region.as_deref(), Some(node.info.region.as_str()));
        scenes.push((scene, server, ada));
    }

    let (scene, server, _) = &scenes[0];
    let new = |node: &str| json!({ "name": format!("{}-new", scene.room), "nodeId": node });
    for nowhere in ["ND_stranger0001", "x", "ND_"] {
        let refused = server.call("CreateRoom", new(nowhere)).await.unwrap();
        assert_eq!((refused.status, refused.body["msg"].as_str()), (404, Some("requested node does not exist")));
    }
    let drained = &nodes[0].node;
    let drain = DrainRequest { node: drained.clone(), draining: true };
    assert_eq!(post(scene.url(), DRAIN_PATH, Some(&operator), &drain).await.unwrap().0, 200);
    let refused = server.call("CreateRoom", new(drained.as_str())).await.unwrap();
    assert_eq!((refused.status, refused.body["msg"].as_str()), (412, Some("requested node is draining")));
    // One that exists is left as it is.
    server.ask("CreateRoom", json!({ "name": scene.room, "nodeId": "ND_stranger0001" })).await.unwrap();
}

#[tokio::test]
async fn tokens_of_the_removed_and_tokens_for_one_join_let_nobody_in_again() {
    let scene = Scene::open().await.unwrap();
    let server = AppServer::of(&scene).unwrap();
    let bob = scene.join("bob").await.unwrap();
    let mut held = scene.claims("ada");
    held.iat = Some(unix_now() - 10);
    let options = ClientOptions::new(scene.url(), &scene.sign(&held).unwrap());
    let mut ada = Client::join(options).await.unwrap();
    server.ask("RemoveParticipant", json!({ "room": scene.room, "identity": "ada" })).await.unwrap();
    let leave = ada.until("leave", |o| o.leave.clone()).await.unwrap();
    assert_eq!(leave.reason(), DisconnectReason::ParticipantRemoved);
    assert!(refusal(&scene, &held).await.unwrap().contains("revoked"));
    let mut undated = held.clone();
    undated.iat = None;
    assert!(refusal(&scene, &undated).await.unwrap().contains("revoked"), "it may be of before");
    held.iat = Some(unix_now() + 2);
    assert_eq!(refusal(&scene, &held).await, None, "a new one is good");

    let mut once = scene.claims("eve");
    (once.single_use, once.jti) = (true, "ticket-7".to_owned());
    assert_eq!(refusal(&scene, &once).await, None);
    assert!(refusal(&scene, &once).await.unwrap().contains("used before"));
    once.jti = String::new();
    assert!(refusal(&scene, &once).await.is_some(), "one that cannot be told from others");
    // Also when the room is over and there is a new one.
    drop(bob);
    server.ask("DeleteRoom", json!({ "room": scene.room })).await.unwrap();
    once.jti = "ticket-7".to_owned();
    assert!(refusal(&scene, &once).await.unwrap().contains("used before"));
    assert!(refusal(&scene, &undated).await.unwrap().contains("revoked"));
}

/// As on LiveKit's server.
#[tokio::test]
async fn a_deployment_may_let_the_removed_in_again() {
    let vars = [("KEEP_TOKENS_OF_REMOVED".to_owned(), "true".to_owned())];
    let deployment = tokio::task::spawn_blocking(|| Deployment::with_edge_vars(vars)).await.unwrap().unwrap();
    let scene = Scene::on(deployment);
    let server = AppServer::of(&scene).unwrap();
    let _bob = scene.join("bob").await.unwrap();
    let mut held = scene.claims("ada");
    held.iat = Some(unix_now() - 10);
    let mut ada = Client::join(ClientOptions::new(scene.url(), &scene.sign(&held).unwrap())).await.unwrap();
    server.ask("RemoveParticipant", json!({ "room": scene.room, "identity": "ada" })).await.unwrap();
    ada.until("leave", |o| o.leave.clone()).await.unwrap();
    assert_eq!(refusal(&scene, &held).await, None);

    // Not against an app server that says of when.
    let mut ada = Client::join(ClientOptions::new(scene.url(), &scene.sign(&held).unwrap())).await.unwrap();
    let now = json!({ "room": scene.room, "identity": "ada", "revokeTokenTs": unix_now().to_string() });
    server.ask("RemoveParticipant", now).await.unwrap();
    ada.until("leave", |o| o.leave.clone()).await.unwrap();
    assert!(refusal(&scene, &held).await.unwrap().contains("revoked"));
}
