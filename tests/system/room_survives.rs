//! A room outlives the memory of its object: hibernation is not noticed, a restart of the edge costs a rejoin.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{DataPacket, ParticipantInfo, UserPacket, data_packet};
use meridian_tests::browser::Browser;
use meridian_tests::client::{Client, Observed, Publish};
use meridian_tests::scene::Scene;
use meridian_tests::sdk::Mode;
use serde_json::json;

/// Longer than a silent object stays in memory: about 10 s.
const SILENCE: Duration = Duration::from_secs(13);

/// How often it is tried.
const SILENCES: usize = 3;

/// How often it sleeps in a row, and how long that may take.
const SLEEPS: usize = 3;
const SLEEP_LIMIT: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_millis(200);

/// Ada and Bob in a call, both publishing.
async fn call(scene: &Scene) -> (Client, Client) {
    let mut people = Vec::new();
    for identity in ["ada", "bob"] {
        let mut options = scene.options(identity).unwrap();
        options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
        let mut client = Client::join(options).await.unwrap();
        client.connected().await.unwrap();
        people.push(client);
    }
    let (mut bob, mut ada) = (people.pop().unwrap(), people.pop().unwrap());
    for client in [&mut ada, &mut bob] {
        sees_more(client).await;
    }
    ada.until("bob's tracks", |o| tracks_of(o, "bob")).await.unwrap();
    bob.until("ada's tracks", |o| tracks_of(o, "ada")).await.unwrap();
    (ada, bob)
}

/// Audio and video both go on.
async fn sees_more(client: &mut Client) {
    for kind in ['A', 'V'] {
        let before = client.observe(|o| o.flow(kind).map_or(0, |f| f.packets));
        let more = |o: &Observed| o.flow(kind).filter(|f| f.packets > before + 20).map(|_| ());
        client.until("more media", more).await.unwrap();
    }
}

/// Sids of somebody's two tracks, once both are there.
fn tracks_of(o: &Observed, who: &str) -> Option<Vec<String>> {
    let tracks = &o.participants.get(who)?.tracks;
    (tracks.len() == 2).then(|| tracks.iter().map(|t| t.sid.clone()).collect())
}

fn known(client: &Client, who: &str) -> ParticipantInfo {
    client.observe(|o| o.participants[who].clone())
}

#[tokio::test]
async fn nobody_notices_hibernation() {
    let scene = Scene::alone(1).await.unwrap();
    let (mut ada, mut bob) = call(&scene).await;
    let restored = || scene.deployment.edge_log().matches(&format!("room restored: {}", scene.room)).count();
    let (before, heard) = (restored(), ada.observe(|o| o.heard.len()));
    let (sid, version) = (known(&bob, "ada").sid, known(&bob, "ada").version);

    // Nobody says a word on the signal connections; media goes on beside them. A timer of the room may still have kept
    // it awake the first time.
    let mut now = None;
    for silence in 1..=SILENCES {
        tokio::time::sleep(SILENCE).await;
        let wanted = silence % 2 == 1;
        ada.mute("camera", wanted).await.unwrap();
        let muted = |o: &Observed| {
            let ada = o.participants.get("ada")?;
            ada.tracks.iter().any(|t| t.name == "camera" && t.muted == wanted).then(|| ada.clone())
        };
        now = Some(bob.until("mute", muted).await.unwrap());
        if restored() > before {
            break;
        }
    }
    let now = now.unwrap();
    assert!(restored() > before, "the object was never out of memory: {}", scene.deployment.edge_log());
    assert_eq!(now.sid, sid);
    assert!(now.version > version, "{} after {version}", now.version);
    assert!(ada.observe(|o| o.closed.is_none() && o.leave.is_none() && o.heard.len() >= heard));

    // Everything else works as if nothing had happened.
    ada.mute("camera", false).await.unwrap();
    sees_more(&mut bob).await;
    ada.ping().await.unwrap();
    let user = UserPacket { payload: b"still here".to_vec(), ..UserPacket::default() };
    let packet = DataPacket { value: Some(data_packet::Value::User(user)), ..DataPacket::default() };
    bob.send_data("_reliable", packet).await.unwrap();
    ada.until("data", |o| o.data.iter().find(|(_, p)| p.participant_identity == "bob").map(|_| ())).await.unwrap();
    let mut eve = scene.join("eve").await.unwrap();
    eve.until("both calls", |o| tracks_of(o, "ada").and(tracks_of(o, "bob"))).await.unwrap();
    sees_more(&mut eve).await;
    bob.leave().await.unwrap();
    ada.until("bob is gone", |o| (!o.participants.contains_key("bob")).then_some(())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn it_sleeps_between_the_pings_of_sdk_clients_that_are_quiet() {
    let scene = Scene::alone(1).await.unwrap();
    let browser = Browser::launch().await.unwrap();
    let (ada, bob) = (browser.client("ada").await.unwrap(), browser.client("bob").await.unwrap());
    for client in [&ada, &bob] {
        client.join(&scene, Mode::Single).await.unwrap();
    }
    ada.hears(json!({ "event": "participantActive", "identity": "bob" })).await.unwrap();
    let since = [ada.mark().await.unwrap(), bob.mark().await.unwrap()];
    let restored = || scene.deployment.edge_log().matches(&format!("room restored: {}", scene.room)).count();
    let (before, deadline) = (restored(), Instant::now() + SLEEP_LIMIT);
    // Nothing but their pings wakes it.
    while restored() < before + SLEEPS {
        assert!(Instant::now() < deadline, "it did not sleep: {}", scene.deployment.edge_log());
        tokio::time::sleep(POLL).await;
    }
    for (client, since) in [(&ada, since[0]), (&bob, since[1])] {
        let heard: Vec<_> = client.heard(since).await.unwrap().into_iter().map(|heard| heard.event).collect();
        assert!(heard.iter().all(|event| event == "connectionQuality"), "{heard:?}");
    }
    let _eve = scene.join("eve").await.unwrap();
    for client in [&ada, &bob] {
        client.hears(json!({ "event": "participantConnected", "identity": "eve" })).await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_edge_comes_back_with_the_room() {
    let scene = Scene::alone(1).await.unwrap();
    let (mut ada, bob) = call(&scene).await;
    let room_sid = |c: &Client| c.observe(|o| o.join.as_ref().unwrap().room.as_ref().unwrap().sid.clone());
    let (room, version) = (room_sid(&ada), known(&ada, "bob").version);

    scene.deployment.restart_edge().await.unwrap();
    scene.deployment.nodes_are_ready().await.unwrap();
    ada.until("the broken connection", |o| o.closed).await.unwrap();

    // Bob has not come back yet, but the room still knows him: his version has not gone backwards.
    let mut options = scene.options("ada").unwrap();
    options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
    let mut ada_again = Client::join(options).await.unwrap();
    let others = ada_again.observe(|o| o.join.as_ref().unwrap().other_participants.clone());
    let bob_kept = others.iter().find(|p| p.identity == "bob").unwrap();
    assert!(bob_kept.version >= version, "{} after {version}", bob_kept.version);
    assert_eq!(bob_kept.tracks.len(), 2);
    assert_eq!(room_sid(&ada_again), room, "it is the same room");

    drop(bob);
    let mut options = scene.options("bob").unwrap();
    options.publish = vec![Publish::camera("camera"), Publish::microphone("microphone")];
    let mut bob_again = Client::join(options).await.unwrap();
    for client in [&mut ada_again, &mut bob_again] {
        client.connected().await.unwrap();
    }
    ada_again.until("bob's new tracks", |o| tracks_of(o, "bob")).await.unwrap();
    bob_again.until("ada's new tracks", |o| tracks_of(o, "ada")).await.unwrap();
    sees_more(&mut ada_again).await;
    sees_more(&mut bob_again).await;
    let strangers = |o: &Observed| o.heard.iter().any(|m| matches!(m, Response::Leave(_)));
    assert!(!ada_again.observe(strangers));
}
