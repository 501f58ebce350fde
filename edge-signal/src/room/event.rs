//! What happens to a room.

use livekit_protocol::{IceServer, JoinRequest, SignalRequest};
use serde::{Deserialize, Serialize};
use shared::claims::AccessClaims;
use shared::control::{NodeToRoom, PeerConnections, PlaceRequest, Placed};
use shared::geo::Place;
use shared::ids::{NodeId, ParticipantSid, RegionName, RoomName};

use super::service::Request;
use super::transfer::{Transfer, Welcome};
use crate::agents::link::{Granted, News, Wishes};

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// This many milliseconds later.
    #[must_use]
    pub fn after(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Whole Unix seconds.
    #[must_use]
    pub fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// Whole seconds since an earlier moment.
    #[must_use]
    pub fn secs_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1000
    }
}

/// Time and randomness of one event, from the shell.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// Now.
    pub now: UnixMs,
    /// Seed for every id and random number the event needs.
    pub seed: [u8; 32],
}

/// One client WebSocket (or, later, one WHIP session). New for each socket; never reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConnectionId(pub String);

/// A client that wants in, its token verified by the Worker.
#[derive(Debug, Clone)]
pub struct JoinAttempt {
    /// `video.room`, checked.
    pub room: RoomName,
    /// The access token's claims.
    pub claims: AccessClaims,
    /// What it asks: from `join_request`, or from `/rtc`'s query parameters.
    pub request: JoinRequest,
    /// `/rtc/v1` or `/rtc`; the primary connection is settled by [`crate::room`].
    pub single_peer_connection: bool,
    /// Where the platform says it is.
    pub place: Option<Place>,
}

/// A join that will be let in: what `admit` made of an attempt.
#[derive(Debug, Clone)]
pub struct Admission {
    /// The attempt.
    pub attempt: JoinAttempt,
    /// The sid the participant will have. A resume is admitted too; its `Joined` is answered with a leave.
    pub participant: ParticipantSid,
    /// How many connections, which primary.
    pub peer_connections: PeerConnections,
    /// Set when the room has no node yet: ask the fleet before accepting; without a node answer 503.
    pub place: Option<Box<PlaceRequest>>,
    /// Those of the deployment, with credentials for this client: the shell's to add.
    pub ice_servers: Vec<IceServer>,
}

/// An event.
#[derive(Debug, Clone)]
pub enum Event {
    /// An admitted client's socket is open.
    Joined {
        /// Its socket.
        connection: ConnectionId,
        /// Its admission.
        admission: Box<Admission>,
        /// The node the fleet chose when `admission.place` asked for one; it opens the session already.
        placed: Option<Placed>,
    },
    /// A client's message.
    ClientMessage {
        /// From.
        connection: ConnectionId,
        /// Decoded.
        message: Box<SignalRequest>,
    },
    /// A client's frame could not be decoded: the connection is to be closed (1000, as LiveKit).
    ClientGarbage {
        /// From.
        connection: ConnectionId,
    },
    /// A client's socket closed or broke.
    ClientGone {
        /// Which.
        connection: ConnectionId,
    },
    /// An app server asks something; answered by `Effect::Answer`.
    Request(Box<Request>),
    /// Another room has taken a participant in; answered by `Effect::Answer` too.
    Transferred {
        /// Who.
        transfer: Box<Transfer>,
        /// What its client is to be told.
        welcome: Box<Welcome>,
    },
    /// Another room has taken what it was told of a participant that is forwarded.
    WordTaken {
        /// That room.
        to: RoomName,
        /// Who it is in the room that it is forwarded from.
        participant: ParticipantSid,
    },
    /// Another room does not know, or does not take, a participant that is forwarded.
    WordRefused {
        /// That room.
        to: RoomName,
        /// Who it is in the room that it is forwarded from.
        participant: ParticipantSid,
    },
    /// A node's room link is open, its ticket checked. Replaces an earlier link of that node.
    NodeLinked {
        /// Which node.
        node: NodeId,
        /// Its region.
        region: RegionName,
        /// A fresh ticket for `RoomToNode::Welcome`.
        rejoin_ticket: String,
    },
    /// A node's message.
    NodeMessage {
        /// From.
        node: NodeId,
        /// What.
        message: Box<NodeToRoom>,
    },
    /// A node's room link closed or broke, and no later link of that node is open.
    NodeGone {
        /// Which.
        node: NodeId,
    },
    /// The fleet does not have a node either whose room link broke.
    NodeLost {
        /// Which.
        node: NodeId,
    },
    /// The fleet still has the node whose room link broke.
    NodeStillThere,
    /// A node that takes rooms is there, and has been for a while; people of the room are served from afar instead.
    NodeNear {
        /// Where it is.
        place: Place,
    },
    /// The fleet answered an `Effect::Place`.
    Placed {
        /// The node chosen; `None`: no node is up.
        node: Option<Placed>,
    },
    /// The agents' object has the room's wishes.
    AgentsGranted {
        /// What it was told.
        wishes: Box<Wishes>,
        /// What it answered.
        granted: Box<Granted>,
    },
    /// The agents' object says how workers and jobs stand.
    AgentsNews(Box<News>),
    /// `deadline()` has come.
    Alarm,
}
