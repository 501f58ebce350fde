//! What goes from one end to another.

use std::net::SocketAddr;

use edge_signal::room::event::JoinAttempt;
use edge_signal::room::forward::Word;
use livekit_protocol::{SignalRequest, SignalResponse};
use shared::control::{FleetToNode, NodeToFleet, NodeToRoom, PlaceRequest, PlaceResponse, RoomToNode};
use shared::geo::Place;
use shared::ids::{NodeId, RoomName};

use crate::directory::Line;

/// Who may be at an end of something.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// A client's signaling.
    Client(usize),
    /// A node's fleet link.
    Node(usize),
    /// A node's room link.
    NodeRoom(usize, RoomName),
    /// The fleet object.
    Fleet,
    /// A room's object.
    Room(RoomName),
}

/// A machine that can be cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    /// A client's.
    Client(usize),
    /// A node's.
    Node(usize),
}

/// A WebSocket. Never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Socket(pub u64);

/// What goes over a WebSocket.
#[derive(Debug, Clone)]
pub(crate) enum Frame {
    /// To the edge.
    FromClient(Box<SignalRequest>),
    /// To a client.
    ToClient(Box<SignalResponse>),
    /// On a room link, to the room.
    FromNode(Box<NodeToRoom>),
    /// On a room link, to the node.
    ToNode(Box<RoomToNode>),
    /// On the fleet link, to the fleet.
    ToFleet(Box<NodeToFleet>),
    /// On the fleet link, to the node.
    FromFleet(Box<FleetToNode>),
    /// The other end closed it, or it broke.
    Closed,
}

/// A request, for the object that answers it.
#[derive(Debug, Clone)]
pub(crate) enum Call {
    /// A client dials a room; its `dial` tells its answers apart.
    Join { client: usize, dial: u64, attempt: Box<JoinAttempt> },
    /// A node dials the fleet.
    FleetLink { node: usize, dial: u64 },
    /// A node dials a room.
    RoomLink { node: usize, dial: u64, room: RoomName, ticket: String },
    /// A room asks the fleet for a node.
    Place { room: RoomName, life: u64, request: Box<PlaceRequest> },
    /// A room asks the fleet whether a node may come in.
    Admit { room: RoomName, life: u64, node: NodeId },
    /// A room that ended tells the fleet.
    RoomOver { room: RoomName, life: u64 },
    /// A room tells the directory.
    Directory { life: u64, line: Box<Line> },
    /// A room tells another of a participant that is forwarded.
    Word { to: RoomName, life: u64, word: Box<Word> },
    /// The fleet tells a room of a silent node.
    NodeSilent { room: RoomName, node: NodeId },
    /// The fleet tells a room of a node near people who are served from afar.
    NodeNear { room: RoomName, place: Place },
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// To a client's or node's dial: the socket, or an HTTP status.
    Dialed { to: End, dial: u64, result: Result<Socket, u16> },
    /// To a room, of the fleet.
    Placed { room: RoomName, life: u64, response: PlaceResponse },
    /// To a room, of the fleet.
    Admitted { room: RoomName, life: u64, admitted: Option<bool> },
    /// To a room, of the fleet.
    LinksEnded {
        room: RoomName,
        life: u64,
        /// Or the request failed.
        done: bool,
    },
    /// To a room, of the directory.
    Told { room: RoomName, life: u64, line: Box<Line> },
    /// To a room, of another one, which has taken its word or not.
    Heard { to: RoomName, life: u64, word: Box<Word>, taken: bool },
}

/// What happens.
#[derive(Debug, Clone)]
pub(crate) enum Turn {
    /// A frame arrives.
    Frame { socket: Socket, to: End, frame: Frame },
    /// A request arrives.
    Call(Call),
    /// An answer arrives.
    Reply(Reply),
    /// A datagram arrives.
    Datagram { from: SocketAddr, to: SocketAddr, bytes: Vec<u8> },
    /// A client's timer.
    WakeClient(usize),
    /// A timer of a node's process.
    WakeNode { node: usize, life: u64 },
    /// A room object's alarm.
    Alarm { room: RoomName },
    /// The story goes on.
    Story,
}
