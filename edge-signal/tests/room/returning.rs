//! Who is served from afar, because there was no node near them, goes to one as soon as the fleet says that there is one.

use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::moving::MOVE_LIMIT_MS;
use edge_signal::room::nearer::SETTLE_MS;
use edge_signal::room::node::DIAL_TIMEOUT_MS;
use livekit_protocol::MediaSectionsRequirement;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::claims::REGION_ATTRIBUTE;
use shared::control::{MediaState, NodeToRoom, Placed};

use crate::spreading::{BERLIN, PARIS, TOKYO, from, is_nowhere, join, named, node_of, world};
use crate::world::{World, node_id, placed, session_description};

/// Ada of Berlin is served in Tokyo, with Bob.
fn apart() -> (World, ConnectionId, ConnectionId) {
    let mut world = world();
    let bob = join(&mut world, &from("bob", TOKYO), 2);
    let ada = join(&mut world, &from("ada", BERLIN), 2);
    assert_eq!([&ada, &bob].map(|client| node_of(&mut world, client)), [2, 2].map(node_id));
    world.pass(10_000);
    world.look_away();
    (world, ada, bob)
}

fn near(world: &mut World) {
    world.step(Event::NodeNear { place: BERLIN });
}

/// The fleet names the node in Berlin, and it comes.
fn comes(world: &mut World) {
    named(world, 1);
    world.link(&node_id(1));
}

/// Its client offers, and is connected where it went.
fn arrives(world: &mut World, client: &ConnectionId) {
    world.say(client, Asked::Offer(session_description("offer", 7)));
    world.answer(client, 7, &[]);
    world.media(client, MediaState::Connected);
}

fn sessions(world: &World, node: u8) -> usize {
    world.nodes[&node_id(node)].sessions.len()
}

#[test]
fn who_is_served_from_afar_goes_there_and_hears_nothing_of_it() {
    let (mut world, ada, bob) = apart();
    let asked = world.asked_fleet.len();
    near(&mut world);
    let request = world.asked_fleet.last().unwrap();
    assert_eq!((world.asked_fleet.len(), request.client, request.sessions), (asked + 1, Some(BERLIN), 1));
    assert_eq!((request.serving.as_slice(), &request.lost), ([node_id(2)].as_slice(), &None));
    assert!(world.inbox(&ada).is_empty(), "nothing happens before there is a node to go to");
    comes(&mut world);
    assert_eq!(world.inbox(&ada), [Message::MediaSectionsRequirement(MediaSectionsRequirement::default())]);
    assert_eq!((sessions(&world, 1), sessions(&world, 2)), (1, 2), "she is served there still");
    arrives(&mut world, &ada);
    assert_eq!((sessions(&world, 1), sessions(&world, 2)), (1, 1));
    assert_eq!([1, 2].map(|node| world.nodes[&node_id(node)].pipes.len()), [1, 1]);
    world.look_away();
    near(&mut world);
    world.pass(60_000);
    assert_eq!(world.asked_fleet.len(), asked + 1, "all are near");
    for (client, node) in [(&ada, 1), (&bob, 2)] {
        assert!(world.inbox(client).is_empty() && !world.client(client).closed);
        assert_eq!(node_of(&mut world, client), node_id(node));
    }
}

#[test]
fn a_room_that_went_far_as_a_whole_comes_back_as_a_whole() {
    let mut world = world();
    let clients = [("ada", BERLIN), ("eve", PARIS)].map(|(name, place)| join(&mut world, &from(name, place), 2));
    near(&mut world);
    assert_eq!(world.asked_fleet.last().unwrap().sessions, 2, "it has to have room for both");
    comes(&mut world);
    world.say(&clients[0], Asked::Offer(session_description("offer", 7)));
    assert!(
        world.nodes[&node_id(1)].sessions.values().all(|session| session.offers.is_empty()),
        "she waits for the other"
    );
    world.say(&clients[1], Asked::Offer(session_description("offer", 7)));
    for client in &clients {
        world.media(client, MediaState::Connected);
    }
    assert_eq!((sessions(&world, 1), sessions(&world, 2)), (2, 0));
    let dan = join(&mut world, &from("dan", PARIS), 9);
    assert_eq!(node_of(&mut world, &dan), node_id(1));
}

#[test]
fn a_node_that_the_room_still_has_is_not_asked_for() {
    let mut world = world();
    let [bob, ada] =
        [("bob", TOKYO, 2), ("ada", BERLIN, 1)].map(|(name, place, node)| join(&mut world, &from(name, place), node));
    world.node_says(&node_id(1), NodeToRoom::Draining { draining: true });
    named(&mut world, 2);
    arrives(&mut world, &ada);
    world.node_says(&node_id(1), NodeToRoom::Draining { draining: false });
    world.pass(60_000);
    assert_eq!(node_of(&mut world, &ada), node_id(2), "it may drain again at once");
    let asked = world.asked_fleet.len();
    near(&mut world);
    arrives(&mut world, &ada);
    assert_eq!([&ada, &bob].map(|client| node_of(&mut world, client)), [1, 2].map(node_id));
    assert_eq!(world.asked_fleet.len(), asked);
}

#[test]
fn other_sdks_come_back_on_a_new_socket_for_it() {
    let mut world = world();
    let mut ada = from("ada", BERLIN);
    ada = ada.sdk(livekit_protocol::client_info::Sdk::Python);
    let client = join(&mut world, &ada, 2);
    near(&mut world);
    comes(&mut world);
    world.pass(SETTLE_MS - 1);
    assert!(!world.client(&client).closed, "it came a moment ago: what it asks now would be lost with its socket");
    world.pass(1);
    assert!(world.client(&client).closed && world.client(&client).leave().is_none());
    let client = world.resume(&client, &ada);
    arrives(&mut world, &client);
    assert_eq!((node_of(&mut world, &client), sessions(&world, 2)), (node_id(1), 0));
}

#[test]
fn who_is_away_or_on_the_way_is_left_alone_and_goes_then() {
    let (mut world, ada, _) = apart();
    let who = from("ada", BERLIN);
    world.cut(&ada);
    let asked = world.asked_fleet.len();
    near(&mut world);
    assert_eq!(world.asked_fleet.len(), asked);
    let ada = world.resume(&ada, &who);
    world.media(&ada, MediaState::Connected);
    assert_eq!(world.asked_fleet.len(), asked + 1);
    comes(&mut world);
    arrives(&mut world, &ada);
    assert_eq!(node_of(&mut world, &ada), node_id(1));
}

#[test]
fn without_a_node_all_stay_where_they_are() {
    // The fleet says nothing, has none nearer after all, or names one that does not come.
    for answer in [None, Some(2), Some(1)] {
        let (mut world, ada, _) = apart();
        near(&mut world);
        if let Some(node) = answer {
            let piped_at = world.nodes[&node_id(node)].place;
            world.step(Event::Placed { node: Some(Placed { piped_at, ..placed(node_id(node)) }) });
        }
        let asked = world.asked_fleet.len();
        world.pass(DIAL_TIMEOUT_MS);
        // What was not heard is said again, and a node that has not come may have a neighbour.
        let again = world.asked_fleet.len() - asked;
        assert_eq!(again, usize::from(answer != Some(2)), "{answer:?}");
        world.step(Event::Placed { node: None });
        world.pass(10 * 60_000);
        let asked = world.asked_fleet.len();
        world.pass(10 * 60_000);
        assert_eq!(world.asked_fleet.len(), asked, "nobody looks for one any more: {answer:?}");
        assert!(!world.client(&ada).closed);
        assert_eq!(node_of(&mut world, &ada), node_id(2), "{answer:?}");
    }
}

#[test]
fn a_node_that_dies_on_the_way_leaves_them_where_they_are() {
    let (mut world, ada, _) = apart();
    near(&mut world);
    comes(&mut world);
    world.kill(&node_id(1));
    world.step(Event::NodeLost { node: node_id(1) });
    assert!(!is_nowhere(&mut world, &ada));
    named(&mut world, 2);
    arrives(&mut world, &ada);
    assert_eq!((node_of(&mut world, &ada), sessions(&world, 2)), (node_id(2), 2));
    world.pass(MOVE_LIMIT_MS);
    assert!(!world.client(&ada).closed);
}

#[test]
fn what_is_kept_together_stays() {
    let mut world = world();
    let mut ada = from("ada", BERLIN);
    ada.claims.attributes.insert(REGION_ATTRIBUTE.to_owned(), "asia".to_owned());
    join(&mut world, &ada, 2);
    let asked = world.asked_fleet.len();
    near(&mut world);
    assert_eq!(world.asked_fleet.len(), asked);

    // One that is not much nearer is no reason either.
    let (mut world, ..) = apart();
    let asked = world.asked_fleet.len();
    world.step(Event::NodeNear { place: TOKYO });
    assert_eq!(world.asked_fleet.len(), asked);
}
