//! When consent checks are answered.

use std::net::SocketAddr;
use std::time::Duration;

use super::world::World;
use crate::media::api::DataRole;
use crate::media::demux::{Protocol, classify};
use crate::media::shard::gather::MIN_TRANSPORTS;

const NOBODY: [SocketAddr; 0] = [];
const MILLI: Duration = Duration::from_millis(1);
/// Longest a check waits.
const LONGEST: Duration = Duration::from_millis(100);

/// So many clients are connected, and nothing flows.
fn at_rest(clients: usize) -> World {
    let mut world = World::new();
    for _ in 0..clients {
        let client = world.join(DataRole::Both);
        world.connect(client);
    }
    world.pass(Duration::from_secs(5));
    // What waits now is not the story's.
    world.now += LONGEST;
    world.shard.handle_timeout(world.now);
    world.discard();
    world
}

/// A check that the client makes, from there.
fn check(world: &mut World, client: usize, from: SocketAddr) {
    let mut checks = world.clients[client].sent.iter().rev();
    let mut check = checks.find(|d| classify(d) == Some(Protocol::Stun)).unwrap().clone();
    world.shard.handle_datagram(world.now, from, &mut check);
}

fn check_from_home(world: &mut World, client: usize) {
    let from = world.clients[client].addr;
    check(world, client, from);
}

/// Whom something is sent to now.
fn answered(world: &mut World) -> Vec<SocketAddr> {
    let Some(batch) = world.shard.next_batch() else { return Vec::new() };
    let to = batch.bursts().map(|burst| burst.route.to).collect();
    batch.clear();
    to
}

#[test]
fn where_nothing_flows_checks_are_answered_together_a_moment_later() {
    let mut world = at_rest(MIN_TRANSPORTS);
    let homes: Vec<SocketAddr> = (0..3).map(|client| world.clients[client].addr).collect();
    (0..3).for_each(|client| check_from_home(&mut world, client));
    assert_eq!(answered(&mut world), NOBODY);
    let due = world.now + LONGEST;
    assert!(world.shard.next_timeout().is_some_and(|at| at <= due));
    world.shard.handle_timeout(due - MILLI);
    assert_eq!(answered(&mut world), NOBODY);
    world.shard.handle_timeout(due);
    assert_eq!(answered(&mut world), homes);
    assert!(world.shard.next_timeout().is_none_or(|at| at > due), "nothing waits any more");
}

#[test]
fn a_check_from_elsewhere_does_not_overtake_those_that_wait() {
    let mut world = at_rest(MIN_TRANSPORTS);
    check_from_home(&mut world, 0);
    let (home, before) = (world.clients[0].addr, world.shard.stats().dropped_bad_stun);
    check(&mut world, 1, SocketAddr::from(([198, 51, 100, 7], 5000)));
    assert_eq!(world.shard.stats().dropped_bad_stun, before + 1, "a copy, from where that client is not");
    assert_eq!(answered(&mut world), [home]);
}

#[test]
fn while_something_flows_or_few_are_there_checks_are_answered_at_once() {
    let mut world = at_rest(MIN_TRANSPORTS);
    world.say(3, "_reliable", &super::packet(b"something"));
    world.pass(LONGEST);
    check_from_home(&mut world, 0);
    assert_eq!(answered(&mut world), [world.clients[0].addr]);

    let mut few = at_rest(MIN_TRANSPORTS - 1);
    check_from_home(&mut few, 0);
    assert_eq!(answered(&mut few), [few.clients[0].addr]);
}
