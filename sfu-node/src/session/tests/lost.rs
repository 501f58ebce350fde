//! What was said into a link that broke, or to a client that was away, may never have arrived.

use super::*;

const BOB: [(&str, TrackKind); 4] =
    [("TR_AMone", AUDIO), ("TR_AMtwo", AUDIO), ("TR_AMthree", AUDIO), ("TR_AMfour", AUDIO)];

impl Story {
    fn repeat(&mut self) -> Vec<NodeToRoom> {
        self.take_messages();
        self.session.repeat(&mut self.out);
        self.flush();
        self.take_messages()
    }
}

#[test]
fn the_room_is_told_again_what_holds_and_what_ended() {
    let mut story = Story::open(PeerConnections::Single);
    story.announce("TR_VCcam", VIDEO, JS_CAMERA, "video/vp8");
    story.announce("TR_AMmic", AUDIO, JS_MICROPHONE, "");
    story.subscribe(&BOB[..1]);
    story.offer(1, JS_PUBLISH);
    let camera = story.receivers().iter().find(|receiver| receiver.kind == VIDEO).unwrap().track;
    story.session.layer_seen(camera, 0, Codec::Vp8, 55, 56);
    story.connect();
    let channels = [(Label::Reliable, 2)].into_iter().collect();
    story.session.channels_opened(story.session.publisher.transport, &channels, &mut story.out);
    let told = |messages: &[NodeToRoom]| {
        let name = |message: &NodeToRoom| match message {
            NodeToRoom::MediaState { state: MediaState::Connected, .. } => "connected".to_owned(),
            NodeToRoom::TrackReceived { track, .. } => format!("{track} received"),
            NodeToRoom::TrackEnded { track, .. } => format!("{track} ended"),
            NodeToRoom::TrackBound { track, .. } => format!("{track} bound"),
            NodeToRoom::DataChannels { channels, .. } => format!("{} channels", channels.len()),
            other => format!("{other:?}"),
        };
        let mut names: Vec<_> = messages.iter().map(name).collect();
        names.sort();
        names
    };
    let all = ["1 channels", "TR_AMmic received", "TR_AMone bound", "TR_VCcam received", "connected"];
    assert_eq!(told(&story.repeat()), all);

    story.offer(2, &stop_sending(JS_PUBLISH, "8", "inactive"));
    let after = told(&story.repeat());
    let ended = after.iter().find(|said| said.ends_with("ended")).unwrap();
    assert!(!after.contains(&ended.replace("ended", "received")), "{after:?}");
    let ended = TrackSid::try_from(ended.split(' ').next().unwrap()).unwrap();
    assert!(story.session.has_ended(&ended));
}

#[test]
fn an_offer_is_the_same_when_it_is_said_again() {
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    story.flush();
    let (id, first, _) = story.offered().unwrap();
    story.answer(id, DUAL_DATA_ANSWER);
    assert!(story.repeat().iter().all(|message| !matches!(message, NodeToRoom::Offer { .. })), "it is answered");
    story.subscribe(&[("TR_VCb", VIDEO)]);
    let offers = |messages: Vec<NodeToRoom>| {
        messages.into_iter().filter(|message| matches!(message, NodeToRoom::Offer { .. })).collect::<Vec<_>>()
    };
    let before = offers(story.take_messages());
    assert_eq!(before.len(), 1);
    assert_eq!(offers(story.repeat()), before);
    assert!(!first.media_descriptions.is_empty());
}

#[test]
fn sections_are_asked_for_again_when_the_client_or_the_room_may_not_have_heard() {
    let mut story = Story::open(PeerConnections::Single);
    story.offer(1, JS_JOIN);
    story.connect();
    story.take_messages();
    story.subscribe(&BOB);
    assert_eq!(story.asked(), [(1, 0)]);
    let asked = |messages: Vec<NodeToRoom>| {
        messages.iter().any(|message| matches!(message, NodeToRoom::SectionsNeeded { audios: 1, videos: 0, .. }))
    };
    assert!(asked(story.repeat()), "the link broke");
    // It has come back on another socket, and knows nothing of it.
    story.offer(2, &JS_JOIN.replace("a=ice-ufrag:", "a=ice-ufrag:new"));
    assert_eq!(story.asked(), [(1, 0)]);
    // An offer that crosses the question has the sections only after it.
    story.offer(3, &JS_JOIN.replace("a=ice-ufrag:", "a=ice-ufrag:new"));
    assert!(story.asked().is_empty());
}

#[test]
fn a_track_in_the_section_of_one_that_was_never_announced_gets_its_own() {
    let mut story = Story::open(PeerConnections::Single);
    // The section's own track was announced into a socket that broke.
    story.announce("TR_AMlater", AUDIO, "later", "");
    story.offer(1, JS_PUBLISH);
    assert_eq!(story.receivers()[0].mid, "7", "what else should it be");
    let start = JS_PUBLISH.rfind("m=audio").unwrap();
    let end = start + 7 + JS_PUBLISH[start + 7..].find("\r\nm=").unwrap() + 2;
    let own = JS_PUBLISH[start..end].replace("a=mid:7", "a=mid:9").replace(JS_MICROPHONE, "later");
    // The client gives the other one up in the same offer, or in a later one.
    for stays in [true, false] {
        let before = if stays { JS_PUBLISH.to_owned() } else { stop_sending(JS_PUBLISH, "7", "inactive") };
        let offer = before.replace("6 7 8\r\n", "6 7 8 9\r\n") + &own;
        story.offer(if stays { 2 } else { 3 }, &offer.replace("3242662516", "77"));
        assert!(story.ended.is_empty());
        let audio: Vec<_> = story.receivers().into_iter().filter(|receiver| receiver.kind == AUDIO).collect();
        let [later] = &audio[..] else { panic!("{audio:?}") };
        assert_eq!((later.mid.as_str(), later.track), ("9", later.track.primary()), "it has no second codec");
    }
}

#[test]
fn an_answer_without_an_id_to_the_offer_before_is_not_taken_for_the_last_one() {
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    story.subscribe(&[("TR_VCb", VIDEO), ("TR_AMb", AUDIO)]);
    let (id, ..) = story.offered().unwrap();
    story.answer(id, DUAL_DATA_ANSWER);
    let (offered, ..) = story.offered().unwrap();
    story.answer(0, NATIVE_DATA_ANSWER);
    assert!(matches!(story.take_messages()[..], [NodeToRoom::DescriptionRejected { .. }]));
    story.answer(0, DUAL_MEDIA_ANSWER);
    assert_eq!((story.senders().len(), offered), (2, id + 1));
}
