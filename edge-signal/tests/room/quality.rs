//! How well media gets through is told to those who are subscribed to it.

use edge_signal::room::event::ConnectionId;
use livekit_protocol::ConnectionQuality::{Excellent, Good, Lost, Poor};
use livekit_protocol::signal_response::Message;
use shared::control::{NodeToRoom, SessionQuality};

use crate::world::{Who, World};

type Scores<'a> = &'a [(&'a ConnectionId, Option<u8>)];

fn say(world: &mut World, changed: Scores<'_>, same: Scores<'_>, newcomers: &[&ConnectionId]) {
    let mut qualities = |of: Scores<'_>| -> Vec<SessionQuality> {
        of.iter().map(|(who, score)| SessionQuality { session: world.session_of(who).1, score: *score }).collect()
    };
    let (changed, same) = (qualities(changed), qualities(same));
    let newcomers = newcomers.iter().map(|who| world.session_of(who).1).collect();
    let node = world.fleet.clone().unwrap();
    world.node_says(&node, NodeToRoom::ConnectionQuality { changed, same, newcomers });
}

/// What a client was told since the last look: sid, quality and score.
fn told(world: &mut World, client: &ConnectionId) -> Vec<(String, livekit_protocol::ConnectionQuality, f32)> {
    let updates = world.inbox(client).into_iter().filter_map(|message| match message {
        Message::ConnectionQuality(update) => Some(update.updates),
        _ => None,
    });
    updates.flatten().map(|info| (info.participant_sid.clone(), info.quality(), info.score)).collect()
}

#[test]
fn quality_is_told_to_its_owner_and_subscribers() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    let deaf = world.join_active(&Who::named("deaf").no_auto_subscribe());
    world.publish(&ada, "m");
    world.look_away();
    say(&mut world, &[(&ada, Some(100)), (&bob, Some(81)), (&deaf, Some(41))], &[], &[]);
    let sids = [&ada, &bob, &deaf].map(|who| world.client(who).sid.clone());
    assert_eq!(told(&mut world, &ada), [(sids[0].clone(), Excellent, 4.5)]);
    let bobs: Vec<_> = told(&mut world, &bob).into_iter().map(|(sid, quality, _)| (sid, quality)).collect();
    assert_eq!(bobs, [(sids[0].clone(), Excellent), (sids[1].clone(), Excellent)]);
    let own: Vec<_> = told(&mut world, &deaf).into_iter().map(|(sid, quality, _)| (sid, quality)).collect();
    assert_eq!(own, [(sids[2].clone(), Good)]);
    for (score, quality) in [(Some(80), Good), (Some(40), Poor), (None, Lost)] {
        say(&mut world, &[(&ada, score)], &[], &[]);
        assert_eq!(told(&mut world, &bob)[0].1, quality);
    }
}

#[test]
fn who_is_new_hears_of_everyone_it_is_subscribed_to() {
    let mut world = World::new();
    let (ada, bob) = (world.join_active(&Who::named("ada")), world.join_active(&Who::named("bob")));
    world.publish(&ada, "m");
    let eve = world.join_active(&Who::named("eve"));
    world.look_away();
    say(&mut world, &[(&eve, Some(100))], &[(&ada, Some(50))], &[&eve]);
    let ada_sid = world.client(&ada).sid.clone();
    let eves = told(&mut world, &eve);
    assert_eq!(eves.len(), 2);
    assert_eq!((&eves[1].0, eves[1].1), (&ada_sid, Good));
    assert_eq!((told(&mut world, &ada), told(&mut world, &bob)), (vec![], vec![]), "they know");
}
