//! What shards are told, for every order in which things come.

use arrayvec::ArrayVec;
use shared::control::{Delivery, TrackKind};
use shared::ids::{Identity, ParticipantSid};

use super::*;
use crate::media::api::{
    CertificateTurn, DataRole, ExtensionIds, HandshakeRole, IceCredentials, Speaker, SpeakerKey, TransportConfig,
};

const A: ShardIndex = ShardIndex(0);
const B: ShardIndex = ShardIndex(1);
const C: ShardIndex = ShardIndex(2);
const ROOM: RoomKey = RoomKey(1);
const ADA: TransportKey = TransportKey(10);
const BOB: TransportKey = TransportKey(11);
const EVE: TransportKey = TransportKey(12);
const CAMERA: TrackKey = TrackKey(100);
const SCREEN: TrackKey = TrackKey(101);

fn open(key: TransportKey) -> Command {
    Command::Open(Box::new(TransportConfig {
        key,
        room: ROOM,
        speaker: Speaker {
            key: SpeakerKey(key.0),
            participant: ParticipantSid::try_from("PA_ada").unwrap(),
            identity: Identity::try_from("ada").unwrap(),
            can_publish_data: true,
            hidden: false,
            agent: false,
        },
        local: IceCredentials { ufrag: "u".into(), password: "p".into() },
        fingerprint: None,
        certificate: CertificateTurn::First,
        handshake: HandshakeRole::Server,
        data: DataRole::Both,
        pipe: None,
    }))
}

fn receiver(track: TrackKey) -> Receiver {
    Receiver {
        track,
        kind: TrackKind::Video,
        mid: "0".into(),
        payload_types: Vec::new(),
        extensions: ExtensionIds::default(),
        ssrcs: ArrayVec::new(),
        rids: ArrayVec::new(),
        muted: false,
    }
}

fn sender(source: TrackKey, ssrc: u32) -> Sender {
    Sender {
        source,
        kind: TrackKind::Video,
        mid: "1".into(),
        ssrc,
        rtx_ssrc: None,
        described: true,
        payload_types: Vec::new(),
        extensions: ExtensionIds::default(),
        playout_delay: [0; 3],
        cname: String::new(),
        delivery: Delivery::default(),
        only: None,
    }
}

/// What the commands make of it: tracks relayed by publisher and shard, and the others of a room's shards.
#[derive(Default)]
struct Told {
    relays: Relays,
    tracks: BTreeMap<(u64, ShardIndex), Vec<TrackKey>>,
    rooms: BTreeMap<ShardIndex, Vec<ShardIndex>>,
    commands: usize,
}

impl Told {
    fn new() -> Self {
        Self { relays: Relays::new(3), ..Self::default() }
    }

    fn tell(&mut self, shard: ShardIndex, command: Command) {
        self.relays.note(shard, &command);
        for (to, command) in self.relays.take_commands() {
            self.commands += 1;
            match command {
                Command::SetRelayed { transport, room: ROOM, from, receivers } => {
                    assert_ne!(from, to);
                    let tracks: Vec<TrackKey> = receivers.iter().map(|receiver| receiver.track).collect();
                    let before = self.tracks.remove(&(transport.0, to)).unwrap_or_default();
                    assert_ne!(before, tracks, "nothing new");
                    if !tracks.is_empty() {
                        self.tracks.insert((transport.0, to), tracks);
                    }
                }
                Command::SetRoomShards(ROOM, others) => {
                    self.rooms.insert(to, others.iter().collect());
                    self.rooms.retain(|_, others| !others.is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn relayed(&self) -> Vec<(u64, ShardIndex, Vec<TrackKey>)> {
        self.tracks.iter().map(|((transport, shard), tracks)| (*transport, *shard, tracks.clone())).collect()
    }
}

#[test]
fn tracks_cross_to_who_needs_them_whatever_comes_first() {
    let steps = || {
        [
            (A, Command::SetReceivers(ADA, vec![receiver(CAMERA), receiver(SCREEN)])),
            (A, Command::SetSenders(BOB, vec![sender(SCREEN, 1)])),
            (B, Command::SetSenders(EVE, vec![sender(CAMERA, 2), sender(CAMERA, 3)])),
        ]
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut told = Told::new();
        told.tell(A, open(ADA));
        told.tell(A, open(BOB));
        told.tell(B, open(EVE));
        order.iter().for_each(|step| {
            let (shard, command) = steps()[*step].clone();
            told.tell(shard, command);
        });
        assert_eq!(told.relayed(), [(ADA.0, B, vec![CAMERA])], "{order:?}");
        told.tell(B, Command::SetSenders(EVE, vec![sender(CAMERA, 3)]));
        assert_eq!(told.relayed(), [(ADA.0, B, vec![CAMERA])], "one sender needs it still");
        told.tell(B, Command::Close(EVE));
        assert_eq!(told.relayed(), []);
    }
}

#[test]
fn a_publisher_that_moves_takes_its_tracks_along() {
    let mut told = Told::new();
    told.tell(A, open(ADA));
    told.tell(A, Command::SetReceivers(ADA, vec![receiver(CAMERA)]));
    told.tell(B, open(BOB));
    told.tell(B, Command::SetSenders(BOB, vec![sender(CAMERA, 1)]));
    told.tell(A, Command::Close(ADA));
    assert_eq!(told.relayed(), []);
    told.tell(C, open(EVE));
    told.tell(C, Command::SetReceivers(EVE, vec![receiver(CAMERA)]));
    assert_eq!(told.relayed(), [(EVE.0, B, vec![CAMERA])]);
    told.tell(C, Command::SetReceivers(EVE, Vec::new()));
    assert_eq!(told.relayed(), []);
    assert_eq!(told.relays.publishers.len(), 0);
}

#[test]
fn muting_is_told_to_all_who_forward_the_track() {
    let mut told = Told::new();
    told.tell(A, open(ADA));
    told.tell(A, Command::SetReceivers(ADA, vec![receiver(CAMERA)]));
    told.tell(B, open(BOB));
    told.tell(B, Command::SetSenders(BOB, vec![sender(CAMERA, 1)]));
    told.relays.note(A, &Command::SetMuted(CAMERA, true));
    let muted = told.relays.take_commands();
    assert!(matches!(muted[..], [(B, Command::SetMuted(CAMERA, true))]), "{muted:?}");
    let before = told.commands;
    told.tell(A, Command::SetReceivers(ADA, vec![Receiver { muted: true, ..receiver(CAMERA) }]));
    assert_eq!(told.commands, before, "it knows");
}

#[test]
fn a_rooms_shards_know_each_other() {
    let mut told = Told::new();
    told.tell(A, open(ADA));
    assert!(told.rooms.is_empty());
    told.tell(B, open(BOB));
    told.tell(C, open(EVE));
    let all = BTreeMap::from([(A, vec![B, C]), (B, vec![A, C]), (C, vec![A, B])]);
    assert_eq!(told.rooms, all);
    told.tell(B, Command::Close(BOB));
    assert_eq!(told.rooms, BTreeMap::from([(A, vec![C]), (C, vec![A])]));
    told.tell(C, Command::Close(EVE));
    told.tell(A, Command::Close(ADA));
    assert!(told.rooms.is_empty() && told.relays.told.is_empty() && told.relays.transports.is_empty());
}
