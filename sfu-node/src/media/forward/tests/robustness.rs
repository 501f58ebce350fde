//! What a hostile or broken peer can send: counted, bounded, and nobody else notices.

use super::*;

#[test]
fn garbage_is_counted_and_harmless() {
    let mut world = World::new();
    world.publish(vec![camera(&["q", "h", "f"], &[]), microphone(vec![RED, OPUS])]);
    let viewer = world.viewer(20, vec![watch(3000), sender(MICROPHONE, 4000, vec![OPUS_DOWN])]);
    let mut random = SplitMix(1);
    let mut encoders = [Encoder::new(1000, Some("q")), Encoder::new(5000, Some("f"))];
    for round in 0..20_000_u32 {
        let encoder = &mut encoders[(round % 2) as usize];
        let mut packet = encoder.frame(random.next().is_multiple_of(9), 1).remove(0);
        encoder.sent.clear();
        let changes = random.next() % 4;
        for _ in 0..changes {
            let at = random.below(packet.len().min(40));
            packet[at] = (random.next() & 0xff) as u8;
        }
        packet.truncate(1 + random.below(1100));
        world.rtp(ADA, &packet);
        let mut compound: Vec<u8> = (0..random.next() % 200).map(|_| (random.next() & 0xff) as u8).collect();
        if let [first, kind, length, low, ..] = compound.as_mut_slice() {
            *first = 0x80 | *first & 0x1f;
            *kind = 200 + *kind % 8;
            (*length, *low) = (0, *low % 40);
        }
        let from = if round % 2 == 0 { ADA } else { viewer.transport };
        world.forwarder.on_rtcp(world.now, from, &compound, &mut world.out);
        if round % 64 == 0 {
            world.pass(Duration::from_millis(20));
            world.out = Outbox::default();
        }
    }
    assert!(world.forwarder.stats().dropped_malformed > 1000);
    let known = world.forwarder.timers.next();
    assert!(known.is_some());
}

#[test]
fn a_client_that_changes_its_ssrc_floods_nobody() {
    let mut world = World::new();
    world.publish(vec![camera(&["q", "h", "f"], &[])]);
    let viewer = world.viewer(20, vec![watch(3000)]);
    for ssrc in 0..1000 {
        let mut encoder = Encoder::new(10_000 + ssrc, Some("q"));
        world.rtp(ADA, &encoder.frame(true, 1)[0]);
        let repaired = encoder.sequence;
        world.rtp(ADA, &encoder.repair(20_000 + ssrc, 1, repaired).unwrap());
        world.pass(Duration::from_millis(10));
    }
    assert!(world.out.events.len() <= 22, "{}", world.out.events.len());
    assert!(world.take_rtp(viewer.transport).len() <= 11);
    assert!(world.take_plis().len() <= 20);
    assert!(world.forwarder.stats().dropped_malformed > 1900);
}

#[test]
fn a_publisher_that_starts_again_goes_on_after_a_keyframe() {
    let mut world = World::new();
    world.publish(vec![camera(&["q"], &[])]);
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoder = Encoder::new(1000, Some("q"));
    for ssrc in [1001, 1002] {
        for frame in 0..40 {
            encoder.frame(frame == 0, 2).iter().for_each(|packet| world.rtp(ADA, packet));
            world.pass(Duration::from_millis(33));
        }
        world.take_plis();
        encoder = Encoder::new(ssrc, Some("q"));
        world.rtp(ADA, &encoder.frame(false, 1)[0]);
        assert_eq!(world.take_plis(), [ssrc], "its keyframe is missing");
    }
    encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 2 * 80 + 2);
    viewer.assert_decodable();
}

#[test]
fn a_jump_in_the_numbers_goes_on_after_a_keyframe() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoder = Encoder::new(1000, None);
    world.rtp(ADA, &encoder.frame(true, 1)[0]);
    world.pass(Duration::from_secs(1));
    encoder.sequence = encoder.sequence.wrapping_add(20_000);
    encoder.timestamp = encoder.timestamp.wrapping_sub(1_000_000);
    world.rtp(ADA, &encoder.frame(false, 1)[0]);
    assert_eq!(world.take_plis(), NONE, "one stray packet changes nothing");
    world.rtp(ADA, &encoder.frame(false, 1)[0]);
    assert_eq!(world.take_plis(), [1000]);
    world.rtp(ADA, &encoder.frame(true, 1)[0]);
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 2);
    viewer.assert_decodable();
}

#[test]
fn packets_of_no_known_section_are_dropped() {
    let mut world = World::new();
    world.publish(vec![camera(&["q", "h"], &[]), microphone(vec![OPUS])]);
    let packets = [
        raw(96, true, 1, 1, 77, &[0x10, b'x', 0x20, b'q'], &[0x10, 0]),
        raw(96, true, 1, 1, 77, &[0x10, b'v', 0x20, b'z'], &[0x10, 0]),
        raw(96, true, 1, 1, 77, &[0x10, b'v'], &[0x10, 0]),
        raw(100, true, 1, 1, 77, &[0x10, b'v', 0x20, b'q'], &[0x10, 0]),
    ];
    for packet in &packets {
        world.rtp(ADA, packet);
    }
    assert_eq!(world.forwarder.stats().dropped_malformed, 4);
    world.rtp(ADA, &raw(96, true, 1, 1, 77, &[0x10, b'v', 0x20, b'q'], &[0x10, 0]));
    world.rtp(ADA, &raw(111, true, 1, 1, 78, &[], &[1]));
    assert_eq!(world.forwarder.stats().dropped_malformed, 4, "by mid and rid, or by the only fitting payload type");
}

#[test]
fn what_would_be_too_long_with_what_is_added_is_not_sent_and_leaves_no_gap() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoder = Encoder::new(1000, None);
    for frame in 0..30 {
        let mut packets = encoder.frame(frame == 0, 2);
        if frame % 3 == 2 {
            packets.iter_mut().for_each(|packet| packet.resize(1480, 0));
        }
        packets.iter().for_each(|packet| world.rtp(ADA, packet));
        world.pass(Duration::from_millis(33));
    }
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 40);
    assert_eq!(viewer.missing(), [] as [u16; 0]);
}

#[test]
fn an_ssrc_described_anew_is_not_reported_on_before_it_comes() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut encoder = Encoder::new(1000, None);
    encoder.frame(true, 8).iter().for_each(|packet| world.rtp(ADA, packet));
    world.publish(vec![camera(&[], &[(5000, 5001)])]);
    world.pass(Duration::from_secs(3));
    let reported = |said: &Said<'_>| matches!(said, Said::Reception { .. } | Said::Nack { .. });
    assert!(!world.take_said(ADA).iter().any(reported));
}
