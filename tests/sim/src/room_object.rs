//! A room's object around the real room machine, as `edge-signal/src/objects/room.rs` and its parts are: rows, sockets,
//! alarm, the directory's line, and the lock under which placements, joins that need one and nodes that dial in take turns.

mod turns;
mod words;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use edge_signal::room::Room;
use edge_signal::room::effect::Effect;
use edge_signal::room::event::{Admission, ConnectionId, Event, JoinAttempt};
use edge_signal::room::service::Request;
use livekit_protocol::{RoomParticipantIdentity, SignalResponse, signal_response};
use serde_json::Value;
use shared::control::{NodeToRoom, PlaceRequest, Placed, RoomToNode};
use shared::ids::{NodeId, RoomName};

use crate::directory::Line;
use crate::fleet_object::open_session;
use crate::net::{Call, End, Frame, Net, Reply, Socket, Turn};
use crate::rules::Rule;
use words::Words;

/// HTTP: the ticket is not good, or the room is over.
const REFUSED: u16 = 403;
/// HTTP: the object was reset while it worked on it.
const RESET: u16 = 500;
/// HTTP: no media node.
const NO_NODE: u16 = 503;
/// How long until a line the directory did not take is sent again, milliseconds.
const DIRECTORY_RETRY_MS: u64 = 5_000;

/// What takes its turn.
enum Task {
    /// A client joins a room without a node; with what it was admitted as, once the fleet is asked.
    Join { client: usize, dial: u64, attempt: Box<JoinAttempt>, asked: Option<Box<Admission>> },
    /// A node dials in.
    Link { node: usize, dial: u64, ticket: String },
    /// The room asks the fleet.
    Place(Box<PlaceRequest>),
    /// The fleet is to forget the links of a room that ended.
    EndLinks(Box<Line>),
}

/// The object.
pub(crate) struct RoomObject {
    /// Its room's.
    pub(crate) name: RoomName,
    /// Table and key to value.
    pub(crate) rows: BTreeMap<(String, String), String>,
    room: Option<Room>,
    clients: BTreeMap<Socket, ConnectionId>,
    nodes: BTreeMap<NodeId, Socket>,
    used: BTreeSet<u64>,
    /// The line that the directory does not have.
    pub(crate) line: Option<Line>,
    telling: bool,
    words: Words,
    alarm: Option<u64>,
    turn: Option<Task>,
    waiting: VecDeque<Task>,
    /// Counts resets: answers to what was asked before are for nobody.
    life: u64,
    connections: u64,
    /// Which node an end of a link is.
    ids: Vec<NodeId>,
    /// What should not have happened.
    pub(crate) faults: Vec<String>,
}

impl RoomObject {
    /// An object that nobody has asked yet.
    #[must_use]
    pub(crate) fn new(name: RoomName, ids: Vec<NodeId>) -> Self {
        Self {
            name,
            rows: BTreeMap::new(),
            room: None,
            clients: BTreeMap::new(),
            nodes: BTreeMap::new(),
            used: BTreeSet::new(),
            line: None,
            telling: false,
            words: Words::default(),
            alarm: None,
            turn: None,
            waiting: VecDeque::new(),
            life: 0,
            connections: 0,
            ids,
            faults: Vec::new(),
        }
    }

    /// Who it is on its sockets.
    #[must_use]
    pub(crate) fn end(&self) -> End {
        End::Room(self.name.clone())
    }

    /// It loses its memory while nothing is under way; its sockets stay.
    pub(crate) fn evict(&mut self) {
        if self.turn.is_none() && !self.telling && !self.words.is_telling {
            self.room = None;
        }
    }

    /// It starts again: its sockets broke, and what was under way is over.
    pub(crate) fn reset(&mut self, net: &mut Net) {
        let end = self.end();
        for socket in net.sockets(|other| *other == end) {
            net.snap(socket);
        }
        for task in self.turn.take().into_iter().chain(std::mem::take(&mut self.waiting)) {
            match task {
                Task::Join { client, dial, .. } => net.reply(End::Client(client), dial, Err(RESET)),
                Task::Link { node, dial, .. } => {
                    net.reply(End::NodeRoom(node, self.name.clone()), dial, Err(RESET));
                }
                Task::Place(_) | Task::EndLinks(_) => {}
            }
        }
        self.life += 1;
        self.room = None;
        self.telling = false;
        self.words.is_telling = false;
        self.clients.clear();
        self.nodes.clear();
    }

    /// Takes a request.
    pub(crate) fn call(&mut self, net: &mut Net, call: Call) {
        match call {
            Call::Join { client, dial, attempt } => self.join(net, client, dial, attempt),
            Call::RoomLink { node, dial, ticket, .. } => self.begin(net, Task::Link { node, dial, ticket }),
            Call::Word { to: _, life, word } => self.hear_word(net, life, word),
            Call::NodeSilent { node, .. } => {
                if let Some(socket) = self.nodes.remove(&node) {
                    net.close(&self.end(), socket);
                }
                self.handle(net, Event::NodeGone { node: node.clone() });
                self.handle(net, Event::NodeLost { node });
            }
            Call::NodeNear { place, .. } => self.handle(net, Event::NodeNear { place }),
            _ => {}
        }
        self.settle(net);
    }

    /// Takes an answer to what it asked.
    pub(crate) fn reply(&mut self, net: &mut Net, reply: Reply) {
        match reply {
            Reply::Placed { life, response, .. } if life == self.life => self.placed(net, response),
            Reply::Admitted { life, admitted, .. } if life == self.life => self.admitted(net, admitted),
            Reply::LinksEnded { life, done, .. } if life == self.life => {
                self.telling = false;
                if let Some(Task::EndLinks(line)) = self.turn.take().filter(|_| done) {
                    self.told(&line);
                }
                self.go_on(net);
            }
            Reply::Heard { to, life, word, taken } if life == self.life => self.word_heard(net, to, *word, taken),
            Reply::Told { life, line, .. } if life == self.life => {
                if line.entry.is_none() {
                    self.begin(net, Task::EndLinks(line));
                } else {
                    self.told(&line);
                }
            }
            _ => {}
        }
        self.settle(net);
    }

    /// Takes a frame.
    pub(crate) fn frame(&mut self, net: &mut Net, socket: Socket, frame: Frame) {
        match frame {
            Frame::FromClient(message) => {
                if let Some(connection) = self.clients.get(&socket).cloned() {
                    self.handle(net, Event::ClientMessage { connection, message });
                }
            }
            Frame::FromNode(message) => {
                if let Some(node) = self.node_at(socket) {
                    net.note(|| format!("{node} to {}: {}", self.name, brief(&message)));
                    self.hear(net, node, *message);
                }
            }
            Frame::Closed => {
                if let Some(connection) = self.clients.remove(&socket) {
                    self.handle(net, Event::ClientGone { connection });
                } else if let Some(node) = self.node_at(socket) {
                    self.nodes.remove(&node);
                    self.handle(net, Event::NodeGone { node });
                }
            }
            _ => {}
        }
        self.settle(net);
    }

    /// An app server has somebody leave.
    pub(crate) fn dismiss(&mut self, net: &mut Net, identity: &str) {
        let identity = RoomParticipantIdentity { identity: identity.to_owned(), ..Default::default() };
        self.handle(net, Event::Request(Box::new(Request::RemoveParticipant(identity))));
        self.settle(net);
    }

    /// An alarm that was due while nobody was there to hear it rings now.
    pub(crate) fn catch_up(&mut self, net: &mut Net) {
        if let Some(at) = self.alarm.as_mut().filter(|at| **at <= net.now) {
            *at = net.now + 1;
            net.at(*at, Turn::Alarm { room: self.name.clone() });
        }
    }

    /// An alarm that was set at some time rings.
    pub(crate) fn alarm(&mut self, net: &mut Net) {
        if self.alarm == Some(net.now) {
            self.alarm = None;
            self.handle(net, Event::Alarm);
            self.settle(net);
        }
    }

    // --- clients

    fn join(&mut self, net: &mut Net, client: usize, dial: u64, attempt: Box<JoinAttempt>) {
        match self.admit(net, &attempt) {
            Err(status) => net.reply(End::Client(client), dial, Err(status)),
            Ok(admission) if admission.place.is_none() => {
                self.accept(net, client, dial, Box::new(admission), None);
            }
            Ok(_) => self.begin(net, Task::Join { client, dial, attempt, asked: None }),
        }
    }

    fn admit(&mut self, net: &mut Net, attempt: &JoinAttempt) -> Result<Admission, u16> {
        let room = self.take_room(net);
        let context = net.context();
        let room = room.unwrap_or_else(|| Room::new(self.name.clone(), context));
        let admitted = room.admit(net.context(), attempt.clone());
        self.room = Some(room);
        admitted.map_err(|refusal| refusal.reason.status())
    }

    fn accept(&mut self, net: &mut Net, client: usize, dial: u64, admission: Box<Admission>, placed: Option<Placed>) {
        self.connections += 1;
        let connection = ConnectionId(format!("{}-{}", self.life, self.connections));
        let socket = net.connect(self.end(), End::Client(client));
        self.clients.insert(socket, connection.clone());
        net.reply(End::Client(client), dial, Ok(socket));
        let room = self.take_room(net);
        let context = net.context();
        self.room = Some(room.unwrap_or_else(|| Room::new(self.name.clone(), context)));
        self.handle(net, Event::Joined { connection, admission, placed });
    }

    // --- the machine

    fn take_room(&mut self, net: &Net) -> Option<Room> {
        self.room.take().or_else(|| {
            let connections: Vec<_> = self.clients.values().cloned().collect();
            let nodes: Vec<_> = self.nodes.keys().cloned().collect();
            let rows = self.rows.iter().map(|((table, key), value)| (table.clone(), key.clone(), value.clone()));
            Room::restore(net.unix(), rows, &connections, &nodes).ok()
        })
    }

    fn with_room<T>(&mut self, net: &Net, look: impl FnOnce(Option<&Room>) -> T) -> T {
        self.room = self.take_room(net);
        look(self.room.as_ref())
    }

    fn handle(&mut self, net: &mut Net, event: Event) {
        let Some(mut room) = self.take_room(net) else { return };
        let effects = room.handle(net.context(), event);
        for change in room.changes() {
            let key = (change.table.to_owned(), change.key);
            match change.value {
                Some(value) => self.rows.insert(key, value),
                None => self.rows.remove(&key),
            };
        }
        let over = room.is_over();
        for effect in effects {
            self.carry_out(net, effect);
        }
        if !over {
            self.room = Some(room);
            return;
        }
        net.note(|| format!("{}: over", self.name));
        self.rows.clear();
        let end = self.end();
        let all: Vec<Socket> = std::mem::take(&mut self.clients).into_keys().collect();
        let links = std::mem::take(&mut self.nodes).into_values();
        all.into_iter().chain(links).for_each(|socket| net.close(&end, socket));
    }

    fn carry_out(&mut self, net: &mut Net, effect: Effect) {
        let end = self.end();
        match effect {
            Effect::ToClient { connection, message } => {
                if let Some(socket) = self.socket_of(&connection) {
                    net.send(&end, socket, Frame::ToClient(Box::new((*message).clone())));
                }
            }
            Effect::RefreshToken { connection, .. } => {
                if let Some(socket) = self.socket_of(&connection) {
                    let message = Some(signal_response::Message::RefreshToken(String::new()));
                    net.send(&end, socket, Frame::ToClient(Box::new(SignalResponse { message })));
                }
            }
            Effect::CloseClient { connection } => {
                if let Some(socket) = self.socket_of(&connection) {
                    self.clients.remove(&socket);
                    net.close(&end, socket);
                }
            }
            Effect::ToNode { node, message } => self.send_node(net, &node, *message),
            Effect::OpenSession { node, session } => {
                let open = open_session(net, &node, &self.name, *session);
                self.send_node(net, &node, RoomToNode::OpenSession(Box::new(open)));
            }
            Effect::Place(request) => self.begin(net, Task::Place(request)),
            Effect::Directory(entry) => self.line = Some(Line { room: self.name.clone(), entry }),
            Effect::Left { participant, reason, .. } => {
                net.note(|| format!("{}: {participant} left ({})", self.name, reason.as_str_name()));
            }
            Effect::ToRoom { to, word } => self.words.keep(to, *word),
            Effect::Answer(answer) => self.words.taken = Some(answer.is_ok()),
            // Nobody listens to webhooks here, asks as an app server, or is an agents' worker.
            Effect::RevokeTokens { .. }
            | Effect::Webhook(_)
            | Effect::AgentsOver { .. }
            | Effect::RoomMoved { .. }
            | Effect::CallHeard { .. } => {}
        }
    }

    fn send_node(&self, net: &mut Net, node: &NodeId, message: RoomToNode) {
        net.note(|| format!("{} to {node}: {}", self.name, brief(&message)));
        if let Some(socket) = self.nodes.get(node) {
            net.send(&self.end(), *socket, Frame::ToNode(Box::new(message)));
        }
    }

    /// Sets the alarm, and tells the directory; last thing of every handler.
    fn settle(&mut self, net: &mut Net) {
        let deadline = self.with_room(net, |room| room.and_then(Room::deadline)).map(Net::since_start);
        if let Some(line) = self.line.clone().filter(|_| !self.telling) {
            self.telling = true;
            // Now and then the directory cannot be reached.
            if net.dice(1, 20) {
                self.telling = false;
            } else {
                net.call_inside(Call::Directory { life: self.life, line: Box::new(line) });
            }
        }
        let retry = self.line.as_ref().map(|_| net.now + DIRECTORY_RETRY_MS);
        let retry = retry.filter(|_| net.broken != Some(Rule::DirectoryRetries));
        let words = self.tell_rooms(net);
        let due = deadline.into_iter().chain(retry).chain(words).min().map(|at| at.max(net.now));
        if due.is_some() && self.alarm != due {
            self.alarm = due;
            net.at(due.unwrap_or_default(), Turn::Alarm { room: self.name.clone() });
        } else if due.is_none() && self.rows.is_empty() {
            self.alarm = None;
        }
    }

    fn told(&mut self, line: &Line) {
        self.telling = false;
        if self.line.as_ref() == Some(line) {
            self.line = None;
        }
    }

    fn socket_of(&self, connection: &ConnectionId) -> Option<Socket> {
        self.clients.iter().find(|(_, known)| *known == connection).map(|(socket, _)| *socket)
    }

    fn node_at(&self, socket: Socket) -> Option<NodeId> {
        self.nodes.iter().find(|(_, known)| **known == socket).map(|(node, _)| node.clone())
    }

    /// A node's message. **What it says of a session that is not its own now changes nothing.**
    fn hear(&mut self, net: &mut Net, node: NodeId, message: NodeToRoom) {
        let named = session_named(&message);
        let current = named.as_ref().and_then(|(sid, _)| self.session_row(sid));
        let is_current = current
            .as_ref()
            .zip(named.as_ref())
            .is_some_and(|(row, (_, generation))| row["generation"] == *generation && row["node"] == node.as_str());
        let before = (named.is_some() && !is_current).then(|| self.rows.clone());
        let message = match current.filter(|_| net.broken == Some(Rule::Generations)) {
            Some(row) => with_generation(message, &row["generation"]),
            None => message,
        };
        let text = before.as_ref().map(|_| brief(&message)).unwrap_or_default();
        self.handle(net, Event::NodeMessage { node, message: Box::new(message) });
        if before.is_some_and(|before| before != self.rows) {
            self.faults.push(format!("{}: another session's message changed something: {text}", self.name));
        }
    }

    fn session_row(&self, sid: &str) -> Option<Value> {
        let row = self.rows.get(&("session".to_owned(), sid.to_owned()))?;
        serde_json::from_str(row).ok()
    }
}

/// Participant and generation of the session that a message is about.
fn session_named(message: &NodeToRoom) -> Option<(String, u64)> {
    let json = serde_json::to_value(message).ok()?;
    let session = json.get("session")?;
    Some((session.get("participant")?.as_str()?.to_owned(), session.get("generation")?.as_u64()?))
}

fn with_generation(message: NodeToRoom, generation: &Value) -> NodeToRoom {
    let Ok(mut json) = serde_json::to_value(&message) else { return message };
    match json.pointer_mut("/session/generation") {
        Some(place) => *place = generation.clone(),
        None => return message,
    }
    serde_json::from_value(json).unwrap_or(message)
}

/// A message without descriptions, for the log.
fn brief(message: &impl std::fmt::Debug) -> String {
    let text = format!("{message:?}");
    let mut brief = String::new();
    for part in text.split("sdp: \"") {
        let rest = if brief.is_empty() { part } else { part.split_once('"').map_or("", |(_, rest)| rest) };
        brief.push_str(rest);
    }
    brief
}
