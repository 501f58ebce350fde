//! What a room wants done.

use std::rc::Rc;

use livekit_protocol as proto;
use livekit_protocol::{DisconnectReason, SignalResponse};
use shared::claims::AccessClaims;
use shared::control::{FirstSession, PlaceRequest, RoomToNode};
use shared::ids::{Identity, NodeId, ParticipantSid, RoomName, RoomSid};

use super::call::Heard;
use super::event::ConnectionId;
use super::forward::Word;
use super::service::{Answer, Error};

/// An effect; carried out in order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send to a client, in the encoding it uses. What many are told at once is one message, for each an effect in a row.
    ToClient {
        /// To.
        connection: ConnectionId,
        /// What.
        message: Rc<SignalResponse>,
    },
    /// Mint an access token from these claims and send it as `refresh_token`.
    RefreshToken {
        /// To.
        connection: ConnectionId,
        /// The claims; `iss` is set by the shell to its first key.
        claims: Box<AccessClaims>,
    },
    /// Mint an access token from these claims and send it in `room_moved`.
    RoomMoved {
        /// To.
        connection: ConnectionId,
        /// The claims; `iss` is set by the shell to its first key.
        claims: Box<AccessClaims>,
        /// The rest of the message.
        moved: Box<proto::RoomMovedResponse>,
    },
    /// Close a client's socket with code 1000.
    CloseClient {
        /// Which.
        connection: ConnectionId,
    },
    /// Send on a node's room link. Only to a node that is linked; what it missed it is told after its next `Hello`.
    ToNode {
        /// To.
        node: NodeId,
        /// What.
        message: Box<RoomToNode>,
    },
    /// Mint a session token and send `RoomToNode::OpenSession`.
    OpenSession {
        /// To.
        node: NodeId,
        /// The session.
        session: Box<FirstSession>,
    },
    /// Ask the fleet for a node; answered by `Event::Placed`.
    Place(Box<PlaceRequest>),
    /// Let nobody of this identity in with a token that was minted before; **remembered when the room is over, too**.
    RevokeTokens {
        /// Whose.
        identity: Identity,
        /// Unix seconds.
        before: u64,
        /// Until when it is to be remembered, Unix seconds.
        until: u64,
        /// The app server says of when: whatever the deployment does with tokens of the removed.
        asked: bool,
    },
    /// A participant is out of the room: for the operator, nobody else is told.
    Left {
        /// Who.
        participant: ParticipantSid,
        /// Why.
        reason: DisconnectReason,
        /// How long it was in the room, seconds.
        seconds: u64,
    },
    /// Tell another room; **until it has heard, also when this one is over by then**, and the newest word alone.
    ToRoom {
        /// That room.
        to: RoomName,
        /// What.
        word: Box<Word>,
    },
    /// Tell app servers.
    Webhook(Box<proto::WebhookEvent>),
    /// A participant says something of a call ([`Answer::Called`]), which somebody may wait for.
    CallHeard {
        /// Which.
        id: String,
        /// What.
        heard: Heard,
    },
    /// Answer to the `Event::Request` at hand.
    Answer(Box<Result<Answer, Error>>),
    /// The room is over: the agents' object is to forget it. **Told even though the rows are gone.**
    AgentsOver {
        /// Which life of it.
        sid: RoomSid,
    },
    /// The room's line in the directory changed (or, with `None`, the room ended).
    Directory(Option<DirectoryEntry>),
}

/// A room's line in the directory.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct DirectoryEntry {
    /// `RM_…`.
    pub sid: String,
    /// Unix milliseconds.
    pub created_at: u64,
    /// Participants that count (not hidden from counts: agents, egress).
    pub participants: u32,
    /// Participants that publish.
    pub publishers: u32,
    /// LiveKit's `Room`; lines of before have none that can be read.
    #[serde(default, rename = "info", with = "crate::protobuf::optional")]
    pub room: Option<Box<proto::Room>>,
}

impl DirectoryEntry {
    /// LiveKit's `Room`, as far as the line knows it.
    #[must_use]
    pub fn into_room(self, name: &str) -> proto::Room {
        let unix_ms = i64::try_from(self.created_at).unwrap_or(i64::MAX);
        self.room.map_or_else(
            || proto::Room {
                sid: self.sid,
                name: name.to_owned(),
                creation_time: unix_ms / 1000,
                creation_time_ms: unix_ms,
                num_participants: self.participants,
                num_publishers: self.publishers,
                ..Default::default()
            },
            |room| proto::Room { name: name.to_owned(), ..*room },
        )
    }
}

/// Every table a [`RowChange`] may name.
pub const TABLES: [&str; 12] = [
    "room",
    "participant",
    "session",
    "description",
    "publication",
    "subscription",
    "node",
    "departed",
    "forward",
    "forwarded",
    "dispatch",
    "job",
];

/// One row to write (`Some`) or delete (`None`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// Which of [`TABLES`].
    pub table: &'static str,
    /// Primary key.
    pub key: String,
    /// The row as JSON.
    pub value: Option<String>,
}
