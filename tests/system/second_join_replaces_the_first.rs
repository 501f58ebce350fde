//! One identity is in a room once: who comes last stays.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{DisconnectReason, participant_info};
use meridian_tests::client::Client;
use meridian_tests::scene::Scene;

fn own_sid(client: &Client) -> String {
    client.observe(|o| o.join.as_ref().unwrap().participant.clone().unwrap().sid)
}

#[tokio::test]
async fn the_first_is_told_and_the_others_see_no_gap() {
    let scene = Scene::open().await.unwrap();
    let mut bob = scene.join("bob").await.unwrap();
    let mut first = scene.join("ada").await.unwrap();
    let old = own_sid(&first);

    let second = scene.join("ada").await.unwrap();
    let leave = first.until("leave", |o| o.leave.clone()).await.unwrap();
    assert_eq!((leave.reason(), leave.action()), (DisconnectReason::DuplicateIdentity, Action::Disconnect));
    assert_eq!(first.until("close", |o| o.closed).await.unwrap(), Some(1000));

    let new = own_sid(&second);
    assert_ne!(old, new);
    bob.until("the new ada", |o| o.participants.get("ada").filter(|p| p.sid == new).map(|_| ())).await.unwrap();
    let gone =
        |p: &livekit_protocol::ParticipantInfo| p.sid == old && p.state() == participant_info::State::Disconnected;
    let told_gone = bob.observe(|o| {
        o.heard.iter().any(|m| matches!(m, Response::Update(update) if update.participants.iter().any(gone)))
    });
    assert!(!told_gone, "protocol 12 and later must not hear of the superseded session's end");
}
