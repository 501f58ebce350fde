//! Floods of feedback are bounded: upstream by time, downstream by a share of the media.

use super::*;

#[test]
fn a_flood_of_keyframe_requests_asks_twice_a_second_a_layer() {
    const SECONDS: usize = 5;
    let mut world = World::new();
    world.publish(vec![camera(&["q", "f"], &[])]);
    let viewers: Vec<Viewer> = [20, 30, 40].map(|key| world.viewer(key, vec![watch(key_ssrc(key))])).into();
    let mut encoders = [Encoder::new(1000, Some("q")), Encoder::new(2000, Some("f"))];
    for encoder in &mut encoders {
        encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
    }
    world.pass(Duration::from_secs(1));
    world.take_plis();
    let mut asked: BTreeMap<u32, usize> = BTreeMap::new();
    for millisecond in 0..1000 * SECONDS {
        for viewer in &viewers {
            world.rtcp(viewer.transport, &[Box::new(rtcp::pli(1, viewer.ssrc))]);
        }
        for ssrc in world.take_plis() {
            *asked.entry(ssrc).or_default() += 1;
            // Half of the requests are answered: the throttle holds over a keyframe.
            if millisecond < 500 * SECONDS {
                let encoder = encoders.iter_mut().find(|encoder| encoder.ssrc == ssrc).unwrap();
                encoder.frame(true, 2).iter().for_each(|packet| world.rtp(ADA, packet));
            }
        }
        world.pass(Duration::from_millis(1));
    }
    assert!(world.forwarder.stats().plis_received >= 15_000);
    assert!(asked.contains_key(&2000), "the viewers' layer is asked for");
    assert!(asked.values().all(|count| *count <= 2 * SECONDS + 1), "{asked:?}");
}

fn key_ssrc(key: u64) -> u32 {
    3000 + 10 * u32::try_from(key).unwrap()
}

#[test]
fn a_storm_of_nacks_gets_a_fifth_of_the_media() {
    let mut world = World::new();
    world.publish(vec![camera(&["f"], &[])]);
    let viewer = world.viewer(20, vec![watch(3000)]);
    let mut encoder = Encoder::new(2000, Some("f"));
    let (mut media, mut repeated, mut recent) = (0, 0, Vec::new());
    for millisecond in 0..10_000 {
        if millisecond % 33 == 0 {
            encoder.frame(millisecond == 0, 12).iter().for_each(|packet| world.rtp(ADA, packet));
        }
        for packet in world.take_rtp(viewer.transport) {
            let rtp = RtpPacket::parse(&packet).unwrap();
            if rtp.ssrc == viewer.ssrc {
                media += rtp.payload.len();
                recent.push(rtp.sequence);
            } else {
                repeated += rtp.payload.len();
            }
        }
        let newest = &recent[recent.len().saturating_sub(100)..];
        world.rtcp(viewer.transport, &[Box::new(rtcp::nack(1, viewer.ssrc, newest))]);
        world.pass(Duration::from_millis(1));
    }
    // What is saved up at the start comes on top, once.
    let most = media / 5 + 32 * 1024;
    assert!(repeated <= most && repeated > media / 6, "{repeated} of {media} bytes");
}
