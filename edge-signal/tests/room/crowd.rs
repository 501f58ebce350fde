//! In a large room what one participant is told of another's join, publication, mute and leave is no more than in a small
//! one, and in order.

use edge_signal::room::event::ConnectionId;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use prost::Message as _;
use shared::ids::TrackSid;

use crate::world::{Who, World, names};

/// So many with a microphone each.
fn crowd(count: usize) -> (World, Vec<(ConnectionId, TrackSid)>) {
    let mut world = World::new();
    let mut all = Vec::new();
    for number in 0..count {
        let who = world.join_active(&Who::named(&format!("p{number:03}")));
        let track = world.publish(&who, "m");
        all.push((who, track));
    }
    // Counters of the room are told a while after they changed.
    world.pass(60_000);
    world.look_away();
    (world, all)
}

/// What each of those present is told of one who joins, publishes, mutes and leaves: names and bytes.
fn told_of_a_visit(count: usize) -> (Vec<String>, usize) {
    let (mut world, all) = crowd(count);
    let guest = world.join_active(&Who::named("guest"));
    let track = world.publish(&guest, "m");
    world.say(&guest, Asked::Mute(proto::MuteTrackRequest { sid: track.to_string(), muted: true }));
    world.say(&guest, Asked::Leave(proto::LeaveRequest::default()));
    let mut told = all.iter().map(|(client, _)| {
        // The counters' digits are as many as they are.
        let inbox: Vec<Message> =
            world.inbox(client).into_iter().filter(|m| !matches!(m, Message::RoomUpdate(_))).collect();
        let names: Vec<String> = names(&inbox).into_iter().map(Into::into).collect();
        let bytes = inbox.into_iter().map(|m| proto::SignalResponse { message: Some(m) }.encoded_len()).sum();
        (names, bytes)
    });
    let first = told.next().unwrap();
    assert!(told.all(|other| other == first), "all are told the same");
    first
}

#[test]
fn a_visit_costs_each_of_a_hundred_what_it_costs_each_of_ten() {
    let (few, many) = (told_of_a_visit(10), told_of_a_visit(100));
    assert_eq!(few, many);
    assert_eq!(many.0, ["update", "update", "update", "subscription_permission_update", "update", "update"]);
}
