//! A node dies: the sessions of those with one connection go on at another one.

use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::moving::{MOVE_LIMIT_MS, MOVE_RESUME_MS, MOVE_STEP_MS};
use edge_signal::room::node::RELINK_GRACE_MS;
use livekit_protocol::leave_request::Action;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{DisconnectReason, MediaSectionsRequirement};
use shared::control::{DataStream, DescriptionKind, MediaState, NodeToRoom, PublishedTrack};
use shared::ids::{Generation, TrackSid};

use crate::world::{Who, World, camera, description, media, mid_tracks, names, node_id, placed, session_description};

/// In Chromium.
fn browser(name: &str) -> Who {
    Who::named(name).browser("Chrome")
}

/// Ada publishes, and the node has told all that a move needs.
fn call(world: &mut World, ada: &Who, bob: &Who) -> (ConnectionId, ConnectionId, TrackSid) {
    let (ada, bob) = (world.join_active(ada), world.join_active(bob));
    let track = world.publish(&ada, "m");
    let (node, session) = world.session_of(&bob);
    world.say(&bob, Asked::Offer(session_description("offer", 4)));
    world.answer(&bob, 4, &[("3", &track)]);
    world.node_says(&node, NodeToRoom::DataChannels { session, channels: channels() });
    world.pass(10_000);
    world.look_away();
    (ada, bob, track)
}

fn channels() -> Vec<DataStream> {
    vec![DataStream { label: "_reliable".into(), stream: 2 }]
}

/// The room's node is gone, and the fleet names another one, which comes.
fn replace_node(world: &mut World) {
    world.kill(&node_id(1));
    let request = world.asked_fleet.last().unwrap();
    assert_eq!((&request.lost, request.exclude.as_slice()), (&Some(node_id(1)), [node_id(1)].as_slice()));
    world.step(Event::NodeLost { node: node_id(1) });
    world.step(Event::Placed { node: Some(placed(node_id(2))) });
    world.link(&node_id(2));
}

#[test]
fn a_browser_with_one_connection_offers_once_more_and_hears_nothing_else() {
    let mut world = World::new();
    let (ada, bob, track) = call(&mut world, &browser("ada"), &browser("bob"));
    let video = world.add_track(&ada, camera("c")).unwrap();
    world.receive_track(&ada, &video);
    world.look_away();
    replace_node(&mut world);
    for client in [&ada, &bob] {
        let inbox = world.inbox(client);
        let asked = Message::MediaSectionsRequirement(MediaSectionsRequirement::default());
        assert_eq!(inbox, [asked], "{:?}", names(&inbox));
        let (node, session) = world.session_of(client);
        assert_eq!((node, session.generation), (node_id(2), Generation(2)));
    }
    let (node, session) = world.session_of(&bob);
    let there = &world.nodes[&node].sessions[&session];
    assert!(there.offers.is_empty(), "an offer that was answered is of no use");
    let established = there.established.clone().unwrap();
    assert_eq!(established.subscribed, mid_tracks(&[("3", &track)]));
    assert_eq!((established.carried, established.channels), (vec!["3".to_owned()], channels()));
    assert_eq!(world.served(&bob).len(), 2);
    let (_, hers) = world.session_of(&ada);
    let published = world.nodes[&node].sessions[&hers].established.clone().unwrap().published;
    let seen = media("7", 1);
    assert!(published.contains(&PublishedTrack { track: video, mid: seen.mid, layers: seen.layers }), "{published:?}");

    world.look_away();
    for client in [&ada, &bob] {
        world.say(client, Asked::Offer(session_description("offer", 5)));
        world.answer(client, 5, &[]);
        world.media(client, MediaState::Connected);
    }
    for client in [&ada, &bob] {
        assert_eq!(names(&world.inbox(client)), ["answer"]);
    }
    world.pass(MOVE_LIMIT_MS);
    assert!(!world.client(&ada).closed && !world.client(&bob).closed, "they are connected");
}

/// Its node offers the subscriber connection.
fn node_offers(world: &mut World, client: &ConnectionId, id: u32, track: &TrackSid) {
    let (node, session) = world.session_of(client);
    let description = description(DescriptionKind::Offer, id);
    world.node_says(&node, NodeToRoom::Offer { session, description, mid_to_track: mid_tracks(&[("1", track)]) });
}

#[test]
fn of_two_connections_the_node_offers_one_and_the_client_the_other() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&browser("ada").dual().offering(1)), world.join_active(&browser("bob").dual()));
    let track = world.publish(&ada, "m");
    world.answer(&ada, 1, &[]);
    node_offers(&mut world, &bob, 40, &track);
    world.say(&bob, Asked::Answer(session_description("answer", 40)));
    world.pass(10_000);
    world.look_away();
    replace_node(&mut world);
    assert_eq!(names(&world.inbox(&ada)), ["media_sections_requirement"]);
    assert!(world.inbox(&bob).is_empty(), "he has no connection to offer");
    let (node, session) = world.session_of(&bob);
    let established = world.nodes[&node].sessions[&session].established.clone().unwrap();
    assert_eq!(established.subscribed, mid_tracks(&[("1", &track)]));
    assert_eq!(established.offered, Some(description(DescriptionKind::Offer, 40)));
    world.say(&bob, Asked::Answer(session_description("answer", 40)));
    assert!(world.nodes[&node].sessions[&session].answers.is_empty(), "it answers the node that is gone");

    node_offers(&mut world, &bob, 41, &track);
    assert_eq!(names(&world.inbox(&bob)), ["offer"]);
    world.say(&bob, Asked::Answer(session_description("answer", 41)));
    assert_eq!(world.nodes[&node].sessions[&session].answers.len(), 1);
    world.media(&bob, MediaState::Connected);
    // Her other connection has to come as well.
    world.media(&ada, MediaState::Connected);
    world.pass(MOVE_STEP_MS);
    assert!(!world.client(&bob).closed);
    assert!(world.client(&ada).closed && world.client(&ada).leave().is_none(), "she is to resume");
    let ada = world.resume(&ada, &browser("ada").dual());
    world.say(&ada, Asked::Offer(session_description("offer", 5)));
    world.answer(&ada, 5, &[]);
    world.pass(MOVE_LIMIT_MS);
    assert!(!world.client(&ada).closed);
}

#[test]
fn an_offer_without_an_answer_goes_to_the_next_node() {
    let mut world = World::new();
    let (ada, _bob, _track) = call(&mut world, &browser("ada"), &browser("bob"));
    world.say(&ada, Asked::Offer(session_description("offer", 9)));
    replace_node(&mut world);
    assert!(world.inbox(&ada).is_empty(), "it waits for an answer as it is");
    let (node, session) = world.session_of(&ada);
    let ids: Vec<_> = world.nodes[&node].sessions[&session].offers.iter().map(|offer| offer.id).collect();
    assert_eq!(ids, [9]);
}

#[test]
fn who_cannot_do_it_quietly_resumes_and_who_cannot_do_that_joins_anew() {
    let mut world = World::new();
    let who = Who::named("bob").browser("Firefox");
    let (ada, bob, _track) = call(&mut world, &browser("ada"), &who);
    replace_node(&mut world);
    assert!(world.client(&bob).closed && world.client(&bob).leave().is_none(), "its socket breaks");
    let bob = world.resume(&bob, &who);
    assert_eq!(world.session_of(&bob).0, node_id(2));
    world.look_away();
    world.say(&bob, Asked::Offer(session_description("offer", 6)));
    world.pass(MOVE_STEP_MS);
    assert!(world.client(&ada).closed && world.client(&ada).leave().is_none(), "she offered nothing");
    let ada = world.resume(&ada, &browser("ada"));
    world.pass(MOVE_RESUME_MS);
    for client in [&ada, &bob] {
        let leave = world.client(client).leave().unwrap();
        assert_eq!((leave.reason(), leave.action()), (DisconnectReason::ServerShutdown, Action::Reconnect));
    }
}

#[test]
fn a_node_that_the_fleet_still_has_is_waited_for() {
    let mut world = World::new();
    let (ada, bob, _track) = call(&mut world, &browser("ada"), &browser("bob"));
    world.unlink(&node_id(1));
    for _ in 0..3 {
        let asked = world.asked_fleet.len();
        world.step(Event::NodeStillThere);
        world.pass(200);
        assert_eq!(world.asked_fleet.len(), asked + 1, "it may have been a moment too early");
    }
    world.link(&node_id(1));
    world.step(Event::NodeStillThere);
    world.pass(RELINK_GRACE_MS + MOVE_LIMIT_MS);
    for client in [&ada, &bob] {
        assert_eq!(names(&world.inbox(client)), [""; 0]);
        assert!(!world.client(client).closed);
        assert_eq!(world.session_of(client).1.generation, Generation(1));
    }
}

#[test]
fn without_another_node_they_wait_and_join_anew_in_the_end() {
    let mut world = World::new();
    let (ada, bob, _track) = call(&mut world, &browser("ada"), &browser("bob"));
    world.kill(&node_id(1));
    world.step(Event::NodeLost { node: node_id(1) });
    world.step(Event::Placed { node: None });
    world.pass(MOVE_LIMIT_MS - 100);
    assert!(!world.client(&ada).closed && !world.client(&bob).closed);
    world.pass(100);
    for client in [&ada, &bob] {
        assert_eq!(world.client(client).leave().unwrap().action(), Action::Reconnect);
    }
}
