//! Peers whose address changes without their knowing, and others who would like to be taken for such.

use std::net::SocketAddr;
use std::time::Duration;

use super::world::World;
use super::{call, packet, payload};
use crate::media::api::{Event, TransportKey};
use crate::media::demux::{Protocol, classify};

/// Ada and Bob hear each other.
fn both_ways() -> World {
    let mut world = call();
    world.subscribe(1, 0);
    world.speak(1, b"hi");
    world.until("heard", |w| w.heard(0) == [b"hi"]);
    world
}

fn elsewhere(n: u16) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, 7], n))
}

/// A packet that Ada has sent and nobody got.
fn caught(world: &mut World, payload: &[u8]) -> Vec<u8> {
    world.clients[0].silent = true;
    world.speak(0, payload);
    world.clients[0].silent = false;
    world.clients[0].sent.iter().rfind(|d| classify(d) == Some(Protocol::Rtp)).unwrap().clone()
}

#[test]
fn a_peer_whose_address_changes_is_followed_at_once() {
    let mut world = both_ways();
    for port in 1..20 {
        world.pass(Duration::from_millis(200));
        let before = (world.now, world.heard(0).len(), world.heard(1).len());
        // Some it has been at before.
        world.clients[0].addr = elsewhere(port % 12);
        world.speak(0, b"from elsewhere");
        world.speak(1, b"to there");
        assert_eq!((world.now, world.heard(0).len(), world.heard(1).len()), (before.0, before.1 + 1, before.2 + 1));
    }
    assert!(world.stray.is_empty());
    let told = world.events.iter().filter(|event| matches!(event, Event::Readdressed(TransportKey(0)))).count();
    assert_eq!(told, 19, "each time: it had not been there lately");
}

#[test]
fn a_viewer_is_followed_by_its_reports() {
    let mut world = call();
    // Its first report is from where it was.
    world.pass(Duration::from_secs(6));
    world.clients[1].addr = elsewhere(1);
    let heard = world.heard(1).len();
    let mut spoken = 0;
    world.until("heard", |w| {
        w.speak(0, b"on and on");
        spoken += 1;
        w.pass(Duration::from_millis(20));
        w.heard(1).len() > heard
    });
    assert!(world.shard.stats().dropped_bad_stun == 0 && spoken > 1);
}

/// Bob is behind the same NAT as Ada, and it gives him another port.
fn readdressed(world: &mut World, port: u16) {
    let host = world.clients[0].addr.ip();
    world.clients[1].addr = (host, port).into();
}

#[test]
fn a_peer_is_followed_by_its_data() {
    let mut world = call();
    readdressed(&mut world, 6000);
    world.until("there", |w| {
        w.speak(0, b"on and on");
        w.pass(Duration::from_millis(20));
        w.heard(1).last().is_some_and(|last| last == b"on and on")
    });
    for port in 6001..6010 {
        world.pass(Duration::from_millis(200));
        let (at, heard) = (world.now, world.heard(1).len());
        readdressed(&mut world, port);
        world.say(1, "_reliable", &packet(&port.to_be_bytes()));
        world.speak(0, b"found");
        assert_eq!((world.now, world.heard(1).len()), (at, heard + 1), "at once");
    }
    let messages = world.messages(0);
    let told: Vec<_> = messages.iter().map(|(_, data)| payload(data)).collect();
    assert_eq!(told, (6001..6010u16).map(|port| port.to_be_bytes().to_vec()).collect::<Vec<_>>());
}

#[test]
fn data_without_the_keys_of_a_session_or_with_a_copy_of_its_records_moves_nothing() {
    let mut world = call();
    world.say(1, "_reliable", &packet(b"said"));
    let record = |d: &&Vec<u8>| classify(d) == Some(Protocol::Dtls);
    let copy = world.clients[1].sent.iter().rfind(record).unwrap().clone();
    world.pass(Duration::from_secs(1));
    let dropped = world.shard.stats().dropped_unknown_address;
    let host = world.clients[1].addr.ip();
    let mut forged = copy.clone();
    // Beyond what has been sent: no copy.
    forged[10] = 200;
    for mut datagram in [copy, forged] {
        world.shard.handle_datagram(world.now, SocketAddr::from((host, 666)), &mut datagram);
        world.carry();
    }
    assert!(world.stray.is_empty());
    assert_eq!(world.shard.stats().dropped_unknown_address, dropped + 2);
    world.speak(0, b"goes on");
    world.say(1, "_reliable", &packet(b"goes on"));
    assert_eq!((world.heard(1).len(), world.messages(0).len()), (2, 2));
}

#[test]
fn an_address_that_answers_no_check_gets_checks_alone_and_few() {
    let mut world = both_ways();
    let mut sent = 0;
    for n in 0..50 {
        let mut packet = caught(&mut world, b"spoofed");
        sent += packet.len();
        world.shard.handle_datagram(world.now, elsewhere(1 + n % 3), &mut packet);
        world.carry();
        world.pass(Duration::from_millis(20));
        world.speak(1, b"to Ada");
    }
    assert_eq!(world.heard(0).len(), 51, "she is where she was");
    assert_eq!(world.heard(1).len(), 51, "her packets are hers");
    assert!(!world.stray.is_empty() && world.stray.len() <= 20, "{} in a second", world.stray.len());
    assert!(world.stray.iter().all(|(_, datagram)| classify(datagram) == Some(Protocol::Stun)));
    assert!(world.stray.iter().map(|(_, datagram)| datagram.len()).sum::<usize>() < sent, "no amplifier");
}

#[test]
fn who_sends_copies_of_a_peers_packets_gets_no_media() {
    let mut world = both_ways();
    let thief = elsewhere(666);
    let mut answered = 0;
    for _ in 0..20 {
        // The copy is first, and Ada answers the check, which the thief hands on both ways.
        let packet = caught(&mut world, b"mine");
        world.shard.handle_datagram(world.now, thief, &mut packet.clone());
        world.carry();
        let ada = world.clients[0].addr;
        world.shard.handle_datagram(world.now, ada, &mut packet.clone());
        for (to, check) in std::mem::take(&mut world.stray) {
            assert_eq!((to, classify(&check)), (thief, Some(Protocol::Stun)));
            answered += 1;
            world.clients[0].addr = thief;
            world.hand_over(0, &check);
            world.carry();
            world.clients[0].addr = ada;
        }
        world.pass(Duration::from_millis(20));
        let heard = world.heard(0).len();
        world.speak(1, b"for Ada alone");
        assert_eq!(world.heard(0).len(), heard + 1);
    }
    assert!(answered > 3);
}

#[test]
fn strangers_cannot_make_a_shard_search_for_long() {
    let mut world = both_ways();
    let mut packet = caught(&mut world, b"late");
    let mut forged = packet.clone();
    *forged.last_mut().unwrap() ^= 1;
    for _ in 0..2000 {
        world.shard.handle_datagram(world.now, elsewhere(9), &mut forged.clone());
    }
    assert_eq!(world.shard.stats().dropped_unknown_address, 2000);
    // Who moves meanwhile is followed by its own checks, or a second later.
    world.shard.handle_datagram(world.now, elsewhere(1), &mut packet.clone());
    assert_eq!(world.shard.stats().dropped_unknown_address, 2001);
    world.pass(Duration::from_secs(1));
    world.shard.handle_datagram(world.now, elsewhere(1), &mut packet);
    assert_eq!(world.shard.stats().dropped_unknown_address, 2001);
}
