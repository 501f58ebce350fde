//! Negotiation with a client that writes what it likes into its descriptions. See `crate::fuzzing`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a property that does not hold is to panic"
)]

use std::io::Cursor;

use arbitrary::{Arbitrary, Result, Unstructured};
use rtc::sdp::description::session::SessionDescription;
use shared::control::{
    AnnouncedCodec, AnnouncedTrack, ClientTraits, Delivery, Description, DescriptionKind, MAX_SDP_LEN, MediaGrants,
    NodeToRoom, PeerConnections, Subscription, TrackKind,
};
use shared::ids::{Generation, Identity, ParticipantSid, SessionKey, TrackSid};

use super::allocator::Allocator;
use super::description::{MAX_SECTIONS, RemoteDescription, SectionKind};
use super::{Endpoint, Output, Session, SessionParams};
use crate::media::api::{Codec, Command, Fingerprint, MAX_EXTENSION_ID, RoomKey, ShardIndex, TrackKey};

/// Most descriptions and other events of one story.
const MAX_STEPS: usize = 12;
/// Ends a description in the input.
const SEPARATOR: &[u8] = b"\n\n";
const FINGERPRINT: Fingerprint = Fingerprint([0xAB; 32]);

/// The first byte says which kind of client; then come descriptions, each after a byte that says what happens with it
/// and up to an empty line.
pub fn sdp(input: &[u8]) {
    let Some((kind, mut rest)) = input.split_first() else { return };
    let mut story = Story::open(*kind);
    for _ in 0..MAX_STEPS {
        let Some((event, tail)) = rest.split_first() else { break };
        let end = tail.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let (text, tail) = end.map_or((tail, &[][..]), |end| (&tail[..end + 1], &tail[end + SEPARATOR.len()..]));
        rest = tail;
        let text = String::from_utf8_lossy(text).into_owned();
        let _ = story.step(&mut Unstructured::new(&[*event, *kind]), text);
        story.flush();
    }
    story.session.close(false, &mut story.allocator, &mut story.out);
}

struct Story {
    session: Session,
    allocator: Allocator,
    endpoint: Endpoint,
    out: Output,
    offer: u32,
}

impl Story {
    fn open(kind: u8) -> Self {
        let kinds =
            [PeerConnections::Single, PeerConnections::DualSubscriberPrimary, PeerConnections::DualPublisherPrimary];
        let kind = kinds[usize::from(kind) % kinds.len()];
        let (mut allocator, mut out) = (Allocator::new([7; 32]), Output::default());
        let params = SessionParams {
            key: SessionKey { participant: ParticipantSid::try_from("PA_ada").unwrap(), generation: Generation(1) },
            room: RoomKey(1),
            shard: ShardIndex(0),
            identity: Identity::try_from("ada").unwrap(),
            grants: MediaGrants::all(),
            peer_connections: kind,
            client: ClientTraits { sdk: "js".into(), protocol: 17, ..ClientTraits::default() },
            srtp: None,
            playout_delay: None,
        };
        let mut session = Session::open(params, &mut allocator, &mut out);
        // The tracks of the browser whose descriptions are the seeds.
        for (sid, kind, cid) in [
            ("TR_AMmic", TrackKind::Audio, "74a69993-1bd6-4a4e-9ee7-e56dbc050e71"),
            ("TR_VCcam", TrackKind::Video, "9e9a9dfc-024a-4d1b-b3d9-2bdfc96daff3"),
        ] {
            session.announce(announced(sid, kind, cid), TrackKey(allocator.key()));
        }
        let endpoint = Endpoint { candidates: vec!["127.0.0.1:7900".parse().unwrap()], fingerprints: [FINGERPRINT; 2] };
        Self { session, allocator, endpoint, out, offer: 0 }
    }

    fn step(&mut self, input: &mut Unstructured<'_>, sdp: String) -> Result<()> {
        parse(&sdp);
        self.offer += 1;
        let sid = |text: &str| TrackSid::try_from(text).unwrap();
        match u8::arbitrary(input)? % 8 {
            0..=3 => {
                let offer = Description { kind: DescriptionKind::Offer, id: self.offer, sdp };
                self.session.offer(&offer, &self.endpoint, &mut self.allocator, &mut self.out);
                self.check_answer(&offer);
            }
            4 => {
                let answer = Description { kind: DescriptionKind::Answer, id: 0, sdp };
                self.session.answer(&answer, &mut self.out);
            }
            5 => {
                for (track, kind) in [("TR_VCb", TrackKind::Video), ("TR_AMb", TrackKind::Audio)] {
                    let publisher = ParticipantSid::try_from("PA_bob").unwrap();
                    let subscription = Subscription {
                        publisher,
                        track: sid(track),
                        kind,
                        codecs: Vec::new(),
                        delivery: Delivery::default(),
                        stream: None,
                    };
                    let source = TrackKey(self.allocator.key());
                    self.session.subscribe(subscription, source, &mut self.allocator, &mut self.out);
                }
            }
            6 => {
                self.session.unsubscribe(&sid("TR_VCb"), &mut self.allocator);
                self.session.layer_seen(TrackKey(1), 0, Codec::Vp8, 9, 0);
                self.session.retract(&sid("TR_VCcam"));
            }
            _ => {
                for transport in self.session.transports() {
                    self.session.connected(transport, None, &mut self.out);
                }
                let cid: String = sdp.chars().filter(|c| !c.is_control()).take(64).collect();
                let key = TrackKey(self.allocator.key());
                self.session.announce(announced("TR_VCother", TrackKind::Video, &cid), key);
            }
        }
        Ok(())
    }

    /// An answer has the offer's sections in its order, and of its transport only what is ours.
    fn check_answer(&mut self, offer: &Description) {
        for message in self.out.messages.drain(..) {
            let NodeToRoom::Answer { description, .. } = message else { continue };
            let remote = RemoteDescription::parse(&offer.sdp).expect("what is answered parses");
            let answer = check(&description.sdp, "passive");
            let mids = answer.media_descriptions.iter().map(|media| media.attribute("mid").flatten());
            assert!(mids.eq(remote.sections.iter().map(|section| Some(section.mid.as_str()))));
        }
    }

    fn flush(&mut self) {
        self.session.flush(&self.endpoint, &mut self.allocator, &mut self.out);
        for message in self.out.messages.drain(..) {
            if let NodeToRoom::Offer { description, .. } = message {
                check(&description.sdp, "actpass");
            }
        }
        for command in self.out.commands.drain(..) {
            if let Command::SetReceivers(_, receivers) = command {
                for receiver in receivers {
                    assert!(receiver.payload_types.len() <= 128 && receiver.mid.len() <= 16);
                    let ids = receiver.extensions;
                    let ids = [ids.mid, ids.rid, ids.transport_cc, ids.audio_level, ids.dependency_descriptor];
                    assert!(ids.into_iter().flatten().all(|id| (1..=MAX_EXTENSION_ID).contains(&id)));
                }
            }
        }
    }
}

fn announced(sid: &str, kind: TrackKind, cid: &str) -> AnnouncedTrack {
    let codecs = vec![AnnouncedCodec { mime: String::new(), cid: cid.to_owned() }];
    let sid = TrackSid::try_from(sid).unwrap();
    AnnouncedTrack { sid, kind, codecs, stereo: false, disable_dtx: false, disable_red: false }
}

/// What a description may hold is bounded, whoever wrote it.
fn parse(sdp: &str) {
    let Ok(description) = RemoteDescription::parse(sdp) else { return };
    assert!(sdp.len() <= MAX_SDP_LEN && description.sections.len() <= MAX_SECTIONS);
    for section in &description.sections {
        assert!((1..=16).contains(&section.mid.len()) && section.codecs.len() <= 128);
        assert!(section.formats.split(' ').count() <= 128, "formats are repeated in a rejection");
        assert!(section.codecs.iter().all(|codec| codec.pt < 128 && codec.rtx.is_none_or(|rtx| rtx < 128)));
        assert!(matches!(section.kind, SectionKind::Media(_)) || section.codecs.is_empty());
    }
}

/// A description of ours: it parses, and nothing of the client's got into what describes our transport.
fn check(sdp: &str, setup: &str) -> SessionDescription {
    let parsed = SessionDescription::unmarshal(&mut Cursor::new(sdp.as_bytes())).expect("our own description parses");
    let ours = format!("sha-256 {FINGERPRINT}");
    assert_eq!(parsed.attribute("fingerprint").map(String::as_str), Some(ours.as_str()));
    for line in sdp.lines() {
        let Some((key, value)) = line.strip_prefix("a=").and_then(|attribute| attribute.split_once(':')) else {
            continue;
        };
        match key {
            "fingerprint" => assert_eq!(value, ours),
            "setup" => assert_eq!(value, setup),
            "candidate" => assert!(value.contains(" 127.0.0.1 7900 typ host"), "{value}"),
            "ice-ufrag" => assert_eq!(value.len(), 16),
            "ice-pwd" => assert_eq!(value.len(), 32),
            _ => {}
        }
    }
    parsed
}
