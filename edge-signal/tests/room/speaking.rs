//! Who speaks is told to those who hear it.

use edge_signal::room::event::ConnectionId;
use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::control::{NodeToRoom, Speaking};

use crate::world::{Who, World};

/// The node tells how loud these are.
fn say(world: &mut World, who: &[(&ConnectionId, u8)]) {
    let mut speakers = Vec::new();
    let mut at = None;
    for (connection, step) in who {
        let (node, session) = world.session_of(connection);
        speakers.push(Speaking { session, step: *step });
        at = Some(node);
    }
    world.node_says(&at.unwrap(), NodeToRoom::Speakers { speakers, newcomers: Vec::new() });
}

/// What a client was told of speakers: names in the order told, and levels.
fn heard(world: &mut World, client: &ConnectionId, names: &[(&str, &ConnectionId)]) -> Vec<(String, f32, bool)> {
    let sids: Vec<(String, String)> =
        names.iter().map(|(name, who)| ((*name).to_owned(), world.client(who).sid.clone())).collect();
    let told = world.inbox(client).into_iter().filter_map(|message| match message {
        Message::SpeakersChanged(changed) => Some(changed.speakers),
        _ => None,
    });
    let named = |info: proto::SpeakerInfo| {
        let name = sids.iter().find(|(_, sid)| *sid == info.sid).unwrap().0.clone();
        (name, info.level, info.active)
    };
    told.flatten().map(named).collect()
}

#[test]
fn speakers_are_told_to_their_subscribers_and_themselves_and_to_nobody_else() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let deaf = world.join_active(&Who::named("deaf").no_auto_subscribe());
    let (_, track) = (world.publish(&ada, "m"), world.publish(&bob, "n"));
    let names = [("ada", &ada), ("bob", &bob)];
    world.look_away();
    say(&mut world, &[(&bob, 5), (&ada, 1)]);
    for client in [&ada, &bob] {
        let told = heard(&mut world, client, &names);
        assert_eq!(told, [("bob".into(), 0.625, true), ("ada".into(), 0.125, true)], "the loudest first");
    }
    assert_eq!(heard(&mut world, &deaf, &names), []);

    let wish = proto::UpdateSubscription { track_sids: vec![track.to_string()], subscribe: true, ..Default::default() };
    world.say(&deaf, Asked::Subscription(wish));
    world.look_away();
    say(&mut world, &[(&bob, 8), (&ada, 2)]);
    assert_eq!(heard(&mut world, &deaf, &names), [("bob".into(), 1.0, true)]);
}

#[test]
fn who_comes_later_alone_is_told_who_speaks_already() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.publish(&ada, "m");
    say(&mut world, &[(&ada, 4)]);
    let cyd = world.join_active(&Who::named("cyd"));
    world.look_away();
    let (node, session) = world.session_of(&ada);
    let newcomers = vec![world.session_of(&cyd).1];
    let speakers = vec![Speaking { session, step: 4 }];
    world.node_says(&node, NodeToRoom::Speakers { speakers, newcomers });
    assert_eq!(heard(&mut world, &cyd, &[("ada", &ada)]), [("ada".into(), 0.5, true)]);
    for known in [&ada, &bob] {
        assert_eq!(heard(&mut world, known, &[("ada", &ada)]), []);
    }
}

#[test]
fn the_end_of_speech_reaches_those_who_are_not_subscribed_any_more() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let track = world.publish(&ada, "m");
    say(&mut world, &[(&ada, 3)]);
    let (node, session) = world.session_of(&ada);
    world.node_says(&node, NodeToRoom::TrackEnded { session, track });
    world.look_away();
    say(&mut world, &[(&ada, 0)]);
    assert_eq!(heard(&mut world, &bob, &[("ada", &ada)]), [("ada".into(), 0.0, false)]);
}

#[test]
fn hidden_speakers_are_told_to_themselves_alone() {
    let mut world = World::new();
    let bob = world.join_active(&Who::named("bob"));
    let spy = world.join_active(&Who::named("spy").grant(|grant| grant.hidden = true));
    world.publish(&spy, "m");
    world.look_away();
    for step in [4, 0] {
        say(&mut world, &[(&spy, step)]);
        assert_eq!(heard(&mut world, &bob, &[("spy", &spy)]), []);
        assert_eq!(heard(&mut world, &spy, &[("spy", &spy)]).len(), 1);
    }
}

#[test]
fn what_a_node_says_of_sessions_that_are_not_its_own_is_dropped() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.publish(&ada, "m");
    let (node, mut session) = world.session_of(&ada);
    session.generation.0 += 1;
    world.look_away();
    let before = world.room.counters().dropped_stale;
    world.node_says(&node, NodeToRoom::Speakers { speakers: vec![Speaking { session, step: 4 }], newcomers: vec![] });
    assert_eq!(heard(&mut world, &bob, &[("ada", &ada)]), []);
    assert_eq!(world.room.counters().dropped_stale, before + 1);
}
