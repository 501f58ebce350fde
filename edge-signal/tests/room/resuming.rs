//! Coming back on a new socket: the session goes on, and nothing was missed.

use edge_signal::room::event::ConnectionId;
use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, leave_request::Action};
use prost::Message as _;
use shared::control::{DescriptionKind, MediaState, NodeToRoom};

use crate::world::{Who, World, description, microphone, names, session_description};

/// Ada publishes, Bob watches; nobody has anything unread.
fn call(ada: &Who) -> (World, ConnectionId, ConnectionId) {
    let mut world = World::new();
    let ada = world.join_active(ada);
    let bob = world.join_active(&Who::named("bob"));
    world.publish(&ada, "m");
    world.look_away();
    (world, ada, bob)
}

fn refusal(world: &mut World, connection: &ConnectionId) -> (DisconnectReason, Action) {
    assert!(world.client(connection).closed);
    let leave = world.client(connection).leave().unwrap();
    (leave.reason(), leave.action())
}

#[test]
fn a_client_that_comes_back_goes_on_and_nobody_else_hears_of_it() {
    let (mut world, ada, bob) = call(&Who::named("ada"));
    let session = world.session_of(&ada);
    world.cut(&ada);
    world.pass(19_000);
    let tokens = world.tokens.len();
    let again = world.resume(&ada, &Who::named("ada"));
    assert_eq!(names(&world.inbox(&again)), ["reconnect", "update", "room_update"]);
    assert_eq!(world.tokens.len(), tokens + 1, "a fresh token");
    assert_eq!(world.session_of(&again), session);
    assert!(!names(&world.inbox(&bob)).contains(&"update"), "nobody saw it go");
    let sid = world.client(&again).sid.clone();
    assert_eq!(world.client(&again).roster[&sid].tracks.len(), 1, "it hears of itself");

    world.say(&again, Asked::Offer(session_description("offer", 7)));
    let (node, key) = session;
    assert_eq!(world.nodes[&node].sessions[&key].offers.last().unwrap().id, 7);
    world.pass(30_000);
    assert!(world.client(&bob).roster.contains_key(&sid), "it is here again");
}

#[test]
fn everyone_present_is_told_in_messages_that_are_not_too_long() {
    let mut world = World::new();
    let talkative = |name: &str| Who::named(name).grant(|grant| grant.can_update_own_metadata = Some(true));
    let mut all = Vec::new();
    for number in 0..5 {
        let who = world.join_active(&talkative(&format!("p{number}")));
        let metadata = "x".repeat(60_000);
        let change = proto::UpdateParticipantMetadata { metadata, ..Default::default() };
        world.say(&who, Asked::UpdateMetadata(change));
        all.push(who);
    }
    world.cut(&all[0]);
    let again = world.resume(&all[0], &talkative("p0"));
    let updates: Vec<proto::ParticipantUpdate> = (world.inbox(&again).into_iter())
        .filter_map(|message| if let Message::Update(update) = message { Some(update) } else { None })
        .collect();
    assert!(updates.iter().all(|update| update.encoded_len() <= 130 * 1024), "a few bytes around LiveKit's 128 KiB");
    let counts: Vec<usize> = updates.iter().map(|update| update.participants.len()).collect();
    assert_eq!(counts, [2, 2, 1]);
    assert_eq!(world.client(&again).roster.len(), 5);
}

#[test]
fn a_socket_that_seems_open_is_closed_without_a_word() {
    let (mut world, ada, bob) = call(&Who::named("ada"));
    let again = world.resume(&ada, &Who::named("ada"));
    assert!(world.client(&ada).closed && world.inbox(&ada).is_empty());
    // Its end is nobody's any more.
    world.cut(&ada);
    world.say(&ada, Asked::Leave(proto::LeaveRequest::default()));
    world.pass(60_000);
    assert!(!world.client(&again).closed);
    assert_eq!(world.client(&bob).roster.len(), 2);
}

#[test]
fn what_happened_meanwhile_is_told() {
    let (mut world, ada, bob) = call(&Who::named("ada"));
    let eve = world.join_active(&Who::named("eve"));
    let (bob_sid, eve_sid) = (world.client(&bob).sid.clone(), world.client(&eve).sid.clone());
    let denied = world.publish(&eve, "e");
    // Nobody has noticed yet that nothing reaches Ada.
    world.say(&eve, Asked::Mute(proto::MuteTrackRequest { sid: denied.to_string(), muted: true }));
    world.say(&eve, Asked::SubscriptionPermission(proto::SubscriptionPermission::default()));
    let ada_before = world.client(&ada).resuming();
    world.cut(&ada);
    world.say(&bob, Asked::Leave(proto::LeaveRequest::default()));
    let dan = world.join_active(&Who::named("dan"));
    let dans = world.publish(&dan, "d");
    *world.client(&ada) = ada_before;
    world.client(&ada).roster.get_mut(&eve_sid).unwrap().tracks[0].muted = false;
    world.client(&ada).roster.get_mut(&eve_sid).unwrap().version -= 1;
    world.client(&ada).allowed.insert(denied.to_string());

    let again = world.resume(&ada, &Who::named("ada"));
    let inbox = world.inbox(&again);
    assert_eq!(names(&inbox)[..4], ["reconnect", "update", "update", "room_update"]);
    let Message::Update(gone) = &inbox[1] else { panic!() };
    assert_eq!(gone.participants.len(), 1);
    assert_eq!((gone.participants[0].sid.as_str(), gone.participants[0].state()), (&*bob_sid, State::Disconnected));
    let roster = &world.client(&again).roster;
    assert!(!roster.contains_key(&bob_sid) && roster[&eve_sid].tracks[0].muted);
    assert_eq!(roster.len(), 3, "Dan is new");
    assert_eq!(world.client(&again).allowed, [dans.to_string()].into());
    let Message::RoomUpdate(update) = &inbox[3] else { panic!() };
    assert_eq!(update.room.as_ref().unwrap().num_participants, 3, "counted now");
}

#[test]
fn who_left_and_came_again_is_only_here() {
    let (mut world, ada, bob) = call(&Who::named("ada"));
    world.cut(&ada);
    world.say(&bob, Asked::Leave(proto::LeaveRequest::default()));
    let bob_again = world.join_active(&Who::named("bob"));
    world.look_away();
    let again = world.resume(&ada, &Who::named("ada"));
    let inbox = world.inbox(&again);
    assert_eq!(names(&inbox), ["reconnect", "update", "room_update"], "clients would take the new one for gone");
    let sid = world.client(&bob_again).sid.clone();
    assert!(world.client(&again).roster.contains_key(&sid));
}

#[test]
fn hidden_departures_stay_hidden() {
    let (mut world, ada, _) = call(&Who::named("ada"));
    let spy = world.join_active(&Who::named("spy").grant(|grant| grant.hidden = true));
    world.look_away();
    world.cut(&ada);
    world.say(&spy, Asked::Leave(proto::LeaveRequest::default()));
    let again = world.resume(&ada, &Who::named("ada"));
    assert_eq!(names(&world.inbox(&again)), ["reconnect", "update", "room_update"]);
}

#[test]
fn an_announcement_whose_answer_was_lost_is_answered_again() {
    let (mut world, ada, _) = call(&Who::named("ada"));
    let track = world.add_track(&ada, microphone("late")).unwrap();
    world.cut(&ada);
    let again = world.resume(&ada, &Who::named("ada"));
    let inbox = world.inbox(&again);
    let published = inbox.iter().find_map(|message| match message {
        Message::TrackPublished(published) => Some(published.clone()),
        _ => None,
    });
    let published = published.unwrap();
    assert_eq!((published.cid.as_str(), published.track.unwrap().sid), ("late", track.to_string()));
}

#[test]
fn the_node_offers_the_second_connection_anew() {
    let (mut world, ada, _) = call(&Who::named("ada").dual());
    let (node, session) = world.session_of(&ada);
    let offer = |id| NodeToRoom::Offer {
        session: session.clone(),
        description: description(DescriptionKind::Offer, id),
        mid_to_track: Vec::new(),
    };
    world.node_says(&node, offer(4));
    world.say(&ada, Asked::Answer(session_description("answer", 4)));
    world.cut(&ada);
    world.unlink(&node);
    let again = world.resume(&ada, &Who::named("ada").dual());
    assert_eq!(world.nodes[&node].sessions[&session].restarts, 0);
    let answers = world.nodes[&node].sessions[&session].answers.len();
    world.link(&node);
    assert_eq!(world.nodes[&node].sessions[&session].restarts, 1, "asked when it listens");
    assert_eq!(world.nodes[&node].sessions[&session].answers.len(), answers, "an answer to an old offer is of no use");
    world.node_says(&node, offer(5));
    assert!(names(&world.inbox(&again)).contains(&"offer"));
    world.unlink(&node);
    world.link(&node);
    assert_eq!(world.nodes[&node].sessions[&session].restarts, 1, "done");

    let (mut world, ada, _) = call(&Who::named("ada"));
    let (node, session) = world.session_of(&ada);
    world.resume(&ada, &Who::named("ada"));
    assert_eq!(world.nodes[&node].sessions[&session].restarts, 0, "with one connection the client restarts");
}

#[test]
fn who_cannot_go_on_joins_anew_and_nothing_is_created() {
    let (mut world, ada, bob) = call(&Who::named("ada"));
    let mismatch = (DisconnectReason::StateMismatch, Action::Reconnect);
    // Bob's session under Ada's name.
    let stranger = world.resume(&bob, &Who::named("ada"));
    assert_eq!(refusal(&mut world, &stranger), mismatch);
    let nobody = world.resume(&bob, &Who::named("nobody"));
    assert_eq!(refusal(&mut world, &nobody), mismatch);
    let other_path = world.resume(&ada, &Who::named("ada").dual());
    assert_eq!(refusal(&mut world, &other_path), mismatch);
    assert!(!world.client(&ada).closed, "the session itself is unharmed");
    world.media(&ada, MediaState::Failed);
    let over = world.resume(&ada, &Who::named("ada"));
    assert_eq!(refusal(&mut world, &over), mismatch);
}

#[test]
fn a_track_that_is_not_here_makes_the_client_start_over() {
    let (mut world, ada, bob) = call(&Who::named("ada"));
    let bobs = world.publish(&bob, "b");
    let state = |sid: &str| {
        let track = proto::TrackInfo { sid: sid.into(), ..Default::default() };
        let published = proto::TrackPublishedResponse { cid: "m".into(), track: Some(track) };
        proto::SyncState { publish_tracks: vec![published], ..Default::default() }
    };
    for unknown in ["TR_AMnobodyknows", bobs.as_str(), "nonsense"] {
        let again = world.resume(&ada, &Who::named("ada"));
        world.say(&again, Asked::SyncState(state(unknown)));
        assert_eq!(refusal(&mut world, &again), (DisconnectReason::StateMismatch, Action::Reconnect), "{unknown}");
    }
    let sid = world.client(&ada).sid.clone();
    assert!(world.client(&bob).roster.contains_key(&sid), "it is to join anew, not gone");
    let mut who = Who::named("ada");
    who.request.sync_state = Some(state("TR_AMnobodyknows"));
    let again = world.resume(&ada, &who);
    assert_eq!(refusal(&mut world, &again), (DisconnectReason::StateMismatch, Action::Reconnect));
}

#[test]
fn the_clients_state_is_taken_over() {
    let (mut world, ada, bob) = call(&Who::named("ada"));
    let tracks = [world.publish(&bob, "b1"), world.publish(&bob, "b2"), world.publish(&bob, "b3")];
    world.cut(&ada);
    let again = world.resume(&ada, &Who::named("ada"));
    let subscription = proto::UpdateSubscription { track_sids: vec![tracks[1].to_string()], ..Default::default() };
    let publisher_sid = world.client(&bob).sid.clone();
    let heard = proto::DataChannelReceiveState { publisher_sid: publisher_sid.clone(), last_seq: 9 };
    world.say(
        &again,
        Asked::SyncState(proto::SyncState {
            subscription: Some(subscription),
            track_sids_disabled: vec![tracks[0].to_string()],
            datachannel_receive_states: vec![heard, proto::DataChannelReceiveState::default()],
            ..Default::default()
        }),
    );
    assert!(!world.client(&again).closed);
    let mut expected = vec![tracks[0].clone(), tracks[2].clone()];
    expected.sort();
    assert_eq!(world.served(&again), expected, "one was unsubscribed");
    assert!(world.delivery(&again, &tracks[0]).paused && !world.delivery(&again, &tracks[2]).paused);
    let (node, session) = world.session_of(&again);
    let replays = &world.nodes[&node].sessions[&session].replays;
    assert_eq!(replays.len(), 1);
    assert_eq!((replays[0].publisher.as_str(), replays[0].sequence), (publisher_sid.as_str(), 9));
}

#[test]
fn the_grace_is_the_departure_timeout_and_the_departure_is_told_once() {
    let mut who = Who::named("ada");
    who.claims.room_config = Some(serde_json::json!({"departureTimeout": 45}));
    let (mut world, ada, bob) = call(&who);
    let sid = world.client(&ada).sid.clone();
    world.cut(&ada);
    world.pass(44_000);
    assert!(world.client(&bob).roster.contains_key(&sid));
    world.look_away();
    world.pass(60_000);
    let told = world.inbox(&bob).into_iter().filter(|message| matches!(message, Message::Update(_))).count();
    assert_eq!(told, 1);
    assert!(!world.client(&bob).roster.contains_key(&sid));
    let late = world.resume(&ada, &who);
    assert_eq!(refusal(&mut world, &late), (DisconnectReason::StateMismatch, Action::Reconnect));
}

#[test]
fn after_a_restart_of_the_object_clients_go_on_where_they_were() {
    let (mut world, ada, bob) = call(&Who::named("ada"));
    let (node, session) = world.session_of(&ada);
    world.restart();
    world.link(&node);
    let (ada, bob) = (world.resume(&ada, &Who::named("ada")), world.resume(&bob, &Who::named("bob")));
    assert_eq!(world.session_of(&ada), (node, session));
    assert_eq!(world.served(&bob).len(), 1);
    world.pass(60_000);
    assert_eq!(world.client(&bob).roster.len(), 2);
}
