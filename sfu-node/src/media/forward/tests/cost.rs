//! A packet forwarded in the steady state allocates nothing.

use super::*;
use crate::media::forward::allocation::Quality;

/// Drops what it gets, as a socket would.
pub(crate) struct Nowhere;

impl Sink for Nowhere {
    fn rtp(&mut self, _to: TransportKey, header: &[u8], payload: &[u8]) {
        assert!(header.len() + payload.len() > 1000);
    }
    fn rtcp(&mut self, _to: TransportKey, _compound: &[u8]) {}
    fn event(&mut self, _event: Event) {}
    fn cross(&mut self, _to: ShardIndex, _record: Record<'_>) {}
}

/// Keeps the last record, in a buffer that was there before.
struct Hands(Vec<u8>);

impl Sink for Hands {
    fn rtp(&mut self, _to: TransportKey, _header: &[u8], _payload: &[u8]) {}
    fn rtcp(&mut self, _to: TransportKey, _compound: &[u8]) {}
    fn event(&mut self, _event: Event) {}
    fn cross(&mut self, _to: ShardIndex, record: Record<'_>) {
        self.0.clear();
        self.0.extend_from_slice(record.head);
        self.0.extend_from_slice(record.payload);
    }
}

#[test]
fn a_packet_that_crosses_to_another_shard_allocates_nothing_on_either() {
    let (home, away) = (ShardIndex(0), ShardIndex(1));
    let mut world = World::new();
    world.publish(vec![camera(&["q"], &[])]);
    let other = Forwarder::new(7).counting_from(world.now);
    let mut other = World { forwarder: other, now: world.now, out: Outbox::default() };
    other.forwarder.set_relayed(other.now, ADA, ROOM, home, vec![camera(&["q"], &[])], &mut other.out);
    for key in 20..70 {
        other.viewer(key, vec![watch(3000 + 10 * u32::try_from(key).unwrap())]);
    }
    for (_, record) in std::mem::take(&mut other.out.crossings) {
        world.forwarder.on_crossing(world.now, away, &record, &mut world.out);
    }
    let mut encoder = Encoder::new(1000, Some("q"));
    let packets: Vec<Vec<u8>> = (0..200).flat_map(|frame| encoder.frame(frame % 50 == 0, 5)).collect();
    let (mut forwarder, mut other, mut now) = (world.forwarder, other.forwarder, world.now);
    let mut hands = Hands(Vec::with_capacity(4096));
    let mut cross = |packets: &[Vec<u8>]| {
        for packet in packets {
            now += Duration::from_micros(50);
            forwarder.on_rtp(now, ADA, packet, &mut hands);
            other.on_crossing(now, home, &hands.0, &mut Nowhere);
        }
        other.flush(&mut Nowhere);
    };
    // What is remembered of packets sent grows first.
    cross(&packets[..300]);
    let counted = allocation_counter::measure(|| cross(&packets[300..]));
    assert_eq!(other.stats().packets_sent, 50_000);
    assert_eq!(counted.count_total, 0);
}

/// Lets Ada send packets; gives how many went out after the first `warm_up`, none of which may allocate.
fn sent_without_allocating(world: World, packets: &[Vec<u8>], warm_up: usize) -> u64 {
    let World { mut forwarder, mut now, .. } = world;
    // What is remembered of packets sent grows first.
    let (first, packets) = packets.split_at(warm_up);
    first.iter().for_each(|packet| forwarder.on_rtp(now, ADA, packet, &mut Nowhere));
    forwarder.flush(&mut Nowhere);
    let sent_before = forwarder.stats().packets_sent;
    let counted = allocation_counter::measure(|| {
        for packet in packets {
            now += Duration::from_micros(50);
            forwarder.on_rtp(now, ADA, packet, &mut Nowhere);
        }
        forwarder.flush(&mut Nowhere);
    });
    assert_eq!(counted.count_total, 0);
    forwarder.stats().packets_sent - sent_before
}

#[test]
fn leaving_frames_out_allocates_nothing() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    for key in 20..70 {
        world.viewer(key, vec![watch(3000 + 10 * u32::try_from(key).unwrap())]);
    }
    for (_, subscription) in &mut world.forwarder.subscriptions {
        subscription.ceiling = Some(Quality { layer: 0, temporal: 0 });
    }
    let mut encoder = Encoder::new(1000, None);
    let mut frame = |n: usize| encoder.temporal_frame(n == 0, (n % 2).try_into().unwrap(), n % 8 == 1, 5);
    (0..20).flat_map(&mut frame).for_each(|packet| world.rtp(ADA, &packet));
    let packets: Vec<Vec<u8>> = (20..320).flat_map(frame).collect();
    assert_eq!(sent_without_allocating(world, &packets, 600), 22_500);
}

#[test]
fn a_packet_allocates_nothing() {
    let mut world = World::new();
    world.publish(vec![camera(&["q", "f"], &[])]);
    for key in 20..70 {
        world.viewer(key, vec![watch(3000 + 10 * u32::try_from(key).unwrap())]);
    }
    let mut encoders = [Encoder::new(1000, Some("q")), Encoder::new(2000, Some("f"))];
    // A change of layer, so that payloads are rewritten.
    for encoder in &mut encoders {
        encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    }
    world.pass(Duration::from_millis(30));
    let packets: Vec<Vec<u8>> = (0..200).flat_map(|frame| encoders[1].frame(frame % 50 == 0, 5)).collect();
    assert_eq!(sent_without_allocating(world, &packets, 300), 35_000);
}
