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
        srtp: None,
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

#[test]
fn the_node_begins_with_clients_that_may_be_asked_to_change_roles() {
    let gcm = SrtpProfile::AeadAes128Gcm;
    let opened = |peer_connections, sdk: &str, browser: &str, srtp| {
        let client = ClientTraits { sdk: sdk.into(), browser: browser.into(), protocol: 17, ..ClientTraits::default() };
        Story::open_after(peer_connections, client, Generation(2), None, srtp)
    };
    let answered = |sdk, browser, srtp| {
        let mut story = opened(PeerConnections::Single, sdk, browser, srtp);
        let (answer, _) = story.offer(1, JS_JOIN);
        (values(&answer.media_descriptions[0], "setup")[0].to_owned(), story.opened()[0].handshake)
    };
    let (begins, waits) =
        (("active".to_owned(), HandshakeRole::Client(gcm)), ("passive".to_owned(), HandshakeRole::Server));
    assert_eq!(answered("js", "chrome", Some(gcm)), begins);
    assert_eq!(answered("python", "", Some(gcm)), begins);
    assert_eq!(answered("js", "chrome", None), waits, "what to offer?");
    assert_eq!(answered("js", "firefox", Some(gcm)), waits);
    assert_eq!(answered("go", "", Some(gcm)), waits);

    // One that insists on beginning itself.
    let mut story = opened(PeerConnections::Single, "js", "chrome", Some(gcm));
    let sdp = JS_JOIN.replace("setup:actpass", "setup:active");
    let description = Description { kind: DescriptionKind::Offer, id: 9, sdp };
    story.session.offer(&description, &story.endpoint, &mut story.allocator, &mut story.out);
    story.flush();
    assert!(matches!(story.take_messages()[..], [NodeToRoom::DescriptionRejected { id: 9, .. }]));

    // Browsers take no offer that changes it.
    let mut story = opened(PeerConnections::DualSubscriberPrimary, "js", "chrome", Some(gcm));
    assert_eq!(story.opened()[0].handshake, HandshakeRole::Server);
    story.flush();
    let (_, offer, _) = story.offered().unwrap();
    assert_eq!(values(&offer.media_descriptions[0], "setup"), ["actpass"]);
}

#[test]
fn the_room_hears_what_media_is_protected_with() {
    let mut story = Story::open(PeerConnections::Single);
    story.offer(1, JS_JOIN);
    story.take_messages();
    let transport = story.session.publisher.transport;
    story.session.connected(transport, Some(SrtpProfile::Aes128CmHmacSha1_80), &mut story.out);
    story.session.disconnected(transport, &mut story.out);
    story.session.connected(transport, None, &mut story.out);
    let told = story.take_messages().into_iter().map(|message| match message {
        NodeToRoom::MediaState { srtp, .. } => srtp,
        other => panic!("{other:?}"),
    });
    assert_eq!(told.collect::<Vec<_>>(), [Some(SrtpProfile::Aes128CmHmacSha1_80); 3]);
}

fn sorted(map: &[MidTrack]) -> Vec<(String, String)> {
    let mut pairs: Vec<_> = map.iter().map(|known| (known.mid.clone(), known.track.to_string())).collect();
    pairs.sort();
    pairs
}
