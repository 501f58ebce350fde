//! Frames of two clients and a node at a room: each begins with a letter and ends with an empty line or two. Every event
//! is handled twice, by the room that lives on and by one restored from its rows.
#![no_main]

use std::collections::{BTreeMap, HashSet};

use edge_signal::room::Room;
use edge_signal::room::effect::{Effect, TABLES};
use edge_signal::room::event::{ConnectionId, Context, Event, JoinAttempt, UnixMs};
use libfuzzer_sys::fuzz_target;
use livekit_protocol::signal_response::Message as Answered;
use livekit_protocol::{ClientInfo, ConnectionSettings, JoinRequest, SignalRequest};
use prost::Message;
use shared::claims::{AccessClaims, VideoGrant};
use shared::control::{CONTROL_VERSION, NodeToRoom, Placed};
use shared::ids::{NodeId, RANDOM_LEN, RegionName, RoomName};

const START: u64 = 1_795_219_620_000;
/// Most frames of a story.
const MAX_FRAMES: usize = 64;
const SEPARATOR: &[u8] = b"\n\n\n";

fuzz_target!(|input: &[u8]| {
    let mut world = World::new();
    let mut rest = input;
    for _ in 0..MAX_FRAMES {
        let end = rest.windows(SEPARATOR.len()).position(|window| window == SEPARATOR);
        let (frame, tail) = end.map_or((rest, &[][..]), |end| (&rest[..end], &rest[end + SEPARATOR.len()..]));
        rest = tail;
        let Some((who, frame)) = frame.split_first() else { break };
        world.frame(*who, frame);
    }
    world.pass();
});

struct World {
    room: Room,
    now: UnixMs,
    rows: BTreeMap<(&'static str, String), String>,
    open: HashSet<ConnectionId>,
    sids: Vec<String>,
    linked: bool,
    events: u64,
}

fn node() -> NodeId {
    NodeId::from_random([1; RANDOM_LEN])
}

fn connection(at: usize) -> ConnectionId {
    ConnectionId(format!("c{at}"))
}

impl World {
    fn new() -> Self {
        let now = UnixMs(START);
        let room = Room::new(RoomName::try_from("r").unwrap(), Context { now, seed: [9; 32] });
        let (rows, open, sids) = (BTreeMap::new(), HashSet::new(), Vec::new());
        let mut world = Self { room, now, rows, open, sids, linked: false, events: 0 };
        // One with a single connection, one with two.
        for (at, single_peer_connection) in [true, false].into_iter().enumerate() {
            let video = VideoGrant { room_join: true, room: "r".into(), ..VideoGrant::default() };
            let attempt = JoinAttempt {
                room: RoomName::try_from("r").unwrap(),
                claims: AccessClaims {
                    iss: "devkey".into(),
                    sub: format!("client-{at}"),
                    exp: START / 1000 + 3600,
                    video: Some(video),
                    ..AccessClaims::default()
                },
                request: JoinRequest {
                    client_info: Some(ClientInfo { sdk: 1, protocol: 17, ..ClientInfo::default() }),
                    connection_settings: Some(ConnectionSettings { auto_subscribe: true, ..Default::default() }),
                    ..JoinRequest::default()
                },
                single_peer_connection,
                place: None,
            };
            let admission = world.room.admit(world.context(), attempt).unwrap();
            world.sids.push(String::from(admission.participant.clone()));
            let placed = admission.place.is_some().then(|| Placed { node: node(), region: region(), piped_at: None });
            world.open.insert(connection(at));
            world.step(Event::Joined { connection: connection(at), admission: Box::new(admission), placed });
        }
        world.link();
        world
    }

    fn frame(&mut self, who: u8, frame: &[u8]) {
        let at = usize::from(who & 1 == 0);
        match who {
            b'a' | b'b' => {
                let message = std::str::from_utf8(frame).ok().and_then(|text| serde_json::from_str(text).ok());
                if let Some(message) = &message {
                    let message: &SignalRequest = message;
                    let again = SignalRequest::decode(message.encode_to_vec().as_slice());
                    assert_eq!(again.as_ref(), Ok(message), "what is read is written the same");
                }
                self.client(at, message);
            }
            b'A' | b'B' => self.client(at, SignalRequest::decode(frame).ok()),
            b'n' => {
                let Ok(mut text) = String::from_utf8(frame.to_vec()) else { return };
                for (name, sid) in ["$A", "$B"].iter().zip(&self.sids) {
                    text = text.replace(name, sid);
                }
                if let Ok(message) = serde_json::from_str::<NodeToRoom>(&text) {
                    let again = serde_json::to_string(&message).unwrap();
                    assert_eq!(serde_json::from_str::<NodeToRoom>(&again).unwrap(), message);
                    self.step(Event::NodeMessage { node: node(), message: Box::new(message) });
                }
            }
            b'l' if self.linked => {
                // The room learns of a closed socket from the event.
                self.step(Event::NodeGone { node: node() });
                self.linked = false;
            }
            b'l' => self.link(),
            b'x' | b'y' => {
                self.step(Event::ClientGone { connection: connection(at) });
                self.open.remove(&connection(at));
            }
            b't' => self.pass(),
            _ => {}
        }
    }

    fn client(&mut self, at: usize, message: Option<SignalRequest>) {
        let connection = connection(at);
        if !self.open.contains(&connection) {
            return;
        }
        self.step(match message {
            Some(message) => Event::ClientMessage { connection, message: Box::new(message) },
            None => Event::ClientGarbage { connection },
        });
    }

    fn link(&mut self) {
        self.linked = true;
        self.step(Event::NodeLinked { node: node(), region: region(), rejoin_ticket: "ticket".into() });
        let hello =
            NodeToRoom::Hello { control_version: CONTROL_VERSION, sessions: Vec::new(), pipes: None, place: None };
        self.step(Event::NodeMessage { node: node(), message: Box::new(hello) });
    }

    /// Half a minute passes, with an alarm at each deadline.
    fn pass(&mut self) {
        let end = self.now.after(30_000);
        for alarms in 0.. {
            let Some(deadline) = self.room.deadline().filter(|at| *at <= end) else { break };
            assert!(alarms < 1000, "the room would wake for ever");
            self.now = self.now.max(deadline);
            self.step(Event::Alarm);
        }
        self.now = end;
    }

    fn context(&self) -> Context {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.events.to_le_bytes());
        Context { now: self.now, seed }
    }

    fn step(&mut self, event: Event) {
        self.events += 1;
        let context = self.context();
        let rows = self.rows.iter().map(|((table, key), value)| ((*table).to_owned(), key.clone(), value.clone()));
        let open: Vec<_> = self.open.iter().cloned().collect();
        let linked: Vec<_> = self.linked.then(node).into_iter().collect();
        let twin = (!self.rows.is_empty()).then(|| Room::restore(self.now, rows, &open, &linked).unwrap());
        let effects = self.room.handle(context, event.clone());
        let changes = self.room.changes();
        if let Some(mut twin) = twin {
            assert_eq!(twin.handle(context, event), effects, "a restored room acts otherwise");
            assert_eq!(twin.deadline(), self.room.deadline(), "a restored room wakes at another time");
        }
        for change in changes {
            let table = TABLES.into_iter().find(|table| *table == change.table).unwrap();
            match change.value {
                Some(value) => self.rows.insert((table, change.key), value),
                None => self.rows.remove(&(table, change.key)),
            };
        }
        assert!(self.rows.len() <= 1000, "{} rows of two clients", self.rows.len());
        for effect in effects {
            match effect {
                Effect::ToClient { connection, message } => {
                    assert!(self.open.contains(&connection), "sent to who is gone");
                    if let Some(Answered::Join(join)) = &message.message {
                        assert!(self.sids.contains(&join.participant.as_ref().unwrap().sid));
                    }
                }
                Effect::CloseClient { connection } => {
                    self.open.remove(&connection);
                }
                Effect::RefreshToken { claims, .. } => assert_eq!(claims.video.unwrap_or_default().room, "r"),
                Effect::ToNode { node: to, .. } | Effect::OpenSession { node: to, .. } => {
                    assert!(self.linked && to == node(), "sent to a node that is not linked");
                }
                _ => {}
            }
        }
    }
}

fn region() -> RegionName {
    RegionName::try_from("local-a").unwrap()
}
