//! A session that goes on here as it was on another node.

use shared::control::PublishedTrack;

use super::*;

#[test]
fn tracks_keep_their_sections_and_streams_that_no_longer_name_themselves_are_known() {
    let tracks: [(&str, TrackKind); 3] = [("TR_VCtwo", VIDEO), ("TR_VCone", VIDEO), ("TR_AMone", AUDIO)];
    let mut before = Story::open(PeerConnections::Single);
    before.offer(1, JS_JOIN);
    before.announce("TR_VCcam", VIDEO, JS_CAMERA, "video/vp8");
    before.subscribe(&tracks);
    let (_, subscribed) = before.offer(2, JS_PUBLISH);
    let camera = before.receivers()[0].track;
    before.session.layer_seen(camera, 0, Codec::Vp8, 55, 56);
    before.flush();
    let (track, media) = before.received().pop().unwrap();

    let mut story = Story::open(PeerConnections::Single);
    // Its section may call the track otherwise than it was announced.
    story.announce("TR_VCcam", VIDEO, "another", "video/vp8");
    story.subscribe(&[tracks[2], tracks[1], tracks[0]]);
    let published = PublishedTrack { track: TrackSid::try_from(track).unwrap(), mid: media.mid, layers: media.layers };
    let established = Established {
        subscribed: subscribed.clone(),
        published: vec![published],
        carried: ["2", "5"].map(str::to_owned).into(),
        channels: vec![DataStream { label: "_reliable".into(), stream: 2 }],
        offered: None,
    };
    story.session.go_on(established, &mut story.allocator, &mut story.out);
    let (answer, map) = story.offer(3, JS_PUBLISH);
    assert_eq!(sorted(&map), sorted(&subscribed));
    assert!(section(&answer, "5").has_attribute("inactive"), "it has carried something once");
    let receiver = &story.receivers()[0];
    assert_eq!(receiver.ssrcs[0], SsrcPair { ssrc: 55, rtx: Some(56) });
    assert_eq!((receiver.ssrcs[2].ssrc, receiver.rids.len()), (0, 3), "not seen yet");
    let (opened, taken) = (
        story.out.commands.iter().position(|command| matches!(command, Command::Open(_))).unwrap(),
        story.out.commands.iter().position(|command| matches!(command, Command::TakeOverChannels(..))).unwrap(),
    );
    assert!(opened < taken);
    let (track, media) = story.received().pop().unwrap();
    assert_eq!((track.as_str(), media.layers[0].ssrc), ("TR_VCcam", 55), "the room hears that it is still there");

    // Another stream of the layer, once seen, is not taken back.
    let camera = story.receivers()[0].track;
    story.session.layer_seen(camera, 0, Codec::Vp8, 77, 0);
    story.flush();
    assert!(story.receivers()[0].ssrcs.is_empty());
}

#[test]
fn the_next_session_of_a_client_shows_another_certificate_even_here() {
    let shown = |generation| {
        let mut story = Story::open_again(PeerConnections::Single, ClientTraits::default(), Generation(generation));
        let (answer, _) = story.offer(1, JS_JOIN);
        (answer.attribute("fingerprint").unwrap().clone(), story.opened()[0].certificate)
    };
    let [first, second, third] = [1, 2, 3].map(shown);
    assert_ne!(first, second, "the client would go on with the keys that it has");
    assert_eq!(first, third);
}

fn sorted(map: &[MidTrack]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = map.iter().map(|known| (known.mid.clone(), known.track.to_string())).collect();
    pairs.sort();
    pairs
}
