//! A track received by one forwarder and forwarded by another: its viewers get what they would get at home.

use super::encoder3::Encoder3;
use super::scalable::{VP9, VP9_DOWN, unit};
use super::*;

const HOME: ShardIndex = ShardIndex(0);
const AWAY: ShardIndex = ShardIndex(1);

/// Ada's forwarder and another one, and the way between them.
struct Pair {
    home: World,
    away: World,
}

impl Pair {
    fn new() -> Self {
        let mut home = World::new();
        let away = Forwarder::new(7).counting_from(home.now);
        home.publish(vec![camera(&["q", "f"], &[])]);
        let away = World { forwarder: away, now: home.now, out: Outbox::default() };
        Self { home, away }
    }

    fn relay(&mut self, receivers: Vec<Receiver>) {
        let World { forwarder, now, out } = &mut self.away;
        forwarder.set_relayed(*now, ADA, ROOM, HOME, receivers, out);
        self.carry();
    }

    /// Carries records until all is quiet.
    fn carry(&mut self) {
        loop {
            let there = std::mem::take(&mut self.home.out.crossings);
            let back = std::mem::take(&mut self.away.out.crossings);
            if there.is_empty() && back.is_empty() {
                return;
            }
            for (from, to, world, records) in [(HOME, AWAY, &mut self.away, there), (AWAY, HOME, &mut self.home, back)]
            {
                for (meant, record) in records {
                    assert_eq!(meant, to);
                    world.forwarder.on_crossing(world.now, from, &record, &mut world.out);
                    world.forwarder.flush(&mut world.out);
                }
            }
        }
    }

    fn rtp(&mut self, packets: &[Vec<u8>]) {
        packets.iter().for_each(|packet| self.home.rtp(ADA, packet));
        self.carry();
    }

    fn pass(&mut self, duration: Duration) {
        self.home.pass(duration);
        self.away.pass(duration);
        self.carry();
    }
}

#[test]
fn viewers_on_both_sides_get_the_same() {
    let mut pair = Pair::new();
    let mut here = pair.home.viewer(20, vec![watch(3000)]);
    pair.relay(vec![camera(&["q", "f"], &[])]);
    let mut there = pair.away.viewer(21, vec![watch(4000)]);
    let mut encoders = [Encoder::new(1000, Some("q")), Encoder::new(2000, Some("f"))];
    for frame in 0..60 {
        for encoder in &mut encoders {
            let mut packets = encoder.frame(frame % 20 == 0, 3);
            let lost = packets.remove(1);
            pair.rtp(&packets);
            // It comes back by RTX.
            let lost = RtpPacket::parse(&lost).unwrap().sequence;
            let rid = encoder.ssrc + 1;
            pair.rtp(&[encoder.repair(rid, lost, lost).unwrap()]);
        }
        pair.pass(Duration::from_millis(33));
    }
    here.drain(&mut pair.home);
    there.drain(&mut pair.away);
    there.assert_decodable();
    let packets = |viewer: &Viewer| viewer.packets.values().cloned().collect::<Vec<Got>>();
    assert!(packets(&there).len() >= 150);
    let pictures = |viewer: &Viewer| packets(viewer).iter().map(|got| got.payload[6..].to_vec()).collect::<Vec<_>>();
    assert_eq!(pictures(&here), pictures(&there));
    assert!(pair.away.out.events.is_empty(), "what arrived is told by who received it");
    assert_eq!(pair.away.forwarder.stats().receivers, 0);
    assert!(pair.away.take_said(ADA).is_empty(), "no feedback to the publisher from here");
}

#[test]
fn who_comes_late_asks_for_the_best_layer_at_once_and_all_shards_share_one_throttle() {
    let mut pair = Pair::new();
    let mut encoders = [Encoder::new(1000, Some("q")), Encoder::new(2000, Some("f"))];
    for frame in 0..10 {
        encoders.iter_mut().for_each(|encoder| pair.rtp(&encoder.frame(frame == 0, 1)));
        pair.pass(Duration::from_millis(33));
    }
    pair.relay(vec![camera(&["q", "f"], &[])]);
    let there = pair.away.viewer(21, vec![watch(4000)]);
    pair.carry();
    assert_eq!(pair.home.take_plis(), [2000], "not the lower layer first");
    pair.home.viewer(20, vec![watch(3000)]);
    for _ in 0..1000 {
        let pli: [Box<dyn rtc::rtcp::packet::Packet>; 1] = [Box::new(rtcp::pli(1, 4000))];
        pair.away.rtcp(there.transport, &pli);
        pair.carry();
        pair.pass(Duration::from_millis(1));
    }
    // The layers live on; no keyframe comes.
    assert_eq!(pair.home.take_plis(), [2000; 2]);
    pair.away.forwarder.set_muted(pair.away.now, CAMERA, true, &mut pair.away.out);
    pair.home.forwarder.set_muted(pair.home.now, CAMERA, true, &mut pair.home.out);
    pair.pass(Duration::from_secs(10));
    assert_eq!(pair.home.take_plis(), NONE);
}

#[test]
fn who_comes_late_knows_the_layers_of_a_stream_at_once() {
    for describes in [true, false] {
        let mut pair = Pair::new();
        let scalable = Receiver { payload_types: vec![VP8, VP9], ..camera(&[], &[(1000, 1001)]) };
        pair.home.publish(vec![scalable.clone()]);
        let mut encoder = Encoder3::new(true);
        encoder.describes = describes;
        let mut send = |pair: &mut Pair, units: usize, keyframe: bool| {
            for number in 0..units {
                pair.rtp(&unit(&mut encoder, keyframe && number == 0));
                pair.pass(Duration::from_millis(33));
            }
        };
        send(&mut pair, 40, true);
        pair.relay(vec![scalable]);
        let there = pair.away.viewer(21, vec![sender(CAMERA, 4000, vec![VP9_DOWN])]);
        pair.carry();
        let known = |world: &mut World| {
            let now = world.forwarder.clock.time(world.now);
            let source = world.forwarder.tracks.iter().next().unwrap().1.source.as_ref().unwrap();
            (source.steps(now), source.temporal_for(Some(15)), source.temporal_for(Some(7)))
        };
        let (steps, fifteen, seven) = known(&mut pair.home);
        assert_eq!((steps.len(), fifteen, seven), (7, 1, 0), "described: {describes}");
        assert_eq!(known(&mut pair.away), known(&mut pair.home), "described: {describes}");
        send(&mut pair, 8, false);
        assert_eq!(known(&mut pair.away), known(&mut pair.home));
        assert!(pair.away.take_rtp(there.transport).is_empty(), "before a keyframe nothing is of use");
        send(&mut pair, 8, true);
        assert!(!pair.away.take_rtp(there.transport).is_empty());
    }
}

#[test]
fn nothing_crosses_that_nobody_needs() {
    let mut pair = Pair::new();
    let mut encoder = Encoder::new(1000, Some("q"));
    pair.home.rtp(ADA, &encoder.frame(true, 1)[0]);
    assert!(pair.home.out.crossings.is_empty());
    pair.relay(vec![camera(&["q", "f"], &[])]);
    pair.home.rtp(ADA, &encoder.frame(false, 1)[0]);
    assert_eq!(pair.home.out.crossings.len(), 1);
    pair.carry();
    pair.relay(Vec::new());
    pair.home.rtp(ADA, &encoder.frame(false, 1)[0]);
    assert!(pair.home.out.crossings.is_empty());
    assert_eq!((pair.away.forwarder.tracks.len(), pair.away.forwarder.transports.len()), (0, 0));
    let record = [6, 100, 0, 0, 0, 0, 0, 0, 0];
    pair.away.forwarder.on_crossing(pair.away.now, HOME, &record, &mut pair.away.out);
    pair.away.forwarder.flush(&mut pair.away.out);
    assert_eq!(pair.away.forwarder.stats().dropped_malformed, 1, "cut short");
}

#[test]
fn a_track_follows_its_publisher_to_another_transport() {
    for new_first in [true, false] {
        let mut pair = Pair::new();
        let receivers = vec![camera(&["q"], &[])];
        pair.home.publish(receivers.clone());
        pair.relay(receivers.clone());
        let viewer = pair.away.viewer(21, vec![watch(4000)]);
        pair.carry();
        let again = TransportKey(11);
        let World { forwarder, now, out } = &mut pair.home;
        forwarder.close(*now, ADA, out);
        forwarder.open(again, ROOM);
        forwarder.set_receivers(*now, again, receivers.clone(), out);
        for step in [new_first, !new_first] {
            let (transport, receivers) = if step { (again, receivers.clone()) } else { (ADA, Vec::new()) };
            let World { forwarder, now, out } = &mut pair.away;
            forwarder.set_relayed(*now, transport, ROOM, HOME, receivers, out);
            pair.carry();
        }
        let packet = Encoder::new(1000, Some("q")).frame(true, 1).remove(0);
        pair.home.rtp(again, &packet);
        pair.carry();
        assert_eq!(pair.away.take_rtp(viewer.transport).len(), 1, "new first: {new_first}");
    }
}
