//! A node drains: its room goes to another one as a whole, and is served by the old one until everyone is there.

use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::moving::{MOVE_LIMIT_MS, MOVE_STEP_MS, MOVE_TOGETHER_MS};
use livekit_protocol::MediaSectionsRequirement;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::control::{DescriptionKind, MediaState, NodeToRoom, RefusalReason};
use shared::ids::{Generation, TrackSid};

use crate::world::{Who, World, description, names, node_id, placed, session_description};

fn browser(name: &str) -> Who {
    Who::named(name).browser("Chrome")
}

fn native(name: &str) -> Who {
    Who::named(name).sdk(livekit_protocol::client_info::Sdk::Python)
}

/// Ada publishes, Bob watches.
fn call(world: &mut World, ada: &Who, bob: &Who) -> (ConnectionId, ConnectionId, TrackSid) {
    let (ada, bob) = (world.join_active(ada), world.join_active(bob));
    let track = world.publish(&ada, "m");
    world.say(&bob, Asked::Offer(session_description("offer", 4)));
    world.answer(&bob, 4, &[("3", &track)]);
    world.pass(10_000);
    world.look_away();
    (ada, bob, track)
}

fn drain(world: &mut World, number: u8, draining: bool) {
    world.node_says(&node_id(number), NodeToRoom::Draining { draining });
}

/// The fleet names this node, and it comes.
fn place(world: &mut World, number: u8) {
    world.step(Event::Placed { node: Some(placed(node_id(number))) });
    world.link(&node_id(number));
}

fn offer(world: &mut World, client: &ConnectionId, id: u32) {
    world.say(client, Asked::Offer(session_description("offer", id)));
}

fn sessions(world: &World, number: u8) -> usize {
    world.nodes.get(&node_id(number)).map_or(0, |node| node.sessions.len())
}

/// Offers that its node has been given.
fn offered(world: &mut World, client: &ConnectionId) -> Vec<u32> {
    let (node, session) = world.session_of(client);
    world.nodes[&node].sessions[&session].offers.iter().map(|offer| offer.id).collect()
}

#[test]
fn everyone_changes_over_at_once_and_hears_nothing() {
    let mut world = World::new();
    let (ada, bob, track) = call(&mut world, &browser("ada"), &browser("bob"));
    let asked = world.asked_fleet.len();
    drain(&mut world, 1, true);
    let request = world.asked_fleet.last().unwrap();
    assert_eq!((world.asked_fleet.len(), request.exclude.as_slice()), (asked + 1, [node_id(1)].as_slice()));
    assert_eq!((request.sessions, &request.lost), (2, &None), "it has to have room for both");
    assert!(world.inbox(&ada).is_empty(), "nothing happens before there is a node to go to");
    place(&mut world, 2);
    for client in [&ada, &bob] {
        let asked = Message::MediaSectionsRequirement(MediaSectionsRequirement::default());
        assert_eq!(world.inbox(client), [asked]);
        let (node, session) = world.session_of(client);
        assert_eq!((node, session.generation), (node_id(2), Generation(2)));
    }
    assert_eq!(world.served(&bob), [track]);
    assert_eq!(sessions(&world, 1), 2, "they are served there still");

    offer(&mut world, &ada, 7);
    assert_eq!(offered(&mut world, &ada), [0; 0], "she waits for the other");
    offer(&mut world, &bob, 8);
    assert_eq!((offered(&mut world, &ada), offered(&mut world, &bob)), (vec![7], vec![8]));
    assert_eq!(sessions(&world, 1), 2);
    world.answer(&ada, 7, &[]);
    world.media(&ada, MediaState::Connected);
    assert_eq!(sessions(&world, 1), 1, "she needs it no more");
    world.answer(&bob, 8, &[]);
    world.media(&bob, MediaState::Connected);
    assert_eq!(sessions(&world, 1), 0);
    for client in [&ada, &bob] {
        assert_eq!(names(&world.inbox(client)), ["answer"]);
    }
    world.kill(&node_id(1));
    world.pass(MOVE_LIMIT_MS);
    for client in [&ada, &bob] {
        assert!(!world.client(client).closed && world.inbox(client).is_empty());
        assert_eq!(world.session_of(client).1.generation, Generation(2));
    }
}

#[test]
fn an_offer_of_the_other_node_waits_as_well() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&browser("ada").dual()), world.join_active(&browser("bob")));
    world.pass(10_000);
    drain(&mut world, 1, true);
    place(&mut world, 2);
    world.look_away();
    let (node, session) = world.session_of(&ada);
    let description = description(DescriptionKind::Offer, 41);
    world.node_says(&node, NodeToRoom::Offer { session, description, mid_to_track: Vec::new() });
    assert!(world.inbox(&ada).is_empty(), "she is served where she is");
    offer(&mut world, &bob, 8);
    assert_eq!(names(&world.inbox(&ada)), ["offer"]);
    assert_eq!(offered(&mut world, &bob), [8]);
    world.say(&ada, Asked::Answer(session_description("answer", 41)));
    for client in [&ada, &bob] {
        world.media(client, MediaState::Connected);
    }
    assert_eq!(sessions(&world, 1), 0);
}

#[test]
fn who_is_quick_waits_for_who_has_to_come_back() {
    let mut world = World::new();
    let (ada, bob, _) = call(&mut world, &browser("ada"), &native("bob"));
    drain(&mut world, 1, true);
    place(&mut world, 2);
    assert!(world.client(&bob).closed && world.client(&bob).leave().is_none(), "his socket breaks");
    assert_eq!(sessions(&world, 1), 2, "his media goes on");
    offer(&mut world, &ada, 7);
    world.pass(500);
    assert_eq!(offered(&mut world, &ada), [0; 0]);
    let bob = world.resume(&bob, &native("bob"));
    assert_eq!(offered(&mut world, &ada), [0; 0]);
    offer(&mut world, &bob, 8);
    assert_eq!((offered(&mut world, &ada), offered(&mut world, &bob)), (vec![7], vec![8]));
}

#[test]
fn nobody_waits_for_long_or_for_a_node_that_is_gone() {
    for dies in [true, false] {
        let mut world = World::new();
        let (ada, bob, _) = call(&mut world, &browser("ada"), &browser("bob"));
        drain(&mut world, 1, true);
        place(&mut world, 2);
        offer(&mut world, &ada, 7);
        if dies {
            world.kill(&node_id(1));
        } else {
            world.pass(MOVE_TOGETHER_MS);
        }
        assert_eq!(offered(&mut world, &ada), [7], "dies: {dies}");
        world.answer(&ada, 7, &[]);
        world.media(&ada, MediaState::Connected);
        world.pass(MOVE_STEP_MS);
        assert!(world.client(&bob).closed && world.client(&bob).leave().is_none(), "he is to resume now");
        assert!(!world.client(&ada).closed);
    }
}

#[test]
fn without_another_node_calls_stay_and_take_newcomers() {
    let mut world = World::new();
    let (ada, bob, _) = call(&mut world, &browser("ada"), &browser("bob"));
    drain(&mut world, 1, true);
    world.step(Event::Placed { node: None });
    world.pass(60_000);
    assert!(world.asked_fleet.len() > 3, "the fleet may have one later");
    let eve = world.join_active(&browser("eve"));
    for client in [&ada, &bob, &eve] {
        assert_eq!(world.session_of(client).0, node_id(1));
        assert!(!world.client(client).closed);
    }
    drain(&mut world, 1, false);
    world.pass(20_000);
    let asked = world.asked_fleet.len();
    world.pass(60_000);
    assert_eq!(world.asked_fleet.len(), asked, "it keeps them");
}

#[test]
fn a_target_that_drains_as_well_is_passed_over() {
    let mut world = World::new();
    let (ada, bob, _) = call(&mut world, &browser("ada"), &browser("bob"));
    drain(&mut world, 1, true);
    place(&mut world, 2);
    offer(&mut world, &ada, 7);
    let (node, session) = world.session_of(&ada);
    world.nodes.get_mut(&node).unwrap().sessions.clear();
    let refused = NodeToRoom::SessionRefused {
        session: Some(session),
        reason: RefusalReason::Draining,
        detail: "the node is draining".into(),
    };
    world.node_says(&node, refused);
    let request = world.asked_fleet.last().unwrap();
    assert_eq!(request.exclude, [node_id(2), node_id(1)]);
    assert_eq!(sessions(&world, 1), 2, "they are served still");
    place(&mut world, 3);
    offer(&mut world, &bob, 8);
    for client in [&ada, &bob] {
        let (node, session) = world.session_of(client);
        assert_eq!((node, session.generation), (node_id(3), Generation(3)));
        world.media(client, MediaState::Connected);
    }
    assert_eq!((offered(&mut world, &ada), offered(&mut world, &bob)), (vec![7], vec![8]));
    assert_eq!(sessions(&world, 1), 0);
}

#[test]
fn who_has_heard_nothing_yet_begins_at_the_other_node() {
    let mut world = World::new();
    let ada = world.join(&browser("ada").offering(3));
    drain(&mut world, 1, true);
    place(&mut world, 2);
    assert_eq!((sessions(&world, 1), world.session_of(&ada).0), (0, node_id(2)));
    assert_eq!(offered(&mut world, &ada), [3]);
    assert!(!names(&world.inbox(&ada)).contains(&"media_sections_requirement"));
}

#[test]
fn who_leaves_during_a_move_leaves_both_nodes() {
    let mut world = World::new();
    let (ada, bob, _) = call(&mut world, &browser("ada"), &browser("bob"));
    drain(&mut world, 1, true);
    place(&mut world, 2);
    world.say(&ada, Asked::Leave(livekit_protocol::LeaveRequest::default()));
    assert_eq!((sessions(&world, 1), sessions(&world, 2)), (1, 1));
    offer(&mut world, &bob, 8);
    assert_eq!(offered(&mut world, &bob), [8], "nobody is left to wait for");
}

#[test]
fn a_drain_that_is_taken_back_leaves_nobody_apart() {
    let mut world = World::new();
    let (ada, bob, _) = call(&mut world, &browser("ada"), &browser("bob"));
    drain(&mut world, 1, true);
    world.step(Event::Placed { node: Some(placed(node_id(2))) });
    // She is to be where the others go to; then they do not go.
    let eve = world.try_join(&browser("eve").offering(1)).unwrap();
    drain(&mut world, 1, false);
    world.link(&node_id(2));
    assert_eq!((sessions(&world, 1), sessions(&world, 2)), (3, 0));
    world.media(&eve, MediaState::Connected);
    assert!([ada, bob, eve].iter().all(|client| !world.client(client).closed));
}
