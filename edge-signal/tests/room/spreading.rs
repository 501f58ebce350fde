//! Participants far from their room's node are served by one that is near them: the room is on several nodes then.

use edge_signal::room::event::{ConnectionId, Event};
use livekit_protocol::signal_request::Message as Asked;
use shared::claims::REGION_ATTRIBUTE;
use shared::control::{MediaState, NodeToRoom};
use shared::geo::Place;
use shared::ids::NodeId;

use crate::world::{Who, World, camera, node_id, session_description};

const BERLIN: Place = Place { latitude: 52.5, longitude: 13.4 };
const PARIS: Place = Place { latitude: 48.9, longitude: 2.4 };
const TOKYO: Place = Place { latitude: 35.7, longitude: 139.7 };
const AUSTIN: Place = Place { latitude: 30.3, longitude: -97.7 };

fn from(name: &str, place: Place) -> Who {
    let mut who = Who::named(name).browser("Chrome");
    who.place = Some(place);
    who
}

/// Nodes 1, 2, 3 stand in Berlin, Tokyo and Austin.
fn world() -> World {
    let mut world = World::new();
    for (number, place) in [(1, BERLIN), (2, TOKYO), (3, AUSTIN)] {
        world.nodes.entry(node_id(number)).or_default().place = Some(place);
    }
    world
}

/// Joins; the fleet names this node if it is asked. The client's connection.
fn join(world: &mut World, who: &Who, node: u8) -> ConnectionId {
    world.fleet = Some(node_id(node));
    world.join_active(who)
}

fn node_of(world: &mut World, client: &ConnectionId) -> NodeId {
    world.session_of(client).0
}

#[test]
fn each_is_served_near_and_sees_all() {
    let mut world = world();
    let ada = join(&mut world, &from("ada", BERLIN), 1);
    let camera = world.add_track(&ada, camera("c")).unwrap();
    world.receive_track(&ada, &camera);
    let bob = join(&mut world, &from("bob", TOKYO), 2);
    let cyd = join(&mut world, &from("cyd", AUSTIN), 3);
    // Near enough to one that is there: nobody is asked.
    for (name, place, node) in [("dan", PARIS, 1), ("eve", TOKYO, 2)] {
        assert!(world.admit(&from(name, place)).unwrap().place.is_none());
        let client = join(&mut world, &from(name, place), 9);
        assert_eq!(node_of(&mut world, &client), node_id(node));
    }
    for (client, node) in [(&ada, 1), (&bob, 2), (&cyd, 3)] {
        assert_eq!(node_of(&mut world, client), node_id(node));
    }
    for client in [&bob, &cyd] {
        assert_eq!(world.served(client), std::slice::from_ref(&camera));
    }
    for node in [2, 3] {
        let filled = world.nodes[&node_id(1)].pipes.values().filter(|pipe| !pipe.filled.is_empty()).count();
        assert_eq!((filled, world.nodes[&node_id(node)].pipes.len()), (2, 2));
    }
}

#[test]
fn who_is_on_a_node_that_dies_goes_to_the_nearest_one_that_is_left() {
    let mut world = world();
    let clients = [("ada", BERLIN, 1), ("bob", TOKYO, 2), ("cyd", AUSTIN, 3)];
    let [ada, bob, cyd] = clients.map(|(name, place, node)| join(&mut world, &from(name, place), node));
    world.kill(&node_id(1));
    world.step(Event::NodeLost { node: node_id(1) });
    world.say(&ada, Asked::Offer(session_description("offer", 7)));
    assert_eq!(node_of(&mut world, &ada), node_id(2), "Tokyo is nearer to Berlin than Austin");
    world.media(&ada, MediaState::Connected);
    for (client, node) in [(&bob, 2), (&cyd, 3)] {
        assert_eq!(node_of(&mut world, client), node_id(node), "nothing changes for them");
    }
    assert_eq!([2, 3].map(|node| world.nodes[&node_id(node)].pipes.len()), [1, 1]);
}

#[test]
fn what_cannot_be_apart_stays_together() {
    // A node that takes no pipes, a client whose place is not known, a room that is kept to a region.
    let mut world = world();
    world.nodes.get_mut(&node_id(1)).unwrap().knows_no_pipes = true;
    join(&mut world, &from("ada", BERLIN), 1);
    assert!(world.admit(&from("bob", TOKYO)).unwrap().place.is_none());

    let mut world = self::world();
    join(&mut world, &from("ada", BERLIN), 1);
    assert!(world.admit(&Who::named("bob")).unwrap().place.is_none());
    let asked = world.admit(&from("bob", TOKYO)).unwrap().place.unwrap();
    assert_eq!(asked.serving, [node_id(1)]);
    world.node_says(&node_id(1), NodeToRoom::Draining { draining: true });
    assert!(world.admit(&from("bob", TOKYO)).unwrap().place.is_none(), "it goes where all go");

    let mut world = self::world();
    let mut ada = from("ada", BERLIN);
    ada.claims.attributes.insert(REGION_ATTRIBUTE.to_owned(), "eu".to_owned());
    join(&mut world, &ada, 1);
    assert!(world.admit(&from("bob", TOKYO)).unwrap().place.is_none());
}

#[test]
fn who_the_fleet_leaves_where_the_room_is_is_served_there() {
    let mut world = world();
    join(&mut world, &from("ada", BERLIN), 1);
    let bob = join(&mut world, &from("bob", TOKYO), 1);
    assert_eq!(node_of(&mut world, &bob), node_id(1));
}
