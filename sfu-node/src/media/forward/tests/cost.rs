//! A packet forwarded in the steady state allocates nothing.

use super::*;
use crate::media::forward::allocation::Quality;

/// Drops what it gets, as a socket would.
struct Nowhere;

impl Sink for Nowhere {
    fn rtp(&mut self, _to: TransportKey, header: &[u8], payload: &[u8]) {
        assert!(header.len() + payload.len() > 1000);
    }
    fn rtcp(&mut self, _to: TransportKey, _compound: &[u8]) {}
    fn event(&mut self, _event: Event) {}
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
    let packets: Vec<Vec<u8>> = (20..220).flat_map(frame).collect();
    let sent_before = world.forwarder.stats().packets_sent;
    let (mut forwarder, mut now) = (world.forwarder, world.now);
    let counted = allocation_counter::measure(|| {
        for packet in &packets {
            now += Duration::from_micros(50);
            forwarder.on_rtp(now, ADA, packet, &mut Nowhere);
        }
    });
    assert_eq!(forwarder.stats().packets_sent - sent_before, 25_000);
    assert_eq!(counted.count_total, 0);
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
    let sent_before = world.forwarder.stats().packets_sent;
    let (mut forwarder, mut now) = (world.forwarder, world.now);
    let counted = allocation_counter::measure(|| {
        for packet in &packets {
            now += Duration::from_micros(50);
            forwarder.on_rtp(now, ADA, packet, &mut Nowhere);
        }
    });
    assert_eq!(forwarder.stats().packets_sent - sent_before, 50_000);
    assert_eq!(counted.count_total, 0);
}
