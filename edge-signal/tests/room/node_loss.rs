//! Nodes come late, lose their link, die, refuse: what becomes of the sessions.

use edge_signal::room::event::Event;
use edge_signal::room::join::RETURN_HOLD_MS;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::{DisconnectReason, leave_request::Action};
use shared::control::{CONTROL_VERSION, DescriptionKind, MediaState, NodeToRoom, RefusalReason};
use shared::ids::{Generation, TrackSid};

use crate::world::{Who, World, description, microphone, node_id, placed, session_description};

#[test]
fn a_link_that_comes_back_within_a_second_changes_nothing_for_clients() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.publish(&ada, "m");
    world.pass(10_000);
    world.look_away();
    let node = node_id(1);
    world.unlink(&node);
    world.pass(900);
    world.link(&node);
    world.pass(5_000);
    assert!(world.inbox(&ada).is_empty() && world.inbox(&bob).is_empty());
    assert_eq!(world.nodes[&node].welcomes, 2);
}

#[test]
fn what_happened_while_the_link_was_down_reaches_the_node() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let (one, two) = (world.publish(&ada, "m"), world.publish(&ada, "n"));
    let mute =
        |track: &TrackSid, muted| Asked::Mute(livekit_protocol::MuteTrackRequest { sid: track.to_string(), muted });
    world.say(&ada, mute(&two, true));
    let node = node_id(1);
    world.unlink(&node);
    world.say(&ada, mute(&two, false));
    let three = world.add_track(&ada, microphone("o")).unwrap();
    world.say(&ada, Asked::Offer(session_description("offer", 5)));
    world.say(&ada, mute(&one, true));
    let unsubscribe = livekit_protocol::UpdateSubscription { track_sids: vec![two.to_string()], ..Default::default() };
    world.say(&bob, Asked::Subscription(unsubscribe));
    let late = world.try_join(&Who::named("late")).unwrap();
    world.link(&node);
    let (_, session) = world.session_of(&ada);
    let ada_there = world.nodes[&node].sessions[&session].clone();
    assert!(ada_there.tracks.contains(&three));
    assert_eq!(ada_there.muted, [one.clone()].into());
    assert_eq!(ada_there.offers.last().unwrap().id, 5);
    assert_eq!(world.served(&bob), [one]);
    assert_eq!(world.served(&late).len(), 2, "who joined meanwhile is opened");
}

#[test]
fn an_offer_the_node_may_have_lost_is_sent_again_but_no_other() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let node = node_id(1);
    world.say(&ada, Asked::Offer(session_description("offer", 1)));
    world.answer(&ada, 1, &[]);
    world.say(&ada, Asked::Offer(session_description("offer", 2)));
    world.unlink(&node);
    world.link(&node);
    let (_, session) = world.session_of(&ada);
    let ids = |world: &World| world.nodes[&node].sessions[&session].offers.iter().map(|o| o.id).collect::<Vec<_>>();
    assert_eq!(ids(&world), [1, 2, 2]);
    world.answer(&ada, 2, &[]);
    world.unlink(&node);
    world.link(&node);
    assert_eq!(ids(&world), [1, 2, 2]);
}

#[test]
fn an_answer_the_node_may_have_lost_is_sent_again_naming_its_offer() {
    let mut world = World::new();
    let bob = world.join(&Who::named("bob").dual());
    let (node, session) = world.session_of(&bob);
    let offer = |id| NodeToRoom::Offer {
        session: session.clone(),
        description: description(DescriptionKind::Offer, id),
        mid_to_track: Vec::new(),
    };
    world.node_says(&node, offer(40));
    world.say(&bob, Asked::Answer(session_description("answer", 0)));
    world.unlink(&node);
    world.link(&node);
    let ids = |world: &World| world.nodes[&node].sessions[&session].answers.iter().map(|a| a.id).collect::<Vec<_>>();
    assert_eq!(ids(&world), [40, 40]);
    world.look_away();
    world
        .node_says(&node, NodeToRoom::DescriptionRejected { session: session.clone(), id: 40, detail: "twice".into() });
    assert!(world.inbox(&bob).is_empty(), "the client did nothing wrong");
    world.node_says(&node, offer(41));
    world.unlink(&node);
    world.link(&node);
    assert_eq!(ids(&world), [40, 40], "an answer to an older offer is of no use");
}

#[test]
fn when_a_node_dies_those_who_join_anew_do_so_on_another() {
    let mut world = World::new();
    let dual = |name| Who::named(name).dual();
    let (ada, bob) = (world.join_active(&dual("ada")), world.join_active(&dual("bob")));
    world.publish(&ada, "m");
    world.fleet = Some(node_id(2));
    world.kill(&node_id(1));
    assert!(!world.client(&ada).closed, "it may be the link only");
    world.pass(1_000);
    for client in [&ada, &bob] {
        assert!(world.client(client).closed && world.client(client).leave().is_none(), "they may resume, too");
    }
    let admission = world.admit(&Who::named("ada")).unwrap();
    assert_eq!(admission.place.unwrap().exclude, [node_id(1)]);
    world.pass(5_000);
    let admission = world.admit(&Who::named("ada")).unwrap();
    assert!(admission.place.unwrap().exclude.is_empty(), "it may be the only node, and back");
    let ada = world.join_active(&Who::named("ada"));
    let bob = world.join_active(&Who::named("bob"));
    let track = world.publish(&ada, "m");
    assert_eq!(world.session_of(&ada).0, node_id(2));
    world.pass(RETURN_HOLD_MS);
    assert_eq!(world.served(&bob), [track]);
    world.pass(30_000);
    assert_eq!(world.client(&bob).roster.len(), 2, "the old selves are gone");
}

#[test]
fn who_had_no_media_yet_is_moved_without_noticing() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada").offering(1));
    let track = world.add_track(&ada, microphone("m")).unwrap();
    world.receive_track(&ada, &track);
    world.kill(&node_id(1));
    world.pass(1_000);
    assert!(!world.client(&ada).closed);
    let request = world.asked_fleet.last().unwrap();
    assert_eq!((request.exclude.as_slice(), &request.first), ([node_id(1)].as_slice(), &None));
    world.step(Event::Placed { node: Some(placed(node_id(2))) });
    world.link(&node_id(2));
    let (node, session) = world.session_of(&ada);
    assert_eq!((node.clone(), session.generation), (node_id(2), Generation(2)));
    let there = &world.nodes[&node].sessions[&session];
    assert_eq!((there.offers.len(), there.tracks.contains(&track)), (1, true));
    world.media(&ada, MediaState::Connected);
    world.receive_track(&ada, &track);
}

#[test]
fn who_had_an_answer_but_no_media_yet_joins_anew() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada").dual().offering(1));
    world.answer(&ada, 1, &[]);
    world.kill(&node_id(1));
    world.pass(1_000);
    let leave = world.client(&ada).leave().unwrap();
    assert_eq!((leave.reason(), leave.action()), (DisconnectReason::ServerShutdown, Action::Reconnect));
}

#[test]
fn without_any_node_the_room_asks_again_ever_slower_and_recovers() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada"));
    world.fleet = None;
    world.kill(&node_id(1));
    world.pass(1_000);
    let refusal = world.try_join(&Who::named("bob")).unwrap_err();
    assert_eq!(refusal.reason.status(), 503);
    let mut waits = Vec::new();
    for attempt in 0..7 {
        assert_eq!(world.asked_fleet.len(), attempt + 1);
        let asked = world.now;
        world.step(Event::Placed { node: None });
        while world.asked_fleet.len() == attempt + 1 {
            world.pass(50);
        }
        waits.push(world.now.0 - asked.0);
    }
    assert_eq!(waits, [250, 500, 1_000, 2_000, 4_000, 8_000, 10_000]);
    assert!(world.asked_fleet.last().unwrap().exclude.is_empty(), "the node lost may be back");
    world.step(Event::Placed { node: Some(placed(node_id(1))) });
    world.link(&node_id(1));
    world.media(&ada, MediaState::Connected);
    assert!(!world.client(&ada).closed);
}

#[test]
fn an_answer_of_the_fleet_that_got_lost_is_asked_for_again() {
    let mut world = World::new();
    let _ada = world.join(&Who::named("ada"));
    world.kill(&node_id(1));
    world.pass(1_000);
    assert_eq!(world.asked_fleet.len(), 1);
    world.pass(10_000);
    assert_eq!(world.asked_fleet.len(), 2);
}

#[test]
fn a_node_that_never_dials_in_is_given_up() {
    let mut world = World::new();
    let ada = world.try_join(&Who::named("ada").offering(1)).unwrap();
    world.pass(10_000);
    assert_eq!(world.asked_fleet.len(), 1);
    world.step(Event::Placed { node: Some(placed(node_id(2))) });
    world.nodes.get_mut(&node_id(1)).unwrap().sessions.clear();
    world.link(&node_id(2));
    assert_eq!(world.session_of(&ada).0, node_id(2));
}

#[test]
fn a_restarted_node_gets_new_sessions_opened_and_connected_ones_resume() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada").dual());
    let bob = world.join(&Who::named("bob").offering(1));
    let node = node_id(1);
    world.kill(&node);
    world.link(&node);
    assert!(world.client(&ada).closed && world.client(&ada).leave().is_none());
    let (_, session) = world.session_of(&bob);
    assert_eq!(session.generation, Generation(2));
    assert_eq!(world.nodes[&node].sessions[&session].offers.len(), 1);
}

#[test]
fn a_session_the_room_no_longer_has_is_closed_on_the_node() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    let bob = world.join_active(&Who::named("bob"));
    let sid = world.client(&ada).sid.clone();
    world.unlink(&node_id(1));
    world.say(&ada, Asked::Leave(Default::default()));
    world.link(&node_id(1));
    assert!(world.find_session(&sid).is_none());
    world.dial(&node_id(1));
    let sid = world.client(&bob).sid.clone();
    world.say(&bob, Asked::Leave(Default::default()));
    world.hello(&node_id(1));
    assert!(world.find_session(&sid).is_none(), "also one that left between welcome and hello");
}

#[test]
fn a_refused_token_is_tried_again_and_then_the_client_is_told() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada"));
    for generation in 1..=3 {
        let (node, session) = world.session_of(&ada);
        assert_eq!(session.generation, Generation(generation));
        let detail = String::new();
        world.node_says(
            &node,
            NodeToRoom::SessionRefused { session: Some(session), reason: RefusalReason::BadToken, detail },
        );
    }
    assert_eq!(world.client(&ada).leave().unwrap().reason(), DisconnectReason::JoinFailure);
    assert_eq!(world.room.counters().refused_sessions, 3);
}

#[test]
fn a_node_without_room_for_the_first_session_is_passed_over() {
    let mut world = World::new();
    let ada = world.join(&Who::named("ada"));
    let (node, session) = world.session_of(&ada);
    let (reason, detail) = (RefusalReason::NoCapacity, String::new());
    world.node_says(&node, NodeToRoom::SessionRefused { session: Some(session), reason, detail });
    assert_eq!(world.asked_fleet.last().unwrap().exclude, [node]);
    assert!(!world.client(&ada).closed);
}

#[test]
fn a_node_of_another_version_is_not_used() {
    let mut world = World::new();
    let _ada = world.try_join(&Who::named("ada")).unwrap();
    world.dial(&node_id(1));
    let hello =
        NodeToRoom::Hello { control_version: CONTROL_VERSION + 1, sessions: Vec::new(), pipes: None, place: None };
    world.node_says(&node_id(1), hello);
    assert_eq!(world.asked_fleet.last().unwrap().exclude, [node_id(1)]);
}

#[test]
fn a_second_node_the_fleet_chose_meanwhile_does_not_split_the_room() {
    let mut world = World::new();
    let (ada, bob) = (Who::named("ada"), Who::named("bob").offering(1));
    let (first, second) = (world.admit(&ada).unwrap(), world.admit(&bob).unwrap());
    let ada = world.enter(&ada, first).unwrap();
    world.link_expected();
    world.fleet = Some(node_id(2));
    let bob = world.enter(&bob, second).unwrap();
    world.link(&node_id(2));
    let sid = world.client(&bob).sid.clone();
    let (node, session) = world.find_session(&sid).unwrap();
    assert_eq!((node.clone(), session.generation), (world.session_of(&ada).0, Generation(2)));
    assert!(world.nodes[&node_id(2)].sessions.is_empty(), "told by its welcome to drop what it had");
}

#[test]
fn a_node_that_closed_its_idle_link_is_asked_again_at_once() {
    let mut world = World::new();
    let ada = world.join_active(&Who::named("ada"));
    world.say(&ada, Asked::Leave(Default::default()));
    world.unlink(&node_id(1));
    world.pass(1_000);
    let admission = world.admit(&Who::named("ada")).unwrap();
    assert!(admission.place.unwrap().exclude.is_empty());
}
