//! In a large room what one participant is told of another's join, publication, mute and leave is no more than in a small
//! one, and in order.

use edge_signal::room::crowd::{CROWD, TOGETHER_MS};
use edge_signal::room::event::ConnectionId;
use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
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
fn a_visit_costs_each_of_a_hundred_no_more_than_each_of_ten() {
    let (few, many) = (told_of_a_visit(10), told_of_a_visit(100));
    assert_eq!(few.0, ["update", "update", "update", "subscription_permission_update", "update", "update"]);
    // That its media is up is told with its track.
    assert_eq!(many.0, ["update", "update", "subscription_permission_update", "update", "update"]);
    assert!(many.1 < few.1);
}

/// So many who watch, and one who publishes: the first of the clients.
fn audience(count: usize) -> (World, Vec<ConnectionId>) {
    let mut world = World::new();
    let mut all: Vec<_> = (0..count).map(|number| world.join_active(&Who::named(&format!("p{number:03}")))).collect();
    let star = world.join_active(&Who::named("star"));
    world.publish(&star, "m");
    all.insert(0, star);
    world.pass(60_000);
    world.look_away();
    (world, all)
}

/// How many participants each update of an inbox is about.
fn updates(inbox: &[Message]) -> Vec<usize> {
    let update = |message: &Message| match message {
        Message::Update(update) => Some(update.participants.len()),
        _ => None,
    };
    inbox.iter().filter_map(update).collect()
}

#[test]
fn those_who_come_to_a_crowd_together_are_told_of_together() {
    let (mut world, all) = audience(CROWD);
    let came: Vec<_> = (0..50).map(|number| world.join_active(&Who::named(&format!("new{number:02}")))).collect();
    assert_eq!(updates(&world.inbox(&all[1])), [1], "the first at once");
    for who in &came {
        let sid = world.client(who).sid.clone();
        assert_eq!(world.client(who).roster[&sid].state(), State::Active, "of itself each hears at once");
    }
    world.pass(TOGETHER_MS);
    assert_eq!(updates(&world.inbox(&all[1])), [50]);
    for who in all.iter().chain(&came) {
        let active = world.client(who).roster.values().filter(|known| known.state() == State::Active).count();
        assert_eq!(active, CROWD + 51);
    }
    world.pass(TOGETHER_MS);
    assert!(updates(&world.inbox(&all[1])).is_empty(), "once");
}

#[test]
fn who_speaks_up_in_a_crowd_is_told_of_at_once() {
    let (mut world, all) = audience(CROWD);
    let (_, late) = (world.join_active(&Who::named("first")), world.join_active(&Who::named("late")));
    let leaves = world.join_active(&Who::named("leaves"));
    world.look_away();
    let track = world.publish(&late, "m");
    let sid = world.client(&late).sid.clone();
    let known = world.client(&all[1]).roster[&sid].clone();
    assert_eq!((known.state(), known.tracks.len()), (State::Active, 1));
    assert_eq!(world.client(&all[1]).roster[&sid].tracks[0].sid, track.as_str());
    // Who is gone before it was told of is not told of as present.
    let gone = world.client(&leaves).sid.clone();
    world.say(&leaves, Asked::Leave(proto::LeaveRequest::default()));
    world.pass(TOGETHER_MS);
    assert!(!world.client(&all[1]).roster.contains_key(&gone));
    assert_eq!(world.client(&all[1]).roster[&sid].version, known.version);
}

#[test]
fn a_small_room_waits_for_nothing() {
    let (mut world, all) = audience(CROWD - 6);
    let came: Vec<_> = (0..4).map(|number| world.join_active(&Who::named(&format!("new{number}")))).collect();
    let sids: Vec<_> = came.iter().map(|who| world.client(who).sid.clone()).collect();
    assert!(sids.iter().all(|sid| world.client(&all[1]).roster[sid].state() == State::Active));
}
