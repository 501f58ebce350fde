//! Participants far from their room's node are served by one that is near them: the room is on several nodes then.

use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::pipes::{IN_VAIN_AFTER_MS, REOPEN_AFTER_MS};
use edge_signal::room::placement::NEARER_WAIT_MS;
use edge_signal::room::service::Request;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::claims::REGION_ATTRIBUTE;
use shared::control::{MediaState, NodeToRoom, SessionQuality};
use shared::geo::Place;
use shared::ids::{NodeId, SessionKey};

use crate::world::{Who, World, camera, node_id, placed, session_description};

pub(crate) const BERLIN: Place = Place { latitude: 52.5, longitude: 13.4 };
pub(crate) const PARIS: Place = Place { latitude: 48.9, longitude: 2.4 };
pub(crate) const TOKYO: Place = Place { latitude: 35.7, longitude: 139.7 };
const AUSTIN: Place = Place { latitude: 30.3, longitude: -97.7 };

pub(crate) fn from(name: &str, place: Place) -> Who {
    let mut who = Who::named(name).browser("Chrome");
    who.place = Some(place);
    who
}

/// Nodes 1, 2, 3 stand in Berlin, Tokyo and Austin.
pub(crate) fn world() -> World {
    let mut world = World::new();
    for (number, place) in [(1, BERLIN), (2, TOKYO), (3, AUSTIN)] {
        world.nodes.entry(node_id(number)).or_default().place = Some(place);
    }
    world
}

/// Joins; the fleet names this node if it is asked. The client's connection.
pub(crate) fn join(world: &mut World, who: &Who, node: u8) -> ConnectionId {
    world.fleet = Some(node_id(node));
    world.join_active(who)
}

pub(crate) fn node_of(world: &mut World, client: &ConnectionId) -> NodeId {
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
fn who_comes_before_the_first_node_has_dialed_in_is_served_near_too() {
    let mut world = world();
    let join = |world: &mut World, name, place, node| {
        world.fleet = Some(node_id(node));
        world.try_join(&from(name, place)).unwrap()
    };
    let ada = join(&mut world, "ada", BERLIN, 1);
    let bob = join(&mut world, "bob", TOKYO, 2);
    assert!(world.admit(&from("dan", PARIS)).unwrap().place.is_none(), "near enough to the one that is to come");
    let eve = join(&mut world, "eve", TOKYO, 2);
    for node in [2, 1] {
        world.link(&node_id(node));
    }
    for (client, node) in [(&ada, 1), (&bob, 2), (&eve, 2)] {
        world.media(client, MediaState::Connected);
        assert_eq!(node_of(&mut world, client), node_id(node));
    }
    assert_eq!([1, 2].map(|node| world.nodes[&node_id(node)].pipes.len()), [1, 1]);
}

#[test]
fn who_is_new_hears_how_those_on_other_nodes_fare() {
    let mut world = world();
    let [ada, bob, cyd] = [("ada", BERLIN, 1), ("bob", TOKYO, 2), ("cyd", AUSTIN, 3)]
        .map(|(name, place, node)| join(&mut world, &from(name, place), node));
    world.publish(&ada, "m");
    let [adas, bobs] = [&ada, &bob].map(|client| world.session_of(client).1);
    let quality = |changed: Option<u8>, same: Option<u8>, newcomers| {
        let of = |score: Option<u8>, session: &SessionKey| {
            score.map(|score| SessionQuality { session: session.clone(), score: Some(score) }).into_iter().collect()
        };
        NodeToRoom::ConnectionQuality { changed: of(changed, &bobs), same: of(same, &adas), newcomers }
    };
    world.look_away();
    world.node_says(&node_id(2), quality(Some(100), None, vec![bobs.clone()]));
    let asked = [1, 2, 3].map(|node| world.nodes[&node_id(node)].told_newcomers.clone());
    assert_eq!(asked, [vec![bobs.clone()], vec![], vec![]], "only she is heard by him");
    assert_eq!(qualities(&mut world, &bob), [bobs.participant.to_string()]);
    world.node_says(&node_id(1), quality(None, Some(50), vec![bobs.clone()]));
    assert_eq!(qualities(&mut world, &bob), [adas.participant.to_string()]);
    assert_eq!(qualities(&mut world, &cyd), [""; 0], "she was told, or will be");
    let asked = [1, 2, 3].map(|node| world.nodes[&node_id(node)].told_newcomers.len());
    assert_eq!(asked, [1, 0, 0], "nobody is asked for the answer");
}

#[test]
fn nodes_that_cannot_reach_each_other_leave_nobody_apart() {
    let mut world = world();
    let ada = join(&mut world, &from("ada", BERLIN), 1);
    let camera = world.add_track(&ada, camera("c")).unwrap();
    world.receive_track(&ada, &camera);
    let eve = join(&mut world, &from("eve", PARIS), 1);
    let bob = join(&mut world, &from("bob", TOKYO), 2);
    let fail = |world: &mut World| {
        let pipe = *world.nodes[&node_id(2)].pipes.keys().next().unwrap();
        world.nodes.get_mut(&node_id(2)).unwrap().pipes.clear();
        world.node_says(&node_id(2), NodeToRoom::PipeState { pipe, state: MediaState::Failed });
        pipe
    };
    let pipe = *world.nodes[&node_id(2)].pipes.keys().next().unwrap();
    world.node_says(&node_id(1), NodeToRoom::PipeState { pipe, state: MediaState::Connected });
    world.pass(IN_VAIN_AFTER_MS);
    fail(&mut world);
    world.pass(REOPEN_AFTER_MS);
    assert_eq!(node_of(&mut world, &bob), node_id(2), "they could once, and may again");
    world.pass(IN_VAIN_AFTER_MS - 1);
    fail(&mut world);
    world.pass(REOPEN_AFTER_MS);
    assert_eq!(node_of(&mut world, &bob), node_id(2), "that was quick: it may have another cause");
    world.pass(IN_VAIN_AFTER_MS);
    fail(&mut world);
    world.say(&bob, Asked::Offer(session_description("offer", 7)));
    world.media(&bob, MediaState::Connected);
    for client in [&ada, &eve, &bob] {
        assert_eq!(node_of(&mut world, client), node_id(1));
    }
    assert_eq!(world.served(&bob), [camera]);
    world.pass(60_000);
    assert!(world.nodes[&node_id(1)].pipes.is_empty());
    assert_eq!(world.room.counters().pipes_in_vain, 1);
    assert_eq!(node_of(&mut world, &bob), node_id(1), "he stays");
    let dan = join(&mut world, &from("dan", TOKYO), 2);
    assert_eq!(node_of(&mut world, &dan), node_id(1));
    let asked = world.asked_fleet.len();
    world.step(Event::NodeNear { place: TOKYO });
    assert_eq!((world.asked_fleet.len(), node_of(&mut world, &bob)), (asked, node_id(1)), "they do not try again");
}

/// Whose quality a client was told since the last look.
fn qualities(world: &mut World, client: &ConnectionId) -> Vec<String> {
    let updates = world.inbox(client).into_iter().filter_map(|message| match message {
        Message::ConnectionQuality(update) => Some(update.updates),
        _ => None,
    });
    updates.flatten().map(|info| info.participant_sid).collect()
}

/// Ada, Bob, Cyd are served near them, and Ada's node dies.
fn bereaved() -> (World, [ConnectionId; 3]) {
    let mut world = world();
    let clients = [("ada", BERLIN, 1), ("bob", TOKYO, 2), ("cyd", AUSTIN, 3)];
    let clients = clients.map(|(name, place, node)| join(&mut world, &from(name, place), node));
    world.kill(&node_id(1));
    let asked = world.asked_fleet.last().unwrap();
    assert_eq!((asked.lost.clone(), asked.client), (Some(node_id(1)), Some(BERLIN)));
    assert_eq!(asked.serving, [node_id(2), node_id(3)], "they will do where there is none nearer");
    world.step(Event::NodeLost { node: node_id(1) });
    world.say(&clients[0], Asked::Offer(session_description("offer", 7)));
    assert!(is_nowhere(&mut world, &clients[0]), "what the fleet says comes with the news");
    (world, clients)
}

pub(crate) fn is_nowhere(world: &mut World, client: &ConnectionId) -> bool {
    let sid = world.client(client).sid.clone();
    world.find_session(&sid).is_none()
}

/// The fleet names this node.
pub(crate) fn named(world: &mut World, node: u8) {
    world.step(Event::Placed { node: Some(placed(node_id(node))) });
}

/// A fourth node stands in Paris.
fn come(world: &mut World) {
    world.nodes.entry(node_id(4)).or_default().place = Some(PARIS);
    world.link(&node_id(4));
}

#[test]
fn who_is_on_a_node_that_dies_goes_to_another_one_near_them() {
    let (mut world, [ada, bob, cyd]) = bereaved();
    named(&mut world, 4);
    assert!(is_nowhere(&mut world, &ada), "it will be there in a moment");
    come(&mut world);
    for (client, node) in [(&ada, 4), (&bob, 2), (&cyd, 3)] {
        assert_eq!(node_of(&mut world, client), node_id(node));
    }
    world.media(&ada, MediaState::Connected);
    assert_eq!([2, 3, 4].map(|node| world.nodes[&node_id(node)].pipes.len()), [2, 2, 2]);
}

#[test]
fn or_to_the_nearest_one_that_is_left_when_there_is_none() {
    let (mut world, [ada, bob, cyd]) = bereaved();
    named(&mut world, 2);
    assert_eq!(node_of(&mut world, &ada), node_id(2), "Tokyo is nearer to Berlin than Austin");
    world.media(&ada, MediaState::Connected);
    for (client, node) in [(&bob, 2), (&cyd, 3)] {
        assert_eq!(node_of(&mut world, client), node_id(node), "nothing changes for them");
    }
    assert_eq!([2, 3].map(|node| world.nodes[&node_id(node)].pipes.len()), [1, 1]);
    let asked = world.asked_fleet.len();
    world.pass(60_000);
    assert_eq!(world.asked_fleet.len(), asked, "that is answered");
}

#[test]
fn nobody_waits_long_for_a_nearer_node() {
    // The fleet says nothing, has none at all, or names one that does not come.
    for (answer, wait_ms) in [(None, NEARER_WAIT_MS), (Some(None), 0), (Some(Some(4)), NEARER_WAIT_MS)] {
        let (mut world, [ada, ..]) = bereaved();
        match answer {
            None => {}
            Some(None) => world.step(Event::Placed { node: None }),
            Some(Some(node)) => named(&mut world, node),
        }
        if wait_ms > 0 {
            world.pass(wait_ms - 1);
            assert!(is_nowhere(&mut world, &ada), "{answer:?}");
            world.pass(1);
        }
        assert_eq!(node_of(&mut world, &ada), node_id(2), "{answer:?}");
        world.media(&ada, MediaState::Connected);
        world.pass(60_000);
        assert!(!world.client(&ada).closed);
    }
}

#[test]
fn who_has_another_node_near_goes_on_there_at_once() {
    let mut world = world();
    let yerevan = Place { latitude: 40.2, longitude: 44.5 };
    let kyiv = Place { latitude: 50.4, longitude: 30.5 };
    world.nodes.entry(node_id(4)).or_default().place = Some(yerevan);
    let ada = join(&mut world, &from("ada", BERLIN), 1);
    let eve = join(&mut world, &from("eve", yerevan), 4);
    let kim = join(&mut world, &from("kim", kyiv), 9);
    assert_eq!([&ada, &eve, &kim].map(|client| node_of(&mut world, client)), [1, 4, 1].map(node_id));
    world.kill(&node_id(1));
    world.step(Event::NodeLost { node: node_id(1) });
    assert_eq!(node_of(&mut world, &kim), node_id(4));
    assert!(is_nowhere(&mut world, &ada), "she is farther from it");
}

#[test]
fn who_is_on_a_node_that_drains_goes_to_another_one_near_them() {
    for has_another in [true, false] {
        let mut world = world();
        let clients = [("ada", BERLIN, 1), ("bob", TOKYO, 2), ("cyd", AUSTIN, 3)];
        let [ada, bob, cyd] = clients.map(|(name, place, node)| join(&mut world, &from(name, place), node));
        world.node_says(&node_id(1), NodeToRoom::Draining { draining: true });
        let asked = world.asked_fleet.last().unwrap();
        assert_eq!((asked.client, asked.exclude.as_slice()), (Some(BERLIN), [node_id(1)].as_slice()));
        assert_eq!(asked.serving, [node_id(2), node_id(3)]);
        assert_eq!(node_of(&mut world, &ada), node_id(1), "it serves her still");
        if has_another {
            named(&mut world, 4);
            come(&mut world);
        } else {
            named(&mut world, 2);
        }
        world.say(&ada, Asked::Offer(session_description("offer", 7)));
        world.media(&ada, MediaState::Connected);
        let there = if has_another { 4 } else { 2 };
        for (client, node) in [(&ada, there), (&bob, 2), (&cyd, 3)] {
            assert_eq!(node_of(&mut world, client), node_id(node), "another: {has_another}");
        }
        assert!(world.nodes[&node_id(1)].sessions.is_empty());
    }
}

#[test]
fn what_cannot_be_apart_stays_together() {
    // A node that takes no pipes, a client whose place is not known, a room that is kept to a region, or to a node.
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

    let mut world = self::world();
    let create = proto::CreateRoomRequest { name: "r".into(), node_id: node_id(1).to_string(), ..Default::default() };
    world.ask(Request::Create(Box::new(create))).unwrap();
    let asked = world.admit(&from("ada", BERLIN)).unwrap().place.unwrap();
    assert_eq!(asked.node, Some(node_id(1)));
    join(&mut world, &from("ada", BERLIN), 1);
    assert!(world.admit(&from("bob", TOKYO)).unwrap().place.is_none());
}

#[test]
fn who_the_fleet_leaves_where_the_room_is_is_served_there() {
    let mut world = world();
    join(&mut world, &from("ada", BERLIN), 1);
    let bob = join(&mut world, &from("bob", TOKYO), 1);
    assert_eq!(node_of(&mut world, &bob), node_id(1));
}

#[test]
fn who_waits_for_an_answer_about_a_lost_node_is_not_woken_before() {
    let mut world = world();
    let _bob = join(&mut world, &from("bob", TOKYO), 2);
    let _cyd = join(&mut world, &from("cyd", AUSTIN), 3);
    let _ada = join(&mut world, &from("ada", BERLIN), 1);
    world.unlink(&node_id(2));
    world.node_says(&node_id(1), NodeToRoom::Draining { draining: true });
    // Until when it is asked again; the world's clock stops where an alarm changes nothing.
    world.step(Event::NodeStillThere);
    world.pass(10);
    world.step(Event::NodeStillThere);
    world.pass(1_000);
}
