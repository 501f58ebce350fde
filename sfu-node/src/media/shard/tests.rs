//! Whole sessions against an independent WebRTC implementation, and what strangers and forgers get.

mod consent;
mod memory;
mod pipes;
mod roaming;
mod without_gcm;
mod world;

use std::net::SocketAddr;
use std::time::Duration;

use livekit_protocol::data_packet::Value;
use livekit_protocol::{DataPacket, UserPacket};
use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use self::world::*;
use super::*;
use crate::media::api::*;
use crate::media::datachannel::tests::provoke_panic;
use crate::media::transport::CONNECT_LIMIT;

pub(super) fn packet(payload: &[u8]) -> Vec<u8> {
    let user = UserPacket { payload: payload.to_vec(), ..UserPacket::default() };
    DataPacket { value: Some(Value::User(user)), ..DataPacket::default() }.encode_to_vec()
}

fn payload(data: &[u8]) -> Vec<u8> {
    match DataPacket::decode(data).unwrap().value {
        Some(Value::User(user)) => user.payload,
        other => panic!("{other:?}"),
    }
}

/// Two clients, the second hears the first.
fn call() -> World {
    let mut world = World::new();
    let (ada, bob) = (world.join(DataRole::Both), world.join(DataRole::Both));
    world.connect(ada);
    world.connect(bob);
    world.subscribe(ada, bob);
    world.speak(ada, b"hello");
    world.until("heard", |w| w.heard(bob) == [b"hello"]);
    world
}

#[test]
fn media_flows_under_gcm() {
    let mut world = call();
    assert_eq!(world.connected_with(0), Some(SrtpProfile::AeadAes128Gcm));
    for n in 0..200u8 {
        world.speak(0, &[n; 50]);
        world.pass(Duration::from_millis(20));
    }
    assert_eq!(world.heard(1).len(), 201);
    assert!(world.events.iter().any(|e| matches!(e, Event::LayerSeen { ssrc: 1000, codec: Codec::Opus, .. })));
    let stats = world.shard.stats();
    assert_eq!((stats.transports, stats.receivers, stats.senders), (2, 1, 1));
    assert_eq!((stats.dropped_bad_srtp, stats.dropped_replay, stats.dropped_unknown_address), (0, 0, 0));
}

#[test]
fn a_server_offered_connection_may_learn_the_fingerprint_late() {
    let mut world = World::new();
    let ada = world.dial(DataRole::Downstream);
    world.command(Command::Open(Box::new(config(0, DataRole::Downstream, None))));
    world.until("handshake done", |w| w.clients[ada].rtc.is_connected());
    world.pass(Duration::from_secs(2));
    assert_eq!(world.connected_with(ada), None);
    let fingerprint = world.clients[ada].fingerprint();
    world.command(Command::SetFingerprint(TransportKey(0), fingerprint));
    world.connect(ada);
}

#[test]
fn the_node_may_begin() {
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmHmacSha1_80] {
        let mut world = World::new();
        let ada = world.dial_as(DataRole::Both, false);
        let (fingerprint, handshake) = (Some(world.clients[ada].fingerprint()), HandshakeRole::Client(profile));
        let open = TransportConfig { handshake, ..config(0, DataRole::Both, fingerprint) };
        world.command(Command::Open(Box::new(open)));
        world.pass(Duration::from_secs(1));
        assert_eq!(world.connected_with(ada), Some(profile));
        world.until("channels", |w| !w.clients[ada].channels.is_empty());
    }
}

#[test]
fn a_fingerprint_mismatch_ends_the_transport() {
    let mut world = World::new();
    let ada = world.dial(DataRole::Both);
    world.command(Command::Open(Box::new(config(0, DataRole::Both, Some(Fingerprint([1; 32]))))));
    world.until("failed", |w| w.failed_with(ada) == Some(FailReason::FingerprintMismatch));
    assert_eq!(world.connected_with(ada), None);
    assert_eq!(world.shard.stats().transports, 0);
}

#[test]
fn strangers_get_nothing() {
    let mut world = call();
    let sent = std::mem::take(&mut world.clients[0].sent);
    let stranger = SocketAddr::from(([198, 51, 100, 7], 666));
    let others = sent.iter().filter(|d| classify(d) != Some(Protocol::Stun));
    let (mut tried, heard) = (0, world.heard(1).len());
    for datagram in others {
        tried += 1;
        world.shard.handle_datagram(world.now, stranger, &mut datagram.clone());
    }
    world.carry();
    assert!(tried > 5);
    assert_eq!(world.shard.stats().dropped_unknown_address, tried);
    assert!(world.stray.is_empty(), "answered a stranger");
    assert_eq!(world.heard(1).len(), heard);
}

#[test]
fn a_binding_request_with_a_wrong_password_teaches_nothing() {
    let mut world = World::new();
    let ada = world.dial(DataRole::Both);
    let mut other = config(0, DataRole::Both, None);
    other.local.password = "not what the client was told".to_owned();
    world.command(Command::Open(Box::new(other)));
    world.pass(Duration::from_secs(5));
    let stats = world.shard.stats();
    assert!(stats.dropped_bad_stun > 3);
    assert!(stats.bytes_sent == 0 && world.shard.next_batch().is_none());
    assert!(!world.clients[ada].rtc.is_connected());
}

#[test]
fn replayed_srtp_is_dropped() {
    let mut world = call();
    let last = world.clients[0].sent.iter().rfind(|d| classify(d) == Some(Protocol::Rtp)).unwrap().clone();
    let before = world.shard.stats().dropped_replay;
    for _ in 0..3 {
        world.shard.handle_datagram(world.now, world.clients[0].addr, &mut last.clone());
    }
    world.carry();
    assert_eq!(world.shard.stats().dropped_replay, before + 3);
    assert_eq!(world.heard(1), [b"hello"]);
}

#[test]
fn forged_srtp_is_dropped() {
    let mut world = call();
    let mut forged = world.clients[0].sent.iter().rfind(|d| classify(d) == Some(Protocol::Rtp)).unwrap().clone();
    forged[3] ^= 0x40;
    world.shard.handle_datagram(world.now, world.clients[0].addr, &mut forged);
    world.carry();
    assert_eq!(world.shard.stats().dropped_bad_srtp, 1);
    assert_eq!(world.heard(1), [b"hello"]);
}

#[test]
fn nobody_takes_the_address_of_a_peer_that_is_there() {
    let mut world = call();
    // Bob, an authenticated client, sends a fresh binding request in Ada's name.
    let binding = without_gcm::binding(1);
    let ada = world.clients[0].addr;
    let before = world.shard.stats().dropped_bad_stun;
    world.shard.handle_datagram(world.now, ada, &mut binding.clone());
    assert_eq!(world.shard.stats().dropped_bad_stun, before + 1);
    world.speak(0, b"still me");
    world.until("heard", |w| w.heard(1) == [b"hello".to_vec(), b"still me".to_vec()]);
}

#[test]
fn a_moved_client_goes_on() {
    let mut world = call();
    // A NAT gives Bob a new port; his next check nominates it.
    let moved = SocketAddr::from(([10, 0, 0, 2], 6000));
    world.clients[1].addr = moved;
    world.pass(Duration::from_secs(9));
    world.speak(0, b"over there");
    world.until("heard", |w| w.heard(1) == [b"hello".to_vec(), b"over there".to_vec()]);
    assert!(!world.events.iter().any(|e| matches!(e, Event::Disconnected(_))));
}

#[test]
fn a_replayed_check_moves_nobody() {
    let mut world = call();
    let check = world.clients[1].sent.iter().rfind(|d| classify(d) == Some(Protocol::Stun)).unwrap().clone();
    let thief = SocketAddr::from(([198, 51, 100, 7], 666));
    world.shard.handle_datagram(world.now, thief, &mut check.clone());
    world.speak(0, b"for bob");
    world.until("heard", |w| w.heard(1) == [b"hello".to_vec(), b"for bob".to_vec()]);
    assert!(world.stray.is_empty(), "{:?}", world.stray);
}

#[test]
fn silence_disconnects_then_fails() {
    let mut world = call();
    world.clients[1].silent = true;
    let is = |w: &World, wanted: fn(&Event) -> bool| w.events.iter().any(wanted);
    world.until("disconnected", |w| is(w, |e| matches!(e, Event::Disconnected(TransportKey(1)))));
    world.clients[1].silent = false;
    world.until("reconnected", |w| is(w, |e| matches!(e, Event::Reconnected(TransportKey(1)))));
    world.speak(0, b"again");
    world.until("heard", |w| w.heard(1).last().is_some_and(|p| p == b"again"));
    world.clients[1].silent = true;
    world.until("failed", |w| w.failed_with(1) == Some(FailReason::ConsentLapsed));
    assert_eq!(world.shard.stats().transports, 1);
}

#[test]
fn a_client_that_never_comes_is_given_up() {
    let mut world = call();
    world.command(Command::Open(Box::new(config(7, DataRole::Both, None))));
    assert_eq!(world.shard.stats().transports, 3);
    world.pass(CONNECT_LIMIT + Duration::from_millis(1));
    let gone = |e: &Event| matches!(e, Event::Failed { transport: TransportKey(7), reason: FailReason::NotConnected });
    assert!(world.events.iter().any(gone));
    assert_eq!(world.shard.stats().transports, 2, "the others go on");
}

#[test]
fn a_full_shard_refuses() {
    let mut world = World::with_room_for(1);
    world.join(DataRole::Both);
    let second = world.join(DataRole::Both);
    assert_eq!(world.failed_with(second), Some(FailReason::Refused));
}

#[test]
fn a_closed_transport_leaves_nothing_behind() {
    let mut world = call();
    world.command(Command::Close(TransportKey(0)));
    world.command(Command::Close(TransportKey(1)));
    let stats = world.shard.stats();
    assert_eq!((stats.transports, stats.receivers, stats.senders), (0, 0, 0));
    let (before, addr) = (stats.dropped_unknown_address, world.clients[0].addr);
    world.shard.handle_datagram(world.now, addr, &mut [0x80; 60]);
    assert_eq!(world.shard.stats().dropped_unknown_address, before + 1);
    assert!(world.shard.next_timeout().is_none_or(|at| at > world.now));
}

#[test]
fn who_goes_elsewhere_is_not_told_that_its_connection_is_closed() {
    for (end, told) in [(Command::Close as fn(_) -> _, true), (Command::Forget as fn(_) -> _, false)] {
        let mut world = call();
        let addr = world.clients[0].addr;
        world.clients.remove(0);
        world.stray.clear();
        world.command(end(TransportKey(0)));
        // A DTLS record (RFC 9147 section 4.1).
        let heard = world.stray.iter().any(|(to, datagram)| *to == addr && (20..64).contains(&datagram[0]));
        assert_eq!((heard, world.shard.stats().transports), (told, 1));
    }
}

#[test]
fn data_reaches_the_others_in_order_and_never_comes_back() {
    let mut world = call();
    for n in 0..50u8 {
        world.say(0, "_reliable", &packet(&[n; 2000]));
    }
    world.say(0, "_lossy", &packet(b"lossy"));
    world.say(0, "unheard-of", &packet(b"nobody hears this"));
    world.until("all there", |w| w.messages(1).len() >= 51);
    world.pass(Duration::from_secs(1));
    let (messages, sender) = (world.messages(1), speaker(0));
    assert_eq!(messages.len(), 51);
    assert!(world.messages(0).is_empty());
    let reliable: Vec<_> = messages.iter().filter(|(label, _)| label == "_reliable").collect();
    for (n, (_, data)) in (0u8..50).zip(reliable) {
        assert_eq!(payload(data), [n; 2000]);
        assert_eq!(DataPacket::decode(&data[..]).unwrap().participant_identity, sender.identity.as_str());
    }
    let lossy: Vec<_> = messages.iter().filter(|(label, _)| label == "_lossy").collect();
    assert_eq!(payload(&lossy[0].1), b"lossy");
}

#[test]
fn who_comes_back_is_sent_again_what_it_has_not() {
    let mut world = call();
    let numbered = |sequence: u32, to: &str| {
        let destination_identities = if to.is_empty() { Vec::new() } else { vec![to.to_owned()] };
        let value = DataPacket::decode(&packet(&[1])[..]).unwrap().value;
        DataPacket { value, sequence, destination_identities, ..DataPacket::default() }.encode_to_vec()
    };
    let bob = speaker(1).identity;
    for (sequence, to) in [(1, ""), (2, "nobody"), (3, bob.as_str()), (4, "")] {
        world.say(0, "_reliable", &numbered(sequence, to));
    }
    world.say(0, "_lossy", &numbered(5, ""));
    let heard = |world: &World| -> Vec<u32> {
        let reliable = world.messages(1).into_iter().filter(|(label, _)| label == "_reliable");
        reliable.map(|(_, data)| DataPacket::decode(&data[..]).unwrap().sequence).collect()
    };
    world.until("heard", |w| heard(w) == [1, 3, 4]);
    let replay = |sequence| Command::ReplayData(TransportKey(1), vec![(speaker(0).key, sequence)]);
    world.command(replay(1));
    world.until("once more", |w| heard(w).len() == 5);
    assert_eq!(heard(&world), [1, 3, 4, 3, 4]);
    world.command(replay(0));
    world.pass(Duration::from_secs(2));
    assert_eq!(heard(&world).len(), 5, "so soon again it is not heard");
    world.command(replay(3));
    world.until("once more", |w| heard(w) == [1, 3, 4, 3, 4, 4]);
}

#[test]
fn the_node_opens_the_channels_of_a_subscriber_connection() {
    let mut world = World::new();
    let (up, down) = (world.join(DataRole::Upstream), world.join(DataRole::Downstream));
    world.connect(up);
    // Sent while the receiver is still joining.
    world.say(up, "_reliable", &packet(b"early"));
    world.connect(down);
    world.until("delivered", |w| !w.messages(down).is_empty());
    world.say(up, "_lossy", &packet(b"late"));
    world.until("delivered", |w| w.messages(down).len() == 2);
    let messages = world.messages(down);
    assert_eq!((messages[0].0.as_str(), payload(&messages[0].1)), ("_reliable", b"early".to_vec()));
    assert_eq!((messages[1].0.as_str(), payload(&messages[1].1)), ("_lossy", b"late".to_vec()));
    let mut labels: Vec<_> = world.clients[down].channels.iter().map(|(label, _)| label.as_str()).collect();
    labels.sort_unstable();
    assert_eq!(labels, ["_data_track", "_lossy", "_reliable"]);
}

#[test]
fn data_needs_permission_and_changes_with_it() {
    let mut world = call();
    world.command(Command::SetSpeaker(Speaker { can_publish_data: false, ..speaker(0) }));
    world.say(0, "_reliable", &packet(b"not allowed"));
    world.pass(Duration::from_secs(1));
    assert!(world.messages(1).is_empty());
    world.command(Command::SetSpeaker(speaker(0)));
    world.say(0, "_reliable", &packet(b"allowed"));
    world.until("delivered", |w| w.messages(1).len() == 1);
}

#[test]
fn a_receiver_that_is_gone_bounds_what_waits_for_it() {
    let mut world = call();
    let ready = |w: &mut World, at: usize| w.clients[at].channels.iter().any(|(l, _)| l == "_reliable");
    world.until("channel", |w| ready(w, 0) && ready(w, 1));
    world.clients[1].silent = true;
    for _ in 0..200 {
        world.say(0, "_reliable", &packet(&[1; 60_000]));
        world.pass(Duration::from_millis(5));
    }
    world.until("all taken from the sender", |w| w.shard.stats().data_messages_received == 200);
    let stats = world.shard.stats();
    assert!(stats.data_messages_dropped > 50, "{stats:?}");
    assert!(stats.data_messages_sent < 100, "{stats:?}");
}

#[test]
fn a_panic_of_the_sctp_library_is_counted_and_harms_nobody_else() {
    let mut world = call();
    for (n, settles) in [(6, true), (7, false)] {
        world.command(Command::Open(Box::new(config(n, DataRole::Both, None))));
        let index = world.shard.table.index_of(TransportKey(n)).unwrap();
        provoke_panic(world.now, &mut world.shard.table.transport(index).unwrap().0.data);
        if settles {
            world.shard.table.settle(world.now, index);
        }
        assert_eq!(world.shard.stats().sctp_panics, 1, "at once, if anything follows");
        world.command(Command::Close(TransportKey(n)));
    }
    assert_eq!(world.shard.stats().sctp_panics, 2, "once each");
    world.say(0, "_reliable", &packet(b"unharmed"));
    world.until("delivered", |w| w.messages(1).len() == 1);
}

#[test]
fn undecodable_data_is_counted_and_dropped() {
    let mut world = call();
    world.say(0, "_reliable", &[0xff; 100]);
    world.until("counted", |w| w.shard.stats().dropped_malformed == 1);
    assert!(world.messages(1).is_empty());
}

#[test]
fn garbage_never_panics_and_harms_nobody() {
    let mut world = call();
    let samples: Vec<Vec<u8>> = world.clients.iter().flat_map(|c| c.sent.clone()).collect();
    let mut rng = StdRng::seed_from_u64(7983);
    let addrs = [world.clients[0].addr, SocketAddr::from(([198, 51, 100, 7], 666))];
    for round in 0..30_000 {
        let mut datagram = samples[rng.random_range(0..samples.len())].clone();
        match round % 4 {
            0 => datagram.truncate(rng.random_range(0..=datagram.len())),
            1 => {
                datagram = vec![0; rng.random_range(0..1600)];
                rng.fill_bytes(&mut datagram);
            }
            2 => datagram.extend(vec![rng.random::<u8>(); rng.random_range(0..1600)]),
            _ => {}
        }
        for _ in 0..rng.random_range(1..5) {
            if !datagram.is_empty() {
                let at = rng.random_range(0..datagram.len());
                datagram[at] ^= rng.random_range(1..=255);
            }
        }
        world.shard.handle_datagram(world.now, addrs[round % 2], &mut datagram);
        world.discard();
    }
    world.speak(0, b"unharmed");
    world.until("heard", |w| w.heard(1).last().is_some_and(|p| p == b"unharmed"));
    assert_eq!(world.shard.stats().transports, 2);
}

#[test]
fn spoofed_bindings_do_not_grow_memory() {
    let mut world = call();
    let binding = world.clients[0].sent.iter().rfind(|d| classify(d) == Some(Protocol::Stun)).unwrap().clone();
    for n in 0..10_000u16 {
        let from = SocketAddr::from(([198, 51, 100, 1], 1024 + n));
        world.shard.handle_datagram(world.now, from, &mut binding.clone());
        world.discard();
    }
    let known = (0..10_000u16).filter(|n| {
        let before = world.shard.stats().dropped_unknown_address;
        let from = SocketAddr::from(([198, 51, 100, 1], 1024 + n));
        world.shard.handle_datagram(world.now, from, &mut [0x80; 40]);
        world.shard.stats().dropped_unknown_address == before
    });
    assert_eq!(known.count(), 0);
}

#[test]
fn an_ice_restart_keeps_the_call() {
    let mut world = call();
    let new = IceCredentials { ufrag: "restarted".to_owned(), password: "a-new-password-long-enough".to_owned() };
    world.command(Command::RestartIce(TransportKey(1), new.clone()));
    world.speak(0, b"before");
    let creds = str0m::ice::IceCreds { ufrag: new.ufrag, pass: new.password };
    world.clients[1].rtc.direct_api().set_remote_ice_credentials(creds);
    world.pass(Duration::from_secs(12));
    world.speak(0, b"after");
    world.until("heard", |w| w.heard(1) == [b"hello".to_vec(), b"before".to_vec(), b"after".to_vec()]);
    assert!(!world.events.iter().any(|e| matches!(e, Event::Disconnected(_))));
}

#[test]
fn a_shard_is_quiet_while_nothing_flows_but_checks() {
    let mut world = World::new();
    assert!(world.shard.is_quiet(world.now));
    let ada = world.join(DataRole::Both);
    assert!(!world.shard.is_quiet(world.now), "somebody is about to connect");
    world.connect(ada);
    world.pass(Duration::from_secs(2));
    let before = world.shard.stats().packets_received;
    world.pass(Duration::from_secs(20));
    assert!(world.shard.stats().packets_received > before && world.shard.is_quiet(world.now));
    world.say(ada, "_reliable", &packet(b"something"));
    world.pass(Duration::from_millis(100));
    assert!(!world.shard.is_quiet(world.now), "a message");
}
