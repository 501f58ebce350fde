//! Clients, nodes and a fleet around one room. Every event is handled twice: by the room that lives on, and by one
//! restored from the rows written so far; their effects, rows and deadlines have to be the same.

use std::collections::{BTreeMap, BTreeSet};

use edge_signal::agents::link::{Granted, JobKind, News, Standing, Wishes};
use edge_signal::refusal::{Reason, Refusal};
use edge_signal::room::Room;
use edge_signal::room::call::Heard;
use edge_signal::room::effect::{DirectoryEntry, Effect, RowChange, TABLES};
use edge_signal::room::event::{Admission, ConnectionId, Context, Event, UnixMs};
use edge_signal::room::forward::Word;
use edge_signal::room::service::{Answer, Error, Request};
use edge_signal::room::transfer::{Transfer, Welcome};
use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message;
use shared::claims::AccessClaims;
use shared::control::{
    CONTROL_VERSION, Delivery, Description, DescriptionKind, LayerMedia, MediaState, MidTrack, NodeToRoom,
    PlaceRequest, Placed, TrackMedia,
};
use shared::ids::{AgentName, Identity, JobId, NodeId, ParticipantSid, RegionName, RoomName, SessionKey, TrackSid};

use crate::app_server::AppServer;
use crate::virtual_client::VirtualClient;
use crate::virtual_node::VirtualNode;
pub(crate) use crate::who::Who;

pub(crate) const START: UnixMs = UnixMs(1_795_219_620_000);

pub(crate) struct World {
    pub(crate) room: Room,
    pub(crate) now: UnixMs,
    pub(crate) clients: BTreeMap<ConnectionId, VirtualClient>,
    pub(crate) nodes: BTreeMap<NodeId, VirtualNode>,
    /// What the fleet answers.
    pub(crate) fleet: Option<NodeId>,
    /// What the deployment offers who joins or comes back.
    pub(crate) ice_servers: Vec<proto::IceServer>,
    pub(crate) asked_fleet: Vec<PlaceRequest>,
    pub(crate) directory: Vec<Option<DirectoryEntry>>,
    pub(crate) tokens: Vec<AccessClaims>,
    /// Identity, tokens of before when, until when remembered.
    pub(crate) revoked: Vec<(Identity, u64, u64)>,
    /// Who left, why, and after how many seconds, as the operator is told.
    pub(crate) left: Vec<(ParticipantSid, DisconnectReason, u64)>,
    /// Who was brought to another room: what its client was told, and the claims of its token there.
    pub(crate) moved: Vec<(proto::RoomMovedResponse, AccessClaims)>,
    pub(crate) app_server: AppServer,
    /// What other rooms are to hear.
    pub(crate) words: Vec<(RoomName, Word)>,
    /// What participants said of calls.
    pub(crate) calls: Vec<(String, Heard)>,
    /// The agents' object was told that the room is over.
    pub(crate) agents_over: bool,
    answer: Option<Result<Answer, Error>>,
    rows: BTreeMap<(String, String), String>,
    events: u64,
    sockets: u64,
}

impl World {
    pub(crate) fn new() -> Self {
        let name = RoomName::try_from("r").unwrap();
        let fleet = node_id(1);
        Self {
            room: Room::new(name, Context { now: START, seed: [9; 32] }),
            now: START,
            clients: BTreeMap::new(),
            nodes: BTreeMap::from([(fleet.clone(), VirtualNode::default())]),
            fleet: Some(fleet),
            ice_servers: Vec::new(),
            asked_fleet: Vec::new(),
            directory: Vec::new(),
            tokens: Vec::new(),
            revoked: Vec::new(),
            left: Vec::new(),
            moved: Vec::new(),
            app_server: AppServer::default(),
            words: Vec::new(),
            calls: Vec::new(),
            agents_over: false,
            answer: None,
            rows: BTreeMap::new(),
            events: 0,
            sockets: 0,
        }
    }

    /// Another room: no id of the one is one of the other.
    pub(crate) fn another() -> Self {
        Self { events: 1 << 32, ..Self::new() }
    }

    /// The same, of another name.
    pub(crate) fn another_named(name: &str) -> Self {
        let room = Room::new(RoomName::try_from(name).unwrap(), Context { now: START, seed: [8; 32] });
        Self { room, ..Self::another() }
    }

    // --- clients

    /// Joins, and has the node that the fleet chose dial in. The client's connection.
    pub(crate) fn join(&mut self, who: &Who) -> ConnectionId {
        let connection = self.try_join(who).unwrap();
        self.link_expected();
        connection
    }

    pub(crate) fn admit(&mut self, who: &Who) -> Result<Admission, Refusal> {
        self.events += 1;
        let context = self.context();
        let admission = self.room.admit(context, who.attempt());
        if let Some(twin) = self.twin() {
            assert_eq!(format!("{admission:?}"), format!("{:?}", twin.admit(context, who.attempt())));
        }
        admission
    }

    /// Joins; the node chosen does not dial in.
    pub(crate) fn try_join(&mut self, who: &Who) -> Result<ConnectionId, Refusal> {
        let admission = self.admit(who)?;
        self.enter(who, admission)
    }

    pub(crate) fn enter(&mut self, who: &Who, mut admission: Admission) -> Result<ConnectionId, Refusal> {
        admission.ice_servers.clone_from(&self.ice_servers);
        let mut placed = None;
        if let Some(request) = &admission.place {
            let unavailable = Refusal::new(Reason::NoNode, "no node");
            let node = self.fleet.clone().ok_or(unavailable)?;
            if !request.serving.contains(&node) {
                self.nodes.entry(node.clone()).or_default().open(request.first.as_ref().unwrap());
            }
            let piped_at = self.nodes.get(&node).and_then(|node| node.place);
            placed = Some(Placed { piped_at, ..self::placed(node) });
        }
        self.sockets += 1;
        let connection = ConnectionId(format!("c{}", self.sockets));
        let protocol = who.request.client_info.as_ref().unwrap().protocol.try_into().unwrap();
        self.clients.insert(connection.clone(), VirtualClient::new(protocol));
        self.step(Event::Joined { connection: connection.clone(), admission: Box::new(admission), placed });
        Ok(connection)
    }

    /// The client of `before` asks to go on, on a new socket.
    pub(crate) fn resume(&mut self, before: &ConnectionId, who: &Who) -> ConnectionId {
        let client = self.clients[before].resuming();
        self.resume_as(client, who)
    }

    /// A client that was in a room before asks to go on in this one.
    pub(crate) fn resume_as(&mut self, client: VirtualClient, who: &Who) -> ConnectionId {
        let mut who = who.clone();
        who.request.reconnect = true;
        who.request.participant_sid.clone_from(&client.sid);
        let mut admission = self.admit(&who).unwrap();
        admission.ice_servers.clone_from(&self.ice_servers);
        assert!(admission.place.is_none(), "a resume asks for no node");
        self.sockets += 1;
        let connection = ConnectionId(format!("c{}", self.sockets));
        self.clients.insert(connection.clone(), client);
        self.step(Event::Joined { connection: connection.clone(), admission: Box::new(admission), placed: None });
        connection
    }

    /// Joins and connects its media.
    pub(crate) fn join_active(&mut self, who: &Who) -> ConnectionId {
        let connection = self.join(who);
        self.media(&connection, MediaState::Connected);
        connection
    }

    pub(crate) fn say(&mut self, connection: &ConnectionId, message: Asked) {
        let message = Box::new(proto::SignalRequest { message: Some(message) });
        self.step(Event::ClientMessage { connection: connection.clone(), message });
    }

    /// Its socket breaks.
    pub(crate) fn cut(&mut self, connection: &ConnectionId) {
        self.clients.get_mut(connection).unwrap().closed = true;
        self.step(Event::ClientGone { connection: connection.clone() });
    }

    pub(crate) fn client(&mut self, connection: &ConnectionId) -> &mut VirtualClient {
        self.clients.get_mut(connection).unwrap()
    }

    /// What the client was sent since the last look.
    pub(crate) fn inbox(&mut self, connection: &ConnectionId) -> Vec<Message> {
        std::mem::take(&mut self.client(connection).inbox)
    }

    /// Forgets what all were sent so far.
    pub(crate) fn look_away(&mut self) {
        self.clients.values_mut().for_each(|client| client.inbox.clear());
    }

    /// The track's id, from `track_published`.
    pub(crate) fn add_track(&mut self, connection: &ConnectionId, request: proto::AddTrackRequest) -> Option<TrackSid> {
        let before = self.client(connection).inbox.len();
        self.say(connection, Asked::AddTrack(request));
        self.client(connection).inbox[before..].iter().find_map(|message| match message {
            Message::TrackPublished(published) => {
                Some(TrackSid::try_from(published.track.as_ref().unwrap().sid.as_str()).unwrap())
            }
            _ => None,
        })
    }

    /// Announces a microphone and has its media arrive.
    pub(crate) fn publish(&mut self, connection: &ConnectionId, cid: &str) -> TrackSid {
        let track = self.add_track(connection, microphone(cid)).unwrap();
        self.receive_track(connection, &track);
        track
    }

    /// The other room has taken it in.
    pub(crate) fn transferred(&mut self, transfer: &Transfer, welcome: &Welcome) -> Result<Answer, Error> {
        let (transfer, welcome) = (Box::new(transfer.clone()), Box::new(welcome.clone()));
        self.step(Event::Transferred { transfer, welcome });
        self.answer.take().expect("no answer")
    }

    // --- app servers

    pub(crate) fn ask(&mut self, request: Request) -> Result<Answer, Error> {
        self.step(Event::Request(Box::new(request)));
        self.answer.take().expect("no answer")
    }

    // --- the agents' object

    /// It hears what the room wants, and says what workers take. What it heard.
    pub(crate) fn grant(&mut self, served: &[(&str, JobKind)]) -> Option<Wishes> {
        let wishes = self.room.wishes()?;
        let mut granted = Granted::default();
        for name in wishes.watch.iter().flatten().cloned().chain(wishes.automatic.then(AgentName::unnamed)) {
            let kinds = served.iter().filter(|(served, _)| *served == name.as_str()).map(|(_, kind)| *kind).collect();
            granted.served.insert(name, kinds);
        }
        self.step(Event::AgentsGranted { wishes: Box::new(wishes.clone()), granted: Box::new(granted) });
        Some(wishes)
    }

    /// It says how a job stands.
    pub(crate) fn job_stands(&mut self, id: &str, standing: Standing) {
        let jobs = BTreeMap::from([(JobId::try_from(id).unwrap(), standing)]);
        let (room, sid) = (self.room.name().clone(), self.room.sid().clone());
        self.step(Event::AgentsNews(Box::new(News { room, sid, served: None, jobs })));
    }

    // --- nodes

    pub(crate) fn link_expected(&mut self) {
        let expected = |node: &NodeId| self.nodes.get(node).is_some_and(|n| !n.linked && !n.sessions.is_empty());
        if let Some(node) = self.fleet.clone().filter(expected) {
            self.link(&node);
        }
    }

    /// Dials in and says hello.
    pub(crate) fn link(&mut self, node: &NodeId) {
        self.dial(node);
        self.hello(node);
    }

    pub(crate) fn dial(&mut self, node: &NodeId) {
        let virtual_node = self.nodes.entry(node.clone()).or_default();
        virtual_node.linked = true;
        virtual_node.said_hello = false;
        self.step(Event::NodeLinked { node: node.clone(), region: region(), rejoin_ticket: "ticket".into() });
    }

    pub(crate) fn hello(&mut self, node: &NodeId) {
        let virtual_node = self.nodes.get_mut(node).unwrap();
        virtual_node.said_hello = true;
        let sessions = virtual_node.sessions.keys().cloned().collect();
        let pipes = (!virtual_node.knows_no_pipes).then(|| virtual_node.pipes.keys().copied().collect());
        let place = virtual_node.place;
        self.node_says(node, NodeToRoom::Hello { control_version: CONTROL_VERSION, sessions, pipes, place });
    }

    pub(crate) fn unlink(&mut self, node: &NodeId) {
        self.nodes.get_mut(node).unwrap().linked = false;
        self.step(Event::NodeGone { node: node.clone() });
    }

    /// The process dies: no link, no sessions.
    pub(crate) fn kill(&mut self, node: &NodeId) {
        let killed = self.nodes.get_mut(node).unwrap();
        killed.sessions.clear();
        killed.pipes.clear();
        self.unlink(node);
    }

    pub(crate) fn node_says(&mut self, node: &NodeId, message: NodeToRoom) {
        self.step(Event::NodeMessage { node: node.clone(), message: Box::new(message) });
    }

    /// Where a client's session is.
    pub(crate) fn session_of(&mut self, connection: &ConnectionId) -> (NodeId, SessionKey) {
        let sid = self.client(connection).sid.clone();
        self.find_session(&sid).expect("no session on any node")
    }

    pub(crate) fn find_session(&self, sid: &str) -> Option<(NodeId, SessionKey)> {
        let all =
            self.nodes.iter().flat_map(|(id, node)| node.sessions.keys().map(move |key| (id.clone(), key.clone())));
        all.filter(|(_, key)| key.participant.as_str() == sid).max_by_key(|(_, key)| key.generation)
    }

    pub(crate) fn media(&mut self, connection: &ConnectionId, state: MediaState) {
        let (node, session) = self.session_of(connection);
        self.node_says(&node, NodeToRoom::MediaState { session, state, srtp: None });
    }

    pub(crate) fn receive_track(&mut self, connection: &ConnectionId, track: &TrackSid) {
        let (node, session) = self.session_of(connection);
        let is_video = track.as_str().starts_with("TR_V");
        let mime = if is_video { "video/VP8".to_owned() } else { media("7", 1).mime };
        let media = TrackMedia { mime, ..media("7", 1) };
        let message = NodeToRoom::TrackReceived { session, track: track.clone(), media };
        self.node_says(&node, message);
    }

    pub(crate) fn answer(&mut self, connection: &ConnectionId, id: u32, mids: &[(&str, &TrackSid)]) {
        let (node, session) = self.session_of(connection);
        let description = description(DescriptionKind::Answer, id);
        self.node_says(&node, NodeToRoom::Answer { session, description, mid_to_track: mid_tracks(mids) });
    }

    pub(crate) fn served(&mut self, connection: &ConnectionId) -> Vec<TrackSid> {
        let (node, session) = self.session_of(connection);
        self.nodes[&node].sessions[&session].served.keys().cloned().collect()
    }

    pub(crate) fn delivery(&mut self, connection: &ConnectionId, track: &TrackSid) -> Delivery {
        let (node, session) = self.session_of(connection);
        self.nodes[&node].sessions[&session].served[track]
    }

    // --- time

    /// Lets time pass, with an alarm at each deadline.
    pub(crate) fn pass(&mut self, ms: u64) {
        let end = self.now.after(ms);
        while let Some(deadline) = self.room.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(deadline);
            let before = self.room.deadline();
            self.step(Event::Alarm);
            assert_ne!(before, self.room.deadline(), "the alarm changed nothing: the room would wake forever");
        }
        self.now = end;
    }

    // --- the oracle

    pub(crate) fn step(&mut self, event: Event) {
        self.events += 1;
        let context = self.context();
        let twin = self.twin();
        let effects = self.room.handle(context, event.clone());
        let changes = self.room.changes();
        if let Some(mut twin) = twin {
            assert_eq!(twin.handle(context, event), effects, "a restored room acts otherwise");
            assert_eq!(parsed(&twin.changes()), parsed(&changes), "a restored room writes otherwise");
            assert_eq!(twin.deadline(), self.room.deadline(), "a restored room wakes at another time");
            assert_eq!(twin.wishes(), self.room.wishes(), "a restored room wants other agents");
        }
        self.write(changes);
        for effect in effects {
            self.carry_out(effect);
        }
        self.check();
    }

    fn write_changes(&mut self) {
        let changes = self.room.changes();
        self.write(changes);
    }

    fn write(&mut self, changes: Vec<RowChange>) {
        for change in changes {
            assert!(TABLES.contains(&change.table));
            match change.value {
                Some(value) => self.rows.insert((change.table.to_owned(), change.key), value),
                None => self.rows.remove(&(change.table.to_owned(), change.key)),
            };
        }
    }

    fn twin(&self) -> Option<Room> {
        (!self.rows.is_empty()).then(|| self.restored())
    }

    /// The room as the rows and open sockets have it.
    pub(crate) fn restored(&self) -> Room {
        let rows = self.rows.iter().map(|((table, key), value)| (table.clone(), key.clone(), value.clone()));
        // Sockets that the room does not know to be closed yet: it learns of them from the event at hand.
        let open: Vec<_> = self.clients.keys().cloned().collect();
        let linked: Vec<_> = self.nodes.keys().cloned().collect();
        Room::restore(self.now, rows, &open, &linked).unwrap()
    }

    /// The object and all its sockets die (a restart of workerd); rows stay.
    pub(crate) fn restart(&mut self) {
        self.clients.values_mut().for_each(|client| client.closed = true);
        self.nodes.values_mut().for_each(|node| node.linked = false);
        let rows = self.rows.iter().map(|((table, key), value)| (table.clone(), key.clone(), value.clone()));
        self.room = Room::restore(self.now, rows, &[], &[]).unwrap();
        self.write_changes();
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::ToClient { connection, message } => {
                self.clients.get_mut(&connection).unwrap().receive(message.message.clone().unwrap());
            }
            Effect::RefreshToken { connection, claims } => {
                self.clients.get_mut(&connection).unwrap().token();
                self.tokens.push(*claims);
            }
            Effect::RoomMoved { connection, claims, moved } => {
                self.clients.get_mut(&connection).unwrap().token();
                self.moved.push((*moved, *claims));
            }
            Effect::CloseClient { connection } => self.clients.get_mut(&connection).unwrap().close(),
            Effect::ToNode { node, message } => self.nodes.get_mut(&node).unwrap().receive(*message),
            Effect::OpenSession { node, session } => {
                let node = self.nodes.get_mut(&node).unwrap();
                assert!(node.linked && node.said_hello, "opened on a node that does not listen");
                node.open(&session);
            }
            Effect::RevokeTokens { identity, before, until, .. } => self.revoked.push((identity, before, until)),
            Effect::ToRoom { to, word } => self.words.push((to, *word)),
            Effect::Webhook(event) => self.app_server.hear(*event),
            Effect::Answer(answer) => assert!(self.answer.replace(*answer).is_none(), "answered twice"),
            Effect::Place(request) => self.asked_fleet.push(*request),
            Effect::Directory(entry) => self.directory.push(entry),
            Effect::CallHeard { id, heard } => self.calls.push((id, heard)),
            Effect::AgentsOver { sid } => {
                assert_eq!(sid, *self.room.sid());
                self.agents_over = true;
            }
            Effect::Left { participant, reason, seconds } => {
                assert!(!self.left.iter().any(|(sid, ..)| *sid == participant), "left twice");
                self.left.push((participant, reason, seconds));
            }
        }
    }

    /// What holds after every event.
    fn check(&self) {
        if !self.room.is_over() {
            self.check_jobs();
        }
        let row = |table: &str, key: &str| {
            let text = self.rows.get(&(table.to_owned(), key.to_owned()))?;
            Some(serde_json::from_str::<serde_json::Value>(text).unwrap())
        };
        let mut served: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((_, key), value) in self.rows.iter().filter(|((table, _), _)| table == "subscription") {
            let (subscriber, track) = key.split_once('/').unwrap();
            assert!(row("participant", subscriber).is_some(), "a subscription of nobody: {key}");
            if serde_json::from_str::<serde_json::Value>(value).unwrap()["served"] != true {
                continue;
            }
            let publication = row("publication", track).unwrap_or_else(|| panic!("a subscription to nothing: {key}"));
            assert_eq!(publication["visible"], true, "a subscription to a track nobody sees: {key}");
            assert_ne!(publication["publisher"], subscriber, "a subscription to an own track: {key}");
            served.entry(subscriber.to_owned()).or_default().push(track.to_owned());
        }
        for ((_, key), value) in self.rows.iter().filter(|((table, _), _)| table == "publication") {
            let publication: serde_json::Value = serde_json::from_str(value).unwrap();
            let publisher = row("participant", publication["publisher"].as_str().unwrap()).expect("a track of nobody");
            assert!(publisher["tracks"].as_array().unwrap().iter().any(|track| *track == key.as_str()));
        }
        for node in self.nodes.values().filter(|node| node.linked && node.said_hello) {
            for (key, session) in &node.sessions {
                let Some(known) = row("session", key.participant.as_str()) else { continue };
                if known["generation"] != key.generation.0 || known["media"] == "Ended" {
                    continue;
                }
                let expected = served.get(key.participant.as_str()).cloned().unwrap_or_default();
                let actual: Vec<_> = session.served.keys().map(ToString::to_string).collect();
                assert_eq!(actual, expected, "the node serves other tracks than the room believes");
            }
        }
    }

    /// Every job is of this room, and wanted once by a dispatch, or is to end.
    fn check_jobs(&self) {
        let of = |wanted: &'static str| self.rows.iter().filter(move |((table, _), _)| table == wanted);
        let parse = |text: &String| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut wanted = BTreeSet::new();
        for ((table, _), value) in of("job").chain(of("dispatch")) {
            assert_eq!(parse(value)["room"], self.room.sid().as_str(), "a {table} of another room");
        }
        for ((_, key), value) in of("job") {
            let job = parse(value);
            let dispatch = job["dispatch"].as_str().unwrap().to_owned();
            let is_there = self.rows.contains_key(&("dispatch".to_owned(), dispatch.clone()));
            assert!(is_there || job["ends"] == true, "a job of no dispatch: {key}");
            if job["ends"] == false {
                let once = wanted.insert((dispatch, job["kind"].to_string(), job["target"].to_string()));
                assert!(once, "two jobs for the same: {key}");
            }
        }
        for job in self.room.wishes().into_iter().flat_map(|wishes| wishes.launch) {
            assert!(self.rows.contains_key(&("job".to_owned(), job.id.clone())), "a wish without a row");
            assert_eq!(job.room.unwrap().sid, self.room.sid().as_str());
        }
    }

    fn context(&self) -> Context {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.events.to_be_bytes());
        Context { now: self.now, seed }
    }
}

fn parsed(changes: &[RowChange]) -> Vec<(&'static str, &str, Option<serde_json::Value>)> {
    let value = |text: &String| serde_json::from_str(text).unwrap();
    changes.iter().map(|change| (change.table, change.key.as_str(), change.value.as_ref().map(value))).collect()
}

pub(crate) fn node_id(number: u8) -> NodeId {
    NodeId::from_random([number; 12])
}

pub(crate) fn region() -> RegionName {
    RegionName::try_from("local-a").unwrap()
}

/// As the fleet names a node that takes no pipes.
pub(crate) fn placed(node: NodeId) -> Placed {
    Placed { node, region: region(), piped_at: None }
}

pub(crate) fn microphone(cid: &str) -> proto::AddTrackRequest {
    let source = proto::TrackSource::Microphone.into();
    proto::AddTrackRequest { cid: cid.into(), source, ..Default::default() }
}

pub(crate) fn camera(cid: &str) -> proto::AddTrackRequest {
    let layer = |(quality, width, height)| proto::VideoLayer { quality, width, height, ..Default::default() };
    let layers = [(0, 320, 180), (1, 640, 360), (2, 1280, 720)].map(layer).to_vec();
    let simulcast_codecs = vec![proto::SimulcastCodec { codec: "vp8".into(), cid: cid.into(), ..Default::default() }];
    let r#type = proto::TrackType::Video.into();
    proto::AddTrackRequest { r#type, layers, simulcast_codecs, ..microphone(cid) }
}

pub(crate) fn media(mid: &str, ssrc: u32) -> TrackMedia {
    let layers = vec![LayerMedia { rid: String::new(), spatial_layer: 0, ssrc, repair_ssrc: 0 }];
    TrackMedia { mid: mid.into(), mime: "audio/red".into(), sdp_cid: String::new(), layers }
}

pub(crate) fn description(kind: DescriptionKind, id: u32) -> Description {
    Description { kind, id, sdp: format!("v=0 {id}") }
}

pub(crate) fn session_description(kind: &str, id: u32) -> proto::SessionDescription {
    proto::SessionDescription { r#type: kind.into(), sdp: format!("v=0 {id}"), id, ..Default::default() }
}

pub(crate) fn mid_tracks(mids: &[(&str, &TrackSid)]) -> Vec<MidTrack> {
    mids.iter().map(|(mid, track)| MidTrack { mid: (*mid).into(), track: (*track).clone() }).collect()
}

/// Names of the messages, in order.
pub(crate) fn names(messages: &[Message]) -> Vec<&'static str> {
    messages.iter().map(name).collect()
}

fn name(message: &Message) -> &'static str {
    match message {
        Message::Join(_) => "join",
        Message::Reconnect(_) => "reconnect",
        Message::Mute(_) => "mute",
        Message::TrackUnpublished(_) => "track_unpublished",
        Message::Answer(_) => "answer",
        Message::Offer(_) => "offer",
        Message::Update(_) => "update",
        Message::TrackPublished(_) => "track_published",
        Message::Leave(_) => "leave",
        Message::RoomUpdate(_) => "room_update",
        Message::SubscriptionPermissionUpdate(_) => "subscription_permission_update",
        Message::RequestResponse(_) => "request_response",
        Message::TrackSubscribed(_) => "track_subscribed",
        Message::MediaSectionsRequirement(_) => "media_sections_requirement",
        Message::Pong(_) => "pong",
        Message::PongResp(_) => "pong_resp",
        _ => "other",
    }
}
