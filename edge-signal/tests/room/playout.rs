//! How a room's tracks are played: later than they come, and in step.

use edge_signal::refusal::Reason;
use edge_signal::room::event::{ConnectionId, Event};
use edge_signal::room::service::{Code, Request};
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use serde_json::json;
use shared::control::PlayoutDelay;

use crate::world::{Who, World, camera, microphone, node_id, placed, session_description};

fn create(change: impl FnOnce(&mut proto::CreateRoomRequest)) -> Request {
    let mut request = proto::CreateRoomRequest { name: "r".into(), ..Default::default() };
    change(&mut request);
    Request::Create(Box::new(request))
}

fn with_config(identity: &str, config: serde_json::Value) -> Who {
    let mut who = Who::named(identity);
    who.claims.room_config = Some(config);
    who
}

/// What the node was told to ask a client for.
fn told(world: &mut World, client: &ConnectionId) -> Option<PlayoutDelay> {
    let (node, session) = world.session_of(client);
    world.nodes[&node].sessions[&session].playout_delay
}

fn streams(world: &mut World, client: &ConnectionId) -> Vec<String> {
    let (node, session) = world.session_of(client);
    world.nodes[&node].sessions[&session].streams.values().cloned().collect()
}

#[test]
fn nodes_hear_of_a_rooms_playout_delay_with_each_session() {
    let delay = PlayoutDelay::new(400, 2_000).unwrap();
    let mut world = World::new();
    let request = create(|room| (room.min_playout_delay, room.max_playout_delay) = (400, 2_000));
    world.ask(request).unwrap();
    // The first session comes with the fleet's word, the others over the link.
    let (ada, bob) =
        (world.join_active(&Who::named("ada").browser("Chrome")), world.join_active(&Who::named("bob").dual()));
    assert_eq!((told(&mut world, &ada), told(&mut world, &bob)), (delay, delay));

    world.kill(&node_id(1));
    world.step(Event::NodeLost { node: node_id(1) });
    world.step(Event::Placed { node: Some(placed(node_id(2))) });
    world.link(&node_id(2));
    world.say(&ada, Asked::Offer(session_description("offer", 7)));
    assert_eq!(world.session_of(&ada).0, node_id(2));
    assert_eq!(told(&mut world, &ada), delay, "after a move too");
}

#[test]
fn the_token_that_creates_a_room_gives_it_its_playout_delay_and_later_ones_do_not() {
    let mut world = World::new();
    let ada = world.join_active(&with_config("ada", json!({ "minPlayoutDelay": 300 })));
    let bob = world.join_active(&with_config("bob", json!({ "min_playout_delay": 900, "syncStreams": true })));
    let delay = PlayoutDelay::new(300, 0).unwrap();
    assert_eq!((told(&mut world, &ada), told(&mut world, &bob)), (delay, delay));
    world.publish(&ada, "camera");
    assert!(streams(&mut world, &bob).is_empty());
}

#[test]
fn a_room_that_asks_for_nothing_gets_nothing() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.publish(&ada, "camera");
    assert_eq!((told(&mut world, &ada), told(&mut world, &bob)), (None, None));
    assert!(streams(&mut world, &bob).is_empty());
}

#[test]
fn delays_that_cannot_be_are_refused() {
    for (min, max, argument) in [(10_001, 0, "min"), (0, 10_001, "max"), (400, 300, "min")] {
        let mut world = World::new();
        let request = create(|room| (room.min_playout_delay, room.max_playout_delay) = (min, max));
        let error = world.ask(request).unwrap_err();
        assert_eq!((error.code, error.argument), (Code::InvalidArgument, Some(format!("{argument}_playout_delay"))));
        let token = with_config("ada", json!({ "minPlayoutDelay": min, "maxPlayoutDelay": max }));
        assert_eq!(world.try_join(&token).unwrap_err().reason, Reason::RoomConfigMalformed);
        assert!(world.directory.is_empty(), "nothing was made");
    }
}

#[test]
fn tracks_that_belong_together_share_a_stream_where_the_room_and_the_client_can() {
    let mut world = World::new();
    world
        .ask(create(|room| {
            room.sync_streams = true;
            room.min_playout_delay = 400;
        }))
        .unwrap();
    let ada = world.join_active(&Who::named("ada"));
    let bob = world.join_active(&Who::named("bob"));
    let fox = world.join_active(&Who::named("fox").browser("Firefox"));
    let old = world.join_active(&Who::named("old").protocol(9));
    let screen = proto::TrackSource::ScreenShare;
    let shared = proto::AddTrackRequest { source: screen.into(), cid: "s".into(), ..camera("s") };
    let named = proto::AddTrackRequest { stream: "studio".into(), ..camera("n") };
    for request in [microphone("m"), camera("c"), shared, named] {
        let track = world.add_track(&ada, request).unwrap();
        world.receive_track(&ada, &track);
    }
    let mut told_bob = streams(&mut world, &bob);
    told_bob.sort();
    assert_eq!(told_bob, ["camera", "camera", "screen", "studio"]);
    for other in [&fox, &old] {
        assert!(streams(&mut world, other).is_empty());
        assert_eq!(told(&mut world, other), None, "its video alone would come later");
    }
    let late = world.join_active(&Who::named("late"));
    assert_eq!(streams(&mut world, &late).len(), 4);
}
