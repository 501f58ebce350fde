//! The fleet object around the real fleet machine, as `edge-signal/src/objects/fleet.rs` is: links, tables, placements.
//! Keys and tokens are left out; what they claim is there.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use edge_signal::fleet::Fleet;
use edge_signal::fleet::mint::open_session_with;
use edge_signal::fleet::returns::Afar;
use serde::{Deserialize, Serialize};
use shared::claims::{SessionClaims, TICKET_TTL_SECS};
use shared::control::{
    FirstSession, FleetToNode, NodeInfo, NodeToFleet, OpenSession, PlaceRequest, PlaceResponse, Placed,
};
use shared::ids::{NodeId, RegionName, RoomName};

use crate::net::{Call, End, Frame, Net, Reply, Socket};
use crate::rules::Rule;

/// What stands in a ticket.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// For this node,
    pub(crate) node: NodeId,
    /// into this room,
    pub(crate) room: RoomName,
    /// once,
    pub(crate) jti: u64,
    /// until then, Unix seconds.
    pub(crate) exp: u64,
    /// The node's.
    pub(crate) region: RegionName,
}

impl Ticket {
    /// Mints one, good for so many seconds.
    #[must_use]
    pub(crate) fn mint(net: &mut Net, node: &NodeId, room: &RoomName, region: &RegionName, ttl_secs: u64) -> String {
        let (jti, exp) = (net.pick(0, u64::MAX), net.unix().secs() + ttl_secs);
        let ticket = Self { node: node.clone(), room: room.clone(), jti, exp, region: region.clone() };
        serde_json::to_string(&ticket).unwrap_or_default()
    }
}

/// A session with its token, which is its claims.
#[must_use]
pub(crate) fn open_session(net: &mut Net, node: &NodeId, room: &RoomName, session: FirstSession) -> OpenSession {
    let (jti, now) = (net.pick(0, u64::MAX).to_string(), net.unix().secs());
    let token = |claims: &SessionClaims| Ok::<_, Infallible>(serde_json::to_string(claims).unwrap_or_default());
    let Ok(open) = open_session_with(node, room, session, jti, now, token);
    open
}

struct Link {
    socket: Socket,
    /// Kept with the socket through an eviction.
    info: Option<NodeInfo>,
    draining: bool,
}

/// The object.
#[derive(Default)]
pub(crate) struct FleetObject {
    fleet: Fleet,
    links: BTreeMap<NodeId, Link>,
    /// Table: rooms that nodes were let into.
    pub(crate) room_links: BTreeSet<(RoomName, NodeId)>,
    /// Table: who is served from afar, by room and field.
    pub(crate) afar: BTreeMap<(RoomName, i32), Afar>,
    /// Table: nodes that an operator drains.
    drained: BTreeSet<NodeId>,
    /// Which node an end of a link is.
    ids: Vec<NodeId>,
}

impl FleetObject {
    /// Of these nodes, none of which has dialed.
    pub(crate) fn of(ids: Vec<NodeId>) -> Self {
        Self { ids, ..Self::default() }
    }

    /// It loses its memory, its sockets stay.
    pub(crate) fn evict(&mut self, net: &Net) {
        self.fleet = Fleet::default();
        if self.links.is_empty() {
            self.fleet.gather(net.unix());
        }
        for (node, link) in &self.links {
            let Some(info) = link.info.clone() else { continue };
            let _ = self.fleet.hello(net.unix(), node.clone(), info);
            if link.draining {
                self.fleet.draining(node);
            }
            self.fleet.drain(node, self.drained.contains(node));
        }
    }

    /// It starts again: every socket broke.
    pub(crate) fn reset(&mut self, net: &mut Net) {
        for socket in net.sockets(|end| *end == End::Fleet) {
            net.snap(socket);
        }
        self.links.clear();
        self.evict(net);
    }

    /// An operator drains a node, or takes that back.
    pub(crate) fn drain(&mut self, net: &mut Net, node: &NodeId, draining: bool) {
        if draining {
            self.drained.insert(node.clone());
        } else {
            self.drained.remove(node);
        }
        self.fleet.drain(node, draining);
        if let Some(link) = self.links.get(node) {
            net.send(&End::Fleet, link.socket, Frame::FromFleet(Box::new(FleetToNode::Drain { draining })));
        }
    }

    /// Answers a request.
    pub(crate) fn call(&mut self, net: &mut Net, call: Call) {
        match call {
            Call::FleetLink { node, dial } => self.link(net, node, dial),
            Call::Place { room, life, request } => {
                let mut response = self.place(net, &request);
                if net.fails() {
                    // Nobody says that the node is lost.
                    let nobody = PlaceResponse::NoNode;
                    response = if request.lost.is_some() { PlaceResponse::StillThere } else { nobody };
                }
                net.note(|| format!("fleet: {room} asks (lost {:?}): {response:?}", request.lost));
                net.reply_inside(Reply::Placed { room, life, response });
            }
            Call::Admit { room, life, node } => {
                self.room_links.insert((room.clone(), node));
                let admitted = Some(true).filter(|_| !net.fails());
                net.reply_inside(Reply::Admitted { room, life, admitted });
            }
            Call::RoomOver { room, life } => {
                self.room_links.retain(|(known, _)| *known != room);
                self.afar.retain(|(known, _), _| *known != room);
                let done = !net.fails();
                net.reply_inside(Reply::LinksEnded { room, life, done });
            }
            Call::Join { .. }
            | Call::RoomLink { .. }
            | Call::Directory { .. }
            | Call::Word { .. }
            | Call::NodeSilent { .. }
            | Call::NodeNear { .. } => {}
        }
    }

    fn link(&mut self, net: &mut Net, index: usize, dial: u64) {
        let Some(node) = self.ids.get(index).cloned() else { return };
        self.drop_link(net, &node);
        let socket = net.connect(End::Fleet, End::Node(index));
        self.links.insert(node, Link { socket, info: None, draining: false });
        net.reply(End::Node(index), dial, Ok(socket));
    }

    /// A frame of a node.
    pub(crate) fn frame(&mut self, net: &mut Net, socket: Socket, frame: Frame) {
        let Some((node, link)) = self.links.iter_mut().find(|(_, link)| link.socket == socket) else { return };
        let node = node.clone();
        match frame {
            Frame::ToFleet(message) => match *message {
                NodeToFleet::Hello(info) => {
                    link.info = Some(info.clone());
                    let draining = self.drained.contains(&node);
                    let _ = self.fleet.hello(net.unix(), node.clone(), info);
                    self.fleet.drain(&node, draining);
                    let welcome = FleetToNode::Welcome { node, draining };
                    net.send(&End::Fleet, socket, Frame::FromFleet(Box::new(welcome)));
                }
                NodeToFleet::Heartbeat(load) => {
                    self.fleet.heartbeat(net.unix(), &node, load);
                    self.sweep(net);
                    self.call_back(net, &node);
                }
                NodeToFleet::Draining => {
                    link.draining = true;
                    self.fleet.draining(&node);
                }
            },
            Frame::Closed => {
                self.fleet.gone(&node);
                self.links.remove(&node);
            }
            _ => {}
        }
    }

    fn place(&mut self, net: &mut Net, request: &PlaceRequest) -> PlaceResponse {
        self.sweep(net);
        if request.lost.as_ref().is_some_and(|lost| self.fleet.may_have(net.unix(), lost)) {
            return PlaceResponse::StillThere;
        }
        while let Some(placed) = self.fleet.place(request) {
            let Placed { node, region, .. } = &placed;
            if !request.serving.contains(node) {
                let Some(link) = self.links.get(node) else {
                    self.fleet.gone(node);
                    continue;
                };
                let socket = link.socket;
                let ticket = Ticket::mint(net, node, &request.room, region, TICKET_TTL_SECS);
                let first = request.first.clone().map(|first| Box::new(open_session(net, node, &request.room, first)));
                let attach = FleetToNode::Attach { room: request.room.clone(), ticket, first };
                net.send(&End::Fleet, socket, Frame::FromFleet(Box::new(attach)));
            }
            if let Some(afar) = self.fleet.served_from_afar(request, node) {
                net.note(|| format!("fleet: noted {afar:?}"));
                self.afar.insert((afar.room.clone(), afar.field()), afar);
            }
            return PlaceResponse::Placed(placed);
        }
        PlaceResponse::NoNode
    }

    /// Once a node is back, rooms with people nearby who are served from afar hear of it.
    fn call_back(&mut self, net: &mut Net, node: &NodeId) {
        if self.fleet.is_back(node) {
            self.fleet.returns(node, self.afar.values().cloned().collect());
        }
        let Some((place, rooms)) = self.fleet.next_told(node) else { return };
        for rows in rooms {
            let known = rows.iter().filter(|afar| self.afar.remove(&(afar.room.clone(), afar.field())).is_some());
            if known.count() > 0
                && net.broken != Some(Rule::Returns)
                && let Some(Afar { room, .. }) = rows.into_iter().next()
            {
                net.note(|| format!("fleet: {node} is back, for {room}"));
                net.call_inside(Call::NodeNear { room, place });
            }
        }
    }

    fn sweep(&mut self, net: &mut Net) {
        for node in self.fleet.sweep(net.unix()) {
            net.note(|| format!("fleet: {node} is silent"));
            self.drop_link(net, &node);
            let rooms: Vec<RoomName> =
                self.room_links.iter().filter(|(_, known)| *known == node).map(|(room, _)| room.clone()).collect();
            for room in rooms {
                net.call_inside(Call::NodeSilent { room, node: node.clone() });
            }
        }
    }

    fn drop_link(&mut self, net: &mut Net, node: &NodeId) {
        self.fleet.gone(node);
        if let Some(link) = self.links.remove(node) {
            net.close(&End::Fleet, link.socket);
        }
    }
}
