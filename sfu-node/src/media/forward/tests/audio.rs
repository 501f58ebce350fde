//! Audio flows at once; redundancy goes only to those who take it.

use super::*;

fn red(primary: &[u8]) -> Vec<u8> {
    [&[0x80 | 111, 0, 0, 3, 111, 7, 7, 7], primary].concat()
}

fn listen(payload_types: Vec<PayloadType>, source: Vec<PayloadType>) -> (World, Viewer) {
    let mut world = World::new();
    world.publish(vec![microphone(source)]);
    let viewer = world.viewer(20, vec![sender(MICROPHONE, 4000, payload_types)]);
    (world, viewer)
}

#[test]
fn audio_flows_from_the_first_packet() {
    let (mut world, mut viewer) = listen(vec![OPUS_DOWN], vec![OPUS]);
    let mut encoder = Encoder::new(2000, None);
    for _ in 0..5 {
        encoder.timestamp = encoder.timestamp.wrapping_add(960);
        let packet = encoder.packet(111, false, &[1, 2, 3]);
        world.rtp(ADA, &packet);
    }
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 5);
    assert!(world.take_plis().is_empty());
}

#[test]
fn redundancy_is_passed_on_or_taken_off() {
    let red_down = PayloadType { pt: 62, ..RED };
    for (wanted, payload, pt) in [(vec![red_down, OPUS_DOWN], red(&[1, 2]), 62), (vec![OPUS_DOWN], vec![1, 2], 109)] {
        let (mut world, viewer) = listen(wanted, vec![RED, OPUS]);
        let mut encoder = Encoder::new(2000, None);
        let packet = encoder.packet(63, false, &red(&[1, 2]));
        world.rtp(ADA, &packet);
        let sent = world.take_rtp(viewer.transport);
        let rtp = RtpPacket::parse(&sent[0]).unwrap();
        assert_eq!((rtp.payload, rtp.payload_type), (payload.as_slice(), pt));
    }
}

#[test]
fn what_is_not_sent_leaves_no_gap() {
    let (mut world, mut viewer) = listen(vec![OPUS_DOWN], vec![RED, OPUS]);
    let mut encoder = Encoder::new(2000, None);
    for payload in [&red(&[1])[..], &[0x80], &[], &red(&[2]), &[5, 1, 2], &red(&[3])] {
        let packet = encoder.packet(63, false, payload);
        world.rtp(ADA, &packet);
    }
    viewer.drain(&mut world);
    let payloads: Vec<&[u8]> = viewer.packets.values().map(|got| got.payload.as_slice()).collect();
    assert_eq!(payloads, [[1], [2], [3]]);
    assert!(viewer.missing().is_empty());
}

#[test]
fn a_new_stream_of_the_same_track_goes_on_in_the_same_numbers() {
    let (mut world, mut viewer) = listen(vec![OPUS_DOWN], vec![OPUS]);
    let mut encoder = Encoder::new(2000, None);
    for restart in 0..3 {
        for _ in 0..10 {
            encoder.timestamp = encoder.timestamp.wrapping_add(960);
            let packet = raw(111, false, encoder.sequence, encoder.timestamp, encoder.ssrc, &[0x10, b'a'], &[restart]);
            encoder.sequence = encoder.sequence.wrapping_add(1);
            world.rtp(ADA, &packet);
            world.pass(Duration::from_millis(20));
        }
        world.pass(Duration::from_secs(1));
        encoder = Encoder::new(2001 + u32::from(restart), None);
    }
    viewer.drain(&mut world);
    assert_eq!(viewer.packets.len(), 30);
    assert!(viewer.missing().is_empty());
    let times: Vec<u32> = viewer.packets.values().map(|got| got.timestamp).collect();
    let steps: Vec<u32> = times.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    assert!(steps.iter().all(|step| *step == 960 || *step == 960 + 48_000), "{steps:?}");
}

#[test]
fn what_repairs_losses_arrives_as_it_was_sent() {
    // In-band FEC lies in the Opus payload, redundancy in RED blocks: neither may lose a byte on the way.
    let red_down = PayloadType { pt: 62, ..RED };
    for (wanted, source, pt) in [(vec![OPUS_DOWN], vec![OPUS], 111), (vec![red_down, OPUS_DOWN], vec![RED, OPUS], 63)] {
        let (mut world, mut viewer) = listen(wanted, source);
        let mut encoder = Encoder::new(2000, None);
        let mut random = SplitMix(pt.into());
        let mut sent = vec![];
        for _ in 0..50 {
            let audio: Vec<u8> = (0..1 + random.below(200)).map(|_| (random.next() & 0xff) as u8).collect();
            let payload = if pt == RED.pt { red(&audio) } else { audio };
            encoder.timestamp = encoder.timestamp.wrapping_add(960);
            let packet = encoder.packet(pt, sent.is_empty(), &payload);
            world.rtp(ADA, &packet);
            sent.push(payload);
        }
        viewer.drain(&mut world);
        let got: Vec<&Vec<u8>> = viewer.packets.values().map(|got| &got.payload).collect();
        assert_eq!(got, sent.iter().collect::<Vec<_>>());
        assert!(viewer.packets.values().next().unwrap().marker, "a talk spurt begins");
    }
}

#[test]
fn a_muted_microphone_goes_nowhere_whatever_its_client_sends() {
    let (mut world, mut viewer) = listen(vec![OPUS_DOWN], vec![OPUS]);
    let mut encoder = Encoder::new(2000, None);
    for period in 0..5 {
        world.forwarder.set_muted(world.now, MICROPHONE, period % 2 == 1, &mut world.out);
        for _ in 0..50 {
            encoder.timestamp = encoder.timestamp.wrapping_add(960);
            let packet = encoder.packet(111, false, &[period]);
            world.rtp(ADA, &packet);
            world.pass(Duration::from_millis(20));
        }
    }
    viewer.drain(&mut world);
    let got: Vec<u8> = viewer.packets.values().map(|got| got.payload[0]).collect();
    assert_eq!(got, [[0; 50], [2; 50], [4; 50]].concat());
    assert!(viewer.missing().is_empty(), "nothing is missed");
}
