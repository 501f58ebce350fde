//! Everybody in one world, and what happens to them.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Instant;

use sfu_node::simulated::{Certificate, Node as Machine};
use shared::geo::Place;
use shared::ids::{NodeId, RegionName, RoomName};

use crate::client::Client;
use crate::directory::Directory;
use crate::fleet_object::FleetObject;
use crate::net::{Call, End, Host, Net, Reply, Turn};
use crate::node::Node;
use crate::room_object::RoomObject;
use crate::rules::Rule;

/// Most nodes.
pub(crate) const MAX_NODES: usize = 4;
/// Where nodes are whose rooms may be on several, in their order.
const PLACES: [Place; 2] = [BERLIN, TOKYO];
const BERLIN: Place = Place { latitude: 52.5, longitude: 13.4 };
const TOKYO: Place = Place { latitude: 35.7, longitude: 139.7 };
/// Of so many nodes one takes no pipes.
const WITHOUT_PIPES: u32 = 8;
/// Of so many clients one is from nobody knows where.
const LOST_CLIENTS: u32 = 5;
/// HTTP: there is nobody to answer.
const UNREACHED: u16 = 502;
/// First byte of a node's address.
const NODE_NET: u8 = 192;

/// Seeds, modulo 7, of worlds whose rooms may be on several nodes; those that found something before there were any are others.
const SPREAD: [u64; 4] = [1, 3, 4, 5];

/// The world.
pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) origin: Instant,
    pub(crate) clients: Vec<Client>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) rooms: Vec<RoomObject>,
    pub(crate) fleet: FleetObject,
    pub(crate) directory: Directory,
    /// Rooms may be on several nodes.
    pub(crate) is_spread: bool,
    /// Participants are forwarded from room to room.
    pub(crate) is_forwarding: bool,
    /// What happened, for the statistics.
    pub(crate) turns: u64,
}

/// The nodes' certificates: making one takes long, and no run depends on what is in it.
fn certificates() -> &'static [Certificate] {
    static MADE: OnceLock<Vec<Certificate>> = OnceLock::new();
    MADE.get_or_init(|| (0..MAX_NODES).map(|_| Certificate::generate()).collect())
}

/// Which node listens there.
pub(crate) fn node_at(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(v4) => usize::from(v4.ip().octets()[3]).saturating_sub(1),
        SocketAddr::V6(_) => 0,
    }
}

/// Which client is there; `None`: a node is.
fn client_at(address: SocketAddr) -> Option<usize> {
    let SocketAddr::V4(v4) = address else { return None };
    let octets = v4.ip().octets();
    (octets[0] != NODE_NET).then(|| usize::from(octets[2]))
}

impl World {
    /// A world of so many nodes and rooms, in which nothing runs yet.
    pub(crate) fn new(seed: u64, nodes: usize, rooms: usize, broken: Option<Rule>, logs: bool) -> Self {
        let is_spread = SPREAD.contains(&(seed % 7));
        let origin = Instant::now();
        let mut net = Net::new(seed, origin, logs);
        net.broken = broken;
        let id = |index: usize| NodeId::try_from(format!("ND_node{index}")).unwrap();
        let ids: Vec<NodeId> = (0..nodes).map(id).collect();
        let node = |(index, certificate): (usize, &Certificate)| {
            let address = SocketAddr::from(([NODE_NET, 0, 2, u8::try_from(index + 1).unwrap()], 7900));
            let region = RegionName::try_from("here").unwrap();
            let place = PLACES.get(index % PLACES.len()).copied().filter(|_| is_spread);
            let place = place.filter(|_| !net.dice(1, WITHOUT_PIPES));
            Node::new(index, ids[index].clone(), address, region, certificate.clone(), place)
        };
        let room = |index| RoomObject::new(RoomName::try_from(format!("room{index}")).unwrap(), ids.clone());
        Self {
            origin,
            clients: Vec::new(),
            nodes: (0..nodes).zip(certificates()).map(node).collect(),
            rooms: (0..rooms).map(room).collect(),
            fleet: FleetObject::of(ids.clone()),
            directory: Directory::default(),
            is_spread,
            is_forwarding: is_spread && rooms > 1 && seed % 5 == 2,
            net,
            turns: 0,
        }
    }

    /// Where somebody comes from.
    pub(crate) fn any_place(&mut self) -> Option<Place> {
        if !self.is_spread || self.net.dice(1, LOST_CLIENTS) { None } else { self.net.choose(&PLACES).copied() }
    }

    /// Lets what happens happen until `end`, or until the story goes on. True: it does.
    pub(crate) fn run(&mut self, end: u64) -> bool {
        while let Some(turn) = self.net.next(end) {
            self.turns += 1;
            if matches!(turn, Turn::Story) {
                return true;
            }
            self.turn(turn);
        }
        false
    }

    /// The edge's process dies: every WebSocket breaks, and until it is back nothing is answered.
    pub(crate) fn kill_edge(&mut self) {
        self.net.edge_is_dead = true;
        self.reset_edge();
    }

    /// It is back, with all that its objects had written down.
    pub(crate) fn start_edge(&mut self) {
        if std::mem::take(&mut self.net.edge_is_dead) {
            self.reset_edge();
            self.rooms.iter_mut().for_each(|room| room.catch_up(&mut self.net));
        }
    }

    /// Every object of the edge loses its memory and its sockets.
    pub(crate) fn reset_edge(&mut self) {
        self.fleet.reset(&mut self.net);
        self.rooms.iter_mut().for_each(|room| room.reset(&mut self.net));
    }

    /// What comes to an edge that is dead: whoever dials is told so.
    fn turn_away(&mut self, turn: Turn) {
        let (to, dial) = match turn {
            Turn::Call(Call::Join { client, dial, .. }) => (End::Client(client), dial),
            Turn::Call(Call::FleetLink { node, dial }) => (End::Node(node), dial),
            Turn::Call(Call::RoomLink { node, dial, room, .. }) => (End::NodeRoom(node, room), dial),
            _ => return,
        };
        self.net.reply(to, dial, Err(UNREACHED));
    }

    fn turn(&mut self, turn: Turn) {
        let to_edge = matches!(turn, Turn::Call(_) | Turn::Alarm { .. });
        if self.net.edge_is_dead && to_edge {
            return self.turn_away(turn);
        }
        let net = &mut self.net;
        match turn {
            Turn::Frame { socket, to, frame } => match &to {
                End::Client(client) => self.clients[*client].frame(net, socket, frame),
                End::Node(node) | End::NodeRoom(node, _) => {
                    let node = *node;
                    self.nodes[node].take(net, Turn::Frame { socket, to, frame });
                    self.carry(node);
                }
                End::Fleet => self.fleet.frame(net, socket, frame),
                End::Room(room) => {
                    if let Some(room) = self.rooms.iter_mut().find(|known| known.name == *room) {
                        room.frame(net, socket, frame);
                    }
                }
            },
            Turn::Call(call) => match &call {
                Call::Join { client, .. } => {
                    let room = self.clients[*client].room.clone();
                    self.room(&room, |room, net| room.call(net, call));
                }
                Call::RoomLink { room, .. }
                | Call::NodeSilent { room, .. }
                | Call::NodeNear { room, .. }
                | Call::Word { to: room, .. } => {
                    let room = room.clone();
                    self.room(&room, |room, net| room.call(net, call));
                }
                Call::Directory { .. } => {
                    if let Call::Directory { life, line } = call {
                        self.directory.note(net, life, line);
                    }
                }
                _ => self.fleet.call(net, call),
            },
            Turn::Reply(reply) => match &reply {
                Reply::Dialed { to: End::Client(client), dial, result } => {
                    self.clients[*client].dialed(net, *dial, *result);
                }
                Reply::Dialed { to: End::Node(node) | End::NodeRoom(node, _), .. } => {
                    let node = *node;
                    self.nodes[node].take(net, Turn::Reply(reply));
                    self.carry(node);
                }
                Reply::Placed { room, .. }
                | Reply::Admitted { room, .. }
                | Reply::LinksEnded { room, .. }
                | Reply::Told { room, .. } => {
                    let room = room.clone();
                    self.room(&room, |room, net| room.reply(net, reply));
                }
                Reply::Heard { word, .. } => {
                    let room = word.from.clone();
                    self.room(&room, |room, net| room.reply(net, reply));
                }
                Reply::Dialed { .. } => {}
            },
            Turn::Datagram { from, to, bytes } => match client_at(to) {
                Some(client) => self.clients[client].datagram(net, from, to, bytes),
                None => {
                    let node = node_at(to);
                    self.nodes[node].take(net, Turn::Datagram { from, to, bytes });
                    self.carry(node);
                }
            },
            Turn::WakeClient(client) => self.clients[client].woken(net),
            Turn::WakeNode { node, .. } => {
                self.nodes[node].take(net, turn);
                self.carry(node);
            }
            Turn::Alarm { room } => self.room(&room, RoomObject::alarm),
            Turn::Story => {}
        }
    }

    /// The node that a client is on takes pipes.
    pub(crate) fn takes_pipes(&self, room: &RoomObject, client: &Client) -> bool {
        let has = |machine: &Machine| {
            machine.sessions_of(&room.name).iter().any(|session| session.participant.as_str() == client.sid)
        };
        self.nodes
            .iter()
            .any(|node| node.place.is_some() && node.process.as_ref().is_some_and(|process| has(&process.machine)))
    }

    fn room(&mut self, name: &RoomName, act: impl FnOnce(&mut RoomObject, &mut Net)) {
        if let Some(room) = self.rooms.iter_mut().find(|room| room.name == *name) {
            act(room, &mut self.net);
        }
    }

    /// Sends what a node's shard has to send.
    pub(crate) fn carry(&mut self, node: usize) {
        let from = self.nodes[node].address;
        for (to, bytes) in self.nodes[node].take_datagrams() {
            let there = client_at(to).map_or_else(|| Host::Node(node_at(to)), Host::Client);
            self.net.datagram([Host::Node(node), there], from, to, bytes);
        }
    }
}
