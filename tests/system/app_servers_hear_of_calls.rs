//! Webhooks, as LiveKit's server SDK takes them: every event of a call, in order, signed, once; also by a receiver that was
//! dead for a while, and with the edge killed in between.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use livekit_protocol::signal_response::Message;
use livekit_protocol::{LeaveRequest, signal_request};
use meridian_tests::app_server::AppServer;
use meridian_tests::client::{DEADLINE, Publish};
use meridian_tests::rows::sql;
use meridian_tests::scene::{Deployment, Scene};
use meridian_tests::server_sdk::ServerSdk;
use meridian_tests::signal::{Heard, Mode, Signal, join_request};
use serde_json::{Value, json};

/// What a call of two brings, one of whom publishes, until everybody is out of the room.
const CALL: [&str; 5] =
    ["room_started", "participant_joined", "participant_joined", "track_published", "participant_left"];
/// What comes when the room is closed then.
const END: [&str; 3] = ["track_unpublished", "participant_left", "room_finished"];

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

#[tokio::test]
async fn each_receiver_gets_all_in_order_and_once() {
    let (steady, mortal) = (ServerSdk::start().await.unwrap(), ServerSdk::start().await.unwrap());
    let (port, mortal_port) = (steady.listen(0).await.unwrap(), mortal.listen(0).await.unwrap());
    let urls = format!("http://127.0.0.1:{port}/hook\nhttp://127.0.0.1:{mortal_port}/hook");
    let start = move || Deployment::with_edge_vars([("WEBHOOK_URLS".to_owned(), urls)]);
    let deployment = tokio::task::spawn_blocking(start).await.unwrap().unwrap();
    let scene = Scene::on(deployment);

    let mut ada = scene.join_publishing("ada", vec![Publish::microphone("microphone")]).await.unwrap();
    let mut bob = scene.join("bob").await.unwrap();
    bob.until("ada's track", |o| o.flow('A').filter(|flow| flow.packets > 0).map(|_| ())).await.unwrap();
    let before = mortal.heard(4).await.unwrap();
    assert_eq!(names(&before)[0], "room_started");
    drop(mortal);

    // One receiver is dead: the other one hears at once.
    bob.leave().await.unwrap();
    let heard = steady.heard(CALL.len()).await.unwrap();
    let mut sorted = (names(&heard), CALL.to_vec());
    sorted.0[1..4].sort_unstable();
    assert_eq!(sorted.0, sorted.1);
    assert_eq!(heard[4]["participant"]["identity"], "bob");
    assert_eq!(heard[4]["participant"]["disconnectReason"], "CLIENT_INITIATED");
    let track = heard.iter().find(|event| event["event"] == "track_published").unwrap();
    assert_eq!((&track["track"]["source"], &track["room"]["name"]), (&json!("MICROPHONE"), &json!(scene.room)));

    let server = AppServer::of(&scene).unwrap();
    server.ask("DeleteRoom", json!({ "room": scene.room })).await.unwrap();
    ada.until("the end of the room", |o| o.closed).await.unwrap();
    scene.deployment.restart_edge().await.unwrap();

    // The dead one comes back to an edge that knows of the room only what it wrote.
    let reborn = ServerSdk::start().await.unwrap();
    assert_eq!(reborn.listen(mortal_port).await.unwrap(), mortal_port);
    let missed = reborn.heard(1 + END.len()).await.unwrap();
    let all = steady.heard(CALL.len() + END.len()).await.unwrap();
    assert_eq!(names(&all)[CALL.len()..], END);
    assert_eq!(all[CALL.len() + 2]["roomEndReason"], "ROOM_END_API_DELETE");
    let told: Vec<&Value> = before.iter().chain(&missed).collect();
    assert_eq!(told, all.iter().collect::<Vec<_>>(), "both were told the same, in the same order");
}

#[tokio::test]
async fn who_never_gets_media_up_is_told_of_as_aborted() {
    let receiver = ServerSdk::start().await.unwrap();
    let port = receiver.listen(0).await.unwrap();
    let urls = format!("http://127.0.0.1:{port}/hook");
    let start = move || Deployment::with_edge_vars([("WEBHOOK_URLS".to_owned(), urls)]);
    let scene = Scene::on(tokio::task::spawn_blocking(start).await.unwrap().unwrap());
    let token = scene.sign(&scene.claims("eve")).unwrap();
    // Signaling alone: no ICE, no DTLS.
    let mut signal = Signal::join(scene.url(), &token, Mode::Single, &join_request()).await.unwrap();
    assert!(matches!(signal.hear().await, Heard::Message(message) if matches!(*message, Message::Join(_))));
    signal.send(signal_request::Message::Leave(LeaveRequest::default())).await;
    let heard = receiver.heard(2).await.unwrap();
    assert_eq!(names(&heard), ["room_started", "participant_connection_aborted"]);
    assert_eq!(heard[1]["participant"]["identity"], "eve");
}

#[tokio::test]
async fn what_no_receiver_takes_for_a_day_is_given_up() {
    let port = ServerSdk::start().await.unwrap().listen(0).await.unwrap();
    // It is dead by now.
    let urls = format!("http://127.0.0.1:{port}/hook");
    let start = move || Deployment::with_edge_vars([("WEBHOOK_URLS".to_owned(), urls)]);
    let scene = Scene::on(tokio::task::spawn_blocking(start).await.unwrap().unwrap());
    let server = AppServer::of(&scene).unwrap();
    server.ask("CreateRoom", json!({ "name": scene.room, "emptyTimeout": 3600 })).await.unwrap();
    let failures = |scene: &Scene| scene.deployment.edge_log().matches("webhook_failed").count();
    until(&scene, "a try that fails", || failures(&scene) > 0).await;

    let (deployment, room) = (scene.deployment.clone(), scene.room.clone());
    let age = move || {
        let scene = Scene { deployment, room };
        let mut stack = scene.deployment.stack();
        stack.edge().process.kill();
        let older = "UPDATE webhook_event SET created = created - 86400000; UPDATE webhook_receiver SET due = 0";
        assert_eq!(sql(&scene, "RoomObject", "webhook_event", older).1, 2);
        stack.edge().restart()
    };
    tokio::task::spawn_blocking(age).await.unwrap().unwrap();
    // Whoever asks wakes the room; the next event waits behind nothing then.
    let receiver = ServerSdk::start().await.unwrap();
    assert_eq!(receiver.listen(port).await.unwrap(), port);
    server.ask("DeleteRoom", json!({ "room": scene.room })).await.unwrap();
    let heard = receiver.heard(1).await.unwrap();
    assert_eq!(names(&heard), ["room_finished"], "and not what is a day old");
    assert!(scene.deployment.edge_log().contains("\"event\":\"webhook_lost\",\"reason\":\"too_old\""));
}

async fn until(scene: &Scene, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {DEADLINE:?}: {what}\n{}", scene.deployment.edge_log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
