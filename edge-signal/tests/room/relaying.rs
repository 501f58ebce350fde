//! Clients that only a TURN server can reach.

use edge_signal::ice_servers::IceServers;
use edge_signal::room::event::ConnectionId;
use edge_signal::room::resume::REACHED_WITHIN_MS;
use livekit_protocol as proto;
use livekit_protocol::signal_response::Message;
use livekit_protocol::{ClientConfigSetting, ReconnectReason};
use shared::control::MediaState;

use crate::world::{START, Who, World};

/// A deployment with a TURN server.
fn world() -> World {
    let mut world = World::new();
    let servers = IceServers::read(None, Some("turn:turn.example.com"), Some("secret")).unwrap();
    world.ice_servers = servers.of("user", START.secs());
    world
}

/// What a client was told of how to connect: servers, and whether through TURN alone.
fn told(world: &mut World, connection: &ConnectionId) -> (Vec<proto::IceServer>, bool) {
    let (servers, configuration) = match world.inbox(connection).swap_remove(0) {
        Message::Join(join) => (join.ice_servers, join.client_configuration),
        Message::Reconnect(reconnect) => (reconnect.ice_servers, reconnect.client_configuration),
        other => panic!("{other:?}"),
    };
    (servers, configuration.is_some_and(|told| told.force_relay() == ClientConfigSetting::Enabled))
}

fn failing(reason: ReconnectReason) -> Who {
    let mut ada = Who::named("ada");
    ada.request.reconnect_reason = reason.into();
    ada
}

#[test]
fn everyone_is_told_the_servers_and_nobody_is_forced() {
    let mut world = world();
    let servers = world.ice_servers.clone();
    let ada = world.join_active(&Who::named("ada"));
    assert_eq!(told(&mut world, &ada), (servers.clone(), false));
    let again = world.resume(&ada, &failing(ReconnectReason::RrSignalDisconnected));
    assert_eq!(told(&mut world, &again), (servers, false));
}

#[test]
fn who_was_never_reached_comes_through_turn_the_next_time() {
    for has_turn in [true, false] {
        let mut world = world();
        if !has_turn {
            world.ice_servers.clear();
        }
        let bob = world.join_active(&Who::named("bob"));
        let hasty = world.join(&Who::named("ada"));
        world.pass(REACHED_WITHIN_MS - 1_000);
        world.cut(&hasty);
        let ada = world.join(&Who::named("ada"));
        assert!(!told(&mut world, &ada).1, "there was no time");
        world.pass(REACHED_WITHIN_MS);
        world.cut(&ada);
        let ada = world.join(&Who::named("ada"));
        assert_eq!(told(&mut world, &ada).1, has_turn);
        // Still here when it comes again.
        world.pass(REACHED_WITHIN_MS);
        let ada = world.join_active(&Who::named("ada"));
        assert_eq!(told(&mut world, &ada).1, has_turn);
        world.pass(REACHED_WITHIN_MS);
        let bob = world.resume(&bob, &Who::named("bob"));
        assert!(!told(&mut world, &bob).1);
    }
}

#[test]
fn who_fails_twice_in_a_row_comes_through_turn() {
    let mut world = world();
    let failed = failing(ReconnectReason::RrPublisherFailed);
    let ada = world.join_active(&Who::named("ada"));
    let ada = world.resume(&ada, &failed);
    assert!(!told(&mut world, &ada).1, "an ICE restart may be enough");
    world.media(&ada, MediaState::Connected);
    let ada = world.resume(&ada, &failed);
    assert!(!told(&mut world, &ada).1, "it was");
    let ada = world.resume(&ada, &failing(ReconnectReason::RrSubscriberFailed));
    assert!(told(&mut world, &ada).1);
    world.media(&ada, MediaState::Connected);
    let ada = world.resume(&ada, &failing(ReconnectReason::RrSignalDisconnected));
    assert!(told(&mut world, &ada).1, "its network is as it is");
}
