//! Seeded loss, reordering and duplicates both ways: after NACK every stream is whole.

use super::*;

/// A lossy network: what is left of packets after it, in a new order.
struct Weather {
    random: SplitMix,
    loss_percent: u64,
}

impl Weather {
    fn through(&mut self, packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut out: Vec<Vec<u8>> = vec![];
        for packet in packets {
            if self.random.next() % 100 < self.loss_percent {
                continue;
            }
            let place = out.len().saturating_sub(self.random.below(3));
            if self.random.next().is_multiple_of(20) {
                out.push(packet.clone());
            }
            out.insert(place, packet);
        }
        out
    }
}

fn nack(sequences: &[u16], ssrc: u32) -> [Box<dyn rtc::rtcp::packet::Packet>; 1] {
    [Box::new(rtcp::nack(1, ssrc, sequences))]
}

fn run(seed: u64, loss_percent: u64) {
    let mut world = World::new();
    let mut weather = Weather { random: SplitMix(seed), loss_percent };
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut viewers: Vec<Viewer> =
        (20..23).map(|key| world.viewer(key, vec![watch(3000 + 10 * u32::try_from(key).unwrap())])).collect();
    let mut encoder = Encoder::new(1000, None);
    encoder.sequence = 65_400;
    let mut rtx_sequence = 0;
    let mut uplink = vec![];
    for frame in 0..400 {
        // The first frame arrives whole: a stream begins once.
        let packets = encoder.frame(frame == 0, 3);
        uplink.extend(if frame == 0 { packets } else { weather.through(packets) });
        for packet in std::mem::take(&mut uplink) {
            world.rtp(ADA, &packet);
        }
        // Enough silence at the end for the last holes to be filled.
        world.pass(Duration::from_millis(33));
        for said in world.take_said(ADA) {
            let Said::Nack { first, following, .. } = said else { continue };
            let bits = (0..16).filter(|bit| following >> bit & 1 == 1);
            let asked = std::iter::once(first).chain(bits.map(|bit| first.wrapping_add(bit + 1)));
            for lost in asked {
                rtx_sequence += 1;
                uplink.extend(weather.through(encoder.repair(1001, rtx_sequence, lost).into_iter().collect()));
            }
        }
        for viewer in &mut viewers {
            let arrived = world.take_rtp(viewer.transport);
            for packet in if frame == 0 { arrived } else { weather.through(arrived) } {
                viewer.receive(&packet);
            }
            let missing = viewer.missing();
            if !missing.is_empty() {
                world.rtcp(viewer.transport, &nack(&missing, viewer.ssrc));
            }
        }
    }
    for _ in 0..40 {
        for packet in std::mem::take(&mut uplink) {
            world.rtp(ADA, &packet);
        }
        for viewer in &mut viewers {
            viewer.drain(&mut world);
            let missing = viewer.missing();
            if !missing.is_empty() {
                world.rtcp(viewer.transport, &nack(&missing, viewer.ssrc));
            }
            viewer.drain(&mut world);
        }
        world.pass(Duration::from_millis(33));
    }
    for viewer in &viewers {
        assert!(viewer.packets.len() >= 1190, "{} of 1200", viewer.packets.len());
        viewer.assert_decodable();
    }
    let stats = world.forwarder.stats();
    assert!(stats.nacks_sent > 0 && stats.nacks_received > 0 && stats.retransmissions_sent > 0);
    assert_eq!(stats.dropped_malformed, 0);
}

#[test]
fn streams_are_whole_after_nack() {
    for seed in 0..10 {
        run(seed, 5);
    }
}

#[test]
fn nothing_goes_out_again_without_rtx() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut sender = watch(3000);
    sender.rtx_ssrc = None;
    let viewer = world.viewer(20, vec![sender]);
    let mut encoder = Encoder::new(1000, None);
    encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    let sent = RtpPacket::parse(&world.take_rtp(viewer.transport)[1]).unwrap().sequence;
    world.rtcp(viewer.transport, &nack(&[sent], 3000));
    assert!(world.take_rtp(viewer.transport).is_empty(), "SRTP would have to use a nonce twice");
    let stats = world.forwarder.stats();
    assert_eq!((stats.nacks_received, stats.retransmissions_sent), (1, 0));
}

#[test]
fn a_retransmission_goes_on_the_rtx_stream_with_the_original_number() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoder = Encoder::new(1000, None);
    encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    let sent = world.take_rtp(viewer.transport);
    let original = RtpPacket::parse(&sent[1]).unwrap();
    for _ in 0..3 {
        world.rtcp(viewer.transport, &nack(&[original.sequence], 3000));
    }
    let again = world.take_rtp(viewer.transport);
    assert_eq!(again.len(), 1, "once a round trip");
    let rtx = RtpPacket::parse(&again[0]).unwrap();
    assert_eq!((rtx.ssrc, rtx.payload_type, rtx.timestamp), (3001, 121, original.timestamp));
    assert_eq!(rtx.payload[..2], original.sequence.to_be_bytes());
    assert_eq!(&rtx.payload[2..], original.payload);
    world.rtcp(viewer.transport, &nack(&[original.sequence.wrapping_add(1)], 3000));
    world.rtcp(viewer.transport, &nack(&[original.sequence.wrapping_sub(100)], 3000));
    world.rtcp(viewer.transport, &nack(&[original.sequence], 9999));
    assert!(world.take_rtp(viewer.transport).is_empty(), "what never went out does not come again");
}

#[test]
fn an_rtx_stream_is_found_by_its_repaired_rid() {
    let mut world = World::new();
    world.publish(vec![camera(&["q", "h"], &[])]);
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoder = Encoder::new(1000, Some("q"));
    world.rtp(ADA, &encoder.frame(true, 1)[0]);
    let lost = encoder.frame(false, 1);
    world.rtp(ADA, &encoder.frame(false, 1)[0]);
    let lost = RtpPacket::parse(&lost[0]).unwrap().sequence;
    world.rtp(ADA, &encoder.repair(1001, 5, lost).unwrap());
    viewer.drain(&mut world);
    viewer.assert_decodable();
    assert_eq!(viewer.packets.len(), 3);
    let seen: Vec<(u32, u32)> = world
        .out
        .events
        .iter()
        .map(|event| match event {
            Event::LayerSeen { track: CAMERA, layer: 0, codec: Codec::Vp8, ssrc, repair_ssrc } => (*ssrc, *repair_ssrc),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, [(1000, 0), (1000, 1001)]);
}
