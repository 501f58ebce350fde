//! A track that an app server mutes is not forwarded, even where its client takes no notice; its owner may unmute it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use livekit_protocol::MuteTrackRequest;
use livekit_protocol::signal_request::Message as Request;
use meridian_tests::app_server::AppServer;
use meridian_tests::client::{Client, Observed, Publish};
use meridian_tests::scene::Scene;
use serde_json::json;
use tokio::time::timeout;

const PACKETS_RECEIVED: &str = "meridian_node_packets_received_total";
/// A microphone that is forwarded sends fifty packets in this time.
const WINDOW: Duration = Duration::from_secs(1);
/// Windows until the mute has got through, at most.
const WINDOWS: usize = 30;

fn packets(o: &Observed) -> u64 {
    o.flow('A').map_or(0, |flow| flow.packets)
}

async fn hears_more(client: &mut Client) {
    let before = client.observe(packets);
    client.until("more sound", |o| (packets(o) > before + 20).then_some(())).await.unwrap();
}

#[tokio::test]
async fn whatever_its_client_sends() {
    let scene = Scene::alone(1).await.unwrap();
    let (ada, mut bob) = (scene.join("ada").await.unwrap(), scene.join("bob").await.unwrap());
    ada.publish(Publish::microphone("microphone")).await.unwrap();
    hears_more(&mut bob).await;
    let sid = bob.observe(|o| o.participants["ada"].tracks.first().map(|track| track.sid.clone())).unwrap();

    let mute = json!({ "room": scene.room, "identity": "ada", "trackSid": sid, "muted": true });
    AppServer::of(&scene).unwrap().ask("MutePublishedTrack", mute).await.unwrap();
    let mut silent = false;
    for _ in 0..WINDOWS {
        let before = bob.observe(packets);
        silent = timeout(WINDOW, bob.until("sound", |o| (packets(o) > before).then_some(()))).await.is_err();
        if silent {
            break;
        }
    }
    assert!(silent, "it goes on");
    let arrived = scene.deployment.metric(PACKETS_RECEIVED).await.unwrap();
    let sends = async {
        while scene.deployment.metric(PACKETS_RECEIVED).await.unwrap() < arrived + 50.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(WINDOW * 10, sends).await.unwrap();

    ada.request(Request::Mute(MuteTrackRequest { sid, muted: false })).await.unwrap();
    hears_more(&mut bob).await;
}
