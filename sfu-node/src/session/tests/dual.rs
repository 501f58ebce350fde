//! Two connections: the node offers the subscriber, the client the publisher.

use super::*;

#[test]
fn dual_subscriber_offers_data_first_then_tracks_one_offer_at_a_time() {
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    assert_eq!(story.opened().len(), 1, "the subscriber's");
    assert_eq!(story.opened()[0].data, DataRole::Downstream);
    story.subscribe(&[("TR_VCb", VIDEO)]);
    let (id, offer, map) = story.offered().unwrap();
    assert!((1..=256).contains(&id) && map.is_empty());
    assert_eq!(offer.media_descriptions.len(), 1);
    assert_eq!(values(&offer.media_descriptions[0], "setup"), ["actpass"]);
    assert!(!values(&offer.media_descriptions[0], "candidate").is_empty());
    story.flush();
    assert!(story.offered().is_none(), "one at a time");

    story.answer(id, DUAL_DATA_ANSWER);
    assert!(story.out.commands.iter().any(|command| matches!(command, Command::SetFingerprint(..))));
    let (second, offer, map) = story.offered().unwrap();
    assert_eq!((second, mids(&map)), (id + 1, vec![("1", "TR_VCb")]));
    let video = section(&offer, "1");
    assert_eq!(values(video, "msid"), ["PA_bob|TR_VCb TR_VCb"]);
    assert!(values(video, "rtcp-fb").contains(&"96 nack"), "the node repairs on an RTX stream");
    assert!(video.has_attribute("sendonly"));
    assert!(story.senders().is_empty(), "nothing before the answer");

    story.subscribe(&[("TR_AMb", AUDIO)]);
    assert!(story.offered().is_none());
    let media_answer = format!("{}m=audio{}", DUAL_MEDIA_ANSWER.split("m=audio").next().unwrap(), "");
    let video_answer = media_answer.trim_end_matches("m=audio").replace("BUNDLE 0 1 2", "BUNDLE 0 1");
    story.answer(second, &video_answer);
    let (third, offer, map) = story.offered().unwrap();
    assert_eq!(mids(&map), [("1", "TR_VCb"), ("2", "TR_AMb")]);
    assert!(values(section(&offer, "2"), "rtcp-fb").is_empty(), "and nothing without one");
    assert_eq!(story.senders().len(), 1);
    story.answer(third, DUAL_MEDIA_ANSWER);
    let senders = story.senders();
    assert_eq!(senders.len(), 2);
    assert!(senders.iter().all(|sender| sender.described), "the client has answered");
    let vp8 = senders[0].payload_types[0];
    assert_eq!((vp8.pt, vp8.codec, vp8.rtx_pt, vp8.nack), (96, Codec::Vp8, Some(97), true));
    assert!(!senders[0].payload_types.iter().any(|pt| pt.codec == Codec::H265), "the client took it out");
    story.connect();
    assert_eq!(story.take_messages().iter().filter(|m| matches!(m, NodeToRoom::TrackBound { .. })).count(), 2);

    // A released section is inactive, and a track in it later is sent only when the client has agreed.
    story.unsubscribe("TR_VCb");
    let (fourth, offer, _) = story.offered().unwrap();
    assert!(section(&offer, "1").has_attribute("inactive"));
    story.answer(fourth, DUAL_MEDIA_ANSWER);
    story.subscribe(&[("TR_VCc", VIDEO)]);
    let (fifth, offer, map) = story.offered().unwrap();
    assert_eq!(offer.media_descriptions.len(), 3);
    assert_eq!(mids(&map), [("2", "TR_AMb"), ("1", "TR_VCc")]);
    assert_eq!(story.senders().len(), 1);
    story.answer(fifth, DUAL_MEDIA_ANSWER);
    assert_eq!(story.senders().len(), 2);
}

#[test]
fn native_answers_have_id_zero_and_stale_answers_are_refused() {
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    story.flush();
    let (id, ..) = story.offered().unwrap();
    story.answer(id + 7, NATIVE_DATA_ANSWER);
    assert!(matches!(story.take_messages()[..], [NodeToRoom::DescriptionRejected { .. }]));
    story.answer(0, NATIVE_DATA_ANSWER);
    assert!(story.take_messages().is_empty());
    story.answer(0, NATIVE_DATA_ANSWER);
    assert!(matches!(story.take_messages()[..], [NodeToRoom::DescriptionRejected { .. }]));
}

#[test]
fn a_dual_publisher_is_answered_without_subscriptions() {
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    story.offer(1, DUAL_PUBLISHER_JOIN);
    assert_eq!(story.opened()[1].data, DataRole::Upstream);
    story.announce("TR_AMmic", AUDIO, "2980a9dd-6dc2-4a06-a259-c13a216b7ee2", "");
    story.announce("TR_VCcam", VIDEO, "7374d67b-0d1b-458d-89b6-3626294eea76", "video/vp8");
    story.subscribe(&[("TR_VCb", VIDEO)]);
    let (answer, map) = story.offer(2, DUAL_PUBLISH);
    assert!(map.is_empty());
    assert_eq!(answer.media_descriptions[2].media_name.formats[0], "96");
    assert_eq!(story.receivers().len(), 2);
    // Publisher up alone is not the participant's state.
    let publisher = story.session.publisher.transport;
    story.session.connected(publisher, None, &mut story.out);
    assert!(!story.take_messages().iter().any(|m| matches!(m, NodeToRoom::MediaState { .. })));
}

#[test]
fn data_comes_down_one_connection_only() {
    for (kind, down) in [
        (PeerConnections::Single, DataRole::Both),
        (PeerConnections::DualPublisherPrimary, DataRole::Both),
        (PeerConnections::DualSubscriberPrimary, DataRole::Downstream),
    ] {
        let mut story = Story::open(kind);
        story.offer(1, if kind == PeerConnections::Single { JS_JOIN } else { DUAL_PUBLISHER_JOIN });
        story.subscribe(&[("TR_VCb", VIDEO)]);
        let roles = story.opened().into_iter().map(|config| config.data);
        let downstream: Vec<DataRole> = roles.filter(|role| *role != DataRole::Upstream).collect();
        assert_eq!(downstream, [down], "{kind:?}");
    }
}

#[test]
fn a_client_that_comes_back_is_offered_an_ice_restart() {
    let ufrag = |offer: &SessionDescription| values(&offer.media_descriptions[0], "ice-ufrag")[0].to_owned();
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    story.flush();
    let (id, first, _) = story.offered().unwrap();
    story.answer(id, DUAL_DATA_ANSWER);
    story.subscribe(&[("TR_VCb", VIDEO)]);
    let (lost, offer, _) = story.offered().unwrap();
    assert_eq!(ufrag(&offer), ufrag(&first));

    // Nobody knows whether the last offer has arrived.
    let subscriber = story.session.subscriber.as_ref().unwrap().transport;
    story.session.restart_ice(&mut story.allocator, &mut story.out);
    story.flush();
    let (id, offer, map) = story.offered().unwrap();
    assert_eq!((id, mids(&map)), (lost + 1, vec![("1", "TR_VCb")]));
    let restart = story.out.commands.iter().find_map(|command| match command {
        Command::RestartIce(transport, credentials) => Some((*transport, credentials.ufrag.clone())),
        _ => None,
    });
    assert_eq!(restart, Some((subscriber, ufrag(&offer))));
    assert_ne!(ufrag(&offer), ufrag(&first));
    story.answer(lost, DUAL_DATA_ANSWER);
    assert!(matches!(story.take_messages()[..], [NodeToRoom::DescriptionRejected { .. }]), "too late");
    story.flush();
    assert!(story.offered().is_none(), "once");
}

#[test]
fn a_client_with_another_address_is_asked_where_it_receives() {
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    story.offer(1, DUAL_PUBLISHER_JOIN);
    let (id, ..) = story.offered().unwrap();
    let (publisher, subscriber) =
        (story.session.publisher.transport, story.session.subscriber.as_ref().unwrap().transport);
    let restarted = |story: &mut Story| {
        story.flush();
        let restarted = story.out.commands.iter().any(|c| matches!(c, Command::RestartIce(of, _) if *of == subscriber));
        story.out.commands.clear();
        (restarted, story.offered().map(|(id, ..)| id))
    };
    let readdressed = |story: &mut Story, transport| {
        story.session.readdressed(transport);
        restarted(story)
    };
    assert_eq!(readdressed(&mut story, publisher), (false, None), "it has an offer to answer");
    story.answer(id, DUAL_DATA_ANSWER);
    assert_eq!(restarted(&mut story), (true, Some(id + 1)), "now it has answered");
    assert_eq!(readdressed(&mut story, publisher), (false, None), "the restart may have been before this");
    assert_eq!(readdressed(&mut story, subscriber), (false, None), "it has shown itself there");
    story.answer(id + 1, DUAL_DATA_ANSWER);
    assert_eq!(restarted(&mut story), (false, None));
    assert_eq!(readdressed(&mut story, publisher), (true, Some(id + 2)));
    story.answer(id + 2, DUAL_DATA_ANSWER);
    assert_eq!(restarted(&mut story), (false, None), "once");
}

#[test]
fn a_track_that_comes_back_before_its_end_was_offered_gets_another_section() {
    let mut story = Story::open(PeerConnections::DualSubscriberPrimary);
    story.subscribe(&[("TR_VCb", VIDEO), ("TR_AMb", AUDIO)]);
    let (id, ..) = story.offered().unwrap();
    story.answer(id, DUAL_DATA_ANSWER);
    let (id, ..) = story.offered().unwrap();
    story.answer(id, DUAL_MEDIA_ANSWER);
    story.session.restart_ice(&mut story.allocator, &mut story.out);
    story.flush();
    let (id, ..) = story.offered().unwrap();

    story.unsubscribe("TR_VCb");
    story.subscribe(&[("TR_VCb", VIDEO)]);
    assert!(story.offered().is_none(), "one at a time");
    story.answer(id, DUAL_MEDIA_ANSWER);
    let (_, offer, map) = story.offered().unwrap();
    assert_eq!(mids(&map), [("2", "TR_AMb"), ("3", "TR_VCb")]);
    assert!(section(&offer, "1").has_attribute("inactive"));
}
