//! A video in two codecs: both are received under the track's id, each subscriber is sent the one it takes.

use super::*;

/// The client's id of the second codec's track.
const BACKUP: &str = "0a646307-94f2-4239-8762-c03e27c9e528";

/// The offer with the camera's section once more, under another mid and id.
fn in_two_codecs() -> String {
    let start = JS_PUBLISH.rfind("m=video").unwrap();
    let again = JS_PUBLISH[start..].replace("a=mid:8", "a=mid:9").replace(JS_CAMERA, BACKUP);
    let bundled = JS_PUBLISH.replace("BUNDLE 0 1 2 3 4 5 6 7 8", "BUNDLE 0 1 2 3 4 5 6 7 8 9");
    format!("{bundled}{again}")
}

fn announce(story: &mut Story, key: TrackKey, backup_cid: &str) {
    let codec = |mime: &str, cid: &str| AnnouncedCodec { mime: mime.into(), cid: cid.into() };
    let codecs = vec![codec("video/vp9", JS_CAMERA), codec("video/vp8", backup_cid)];
    let sid = TrackSid::try_from("TR_VCcam").unwrap();
    let (stereo, disable_dtx, disable_red) = (false, false, false);
    let track = AnnouncedTrack { sid, kind: VIDEO, codecs, stereo, disable_dtx, disable_red };
    assert!(story.session.announce(track, key));
    story.flush();
}

#[test]
fn the_second_codec_is_received_under_the_tracks_id_and_may_end_alone() {
    let mut story = Story::open(PeerConnections::Single);
    let key = TrackKey(story.allocator.key());
    announce(&mut story, key, "");
    story.offer(1, JS_PUBLISH);
    announce(&mut story, key, BACKUP);
    let (answer, _) = story.offer(2, &in_two_codecs());
    let first = |mid: &str| {
        let media = section(&answer, mid);
        let payload_type = format!("{} ", media.media_name.formats[0]);
        let name = values(media, "rtpmap").into_iter().find_map(|map| map.strip_prefix(&payload_type));
        name.unwrap().split('/').next().unwrap().to_owned()
    };
    assert_eq!([first("8"), first("9")], ["VP9", "VP8"], "clients send the first they are answered");
    let received: Vec<_> = story.receivers().into_iter().map(|receiver| (receiver.track, receiver.mid)).collect();
    assert_eq!(received, [(key, "8".to_owned()), (key.backup(), "9".to_owned())]);
    story.take_messages();
    story.session.layer_seen(key.backup(), 0, Codec::Vp8, 7, 8);
    story.flush();
    let news = story.received();
    let [(track, media)] = &news[..] else { panic!("{news:?}") };
    assert_eq!((track.as_str(), media.mid.as_str(), media.mime.as_str()), ("TR_VCcam", "9", "video/VP8"));
    assert_eq!((media.sdp_cid.as_str(), media.layers[0].ssrc), (BACKUP, 7));

    let mut out = Output::default();
    story.session.mute(&TrackSid::try_from("TR_VCcam").unwrap(), true, &mut out);
    assert!(
        matches!(out.commands[..], [Command::SetMuted(a, true), Command::SetMuted(b, true)] if (a, b) == (key, key.backup()))
    );

    story.offer(3, &stop_sending(&in_two_codecs(), "9", "inactive"));
    assert_eq!(story.receivers().len(), 1);
    assert!(story.ended.is_empty());
}

#[test]
fn a_subscriber_is_sent_the_first_codec_it_takes_and_the_room_is_told_of_another_than_the_primary() {
    let without_vp9: String =
        JS_JOIN.lines().filter(|line| !line.contains("VP9/")).map(|line| format!("{line}\r\n")).collect();
    for (offer, codecs, told, is_backup) in [
        (JS_JOIN, &["video/vp9", "video/vp8"][..], None, false),
        (&without_vp9, &["video/vp9", "video/vp8"], Some(Some(1)), true),
        (&without_vp9, &["video/vp9", "video/none"], Some(None), false),
        (&without_vp9, &[], None, false),
    ] {
        let mut story = Story::open(PeerConnections::Single);
        let source = TrackKey(story.allocator.key());
        let subscription = Subscription {
            publisher: ParticipantSid::try_from("PA_bob").unwrap(),
            track: TrackSid::try_from("TR_VCcam").unwrap(),
            kind: VIDEO,
            codecs: codecs.iter().map(ToString::to_string).collect(),
            delivery: shared::control::Delivery::default(),
            stream: None,
        };
        assert!(story.session.subscribe(subscription, source, &mut story.allocator, &mut story.out));
        story.offer(1, offer);
        let senders: Vec<_> = story.senders().into_iter().map(|sender| sender.source).collect();
        assert_eq!(senders, [if is_backup { source.backup() } else { source }], "{codecs:?}");
        let needed = |message| if let NodeToRoom::CodecNeeded { codec, .. } = message { Some(codec) } else { None };
        let needed: Vec<_> = story.take_messages().into_iter().filter_map(needed).collect();
        assert_eq!(needed, told.into_iter().collect::<Vec<_>>(), "{codecs:?}");
        story.flush();
        assert!(!story.take_messages().iter().any(|message| matches!(message, NodeToRoom::CodecNeeded { .. })), "once");
    }
}
