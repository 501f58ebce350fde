//! One publisher to its subscribers.

use super::*;

/// Ada's simulcast camera has these streams, and Bob watches: what Ada is asked for when one of them is connected, when the
/// other one is, and in some seconds more.
fn asked_when_connected(ssrcs: &[(u32, u32)], in_order: [TransportKey; 2]) -> [Vec<u32>; 3] {
    let mut world = World { forwarder: Forwarder::new(7), now: Instant::now(), out: Outbox::default() };
    for transport in in_order {
        world.forwarder.open(transport, ROOM);
    }
    world.publish(vec![camera(&["q", "h", "f"], ssrcs)]);
    world.forwarder.set_senders(world.now, BOB, vec![watch(3000)], &mut world.out);
    let [first, second] = in_order.map(|transport| {
        world.forwarder.connected(world.now, transport, true, &mut world.out);
        world.take_plis()
    });
    world.pass(Duration::from_secs(9));
    [first, second, world.take_plis()]
}

#[test]
fn a_stream_that_another_node_had_begins_with_a_keyframe_when_both_sides_are_there() {
    let known = [(1000, 1001), (2000, 2001)];
    for in_order in [[ADA, BOB], [BOB, ADA]] {
        assert_eq!(
            asked_when_connected(&known, in_order),
            [vec![], vec![1000, 2000], vec![]],
            "once: it may never come"
        );
    }
    assert_eq!(asked_when_connected(&[], [ADA, BOB]), [NONE; 3].map(Vec::from), "what should be asked for?");
}

#[test]
fn all_subscribers_get_the_stream_in_their_own_numbers() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut viewers: Vec<Viewer> =
        (20..25).map(|key| world.viewer(key, vec![watch(3000 + 10 * u32::try_from(key).unwrap())])).collect();
    let mut encoder = Encoder::new(1000, None);
    for frame in 0..50 {
        for packet in encoder.frame(frame == 0, 3) {
            world.rtp(ADA, &packet);
        }
        world.pass(Duration::from_millis(33));
    }
    for viewer in &mut viewers {
        viewer.drain(&mut world);
        assert_eq!(viewer.packets.len(), 150);
        viewer.assert_decodable();
    }
    let firsts: std::collections::BTreeSet<u64> = viewers.iter().map(|v| *v.packets.keys().next().unwrap()).collect();
    assert!(firsts.len() > 1, "first numbers are random");
    assert_eq!(world.forwarder.stats().packets_sent, 750);
    assert_eq!(world.forwarder.stats().senders, 5);
}

#[test]
fn header_extensions_have_the_subscribers_ids() {
    let mut world = World::new();
    let mut receiver = camera(&[], &[]);
    receiver.payload_types = vec![VP8];
    world.publish(vec![receiver]);
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    let up = [0x10, b'v', 0x41, 0, 9, 0x60, 0x85, 0x72, 0x80, 0, 5, 0x87, 1, 2, 3, 4, 5, 6, 7, 8, 0x92, 1, 2, 3];
    let keyframe = Encoder::new(1, None).frame(true, 1).remove(0);
    let payload = RtpPacket::parse(&keyframe).unwrap().payload;
    world.rtp(ADA, &raw(96, true, 1, 5, 1000, &up, payload));
    world.rtp(ADA, &raw(96, true, 2, 9, 1000, &up, payload));
    let sent = world.take_rtp(viewer.transport);
    for (index, packet) in (0_u8..).zip(&sent) {
        let rtp = RtpPacket::parse(packet).unwrap();
        assert_eq!((rtp.payload_type, rtp.ssrc, rtp.marker), (120, 3000, true));
        assert_eq!(rtp.extensions.element(DOWN.mid), Some(&b"7"[..]), "until the subscriber knows the SSRC");
        assert_eq!(rtp.extensions.element(DOWN.transport_cc), Some(&[0, index][..]), "counted per transport");
        assert_eq!(rtp.extensions.element(DOWN.abs_send_time).map(<[u8]>::len), Some(3));
        assert_eq!(rtp.extensions.element(DOWN.audio_level), Some(&[0x85][..]));
        assert_eq!(rtp.extensions.element(DOWN.dependency_descriptor), Some(&[0x80, 0, 5][..]));
        assert_eq!(rtp.extensions.element(DOWN.abs_capture_time), Some(&[1, 2, 3, 4, 5, 6, 7, 8][..]));
        assert_eq!(
            rtp.extensions.element(DOWN.playout_delay),
            Some(&PLAYOUT_DELAY[..]),
            "the room's, not the publisher's"
        );
        assert_eq!(rtp.extensions.element(Some(1)), None, "nothing under a publisher's id");
        viewer.receive(packet);
    }
    assert_eq!(sent.len(), 2);
    let known = rtc::rtcp::reception_report::ReceptionReport { ssrc: 3000, ..Default::default() };
    world.rtcp(viewer.transport, &[Box::new(rtcp::receiver_report(1, vec![known]))]);
    world.rtp(ADA, &raw(96, true, 3, 12, 1000, &up, payload));
    let sent = world.take_rtp(viewer.transport);
    assert_eq!(RtpPacket::parse(&sent[0]).unwrap().extensions.element(DOWN.mid), None);
}

#[test]
fn a_late_joiner_gets_a_keyframe_at_once() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut encoder = Encoder::new(1000, None);
    for frame in 0..10 {
        encoder.frame(frame == 0, 2).iter().for_each(|packet| world.rtp(ADA, packet));
        world.pass(Duration::from_millis(33));
    }
    assert_eq!(world.take_plis(), NONE, "nobody watches");
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    assert_eq!(world.take_plis(), [1000], "asked at once");
    encoder.frame(false, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    assert!(world.take_rtp(viewer.transport).is_empty(), "nothing before the keyframe");
    encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 2);
    viewer.assert_decodable();
    world.pass(Duration::from_secs(10));
    assert_eq!(world.take_plis(), NONE, "and not asked again");
}

#[test]
fn a_subscription_may_come_before_its_track() {
    let mut world = World::new();
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let mut encoder = Encoder::new(1000, None);
    encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 2);
}

#[test]
fn nothing_goes_to_another_room_a_foreign_codec_or_before_the_connection() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[(1000, 1001)])]);
    let other = TransportKey(30);
    world.forwarder.open(other, RoomKey(2));
    world.forwarder.connected(world.now, other, true, &mut world.out);
    world.forwarder.set_senders(world.now, other, vec![watch(3000)], &mut world.out);
    let unconnected = TransportKey(31);
    world.forwarder.open(unconnected, ROOM);
    world.forwarder.set_senders(world.now, unconnected, vec![watch(3000)], &mut world.out);
    let vp9 = PayloadType { codec: Codec::Vp9, ..VP8_DOWN };
    let mut foreign = watch(3000);
    foreign.payload_types = vec![vp9, PayloadType { pt: 122, format: 1, ..VP8_DOWN }];
    world.viewer(32, vec![foreign]);
    let mut encoder = Encoder::new(1000, None);
    for _ in 0..5 {
        encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    }
    assert!(world.out.rtp.is_empty());
    assert_eq!(world.take_plis(), NONE, "nobody can be helped by a keyframe");
    world.forwarder.connected(world.now, unconnected, true, &mut world.out);
    encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    assert_eq!(world.take_rtp(unconnected).len(), 2);
}

#[test]
fn a_section_goes_on_in_its_numbers_with_another_track() {
    let mut world = World::new();
    let screen = Receiver { track: TrackKey(105), mid: "s".into(), ..camera(&[], &[(1100, 1101)]) };
    world.publish(vec![camera(&[], &[(1000, 1001)]), screen]);
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoders = [Encoder::new(1000, None), Encoder::new(1100, None)];
    for frame in 0..20 {
        for encoder in &mut encoders {
            encoder.frame(frame % 5 == 0, 2).iter().for_each(|packet| world.rtp(ADA, packet));
        }
        if frame == 10 {
            let changed = sender(TrackKey(105), 3000, vec![VP8_DOWN]);
            world.forwarder.set_senders(world.now, viewer.transport, vec![changed], &mut world.out);
        }
        world.pass(Duration::from_millis(33));
    }
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 2 * (11 + 5));
    viewer.assert_decodable();
    world.forwarder.close(world.now, viewer.transport, &mut world.out);
    encoders[1].frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    assert!(world.out.rtp.is_empty());
    assert_eq!(world.forwarder.stats().senders, 0);
    world.forwarder.close(world.now, ADA, &mut world.out);
    assert_eq!(world.forwarder.stats().receivers, 0);
    assert!(world.forwarder.tracks.is_empty() && world.forwarder.track_slots.is_empty(), "nothing is left behind");
}

#[test]
fn packets_that_come_together_leave_subscriber_by_subscriber_each_in_order() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[])]);
    let viewers: Vec<Viewer> =
        (0..3_u32).map(|n| world.viewer(20 + u64::from(n), vec![watch(3000 + 10 * n)])).collect();
    let mut encoder = Encoder::new(1000, None);
    let packets: Vec<Vec<u8>> = (0..8).flat_map(|frame| encoder.frame(frame == 0, 5)).collect();
    for packet in &packets {
        world.forwarder.on_rtp(world.now, ADA, packet, &mut world.out);
    }
    world.forwarder.flush(&mut world.out);
    let sent = std::mem::take(&mut world.out.rtp);
    let changes = sent.windows(2).filter(|pair| pair[0].0 != pair[1].0).count();
    // The first does not wait; of the 39 others 16 do at most.
    assert_eq!(changes, 4 * viewers.len() - 1);
    for viewer in &viewers {
        let own = sent.iter().filter(|(to, _)| *to == viewer.transport);
        let numbers: Vec<u16> = own.map(|(_, packet)| u16::from_be_bytes([packet[2], packet[3]])).collect();
        assert_eq!(numbers.len(), packets.len());
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0].wrapping_add(1)), "{numbers:?}");
    }
}

#[test]
fn a_microphone_does_not_part_the_packets_of_a_frame() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[]), microphone(vec![OPUS])]);
    let both = |n: u32| vec![watch(3000 + 10 * n), sender(MICROPHONE, 5000 + n, vec![OPUS_DOWN])];
    let viewers: Vec<Viewer> = (0..20_u32).map(|n| world.viewer(20 + u64::from(n), both(n))).collect();
    let (mut encoder, mut voice) = (Encoder::new(1000, None), Encoder::new(2000, None));
    encoder.frame(true, 1).iter().for_each(|packet| world.rtp(ADA, packet));
    world.rtp(ADA, &voice.packet(OPUS.pt, false, &[1]));
    world.out.rtp.clear();
    let mut packets = encoder.frame(false, 4);
    packets.insert(2, voice.packet(OPUS.pt, false, &[2]));
    for packet in &packets {
        world.forwarder.on_rtp(world.now, ADA, packet, &mut world.out);
    }
    assert!(world.out.rtp.is_empty(), "all of them wait");
    assert_eq!(world.forwarder.waiting(), packets.len() * viewers.len());
    let is_audio = |packet: &[u8]| RtpPacket::parse(packet).unwrap().payload_type == OPUS_DOWN.pt;
    world.out.room = 33;
    for some in viewers.chunks(8) {
        world.forwarder.flush_some(&mut world.out);
        let sent = std::mem::take(&mut world.out.rtp);
        let sent: Vec<_> = sent.iter().map(|(to, packet)| (*to, is_audio(packet))).collect();
        let pictures = some.iter().flat_map(|viewer| [(viewer.transport, false); 4]);
        let sounds = some.iter().map(|viewer| (viewer.transport, true));
        assert_eq!(sent, pictures.chain(sounds).collect::<Vec<_>>(), "what a subscriber gets leaves together");
    }
    assert_eq!(world.forwarder.waiting(), 0);
}

#[test]
fn where_more_tracks_wait_than_can_the_first_goes_out() {
    const TRACKS: u16 = 9;
    let mut world = World::new();
    let track = |n: u16| TrackKey(200 + u64::from(n));
    let receiver = |n| Receiver {
        track: track(n),
        mid: n.to_string(),
        ssrcs: ArrayVec::from_iter([SsrcPair { ssrc: 2000 + u32::from(n), rtx: None }]),
        ..microphone(vec![OPUS])
    };
    world.publish((0..TRACKS).map(receiver).collect());
    world.viewer(20, (0..TRACKS).map(|n| sender(track(n), 5000 + u32::from(n), vec![OPUS_DOWN])).collect());
    let mut voices: Vec<Encoder> = (0..TRACKS).map(|n| Encoder::new(2000 + u32::from(n), None)).collect();
    let mut heard = Vec::new();
    for round in 0..3 {
        for voice in &mut voices {
            let packet = voice.packet(OPUS.pt, false, &[round]);
            world.forwarder.on_rtp(world.now, ADA, &packet, &mut world.out);
        }
        // The first packet of a stream has all others go out before it.
        assert_eq!(world.out.rtp.len(), if round == 0 { 9 } else { 1 }, "one track makes room for another");
        world.forwarder.flush(&mut world.out);
        let sent = world.take_rtp(TransportKey(20));
        heard.push(sent.iter().map(|packet| RtpPacket::parse(packet).unwrap().ssrc).collect::<Vec<_>>());
    }
    assert_eq!(heard, vec![(5000..5000 + u32::from(TRACKS)).collect::<Vec<_>>(); 3]);
}

#[test]
fn who_empties_a_full_sink_gets_the_rest_of_a_frame_and_nothing_twice() {
    let mut world = World::new();
    world.publish(vec![camera(&[], &[])]);
    let viewers: Vec<Viewer> =
        (0..20_u32).map(|n| world.viewer(20 + u64::from(n), vec![watch(3000 + 10 * n)])).collect();
    let mut encoder = Encoder::new(1000, None);
    encoder.frame(true, 1).iter().for_each(|packet| world.rtp(ADA, packet));
    world.out.rtp.clear();
    for packet in &encoder.frame(false, 3) {
        world.forwarder.on_rtp(world.now, ADA, packet, &mut world.out);
    }
    world.out.room = 4;
    let mut parts = Vec::new();
    loop {
        world.forwarder.flush_some(&mut world.out);
        if world.out.rtp.is_empty() {
            break;
        }
        parts.push(std::mem::take(&mut world.out.rtp));
    }
    let sizes: Vec<usize> = parts.iter().map(Vec::len).collect();
    assert_eq!(sizes, [24, 24, 12], "eight subscribers at a time, the packets of each together");
    let sent = parts.concat();
    for viewer in &viewers {
        assert_eq!(sent.iter().filter(|(to, _)| *to == viewer.transport).count(), 3);
    }

    // What comes while a part waits lets the rest go out first.
    for packet in &encoder.frame(false, 3) {
        world.forwarder.on_rtp(world.now, ADA, packet, &mut world.out);
    }
    world.forwarder.flush_some(&mut world.out);
    world.out.rtp.clear();
    encoder.frame(false, 1).iter().for_each(|packet| world.forwarder.on_rtp(world.now, ADA, packet, &mut world.out));
    assert_eq!(world.out.rtp.len(), 3 * (viewers.len() - 8));
    world.out.rtp.clear();
    world.forwarder.flush(&mut world.out);
    assert_eq!(world.out.rtp.len(), viewers.len());
}

#[test]
fn a_muted_camera_goes_nowhere_and_comes_back_with_a_keyframe() {
    let mut world = World::new();
    world.publish(vec![Receiver { muted: true, ..camera(&[], &[(1000, 1001)]) }]);
    let mut viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoder = Encoder::new(1000, None);
    let mut send = |world: &mut World, frames: usize, keyframe: bool| {
        for number in 0..frames {
            for packet in encoder.frame(keyframe && number == 0, 3) {
                world.rtp(ADA, &packet);
            }
            world.pass(Duration::from_millis(33));
        }
    };
    send(&mut world, 30, true);
    assert!(world.out.events.iter().any(|event| matches!(event, Event::LayerSeen { track: CAMERA, .. })));
    for sent in [90, 180] {
        world.forwarder.set_muted(world.now, CAMERA, false, &mut world.out);
        send(&mut world, 1, false);
        assert_eq!(world.take_plis(), [1000]);
        send(&mut world, 30, true);
        world.forwarder.set_muted(world.now, CAMERA, true, &mut world.out);
        send(&mut world, 30, false);
        viewer.drain(&mut world);
        assert_eq!(viewer.packets.len(), sent);
        world.take_plis();
    }
    viewer.assert_decodable();
}
