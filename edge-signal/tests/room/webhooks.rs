//! What app servers are told of a call.

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::{DisconnectReason, RoomEndReason};
use shared::control::MediaState;

use crate::world::{Who, World};

#[test]
fn of_a_whole_call() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada"));
    assert_eq!(world.app_server.news(), ["room_started"]);
    world.media(&ada, MediaState::Connected);
    let bob = world.join_active(&Who::named("bob"));
    let track = world.publish(&ada, "m");
    let heard: Vec<_> = world.app_server.heard.drain(..).collect();
    let names: Vec<&str> = heard.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["participant_joined", "participant_joined", "track_published"]);
    // Counts are those after the event; a track only names its room and its publisher.
    let counts: Vec<u32> = heard.iter().map(|event| event.room.as_ref().unwrap().num_participants).collect();
    assert_eq!(counts, [1, 2, 0]);
    let [.., published] = &heard[..] else { unreachable!() };
    assert_eq!(published.track.as_ref().unwrap().sid, track.as_str());
    assert_eq!(published.participant.as_ref().unwrap().identity, "ada");
    assert_eq!(published.room.as_ref().unwrap().name, "r");
    assert_eq!(published.created_at, i64::try_from(world.now.secs()).unwrap());

    world.say(&ada, Asked::Leave(proto::LeaveRequest::default()));
    world.cut(&bob);
    world.pass(60_000);
    let heard: Vec<_> = world.app_server.heard.drain(..).collect();
    let names: Vec<&str> = heard.iter().map(|event| event.event.as_str()).collect();
    assert_eq!(names, ["track_unpublished", "participant_left", "participant_left", "room_finished"]);
    let reasons: Vec<_> = heard[1..3].iter().map(|e| e.participant.as_ref().unwrap().disconnect_reason()).collect();
    assert_eq!(reasons, [DisconnectReason::ClientInitiated, DisconnectReason::SignalClose]);
    assert_eq!(heard[1].room.as_ref().unwrap().num_participants, 1);
    assert_eq!(heard[3].room_end_reason(), RoomEndReason::RoomEndIdleTimeout);
}

#[test]
fn who_never_was_active_did_not_join() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada"));
    world.cut(&ada);
    assert_eq!(world.app_server.news(), ["room_started", "participant_connection_aborted"]);
}

#[test]
fn who_comes_twice_leaves_first() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.publish(&ada, "m");
    world.app_server.news();
    let again = world.join_active(&Who::named("ada"));
    let news = world.app_server.news();
    assert_eq!(news, ["track_unpublished", "participant_left", "participant_joined"]);
    assert!(!world.client(&again).closed);
}
