//! Leaving: goodbyes, lost sockets, lost media, and the end of the room.

use edge_signal::room::event::Event;
use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, leave_request::Action};
use shared::control::MediaState;

use crate::world::{Who, World, names};

fn goodbye() -> Asked {
    Asked::Leave(proto::LeaveRequest::default())
}

fn last_update(inbox: &[Message]) -> &proto::ParticipantInfo {
    let updates = inbox.iter().rev().find_map(|message| match message {
        Message::Update(update) => update.participants.first(),
        _ => None,
    });
    updates.expect("no update")
}

#[test]
fn a_goodbye_is_answered_and_the_others_hear_of_it() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.publish(&ada, "m");
    assert_eq!(world.served(&bob), [track]);
    let ada_sid = world.client(&ada).sid.clone();
    let version = world.client(&bob).roster[&ada_sid].version;
    world.look_away();
    world.say(&ada, goodbye());
    let leave = world.client(&ada).leave().unwrap();
    assert_eq!((leave.reason(), leave.action()), (DisconnectReason::ClientInitiated, Action::Disconnect));
    assert!(world.client(&ada).closed);
    let inbox = world.inbox(&bob);
    let info = last_update(&inbox);
    assert_eq!((info.state(), info.disconnect_reason()), (State::Disconnected, DisconnectReason::ClientInitiated));
    assert!(info.tracks.is_empty() && info.version == version + 1);
    assert!(world.served(&bob).is_empty());
    assert!(world.find_session(&ada_sid).is_none());
}

#[test]
fn a_socket_lost_before_media_is_a_departure_at_once() {
    let mut world = World::new();
    let bob = world.join_active(&Who::named("bob"));
    let ada = world.join(&Who::named("ada"));
    world.look_away();
    world.cut(&ada);
    let inbox = world.inbox(&bob);
    assert_eq!(last_update(&inbox).disconnect_reason(), DisconnectReason::SignalClose);
}

#[test]
fn a_socket_lost_with_media_up_leaves_twenty_seconds_to_return() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let ada_sid = world.client(&ada).sid.clone();
    world.look_away();
    world.cut(&ada);
    world.pass(19_000);
    assert!(world.client(&bob).roster.contains_key(&ada_sid));
    let again = world.join_active(&Who::named("ada"));
    world.pass(30_000);
    let again_sid = world.client(&again).sid.clone();
    assert!(world.client(&bob).roster.contains_key(&again_sid));

    world.cut(&again);
    world.pass(20_000);
    assert!(!world.client(&bob).roster.contains_key(&again_sid));
    let inbox = world.inbox(&bob);
    assert_eq!(last_update(&inbox).disconnect_reason(), DisconnectReason::SignalClose);
}

#[test]
fn media_that_failed_sends_the_client_to_join_anew() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.publish(&ada, "m");
    let ada_sid = world.client(&ada).sid.clone();
    world.media(&ada, MediaState::Disconnected);
    assert!(!world.client(&ada).closed, "it may come back");
    world.media(&ada, MediaState::Failed);
    let leave = world.client(&ada).leave().unwrap();
    assert_eq!((leave.reason(), leave.action()), (DisconnectReason::ConnectionTimeout, Action::Reconnect));
    assert!(world.client(&bob).roster[&ada_sid].tracks.is_empty());
    world.look_away();
    world.pass(20_000);
    let inbox = world.inbox(&bob);
    assert_eq!(last_update(&inbox).disconnect_reason(), DisconnectReason::ConnectionTimeout);
}

#[test]
fn a_client_that_never_connects_is_sent_away_after_a_minute() {
    let mut world = World::new();
    let bob = world.join_active(&Who::named("bob"));
    let ada = world.join(&Who::named("ada"));
    world.pass(59_000);
    assert!(!world.client(&ada).closed);
    world.look_away();
    world.pass(1_000);
    assert_eq!(world.client(&ada).leave().unwrap().reason(), DisconnectReason::JoinFailure);
    let inbox = world.inbox(&bob);
    assert_eq!(last_update(&inbox).disconnect_reason(), DisconnectReason::JoinFailure);
}

#[test]
fn garbage_closes_the_socket_and_harms_nobody_else() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.look_away();
    world.step(Event::ClientGarbage { connection: ada.clone() });
    assert!(world.client(&ada).closed);
    assert_eq!(world.client(&ada).leave(), None, "closed without a leave, as LiveKit does");
    assert!(world.inbox(&bob).is_empty());
    assert_eq!(world.room.counters().bad_messages, 1);
    world.step(Event::ClientMessage {
        connection: ada,
        message: Box::new(proto::SignalRequest { message: Some(goodbye()) }),
    });
    assert_eq!(world.room.counters().dropped_stale, 1);
}

#[test]
fn empty_frames_and_messages_of_no_concern_are_ignored() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.look_away();
    world.step(Event::ClientMessage {
        connection: ada.clone(),
        message: Box::new(proto::SignalRequest { message: None }),
    });
    world.say(&ada, Asked::SyncState(proto::SyncState::default()));
    world.say(&ada, Asked::TrackSetting(proto::UpdateTrackSettings::default()));
    assert!(world.inbox(&ada).is_empty());
}

#[test]
fn the_simulated_full_reconnect_tells_the_client_to_join_anew() {
    use proto::simulate_scenario::Scenario;
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let sid = world.client(&ada).sid.clone();
    let scenario = Some(Scenario::LeaveRequestFullReconnect(true));
    world.say(&ada, Asked::Simulate(proto::SimulateScenario { scenario }));
    assert_eq!(world.client(&ada).leave().unwrap().action(), Action::Reconnect);
    assert!(world.find_session(&sid).is_none());
    world.join_active(&Who::named("ada"));
}

#[test]
fn the_room_ends_twenty_seconds_after_the_last_one_left() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let bot = world.join_active(&Who::named("bot").grant(|grant| grant.agent = true));
    world.say(&ada, goodbye());
    world.pass(19_000);
    assert!(!world.room.is_over());
    world.pass(1_000);
    assert!(world.room.is_over());
    assert_eq!(world.room.deadline(), None);
    assert_eq!(world.client(&bot).leave().unwrap().reason(), DisconnectReason::RoomClosed);
    assert_eq!(world.directory.last(), Some(&None));
}

#[test]
fn the_operator_is_told_of_each_departure_once() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let hidden = world.join_active(&Who::named("eve").grant(|grant| grant.hidden = true));
    world.pass(61_500);
    let again = world.join_active(&Who::named("ada"));
    world.pass(2_000);
    world.cut(&again);
    world.say(&hidden, goodbye());
    world.pass(60_000);
    assert!(world.room.is_over());
    let [ada, hidden, again] = [ada, hidden, again].map(|client| world.client(&client).sid.clone());
    let left: Vec<(String, DisconnectReason, u64)> =
        world.left.iter().map(|(sid, reason, seconds)| (sid.to_string(), *reason, *seconds)).collect();
    let expected = [
        (ada, DisconnectReason::DuplicateIdentity, 61),
        (hidden, DisconnectReason::ClientInitiated, 63),
        (again, DisconnectReason::SignalClose, 22),
    ];
    assert_eq!(left, expected);
}

#[test]
fn a_room_someone_returns_to_does_not_end() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.say(&ada, goodbye());
    world.pass(19_000);
    let bob = world.join_active(&Who::named("bob"));
    world.pass(60_000);
    assert!(!world.room.is_over());
    assert!(names(&world.inbox(&bob)).contains(&"join"));
}

#[test]
fn after_a_restart_those_who_do_not_return_are_gone() {
    let mut world = World::new();
    let (ada, _bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.publish(&ada, "m");
    world.restart();
    let ada = world.join(&Who::named("ada"));
    world.link_expected();
    let inbox = world.inbox(&ada);
    let Message::Join(join) = &inbox[0] else { panic!() };
    assert_eq!(join.other_participants.len(), 1, "bob has not returned yet");
    assert!(!world.served(&ada).contains(&track), "the old session's track went with it");
    world.pass(20_000);
    assert_eq!(world.client(&ada).roster.len(), 1);
}
