//! Messages of the fleet link, and requests to the fleet: of nodes, operators and rooms.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{MediaGrants, OpenSession};
use crate::geo::Place;
use crate::ids::{Generation, Identity, NodeId, ParticipantSid, RegionName, RoomName};

/// Seconds between a node's heartbeats on the fleet link.
pub const HEARTBEAT_SECS: u64 = 1;
/// Where a node opens its fleet link, relative to the edge.
pub const FLEET_LINK_PATH: &str = "/node/fleet";
/// Where a node asks which address the edge sees it at ([`SeenAddress`]), relative to the edge.
pub const ADDRESS_PATH: &str = "/node/address";
/// Where an operator lets nodes enrol from addresses ([`AdmitRequest`]), relative to the edge.
pub const ADMIT_PATH: &str = "/node/admit";
/// Most addresses in one [`AdmitRequest`].
pub const MAX_ADMITTED: usize = 1000;
/// How long an address is admitted, seconds: machines boot in minutes.
pub const ADMISSION_TTL_SECS: u64 = 60 * 60;
/// Where a node posts its enrolment ([`EnrolRequest`]), relative to the edge.
pub const ENROL_PATH: &str = "/node/enrol";
/// Where an operator revokes a node's key ([`RevokeRequest`]), relative to the edge.
pub const REVOKE_PATH: &str = "/node/revoke";

/// Where an operator asks which nodes there are (answer: a list of [`NodeStatus`]), relative to the edge.
pub const NODES_PATH: &str = "/node/list";
/// Where an operator has a node drain ([`DrainRequest`]), relative to the edge.
pub const DRAIN_PATH: &str = "/node/drain";

/// Where an operator, or what scales its machines, asks how many nodes each region needs (answer: a list of [`RegionNeed`]),
/// relative to the edge.
pub const NEED_PATH: &str = "/node/need";

/// What a node is and can carry, in its first message on the fleet link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Crate version.
    pub version: String,
    /// [`super::CONTROL_VERSION`].
    pub control_version: u32,
    /// Region's name.
    pub region: RegionName,
    /// Region's place.
    pub place: Place,
    /// Most sessions it takes.
    pub max_sessions: u32,
    /// What else it can carry, and what that costs.
    #[serde(default)]
    pub limits: NodeLimits,
    /// It takes pipes: rooms may have other nodes beside it.
    #[serde(default)]
    pub pipes: bool,
}

/// What a node's machine and network can carry, as far as its operator says.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeLimits {
    /// Media sent at most, bits per second.
    pub max_egress_bps: Option<u64>,
    /// Packets received and sent at most, per second.
    pub max_packets_per_second: Option<u32>,
    /// What is paid for what it sends, US cents a gigabyte.
    pub egress_cost: Option<f32>,
}

/// A node's load, once a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Sessions open.
    pub sessions: u32,
    /// CPU of the process, 1.0 = all cores it may use; or what of its thread the least busy media shard takes, if that is
    /// more. 1.0 also while all shards leave out video for want of CPU: sessions are refused then.
    pub cpu: f32,
    /// Media sent, bits per second.
    pub egress_bps: u64,
    /// Packets received and sent per second.
    pub packets_per_second: u32,
}

/// Node to fleet, on the fleet link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum NodeToFleet {
    /// First message.
    Hello(NodeInfo),
    /// Every [`HEARTBEAT_SECS`].
    Heartbeat(NodeLoad),
    /// Place nothing here any more.
    Draining,
}

/// Fleet to node, on the fleet link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum FleetToNode {
    /// First message: the node may serve.
    Welcome {
        /// The node's own id.
        node: NodeId,
        /// An operator drains it.
        #[serde(default)]
        draining: bool,
    },
    /// An operator drains the node, or takes that back: it tells its rooms.
    Drain {
        /// From now on.
        draining: bool,
    },
    /// The node is busy, and another one is not: it asks some of its rooms to leave.
    Shed {
        /// About so many sessions are to go.
        sessions: u32,
    },
    /// Dial this room's object, and open its first session meanwhile.
    Attach {
        /// Which room.
        room: RoomName,
        /// One-time ticket for the room link ([`crate::claims::TicketClaims`]).
        ticket: String,
        /// The session that made the room ask, if one did.
        first: Option<Box<OpenSession>>,
    },
}

/// Answer to `GET` [`ADDRESS_PATH`]: what a node behind a cloud's address translation cannot see by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenAddress {
    /// Where the request came from.
    pub address: IpAddr,
}

/// `POST` [`ADMIT_PATH`], `Authorization: Bearer` an enrolment token: within [`ADMISSION_TTL_SECS`] one key may enrol
/// from each of these addresses without a token, so that no secret goes to the machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdmitRequest {
    /// At most [`MAX_ADMITTED`].
    pub addresses: Vec<IpAddr>,
}

/// `POST` [`ENROL_PATH`], with `Authorization: Bearer` an enrolment token ([`crate::claims::EnrolClaims`]), or from an
/// address that was admitted ([`AdmitRequest`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolRequest {
    /// The node's Ed25519 public key, raw 32 bytes, URL-safe base64 without padding (JWK `x`, RFC 8037).
    pub public_key: String,
}

/// Answer to [`EnrolRequest`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrolResponse {
    /// The id to put in node tokens. The same key always gets the same id.
    pub node: NodeId,
}

/// `POST` [`REVOKE_PATH`], `Authorization: Bearer` an enrolment token: the node's key opens nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevokeRequest {
    /// Whose key.
    pub node: NodeId,
}

/// `POST` [`DRAIN_PATH`], `Authorization: Bearer` an enrolment token: no room is placed on the node any more, or again; what
/// it has is taken to other nodes. Holds until it is taken back, whatever starts anew meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainRequest {
    /// Which.
    pub node: NodeId,
    /// Whether it drains.
    pub draining: bool,
}

/// A node with an open fleet link: of the answer to `POST` [`NODES_PATH`], `Authorization: Bearer` an enrolment token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Which.
    pub node: NodeId,
    /// Where the edge sees it, when the platform says.
    pub address: Option<IpAddr>,
    /// What it said of itself.
    pub info: NodeInfo,
    /// Its last heartbeat; `None`: none has come since the edge or the link is new.
    pub load: Option<NodeLoad>,
    /// No room is placed there: it said so, or an operator.
    pub draining: bool,
}

/// How many nodes a region needs: of the answer to `POST` [`NEED_PATH`], `Authorization: Bearer` an enrolment token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionNeed {
    /// Which.
    pub region: RegionName,
    /// Nodes that take rooms.
    pub nodes: u32,
    /// Nodes that drain.
    pub draining: u32,
    /// Sessions on all of them.
    pub sessions: u32,
    /// How many full nodes' load there is.
    pub load: f64,
    /// Nodes that should take rooms.
    pub wanted: u32,
    /// Why so many.
    pub why: NeedReason,
}

/// Why a region needs more nodes, or fewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NeedReason {
    /// It has what it needs.
    Fits,
    /// The nodes that take rooms are fuller than they should be.
    Load,
    /// They will be, when those that drain have handed over what they have.
    Draining,
    /// Fewer would do.
    Idle,
}

/// How much nearer another node has to be for a participant to be served there and not where its room is, km: some 20 ms of
/// round trip in fibre, for which its media goes over one node more.
pub const SPREAD_KM: f64 = 2_000.0;

/// A room asks the fleet for a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceRequest {
    /// Which room.
    pub room: RoomName,
    /// Where the client is, when the platform says.
    pub client: Option<Place>,
    /// Only nodes of this region.
    #[serde(default)]
    pub region: Option<RegionName>,
    /// This node, if it takes rooms; else any other.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// Nodes not to choose (just failed there).
    pub exclude: Vec<NodeId>,
    /// The session to open at once.
    pub first: Option<FirstSession>,
    /// The room's link to this node broke: if the fleet still has it there is nothing to place.
    #[serde(default)]
    pub lost: Option<NodeId>,
    /// Nodes that serve the room already. One of them is the answer, and is not told to attach, unless a node that takes pipes
    /// is nearer than all of them by [`SPREAD_KM`].
    #[serde(default)]
    pub serving: Vec<NodeId>,
    /// Sessions that go there at once: the node has to have room for all of them. 0 is taken as 1.
    #[serde(default)]
    pub sessions: u32,
}

impl PlaceRequest {
    /// For the first session of a room, wherever a node has space for it.
    #[must_use]
    pub fn of(room: RoomName, client: Option<Place>) -> Self {
        Self {
            room,
            client,
            region: None,
            node: None,
            exclude: Vec::new(),
            first: None,
            lost: None,
            serving: Vec::new(),
            sessions: 1,
        }
    }
}

/// A session that goes with the attach; the fleet mints its token once the node is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstSession {
    /// Whose.
    pub participant: ParticipantSid,
    /// Its identity.
    pub identity: Identity,
    /// Which of its sessions.
    pub generation: Generation,
    /// What it may do.
    pub grants: MediaGrants,
    /// All else; `token` is empty and filled in by the fleet.
    pub open: OpenSession,
}

/// A node for a room, as the fleet knows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Placed {
    /// Which.
    pub node: NodeId,
    /// Its region.
    pub region: RegionName,
    /// Where it is, if it takes pipes: whoever comes before it has dialed in may be nearer to another one.
    #[serde(default)]
    pub piped_at: Option<Place>,
}

/// The fleet's answer to [`PlaceRequest`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PlaceResponse {
    /// This node was told to attach.
    Placed(Placed),
    /// No node is up, or all are full or draining.
    NoNode,
    /// The node that the room believes lost has its fleet link: it will dial in again.
    StillThere,
}
