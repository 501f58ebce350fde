//! One room on a node: its link, as `sfu-node/src/edge/room_link.rs` has it.

use std::collections::{BTreeSet, VecDeque};

use sfu_node::simulated::Node as Machine;
use shared::claims::SessionClaims;
use shared::control::{CONTROL_VERSION, MediaState, NodeToRoom, OpenSession, PipeKey, RefusalReason, RoomToNode};
use shared::geo::Place;
use shared::ids::{NodeId, RoomName};

use crate::net::{Call, End, Frame, Net, Socket};
use crate::node::{DIAL_TIMEOUT_MS, backoff};
use crate::rules::Rule;

/// How long a node tries to get back to a room that it still has sessions of, milliseconds.
const REJOIN_LIMIT_MS: u64 = 20_000;
/// Messages that may wait for the link.
const OUTBOX: usize = 1024;

/// The fleet wants the node in the room.
#[derive(Debug, Clone)]
pub(crate) struct Attach {
    /// For the room link.
    pub(crate) ticket: String,
    /// To be opened at once.
    pub(crate) first: Option<Box<OpenSession>>,
}

enum Link {
    /// Before the first attach.
    None,
    Dialing {
        dial: u64,
        until: u64,
    },
    Up(Socket),
    Waiting(u64),
    /// Nothing is left to do.
    Over,
}

/// The task.
pub(crate) struct RoomTask {
    node: usize,
    room: RoomName,
    /// The node's; `None`: it takes no pipes.
    place: Option<Place>,
    /// That wait to be looked at.
    pub(crate) attaches: VecDeque<Attach>,
    /// For the room.
    pub(crate) outbox: VecDeque<NodeToRoom>,
    refusals: VecDeque<NodeToRoom>,
    ticket: String,
    link: Link,
    failures: u32,
    give_up: u64,
    told_draining: bool,
    was_up: bool,
    /// Pipes that something went into.
    filled: BTreeSet<PipeKey>,
}

impl RoomTask {
    /// A task without an attach.
    #[must_use]
    pub(crate) fn new(node: usize, room: RoomName, place: Option<Place>) -> Self {
        Self {
            node,
            room,
            place,
            attaches: VecDeque::new(),
            outbox: VecDeque::new(),
            refusals: VecDeque::new(),
            ticket: String::new(),
            link: Link::None,
            failures: 0,
            give_up: 0,
            told_draining: false,
            was_up: false,
            filled: BTreeSet::new(),
        }
    }

    fn end(&self) -> End {
        End::NodeRoom(self.node, self.room.clone())
    }

    /// When it has something to do by itself.
    #[must_use]
    pub(crate) fn due(&self) -> Option<u64> {
        match self.link {
            Link::Dialing { until, .. } | Link::Waiting(until) => Some(until),
            Link::None | Link::Up(_) | Link::Over => None,
        }
    }

    /// Does what is to be done. True: the task is over.
    pub(crate) fn go_on(&mut self, net: &mut Net, id: &NodeId, machine: &mut Machine, leaving: bool) -> bool {
        if self.outbox.len() > OUTBOX {
            self.drop_link(net);
            return true;
        }
        // While it dials it does not look at attaches.
        if !matches!(self.link, Link::Dialing { .. })
            && let Some(attach) = self.attaches.pop_front()
        {
            self.drop_link(net);
            self.ticket = attach.ticket;
            (self.give_up, self.failures) = (net.now + REJOIN_LIMIT_MS, 0);
            self.dial(net);
            if let Some(first) = attach.first {
                self.open(net, id, machine, *first);
            }
        }
        match self.link {
            Link::Dialing { until, .. } if until <= net.now => self.failed(net, false),
            Link::Waiting(until) if until <= net.now => self.dial(net),
            Link::Up(socket) => {
                if leaving != self.told_draining {
                    self.send(net, socket, NodeToRoom::Draining { draining: leaving });
                    self.told_draining = leaving;
                }
                let waiting: Vec<_> = self.refusals.drain(..).chain(self.outbox.drain(..)).collect();
                waiting.into_iter().for_each(|message| self.send(net, socket, message));
            }
            _ => {}
        }
        matches!(self.link, Link::Over)
    }

    fn dial(&mut self, net: &mut Net) {
        let dial = net.pick(0, u64::MAX);
        self.link = Link::Dialing { dial, until: net.now + DIAL_TIMEOUT_MS };
        net.call(Call::RoomLink { node: self.node, dial, room: self.room.clone(), ticket: self.ticket.clone() });
    }

    fn failed(&mut self, net: &mut Net, refused: bool) {
        if refused || net.now >= self.give_up {
            net.note(|| format!("node {}: gives {} up (refused: {refused})", self.node, self.room));
            self.link = Link::Over;
        } else {
            self.wait(net);
        }
    }

    fn wait(&mut self, net: &mut Net) {
        let wait = backoff(net, self.failures);
        self.failures += 1;
        self.link = Link::Waiting(net.now + wait);
    }

    /// Its dial was answered.
    pub(crate) fn dialed(
        &mut self,
        net: &mut Net,
        machine: &mut Machine,
        leaving: bool,
        dial: u64,
        result: Result<Socket, u16>,
    ) {
        let expected = matches!(self.link, Link::Dialing { dial: known, .. } if known == dial);
        match result {
            Ok(socket) if expected => {
                self.link = Link::Up(socket);
                let sessions = machine.sessions_of(&self.room);
                let pipes = self.place.map(|_| machine.pipes_of(&self.room));
                let (control_version, place) = (CONTROL_VERSION, self.place);
                self.send(net, socket, NodeToRoom::Hello { control_version, sessions, pipes, place });
                self.told_draining = false;
                if std::mem::replace(&mut self.was_up, true) && net.broken != Some(Rule::Repetition) {
                    machine.repeat(net.instant(), &self.room);
                }
                if leaving {
                    self.send(net, socket, NodeToRoom::Draining { draining: true });
                    self.told_draining = true;
                }
            }
            Ok(socket) => net.close(&self.end(), socket),
            Err(status) if expected => self.failed(net, matches!(status, 401 | 403 | 404)),
            Err(_) => {}
        }
    }

    /// A frame of the room.
    pub(crate) fn frame(&mut self, net: &mut Net, id: &NodeId, machine: &mut Machine, socket: Socket, frame: Frame) {
        if !matches!(self.link, Link::Up(known) if known == socket) {
            return;
        }
        match frame {
            Frame::ToNode(message) => match *message {
                RoomToNode::Welcome { rejoin_ticket, sessions, .. } => {
                    self.ticket = rejoin_ticket;
                    if net.broken != Some(Rule::Closings) {
                        machine.reconcile(net.instant(), &self.room, &sessions);
                    }
                }
                RoomToNode::CloseSession { .. } if net.broken == Some(Rule::Closings) => {}
                RoomToNode::OpenSession(open) => self.open(net, id, machine, *open),
                RoomToNode::FillPipe { pipe, .. }
                    if !self.filled.insert(pipe) && net.broken == Some(Rule::PipeRefills) => {}
                message => {
                    if let RoomToNode::OpenPipe { pipe, .. } = &message {
                        net.note(|| format!("{id}: opens {pipe:?} of {}", self.room));
                    }
                    machine.handle(net.instant(), &self.room, message);
                }
            },
            Frame::Closed if machine.sessions_of(&self.room).is_empty() => self.link = Link::Over,
            Frame::Closed => {
                (self.give_up, self.failures) = (net.now + REJOIN_LIMIT_MS, 0);
                self.wait(net);
            }
            _ => {}
        }
    }

    fn open(&mut self, net: &mut Net, id: &NodeId, machine: &mut Machine, open: OpenSession) {
        let claims = serde_json::from_str::<SessionClaims>(&open.token).ok();
        let session = claims
            .as_ref()
            .map(|claims| shared::ids::SessionKey { participant: claims.sub.clone(), generation: claims.generation });
        let good =
            claims.filter(|claims| claims.aud == *id && claims.room == self.room && claims.exp >= net.unix().secs());
        let refused = match good {
            Some(claims) => machine.open(net.instant(), &self.room, claims, open).err(),
            None => Some(RefusalReason::BadToken),
        };
        if let Some(reason) = refused {
            net.note(|| format!("{id}: refuses {session:?}: {reason:?}"));
            self.refusals.push_back(NodeToRoom::SessionRefused { session, reason, detail: String::new() });
        }
    }

    fn send(&self, net: &mut Net, socket: Socket, message: NodeToRoom) {
        let is_failure = matches!(message, NodeToRoom::PipeState { state: MediaState::Failed, .. });
        if is_failure && net.broken == Some(Rule::PipeFailures) {
            return;
        }
        net.send(&self.end(), socket, Frame::FromNode(Box::new(message)));
    }

    fn drop_link(&mut self, net: &mut Net) {
        if let Link::Up(socket) = self.link {
            net.close(&self.end(), socket);
        }
        self.link = Link::None;
    }
}
