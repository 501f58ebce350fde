//! Negotiation against descriptions real clients made (livekit-client 2.23 in Chromium 156; native core of PyPI livekit 1.2).

use std::io::Cursor;

use rtc::sdp::description::media::MediaDescription;
use rtc::sdp::description::session::SessionDescription;
use shared::control::{AnnouncedCodec, ClientTraits, MidTrack, PlayoutDelay, TrackKind, TrackMedia};
use shared::ids::{Generation, Identity, ParticipantSid};

use super::*;
use crate::media::api::{RoomKey, ShardIndex, SsrcPair, TransportConfig};

mod backup;
mod dual;
mod hostile;
mod lost;
mod moved;
mod playout;

const JS_JOIN: &str = include_str!("../../tests/fixtures/js_single_join_offer.sdp");
const JS_PUBLISH: &str = include_str!("../../tests/fixtures/js_single_publish_offer.sdp");
const JS_MICROPHONE: &str = "74a69993-1bd6-4a4e-9ee7-e56dbc050e71";
const JS_CAMERA: &str = "9e9a9dfc-024a-4d1b-b3d9-2bdfc96daff3";
const NATIVE_JOIN: &str = include_str!("../../tests/fixtures/native_single_join_offer.sdp");
const NATIVE_PUBLISH: &str = include_str!("../../tests/fixtures/native_single_publish_offer.sdp");
const NATIVE_MICROPHONE: &str = "41c0d6aa-d2d4-4784-bd13-e19496f0fd5f";
const NATIVE_CAMERA: &str = "8754b815-2957-46a1-bf4e-91bd36c68bff";
const DUAL_PUBLISHER_JOIN: &str = include_str!("../../tests/fixtures/js_dual_publisher_join_offer.sdp");
const DUAL_PUBLISH: &str = include_str!("../../tests/fixtures/js_dual_publish_offer.sdp");
const DUAL_DATA_ANSWER: &str = include_str!("../../tests/fixtures/js_dual_subscriber_data_answer.sdp");
/// Answers sections 1 (video) and 2 (audio).
const DUAL_MEDIA_ANSWER: &str = include_str!("../../tests/fixtures/js_dual_subscriber_media_answer.sdp");
const NATIVE_DATA_ANSWER: &str = include_str!("../../tests/fixtures/native_dual_data_answer.sdp");

struct Story {
    session: Session,
    allocator: Allocator,
    endpoint: Endpoint,
    out: Output,
    ended: Vec<TrackSid>,
}

impl Story {
    fn open(peer_connections: PeerConnections) -> Self {
        Self::open_as(peer_connections, ClientTraits { sdk: "js".into(), protocol: 17, ..ClientTraits::default() })
    }

    fn open_as(peer_connections: PeerConnections, client: ClientTraits) -> Self {
        Self::open_again(peer_connections, client, Generation(1))
    }

    fn open_again(peer_connections: PeerConnections, client: ClientTraits, generation: Generation) -> Self {
        Self::open_in(peer_connections, client, generation, None)
    }

    /// In a room that asks for a playout delay.
    fn open_in(
        peer_connections: PeerConnections,
        client: ClientTraits,
        generation: Generation,
        playout_delay: Option<PlayoutDelay>,
    ) -> Self {
        Self::open_after(peer_connections, client, generation, playout_delay, None)
    }

    /// After another node, whose media this protected.
    fn open_after(
        peer_connections: PeerConnections,
        client: ClientTraits,
        generation: Generation,
        playout_delay: Option<PlayoutDelay>,
        srtp: Option<SrtpProfile>,
    ) -> Self {
        let mut allocator = Allocator::new([7; 32]);
        let mut out = Output::default();
        let params = SessionParams {
            key: SessionKey { participant: ParticipantSid::try_from("PA_ada").unwrap(), generation },
            room: RoomKey(1),
            shard: ShardIndex(0),
            identity: Identity::try_from("ada").unwrap(),
            grants: MediaGrants::all(),
            peer_connections,
            client,
            srtp,
            playout_delay,
        };
        let session = Session::open(params, &mut allocator, &mut out);
        let endpoint = Endpoint {
            candidates: vec!["127.0.0.1:7900".parse().unwrap(), "[2001:db8::1]:7900".parse().unwrap()],
            fingerprints: [Fingerprint([0xCD; 32]), Fingerprint([0xAB; 32])],
        };
        Self { session, allocator, endpoint, out, ended: Vec::new() }
    }

    fn flush(&mut self) {
        self.ended.extend(self.session.flush(&self.endpoint, &mut self.allocator, &mut self.out));
    }

    /// Offers and returns the answer's sections with the mid map.
    fn offer(&mut self, id: u32, sdp: &str) -> (SessionDescription, Vec<MidTrack>) {
        let description = Description { kind: DescriptionKind::Offer, id, sdp: sdp.to_owned() };
        self.session.offer(&description, &self.endpoint, &mut self.allocator, &mut self.out);
        self.flush();
        let index = self.out.messages.iter().position(|m| matches!(m, NodeToRoom::Answer { .. })).expect("an answer");
        let NodeToRoom::Answer { description, mid_to_track, .. } = self.out.messages.remove(index) else { panic!() };
        assert_eq!((description.id, description.kind), (id, DescriptionKind::Answer));
        (read(&description.sdp), mid_to_track)
    }

    fn answer(&mut self, id: u32, sdp: &str) {
        let description = Description { kind: DescriptionKind::Answer, id, sdp: sdp.to_owned() };
        self.session.answer(&description, &mut self.out);
        self.flush();
    }

    fn announce(&mut self, sid: &str, kind: TrackKind, cid: &str, mime: &str) {
        let codecs = vec![AnnouncedCodec { mime: mime.into(), cid: cid.into() }];
        let sid = TrackSid::try_from(sid).unwrap();
        let (stereo, disable_dtx, disable_red) = (false, false, false);
        let key = TrackKey(self.allocator.key());
        assert!(self.session.announce(AnnouncedTrack { sid, kind, codecs, stereo, disable_dtx, disable_red }, key));
        self.flush();
    }

    fn subscribe(&mut self, sids: &[(&str, TrackKind)]) {
        self.subscribe_in(None, sids);
    }

    /// Tracks that share a stream.
    fn subscribe_in(&mut self, stream: Option<&str>, sids: &[(&str, TrackKind)]) {
        for (sid, kind) in sids {
            let track = TrackSid::try_from(*sid).unwrap();
            let subscription = Subscription {
                publisher: ParticipantSid::try_from("PA_bob").unwrap(),
                track,
                kind: *kind,
                codecs: Vec::new(),
                delivery: shared::control::Delivery::default(),
                stream: stream.map(str::to_owned),
            };
            let source = TrackKey(self.allocator.key());
            assert!(self.session.subscribe(subscription, source, &mut self.allocator, &mut self.out));
        }
        self.flush();
    }

    fn unsubscribe(&mut self, sid: &str) {
        self.session.unsubscribe(&TrackSid::try_from(sid).unwrap(), &mut self.allocator);
        self.flush();
    }

    fn connect(&mut self) {
        for transport in self.session.transports() {
            self.session.connected(transport, None, &mut self.out);
        }
        self.flush();
    }

    fn take_messages(&mut self) -> Vec<NodeToRoom> {
        std::mem::take(&mut self.out.messages)
    }

    fn asked(&mut self) -> Vec<(u32, u32)> {
        let asked = |message| match message {
            NodeToRoom::SectionsNeeded { audios, videos, .. } => Some((audios, videos)),
            _ => None,
        };
        self.take_messages().into_iter().filter_map(asked).collect()
    }

    fn received(&mut self) -> Vec<(String, TrackMedia)> {
        let received = |message| match message {
            NodeToRoom::TrackReceived { track, media, .. } => Some((String::from(track), media)),
            _ => None,
        };
        self.take_messages().into_iter().filter_map(received).collect()
    }

    fn offered(&mut self) -> Option<(u32, SessionDescription, Vec<MidTrack>)> {
        self.take_messages().into_iter().find_map(|message| match message {
            NodeToRoom::Offer { description, mid_to_track, .. } => {
                Some((description.id, read(&description.sdp), mid_to_track))
            }
            _ => None,
        })
    }

    fn opened(&self) -> Vec<&TransportConfig> {
        let mut opened = Vec::new();
        for command in &self.out.commands {
            if let Command::Open(config) = command {
                opened.push(&**config);
            }
        }
        opened
    }

    fn receivers(&self) -> Vec<Receiver> {
        let set = |command: &Command| match command {
            Command::SetReceivers(_, receivers) => Some(receivers.clone()),
            _ => None,
        };
        self.out.commands.iter().rev().find_map(set).unwrap_or_default()
    }

    fn senders(&self) -> Vec<Sender> {
        let set = |command: &Command| match command {
            Command::SetSenders(_, senders) => Some(senders.clone()),
            _ => None,
        };
        self.out.commands.iter().rev().find_map(set).unwrap_or_default()
    }
}

fn read(sdp: &str) -> SessionDescription {
    SessionDescription::unmarshal(&mut Cursor::new(sdp.as_bytes())).expect("our own description parses")
}

fn section<'a>(description: &'a SessionDescription, mid: &str) -> &'a MediaDescription {
    let has_mid = |media: &&MediaDescription| media.attribute("mid").flatten() == Some(mid);
    description.media_descriptions.iter().find(has_mid).expect("the section is there")
}

fn values<'a>(media: &'a MediaDescription, key: &str) -> Vec<&'a str> {
    media.attributes.iter().filter(|a| a.key == key).filter_map(|a| a.value.as_deref()).collect()
}

fn mids(map: &[MidTrack]) -> Vec<(&str, &str)> {
    map.iter().map(|entry| (entry.mid.as_str(), entry.track.as_str())).collect()
}

const AUDIO: TrackKind = TrackKind::Audio;
const VIDEO: TrackKind = TrackKind::Video;

#[test]
fn the_first_answer_of_a_browser_carries_everything_it_needs() {
    let mut story = Story::open(PeerConnections::Single);
    let (answer, map) = story.offer(1, JS_JOIN);
    assert!(map.is_empty());
    assert!(answer.has_attribute("ice-lite"));
    assert_eq!(answer.attribute("fingerprint").unwrap(), &format!("sha-256 {}", ["AB"; 32].join(":")));
    assert_eq!(answer.attribute("group").unwrap(), "BUNDLE 0 1 2 3 4 5 6");
    assert_eq!(answer.media_descriptions.len(), 7);
    let opened = story.opened();
    assert_eq!(opened.len(), 1);
    assert!(opened[0].fingerprint.is_some());
    for media in &answer.media_descriptions {
        assert_eq!(media.attribute("setup").flatten(), Some("passive"));
        assert_eq!(media.attribute("ice-ufrag").flatten(), Some(opened[0].local.ufrag.as_str()));
        assert_eq!(media.attribute("ice-pwd").flatten(), Some(opened[0].local.password.as_str()));
    }
    let first = &answer.media_descriptions[0];
    assert_eq!(
        values(first, "candidate"),
        ["1 1 udp 2130706431 127.0.0.1 7900 typ host", "2 1 udp 2130706175 2001:db8::1 7900 typ host"]
    );
    assert!(first.has_attribute("end-of-candidates") && first.has_attribute("sendonly"));
    assert_eq!(first.media_name.formats, ["111", "63", "0", "8"]);
    for mid in ["3", "4", "5"] {
        let video = section(&answer, mid);
        let accepted: Vec<&str> =
            values(video, "extmap").iter().map(|value| value.split_once(' ').unwrap().1).collect();
        for uri in [
            "urn:ietf:params:rtp-hdrext:sdes:mid",
            "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
        ] {
            assert!(accepted.contains(&uri), "{uri} on mid {mid}");
        }
        assert!(values(video, "candidate").is_empty());
        assert!(values(video, "rtcp-fb").contains(&"96 transport-cc"));
        assert!(video.has_attribute("rtcp-mux") && video.has_attribute("rtcp-rsize"));
    }
    let data = section(&answer, "6");
    assert_eq!(data.attribute("max-message-size").flatten(), Some("65535"));
    assert_eq!(data.media_name.formats, ["webrtc-datachannel"]);
}

#[test]
fn a_browser_publishes_microphone_and_simulcast_camera() {
    let mut story = Story::open(PeerConnections::Single);
    story.offer(1, JS_JOIN);
    story.announce("TR_AMmic", AUDIO, JS_MICROPHONE, "");
    story.announce("TR_VCcam", VIDEO, JS_CAMERA, "video/vp8");
    story.take_messages();
    let (answer, _) = story.offer(3, JS_PUBLISH);
    let audio = section(&answer, "7");
    assert!(audio.has_attribute("recvonly"));
    assert_eq!(audio.media_name.formats, ["63", "111", "0", "8"]);
    assert!(values(audio, "fmtp").contains(&"111 minptime=10;useinbandfec=1;usedtx=1"));
    let video = section(&answer, "8");
    assert_eq!(values(video, "rid"), ["q recv", "h recv", "f recv"]);
    assert_eq!(values(video, "simulcast"), ["recv q;h;f"]);
    assert_eq!(video.media_name.formats[0], "96");

    // Audio is named by SSRC: there at once. The camera waits for packets.
    let received = story.received();
    assert_eq!(received.len(), 1);
    assert_eq!((received[0].0.as_str(), received[0].1.mime.as_str()), ("TR_AMmic", "audio/red"));
    assert_eq!((received[0].1.mid.as_str(), received[0].1.layers[0].ssrc), ("7", 3_242_662_516));

    let receivers = story.receivers();
    assert_eq!(receivers.len(), 2);
    assert_eq!(receivers[0].ssrcs.as_slice(), [SsrcPair { ssrc: 3_242_662_516, rtx: None }]);
    let camera = receivers.iter().find(|receiver| receiver.kind == VIDEO).unwrap();
    assert_eq!(camera.rids.as_slice(), ["q", "h", "f"]);
    assert_eq!((camera.extensions.rid, camera.extensions.mid), (Some(10), Some(4)));
    let vp8 = camera.payload_types[0];
    assert_eq!((vp8.pt, vp8.codec, vp8.rtx_pt, vp8.nack, vp8.pli), (96, Codec::Vp8, Some(97), true, true));

    let camera = camera.track;
    story.session.layer_seen(camera, 0, Codec::Vp8, 55, 0);
    story.flush();
    let received = story.received();
    assert_eq!(received.len(), 1);
    assert_eq!(received[0].1.mime, "video/VP8");
    assert_eq!(
        received[0].1.layers.iter().map(|l| (l.rid.as_str(), l.ssrc)).collect::<Vec<_>>(),
        [("q", 55), ("h", 0), ("f", 0)]
    );
    story.session.layer_seen(camera, 2, Codec::Vp8, 57, 58);
    story.flush();
    assert_eq!(story.received()[0].1.layers[2].repair_ssrc, 58);
    story.session.layer_seen(camera, 2, Codec::Vp8, 57, 58);
    story.flush();
    assert!(story.received().is_empty(), "nothing new");
}

#[test]
fn sections_may_come_before_their_announcement() {
    let mut story = Story::open(PeerConnections::Single);
    story.offer(3, JS_PUBLISH);
    assert!(story.receivers().is_empty() && story.received().is_empty());
    story.announce("TR_AMother", AUDIO, "another-cid", "");
    assert!(story.receivers().is_empty(), "a track announced later is not taken for an older section");
    story.announce("TR_AMmic", AUDIO, JS_MICROPHONE, "");
    assert_eq!(story.received()[0].0, "TR_AMmic");
    assert_eq!(story.receivers()[0].mid, "7");
}

#[test]
fn a_renamed_track_is_matched_by_kind_and_its_new_name_recorded() {
    let mut story = Story::open(PeerConnections::Single);
    story.announce("TR_AMmic", AUDIO, "name-before-the-transceiver", "");
    story.offer(1, JS_PUBLISH);
    assert_eq!(story.received()[0].1.sdp_cid, JS_MICROPHONE);
}

#[test]
fn unpublishing_ends_the_track() {
    let mut story = Story::open(PeerConnections::Single);
    story.announce("TR_VCcam", VIDEO, JS_CAMERA, "video/vp8");
    story.offer(1, JS_PUBLISH);
    story.take_messages();
    let unpublish = stop_sending(JS_PUBLISH, "8", "inactive");
    let (answer, _) = story.offer(2, &unpublish);
    assert!(section(&answer, "8").has_attribute("inactive"));
    let messages = story.take_messages();
    assert!(
        matches!(&messages[..], [NodeToRoom::TrackEnded { track, .. }] if track.as_str() == "TR_VCcam"),
        "{messages:?}"
    );
    assert!(story.receivers().is_empty());
    story.offer(3, &unpublish);
    assert!(story.take_messages().is_empty(), "once");
}

#[test]
fn a_retracted_track_is_received_no_more() {
    let mut story = Story::open(PeerConnections::Single);
    story.announce("TR_VCcam", VIDEO, JS_CAMERA, "video/vp8");
    story.offer(1, JS_PUBLISH);
    assert_eq!(story.receivers().len(), 1);
    assert!(story.session.retract(&TrackSid::try_from("TR_VCcam").unwrap()));
    story.flush();
    story.announce("TR_VCother", VIDEO, "other", "video/vp8");
    story.offer(2, JS_PUBLISH);
    assert!(story.receivers().is_empty(), "nor taken for another track");
}

#[test]
fn existing_tracks_are_in_the_first_answer_and_bound_once_connected() {
    let mut story = Story::open(PeerConnections::Single);
    story.subscribe(&[("TR_AMbob", AUDIO), ("TR_VCbob", VIDEO)]);
    assert!(story.asked().is_empty(), "the client offers by itself first");
    let (answer, map) = story.offer(1, JS_JOIN);
    assert_eq!(mids(&map), [("0", "TR_AMbob"), ("3", "TR_VCbob")]);
    let video = section(&answer, "3");
    assert!(video.has_attribute("sendonly"));
    assert_eq!(values(video, "msid"), ["PA_bob|TR_VCbob TR_VCbob"]);
    assert!(values(video, "rtcp-fb").contains(&"96 transport-cc"), "what is sent to it is to be reported on");
    let senders = story.senders();
    let camera = senders.iter().find(|sender| sender.kind == VIDEO).unwrap();
    let group = format!("FID {} {}", camera.ssrc, camera.rtx_ssrc.unwrap());
    assert_eq!(values(video, "ssrc-group"), [group.as_str()]);
    assert_eq!((camera.mid.as_str(), camera.cname.as_str()), ("3", "PA_bob"));
    assert!(senders.iter().all(|sender| sender.described), "nobody connects without this answer");
    assert!(values(section(&answer, "4"), "msid").is_empty());
    assert!(!story.take_messages().iter().any(|m| matches!(m, NodeToRoom::TrackBound { .. })));
    story.connect();
    let messages = story.take_messages();
    assert!(matches!(messages[0], NodeToRoom::MediaState { state: MediaState::Connected, .. }));
    assert_eq!(messages.iter().filter(|m| matches!(m, NodeToRoom::TrackBound { .. })).count(), 2);
}

#[test]
fn late_tracks_make_the_client_offer_and_freed_sections_are_used_again() {
    let mut story = Story::open(PeerConnections::Single);
    story.offer(1, JS_JOIN);
    story.connect();
    story.take_messages();
    story.subscribe(&[("TR_VCb", VIDEO)]);
    assert_eq!(story.asked(), [(0, 0)]);
    let (_, map) = story.offer(2, JS_JOIN);
    assert_eq!(mids(&map), [("3", "TR_VCb")]);
    assert!(story.take_messages().iter().any(|m| matches!(m, NodeToRoom::TrackBound { .. })));
    let first_ssrc = story.senders()[0].ssrc;
    assert!(!story.senders()[0].described, "packets may outrun this answer");

    story.unsubscribe("TR_VCb");
    assert_eq!(story.asked(), [(0, 0)]);
    assert!(story.senders().is_empty());
    let (answer, map) = story.offer(3, JS_JOIN);
    assert!(map.is_empty() && section(&answer, "3").has_attribute("inactive"));

    // Those that carried nothing yet come first.
    for (id, track, mid) in [(4, "TR_VCc", "4"), (5, "TR_VCd", "5"), (6, "TR_VCe", "3")] {
        story.subscribe(&[(track, VIDEO)]);
        let (answer, map) = story.offer(id, JS_JOIN);
        assert_eq!(mids(&map), [(mid, track)]);
        assert!(section(&answer, mid).has_attribute("sendonly"));
        assert_ne!(story.senders()[0].ssrc, first_ssrc);
        story.unsubscribe(track);
    }
}

#[test]
fn a_track_comes_back_in_its_section_only_when_its_end_was_described() {
    let mut story = Story::open(PeerConnections::Single);
    let all = [("TR_VCb", VIDEO), ("TR_VCc", VIDEO), ("TR_VCd", VIDEO)];
    story.subscribe(&all);
    let (_, map) = story.offer(1, JS_JOIN);
    assert_eq!(mids(&map), [("3", "TR_VCb"), ("4", "TR_VCc"), ("5", "TR_VCd")]);
    story.take_messages();

    story.unsubscribe("TR_VCc");
    story.subscribe(&all[1..2]);
    assert_eq!(story.asked(), [(0, 0)]);
    let (answer, map) = story.offer(2, JS_JOIN);
    assert_eq!(mids(&map), [("3", "TR_VCb"), ("5", "TR_VCd")]);
    assert!(section(&answer, "4").has_attribute("inactive"));
    assert_eq!(story.asked(), [(0, 0)]);
    let (answer, map) = story.offer(3, JS_JOIN);
    assert_eq!(mids(&map), [("3", "TR_VCb"), ("5", "TR_VCd"), ("4", "TR_VCc")]);
    assert!(section(&answer, "4").has_attribute("sendonly"));
    assert!(story.asked().is_empty());

    // Two that change places are news to the client at once.
    for track in ["TR_VCb", "TR_VCc"] {
        story.unsubscribe(track);
    }
    story.subscribe(&[all[1], all[0]]);
    let (_, map) = story.offer(4, JS_JOIN);
    assert_eq!(mids(&map), [("5", "TR_VCd"), ("3", "TR_VCc"), ("4", "TR_VCb")]);
}

#[test]
fn missing_sections_are_asked_for_exactly_and_once() {
    let mut story = Story::open(PeerConnections::Single);
    story.offer(1, JS_JOIN);
    story.take_messages();
    let tracks: Vec<String> = (0..5).map(|n| format!("TR_VC{n}")).collect();
    let four: Vec<_> = tracks[..4].iter().map(|sid| (sid.as_str(), VIDEO)).collect();
    story.subscribe(&four);
    assert_eq!(story.asked(), [(0, 1)]);
    story.flush();
    assert!(story.asked().is_empty());
    story.subscribe(&[(&tracks[4], VIDEO), ("TR_AM1", AUDIO)]);
    assert_eq!(story.asked(), [(0, 1)], "only what the client was not asked for yet");

    // An offer that crossed the request on its way changes nothing of it.
    let (_, map) = story.offer(2, JS_JOIN);
    assert_eq!(map.len(), 4);
    assert!(story.asked().is_empty());
    let (_, map) = story.offer(3, &with_more_video(JS_JOIN, &["20", "21"]));
    assert_eq!(map.len(), 6);
    assert!(story.asked().is_empty());
}

#[test]
fn an_ice_restart_gets_new_credentials_and_an_ordinary_offer_does_not() {
    let mut story = Story::open(PeerConnections::Single);
    let (first, _) = story.offer(1, JS_JOIN);
    let (second, _) = story.offer(2, JS_JOIN);
    let ufrag = |answer: &SessionDescription| values(&answer.media_descriptions[0], "ice-ufrag")[0].to_owned();
    assert_eq!(ufrag(&first), ufrag(&second));
    let (third, _) = story.offer(3, &JS_JOIN.replace("uquv", "wxyz"));
    assert_ne!(ufrag(&first), ufrag(&third));
    let restarts = story.out.commands.iter().filter(|command| matches!(command, Command::RestartIce(..)));
    assert_eq!(restarts.count(), 1);
    assert!(third.origin.session_version > second.origin.session_version);
    assert_eq!(third.origin.session_id, first.origin.session_id);
}

#[test]
fn a_native_client_publishes_with_its_own_ids_and_ladder() {
    let mut story = Story::open(PeerConnections::Single);
    story.offer(0, NATIVE_JOIN);
    story.announce("TR_AMmic", AUDIO, NATIVE_MICROPHONE, "");
    story.announce("TR_VCcam", VIDEO, NATIVE_CAMERA, "video/vp8");
    let (answer, _) = story.offer(0, NATIVE_PUBLISH);
    assert_eq!(values(section(&answer, "8"), "simulcast"), ["recv h;q"]);
    let receivers = story.receivers();
    let camera = receivers.iter().find(|receiver| receiver.kind == VIDEO).unwrap();
    assert_eq!(camera.rids.as_slice(), ["q", "h"], "lowest first");
}

#[test]
fn first_mids_need_not_be_zero() {
    let mut story = Story::open(PeerConnections::Single);
    let mut offer = NATIVE_JOIN.replace("BUNDLE 0 1 2 3 4 5 6", "BUNDLE 7 8 9 10 11 12 13");
    for mid in (0..7).rev() {
        offer = offer.replace(&format!("a=mid:{mid}\r\n"), &format!("a=mid:{}\r\n", mid + 7));
    }
    story.subscribe(&[("TR_AMb", AUDIO)]);
    let (answer, map) = story.offer(0, &offer);
    assert_eq!(mids(&map), [("7", "TR_AMb")]);
    assert_eq!(answer.attribute("group").unwrap(), "BUNDLE 7 8 9 10 11 12 13");
}

#[test]
fn sections_that_cannot_be_answered_are_rejected_alone() {
    let mut story = Story::open(PeerConnections::Single);
    let offer = JS_JOIN.replacen("a=rtpmap:111 opus/48000/2\r\n", "a=rtpmap:111 unheard/48000/2\r\n", 1);
    let offer = offer.replacen("UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126", "UDP/TLS/RTP/SAVPF 111", 1);
    let (answer, _) = story.offer(1, &offer);
    assert_eq!(answer.media_descriptions[0].media_name.port.value, 0);
    assert_eq!(answer.attribute("group").unwrap(), "BUNDLE 1 2 3 4 5 6");
    assert!(!values(&answer.media_descriptions[1], "candidate").is_empty(), "in the first bundled section");
}

#[test]
fn nack_is_answered_only_where_rtx_repairs() {
    let mut story = Story::open(PeerConnections::Single);
    // As Firefox offers it: audio can be asked for again, but only on its own SSRC.
    let offer =
        JS_JOIN.replace("a=rtcp-fb:111 transport-cc\r\n", "a=rtcp-fb:111 transport-cc\r\na=rtcp-fb:111 nack\r\n");
    story.subscribe(&[("TR_AMb", AUDIO), ("TR_VCb", VIDEO)]);
    let (answer, map) = story.offer(1, &offer);
    assert_eq!(mids(&map), [("0", "TR_AMb"), ("3", "TR_VCb")]);
    assert!(values(section(&answer, "0"), "rtcp-fb").is_empty(), "carries a subscription");
    assert!(values(section(&answer, "3"), "rtcp-fb").contains(&"96 nack"));
    assert!(values(section(&answer, "1"), "rtcp-fb").contains(&"111 nack"), "might be used to publish");
    let senders = story.senders();
    let nack = |kind, codec| {
        let sender = senders.iter().find(|sender| sender.kind == kind).unwrap();
        sender.payload_types.iter().find(|pt| pt.codec == codec).map(|pt| (pt.nack, pt.rtx_pt.is_some())).unwrap()
    };
    assert_eq!((nack(AUDIO, Codec::Opus), nack(VIDEO, Codec::Vp8)), ((false, false), (true, true)));
}

#[test]
fn firefox_and_safari_get_no_redundant_audio() {
    let client = ClientTraits { browser: "firefox".into(), ..ClientTraits::default() };
    let mut story = Story::open_as(PeerConnections::Single, client);
    story.subscribe(&[("TR_AMb", AUDIO)]);
    let (answer, _) = story.offer(1, JS_JOIN);
    assert_eq!(section(&answer, "0").media_name.formats, ["111", "0", "8"]);
}

/// The offer with `mid`'s direction changed from sendonly.
fn stop_sending(offer: &str, mid: &str, direction: &str) -> String {
    let at = offer.find(&format!("a=mid:{mid}\r\n")).unwrap();
    let (before, after) = offer.split_at(at);
    before.to_owned() + &after.replacen("a=sendonly", &format!("a={direction}"), 1)
}

/// The offer with its first video section repeated under new mids.
fn with_more_video(offer: &str, mids: &[&str]) -> String {
    let start = offer.find("m=video").unwrap();
    let end = start + 7 + offer[start + 7..].find("\r\nm=").unwrap() + 2;
    let video = &offer[start..end];
    let more: String = mids.iter().map(|mid| video.replace("a=mid:3\r\n", &format!("a=mid:{mid}\r\n"))).collect();
    offer.replace("BUNDLE 0 1 2 3 4 5 6", &format!("BUNDLE 0 1 2 3 4 5 6 {}", mids.join(" "))) + &more
}
