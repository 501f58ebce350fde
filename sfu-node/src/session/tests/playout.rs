//! How subscribed tracks are to be played: later than they come, and in step.

use shared::control::PlayoutDelay;

use super::*;

const EXTENSION: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";

fn delayed(peer_connections: PeerConnections, delay: Option<PlayoutDelay>) -> Story {
    let client = ClientTraits { sdk: "js".into(), protocol: 17, ..ClientTraits::default() };
    Story::open_in(peer_connections, client, Generation(1), delay)
}

/// Sections that have the extension.
fn with_extension(description: &SessionDescription) -> Vec<&str> {
    let has = |media: &&MediaDescription| values(media, "extmap").iter().any(|value| value.ends_with(EXTENSION));
    description.media_descriptions.iter().filter(has).map(|media| media.attribute("mid").flatten().unwrap()).collect()
}

#[test]
fn the_only_connection_carries_the_delay_where_the_room_asks_for_one() {
    let delay = PlayoutDelay::new(400, 2_000).unwrap();
    for (delay, sections, bytes) in [(delay, &["3", "4", "5"][..], [0x02, 0x80, 0xc8]), (None, &[], [0; 3])] {
        let mut story = delayed(PeerConnections::Single, delay);
        story.subscribe(&[("TR_VCb", VIDEO), ("TR_AMb", AUDIO)]);
        let (answer, _) = story.offer(1, JS_JOIN);
        assert_eq!(with_extension(&answer), sections);
        let sender = story.senders().into_iter().find(|sender| sender.kind == VIDEO).unwrap();
        assert_eq!((sender.extensions.playout_delay.is_some(), sender.playout_delay), (delay.is_some(), bytes));
        let audio = story.senders().into_iter().find(|sender| sender.kind == AUDIO).unwrap();
        assert_eq!(audio.extensions.playout_delay, None);
    }
}

#[test]
fn the_second_connection_offers_the_delay_where_the_room_asks_for_one() {
    for (delay, sections) in [(PlayoutDelay::new(400, 2_000).unwrap(), &["1"][..]), (None, &[])] {
        let mut story = delayed(PeerConnections::DualSubscriberPrimary, delay);
        story.flush();
        let (id, _, _) = story.offered().unwrap();
        story.subscribe(&[("TR_VCb", VIDEO), ("TR_AMb", AUDIO)]);
        story.answer(id, DUAL_DATA_ANSWER);
        let (id, offer, _) = story.offered().unwrap();
        assert_eq!(with_extension(&offer), sections);
        // A client that does not take it is not sent it.
        story.answer(id, DUAL_MEDIA_ANSWER);
        assert!(story.senders().iter().all(|sender| sender.extensions.playout_delay.is_none()));
    }
}

#[test]
fn tracks_that_share_a_stream_say_so_and_are_told_apart() {
    let mut story = Story::open(PeerConnections::Single);
    story.subscribe_in(Some("camera"), &[("TR_VCb", VIDEO), ("TR_AMb", AUDIO)]);
    story.subscribe(&[("TR_VSb", VIDEO)]);
    let (answer, map) = story.offer(1, JS_JOIN);
    let mut shown: Vec<_> =
        map.iter().map(|MidTrack { mid, track }| (track.as_str(), values(section(&answer, mid), "msid"))).collect();
    shown.sort();
    assert_eq!(
        shown,
        [
            ("TR_AMb", vec!["PA_bob|camera TR_AMb"]),
            ("TR_VCb", vec!["PA_bob|camera TR_VCb"]),
            ("TR_VSb", vec!["PA_bob|TR_VSb TR_VSb"]),
        ]
    );
}

#[test]
fn a_track_does_not_follow_another_one_of_its_stream_in_a_section_unannounced() {
    // Single: the section that showed the stream is left alone until its end was described.
    let mut story = Story::open(PeerConnections::Single);
    story.subscribe_in(Some("camera"), &[("TR_VCone", VIDEO)]);
    let (_, map) = story.offer(1, JS_JOIN);
    let first = map[0].mid.clone();
    story.unsubscribe("TR_VCone");
    story.subscribe_in(Some("camera"), &[("TR_VCtwo", VIDEO)]);
    let (_, map) = story.offer(2, JS_JOIN);
    assert_ne!(map[0].mid, first);

    // Dual: left alone altogether, since the client goes by the first track that was in it.
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    story.flush();
    let (id, _, _) = story.offered().unwrap();
    story.subscribe_in(Some("camera"), &[("TR_VCone", VIDEO)]);
    story.answer(id, DUAL_DATA_ANSWER);
    let (id, _, map) = story.offered().unwrap();
    assert_eq!(mids(&map), [("1", "TR_VCone")]);
    story.answer(id, &one_video());
    story.unsubscribe("TR_VCone");
    story.subscribe_in(Some("camera"), &[("TR_VCtwo", VIDEO)]);
    let (id, offer, _) = story.offered().unwrap();
    assert!(section(&offer, "1").has_attribute("inactive"));
    story.answer(id, &one_video());
    let (_, _, map) = story.offered().unwrap();
    assert_eq!(mids(&map), [("2", "TR_VCtwo")]);
}

fn one_video() -> String {
    let first = DUAL_MEDIA_ANSWER.split("m=audio").next().unwrap();
    first.replace("BUNDLE 0 1 2", "BUNDLE 0 1")
}
