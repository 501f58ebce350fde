//! Rooms, sessions and tracks together: what one publishes reaches the others' senders by the same key.

mod pipes;

use std::net::SocketAddr;

use shared::control::{
    AnnouncedCodec, AnnouncedTrack, ClientTraits, Description, DescriptionKind, MediaGrants, PeerConnections,
    SessionQuality, Speaking, Subscription, TrackKind,
};
use shared::ids::{Generation, Identity, NodeId};

use super::*;
use crate::media::api::{Codec, FailReason, Fingerprint, SrtpProfile};

const PUBLISH: &str = include_str!("../../tests/fixtures/js_single_publish_offer.sdp");
const JOIN: &str = include_str!("../../tests/fixtures/js_single_join_offer.sdp");
const CAMERA: &str = "9e9a9dfc-024a-4d1b-b3d9-2bdfc96daff3";

struct Hall {
    conference: Conference,
    room: RoomName,
}

impl Hall {
    fn new(max_sessions: usize) -> Self {
        Self::with_shards(1, max_sessions)
    }

    /// Each shard is full with two sessions.
    fn with_shards(shards: u16, max_sessions: usize) -> Self {
        let at = |port| Endpoint {
            candidates: vec![SocketAddr::from(([127, 0, 0, 1], port))],
            fingerprints: [Fingerprint([0xAB; 32]), Fingerprint([0xCD; 32])],
        };
        let full = Fullness { sessions: 2, packets_per_second: 1000 };
        let endpoints = (7900..7900 + shards).map(at).collect();
        let conference = Conference::new(endpoints, full, Allocator::new([1; 32]), max_sessions);
        Self { conference, room: RoomName::try_from("hall").unwrap() }
    }

    fn open(&mut self, who: &str, generation: u32, offer: &str) -> Result<(), RefusalReason> {
        let claims = SessionClaims {
            aud: NodeId::try_from("ND_me").unwrap(),
            room: self.room.clone(),
            sub: participant(who),
            identity: Identity::try_from(who).unwrap(),
            generation: Generation(generation),
            grants: MediaGrants::all(),
            jti: String::new(),
            exp: 0,
        };
        let open = OpenSession {
            token: String::new(),
            peer_connections: PeerConnections::Single,
            client: ClientTraits::default(),
            offer: Some(Description { kind: DescriptionKind::Offer, id: 1, sdp: offer.to_owned() }),
            tracks: Vec::new(),
            subscriptions: Vec::new(),
            established: None,
            playout_delay: None,
        };
        self.conference.open(&self.room, claims, open)
    }

    fn tell(&mut self, message: RoomToNode) -> Effects {
        let room = self.room.clone();
        self.conference.handle(&room, message);
        self.conference.flush()
    }

    fn announce_camera(&mut self, who: &str) -> Effects {
        let track = AnnouncedTrack {
            sid: TrackSid::try_from("TR_VCcam").unwrap(),
            kind: TrackKind::Video,
            codecs: vec![AnnouncedCodec { mime: "video/vp8".into(), cid: CAMERA.into() }],
            stereo: false,
            disable_dtx: false,
            disable_red: false,
        };
        self.tell(RoomToNode::AnnounceTrack { session: key(who, 1), track })
    }

    fn subscribe(&mut self, who: &str, to: &str) -> Effects {
        let track = TrackSid::try_from("TR_VCcam").unwrap();
        let subscription = Subscription {
            publisher: participant(to),
            track,
            kind: TrackKind::Video,
            codecs: Vec::new(),
            delivery: shared::control::Delivery::default(),
            stream: None,
        };
        self.tell(RoomToNode::Subscribe { session: key(who, 1), subscriptions: vec![subscription] })
    }
}

fn participant(who: &str) -> ParticipantSid {
    ParticipantSid::try_from(format!("PA_{who}")).unwrap()
}

fn key(who: &str, generation: u32) -> SessionKey {
    SessionKey { participant: participant(who), generation: Generation(generation) }
}

fn transport(effects: &Effects) -> TransportKey {
    let opened = |(_, command): &(ShardIndex, Command)| match command {
        Command::Open(config) => Some(config.key),
        _ => None,
    };
    effects.commands.iter().find_map(opened).expect("a transport was opened")
}

#[test]
fn data_of_an_app_server_goes_to_the_shards_of_its_room() {
    let mut hall = Hall::new(10);
    hall.open("ada", 1, JOIN).unwrap();
    hall.conference.flush();
    let send = |packet: &str| RoomToNode::SendData { packet: packet.into(), reliable: true, identities: Vec::new() };
    let effects = hall.tell(send("aGk="));
    let [(_, Command::SendData(data))] = &effects.commands[..] else { panic!("{:?}", effects.commands) };
    assert!(data.packet == b"hi" && data.reliable);
    assert!(hall.tell(send("not base64!")).commands.is_empty());
    hall.room = RoomName::try_from("another").unwrap();
    assert!(hall.tell(send("aGk=")).commands.is_empty(), "nobody of that room is here");
}

#[test]
fn a_client_that_comes_back_is_sent_again_what_it_missed_of_those_who_are_here() {
    let mut hall = Hall::new(10);
    hall.open("ada", 1, JOIN).unwrap();
    hall.open("bob", 1, JOIN).unwrap();
    hall.conference.flush();
    let has = |who: &str, sequence| ReceivedData { publisher: participant(who), sequence };
    let replay = |received| RoomToNode::ReplayData { session: key("bob", 1), received };
    let effects = hall.tell(replay(vec![has("eve", 3), has("ada", 7)]));
    let [(_, Command::ReplayData(_, senders))] = &effects.commands[..] else { panic!("{:?}", effects.commands) };
    assert_eq!(senders.iter().map(|(_, sequence)| *sequence).collect::<Vec<_>>(), [7]);
    assert!(hall.tell(replay(vec![has("eve", 3)])).commands.is_empty());
}

#[test]
fn a_track_reaches_its_subscriber_by_its_key_whoever_comes_first() {
    for subscribes_first in [true, false] {
        let mut hall = Hall::new(10);
        hall.open("ada", 1, PUBLISH).unwrap();
        hall.open("bob", 1, JOIN).unwrap();
        hall.conference.flush();
        let mut commands = Vec::new();
        if subscribes_first {
            commands.extend(hall.subscribe("bob", "ada").commands);
            commands.extend(hall.announce_camera("ada").commands);
        } else {
            commands.extend(hall.announce_camera("ada").commands);
            commands.extend(hall.subscribe("bob", "ada").commands);
        }
        let offer = Description { kind: DescriptionKind::Offer, id: 2, sdp: JOIN.to_owned() };
        commands.extend(hall.tell(RoomToNode::Offer { session: key("bob", 1), description: offer }).commands);
        let received = commands.iter().find_map(|(_, command)| match command {
            Command::SetReceivers(_, receivers) => Some(receivers[0].track),
            _ => None,
        });
        let sent = commands.iter().find_map(|(_, command)| match command {
            Command::SetSenders(_, senders) => Some(senders[0].source),
            _ => None,
        });
        assert!(received.is_some());
        assert_eq!(received, sent);
    }
}

#[test]
fn shard_events_reach_the_room_under_its_names() {
    let mut hall = Hall::new(10);
    hall.open("ada", 1, PUBLISH).unwrap();
    let transport = transport(&hall.conference.flush());
    let effects = hall.announce_camera("ada");
    let Some((_, Command::SetReceivers(_, receivers))) = effects.commands.first() else { panic!("{effects:?}") };
    hall.conference.shard_event(&Event::Connected { transport, profile: SrtpProfile::AeadAes128Gcm });
    let seen = Event::LayerSeen { track: receivers[0].track, layer: 1, codec: Codec::Vp8, ssrc: 9, repair_ssrc: 0 };
    hall.conference.shard_event(&seen);
    let messages: Vec<NodeToRoom> = hall.conference.flush().messages.into_iter().map(|(_, message)| message).collect();
    assert!(
        matches!(
            &messages[..],
            [NodeToRoom::MediaState { state: MediaState::Connected, .. }, NodeToRoom::TrackReceived { media, .. }]
                if media.layers[1].ssrc == 9
        ),
        "{messages:?}"
    );

    hall.conference.shard_event(&Event::Failed { transport, reason: FailReason::ConsentLapsed });
    let messages = hall.conference.flush().messages;
    assert!(matches!(messages[..], [(_, NodeToRoom::MediaState { state: MediaState::Failed, .. })]), "{messages:?}");
    assert_eq!((hall.conference.session_count(), hall.conference.track_count()), (0, 0));
    hall.conference.shard_event(&seen);
    assert!(hall.conference.flush().messages.is_empty(), "late events of what is gone");
}

#[test]
fn speakers_are_told_together_as_they_change() {
    let mut hall = Hall::new(10);
    hall.open("ada", 1, PUBLISH).unwrap();
    hall.conference.flush();
    let effects = hall.announce_camera("ada");
    let Some((_, Command::SetReceivers(_, receivers))) = effects.commands.first() else { panic!("{effects:?}") };
    let track = receivers[0].track;
    let mut told = |steps: &[u8]| {
        steps.iter().for_each(|step| hall.conference.shard_event(&Event::Loudness { track, step: *step }));
        hall.conference.flush().messages.into_iter().map(|(_, message)| message).collect::<Vec<_>>()
    };
    let speakers = |step| speaks("ada", step, vec![]);
    assert_eq!(told(&[3, 5]), [speakers(5)]);
    assert_eq!(told(&[7, 5]), []);
    assert_eq!(told(&[2]), [speakers(2)]);
    let retract = RoomToNode::RetractTrack { session: key("ada", 1), track: TrackSid::try_from("TR_VCcam").unwrap() };
    let messages: Vec<_> = hall.tell(retract).messages.into_iter().map(|(_, message)| message).collect();
    assert!(messages.contains(&speakers(0)), "{messages:?}");
}

fn speaks(who: &str, step: u8, newcomers: Vec<SessionKey>) -> NodeToRoom {
    NodeToRoom::Speakers { speakers: vec![Speaking { session: key(who, 1), step }], newcomers }
}

#[test]
fn who_is_new_is_told_who_speaks_already() {
    let mut hall = Hall::new(10);
    hall.open("ada", 1, PUBLISH).unwrap();
    let transport = transport(&hall.conference.flush());
    let effects = hall.announce_camera("ada");
    let Some((_, Command::SetReceivers(_, receivers))) = effects.commands.first() else { panic!("{effects:?}") };
    let track = receivers[0].track;
    hall.conference.shard_event(&Event::Connected { transport, profile: SrtpProfile::AeadAes128Gcm });
    let mut present = |step| {
        hall.conference.shard_event(&Event::Loudness { track, step });
        hall.conference.flush();
        hall.tell(RoomToNode::TellQuality { newcomers: vec![key("eve", 1)] });
        hall.conference.assess();
        let messages = hall.conference.flush().messages.into_iter().map(|(_, message)| message);
        messages.filter(|message| matches!(message, NodeToRoom::Speakers { .. })).collect::<Vec<_>>()
    };
    assert_eq!(present(5), [speaks("ada", 5, vec![key("eve", 1)])]);
    assert_eq!(present(0), []);
}

#[test]
fn quality_is_told_as_it_changes_and_whole_to_who_is_new() {
    let mut hall = Hall::new(10);
    hall.open("ada", 1, PUBLISH).unwrap();
    let hers = transport(&hall.conference.flush());
    hall.announce_camera("ada");
    hall.open("bob", 1, JOIN).unwrap();
    let his = transport(&hall.conference.flush());
    let assess = |hall: &mut Hall| {
        hall.conference.assess();
        let messages = hall.conference.flush().messages.into_iter().map(|(_, message)| message);
        messages.filter(|message| matches!(message, NodeToRoom::ConnectionQuality { .. })).collect::<Vec<_>>()
    };
    let reach = |who, score| SessionQuality { session: key(who, 1), score };
    assert_eq!(assess(&mut hall), [], "nobody is connected");
    for transport in [hers, his] {
        hall.conference.shard_event(&Event::Connected { transport, profile: SrtpProfile::AeadAes128Gcm });
    }
    let [NodeToRoom::ConnectionQuality { changed, .. }] = &assess(&mut hall)[..] else { panic!() };
    assert!(
        changed.contains(&reach("ada", Some(100))) && changed.contains(&reach("bob", Some(100))) && changed.len() == 2
    );
    assert_eq!(assess(&mut hall), []);

    let told = |changed, same, newcomers| [NodeToRoom::ConnectionQuality { changed, same, newcomers }];
    hall.conference.shard_event(&Event::Score { transport: hers, score: 30 });
    assert_eq!(assess(&mut hall), told(vec![reach("ada", Some(30))], vec![], vec![]));
    hall.subscribe("bob", "ada");
    let offer = Description { kind: DescriptionKind::Offer, id: 2, sdp: JOIN.to_owned() };
    hall.tell(RoomToNode::Offer { session: key("bob", 1), description: offer });
    assert_eq!(assess(&mut hall), told(vec![], vec![reach("ada", Some(30))], vec![key("bob", 1)]));
    hall.tell(RoomToNode::TellQuality { newcomers: vec![key("eve", 1)] });
    assert_eq!(assess(&mut hall), told(vec![], vec![reach("ada", Some(30))], vec![key("eve", 1)]), "she is elsewhere");
    assert_eq!(assess(&mut hall), []);
    hall.conference.shard_event(&Event::Disconnected(hers));
    assert_eq!(assess(&mut hall), told(vec![reach("ada", None)], vec![], vec![]));
}

#[test]
fn a_newer_session_replaces_the_older_and_not_the_other_way_round() {
    let mut hall = Hall::new(10);
    hall.open("ada", 2, JOIN).unwrap();
    let first = transport(&hall.conference.flush());
    assert_eq!(hall.open("ada", 2, JOIN), Err(RefusalReason::BadToken));
    assert_eq!(hall.open("ada", 1, JOIN), Err(RefusalReason::BadToken));
    assert!(hall.conference.flush().commands.is_empty());
    hall.open("ada", 3, JOIN).unwrap();
    let effects = hall.conference.flush();
    assert!(matches!(effects.commands[0], (_, Command::Close(transport)) if transport == first));
    assert_eq!(hall.conference.sessions_of(&hall.room), [key("ada", 3)]);
    let stale = RoomToNode::CloseSession { session: key("ada", 2), quietly: false };
    assert!(hall.tell(stale).commands.is_empty(), "a message of an older generation is dropped");
    assert_eq!(hall.conference.session_count(), 1);
}

#[test]
fn limits_and_draining_refuse_new_sessions() {
    let mut hall = Hall::new(1);
    hall.open("ada", 1, JOIN).unwrap();
    assert_eq!(hall.open("bob", 1, JOIN), Err(RefusalReason::NoCapacity));
    assert_eq!(hall.open("ada", 2, JOIN), Ok(()), "replacing takes no more room");
    hall.conference.drain();
    assert_eq!(hall.open("ada", 3, JOIN), Ok(()), "its room is here still");
    let room = hall.room.clone();
    hall.conference.close_room(&room);
    assert_eq!(hall.open("ada", 4, JOIN), Err(RefusalReason::Draining));
}

#[test]
fn sessions_the_room_does_not_know_are_closed() {
    let mut hall = Hall::new(10);
    hall.open("ada", 1, JOIN).unwrap();
    hall.open("bob", 1, JOIN).unwrap();
    let room = hall.room.clone();
    hall.conference.reconcile(&room, &[key("bob", 1), key("eve", 1)]);
    assert_eq!(hall.conference.sessions_of(&room), [key("bob", 1)]);
    hall.conference.close_room(&room);
    assert_eq!(hall.conference.session_count(), 0);
    let closed = hall.conference.flush().commands.iter().filter(|(_, c)| matches!(c, Command::Close(_))).count();
    assert_eq!(closed, 2);
}

/// Where a session's transport was opened, and the port its answer names.
fn placed(effects: &Effects) -> (ShardIndex, u16) {
    let opened = |(shard, command): &(ShardIndex, Command)| matches!(command, Command::Open(_)).then_some(*shard);
    let shard = effects.commands.iter().find_map(opened).expect("a transport was opened");
    let (_, NodeToRoom::Answer { description, .. }) = &effects.messages[0] else { panic!("{effects:?}") };
    let candidate = description.sdp.lines().find(|line| line.starts_with("a=candidate:")).unwrap();
    (shard, candidate.split(' ').nth(5).unwrap().parse().unwrap())
}

#[test]
fn a_room_that_outgrows_its_shard_goes_on_on_another_port() {
    let mut hall = Hall::with_shards(2, 10);
    let mut shards = Vec::new();
    for who in ["ada", "bob", "eve", "sam"] {
        hall.open(who, 1, JOIN).unwrap();
        let (shard, port) = placed(&hall.conference.flush());
        assert_eq!(port, 7900 + u16::from(shard.0));
        shards.push(shard.0);
    }
    assert_eq!(shards, [0, 0, 1, 1]);
    let close = hall.tell(RoomToNode::CloseSession { session: key("bob", 1), quietly: false });
    assert!(matches!(close.commands[..], [(ShardIndex(0), Command::Close(_))]), "{close:?}");
    hall.open("ida", 1, JOIN).unwrap();
    assert_eq!(placed(&hall.conference.flush()).0, ShardIndex(0), "there is room at home again");
    hall.conference.measured(ShardIndex(0), 5_000);
    hall.open("ada", 2, JOIN).unwrap();
    assert_eq!(placed(&hall.conference.flush()).0, ShardIndex(1), "packets count too");
}

#[test]
fn rooms_begin_on_the_shard_with_the_least_load() {
    let mut hall = Hall::with_shards(2, 10);
    for (room, expected) in [("hall", 0), ("attic", 1), ("cellar", 0)] {
        hall.room = RoomName::try_from(room).unwrap();
        hall.open("ada", 1, JOIN).unwrap();
        assert_eq!(placed(&hall.conference.flush()).0, ShardIndex(expected));
    }
}

#[test]
fn a_node_that_cannot_keep_up_refuses_new_sessions_until_it_can() {
    let mut hall = Hall::with_shards(2, 100);
    let (first, second) = (ShardIndex(0), ShardIndex(1));
    hall.open("ada", 1, JOIN).unwrap();
    hall.conference.set_overloaded(first, true);
    hall.open("bob", 1, JOIN).unwrap();
    hall.conference.set_overloaded(second, true);
    assert_eq!(hall.open("eve", 1, JOIN), Err(RefusalReason::NoCapacity));
    hall.open("bob", 2, JOIN).unwrap();
    hall.conference.set_overloaded(first, false);
    hall.open("eve", 1, JOIN).unwrap();
}
