//! Descriptions that are wrong, by accident or not.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

#[test]
fn bad_descriptions_are_refused_and_the_session_goes_on() {
    let mut story = Story::open(PeerConnections::Single);
    story.offer(1, JS_JOIN);
    story.take_messages();
    let long = "v=0\r\n".repeat(200_000);
    let two_mids = JS_JOIN.replace("a=mid:1\r\n", "a=mid:0\r\n");
    let no_fingerprint = JS_JOIN.replace("sha-256", "sha-1");
    let smuggled = JS_JOIN.replace("minptime=10", "minptime=10\ra=candidate:x");
    let passive = JS_JOIN.replace("setup:actpass", "setup:passive");
    let fewer = DUAL_PUBLISHER_JOIN;
    for bad in ["", "garbage", &long, &two_mids, &no_fingerprint, &smuggled, &passive, fewer] {
        let description = Description { kind: DescriptionKind::Offer, id: 9, sdp: bad.to_owned() };
        story.session.offer(&description, &story.endpoint, &mut story.allocator, &mut story.out);
        story.flush();
        let messages = story.take_messages();
        assert!(matches!(messages[..], [NodeToRoom::DescriptionRejected { id: 9, .. }]), "{messages:?}");
    }
    story.offer(10, JS_JOIN);
}

#[test]
fn mutated_descriptions_never_panic_and_answers_parse() {
    let mut rng = StdRng::seed_from_u64(1);
    let originals = [JS_JOIN, JS_PUBLISH, NATIVE_PUBLISH, DUAL_PUBLISH, DUAL_MEDIA_ANSWER];
    let mut answered = 0;
    for round in 0..600 {
        let mut bytes = originals[round % originals.len()].as_bytes().to_vec();
        for _ in 0..rng.random_range(1..8) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes[at] = rng.random(),
                1 => drop(bytes.remove(at)),
                2 => bytes.truncate(at.max(100)),
                _ => {
                    let from = rng.random_range(0..bytes.len());
                    let copy = bytes[from..(from + 80).min(bytes.len())].to_vec();
                    bytes.splice(at..at, copy);
                }
            }
        }
        let sdp = String::from_utf8_lossy(&bytes).into_owned();
        let mut story = Story::open(PeerConnections::Single);
        story.subscribe(&[("TR_VCb", VIDEO), ("TR_AMb", AUDIO)]);
        story.announce("TR_VCcam", VIDEO, JS_CAMERA, "video/vp8");
        let description = Description { kind: DescriptionKind::Offer, id: 1, sdp: sdp.clone() };
        story.session.offer(&description, &story.endpoint, &mut story.allocator, &mut story.out);
        story.flush();
        for message in story.take_messages() {
            if let NodeToRoom::Answer { description, .. } = message {
                read(&description.sdp);
                answered += 1;
            }
        }
        let mut dual = Story::open(PeerConnections::DualSubscriberPrimary);
        dual.flush();
        dual.answer(0, &sdp);
    }
    assert!(answered > 100, "mutations leave enough to answer: {answered}");
}

#[test]
fn a_client_whose_sections_never_help_is_not_asked_for_ever() {
    let mut story = Story::open(PeerConnections::Single);
    let audio_only = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:x\r\n\
        a=fingerprint:sha-256 F\r\na=setup:actpass\r\na=rtpmap:111 opus/48000/2\r\na=recvonly\r\n"
        .replace("sha-256 F", &format!("sha-256 {}", ["0A"; 32].join(":")));
    story.offer(1, &audio_only);
    story.subscribe(&[("TR_VCb", VIDEO)]);
    let mut asks = story.asked().len();
    for id in 2..20 {
        story.offer(id, &audio_only);
        asks += story.asked().len();
    }
    assert!((1..=usize::from(MAX_FRUITLESS_ASKS)).contains(&asks), "{asks}");
}
