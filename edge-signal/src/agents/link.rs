//! What rooms and the agents' object tell each other. **All of it may come twice: it says how things stand.**

use std::collections::{BTreeMap, BTreeSet};

use livekit_protocol as proto;
use livekit_protocol::JobType;
use serde::{Deserialize, Serialize};
use shared::ids::{AgentName, Identity, JobId, RoomName, RoomSid, WorkerId};

/// What a job is for (LiveKit's `JobType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// A room.
    Room,
    /// A participant that publishes.
    Publisher,
    /// A participant.
    Participant,
}

impl From<JobKind> for JobType {
    fn from(kind: JobKind) -> Self {
        match kind {
            JobKind::Room => Self::JtRoom,
            JobKind::Publisher => Self::JtPublisher,
            JobKind::Participant => Self::JtParticipant,
        }
    }
}

impl From<JobType> for JobKind {
    fn from(kind: JobType) -> Self {
        match kind {
            JobType::JtRoom => Self::Room,
            JobType::JtPublisher => Self::Publisher,
            JobType::JtParticipant => Self::Participant,
        }
    }
}

/// Agent names, and the kinds of jobs that workers of each take.
pub type Served = BTreeMap<AgentName, BTreeSet<JobKind>>;

/// What a room wants of the agents' object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wishes {
    /// Which room.
    pub room: RoomName,
    /// This life of it.
    pub sid: RoomSid,
    /// All names whose workers it wants to hear of when they come; `None`: as before.
    pub watch: Option<BTreeSet<AgentName>>,
    /// Asks what unnamed workers take, once.
    pub automatic: bool,
    /// Jobs to find workers for.
    #[serde(with = "crate::protobuf::messages")]
    pub launch: Vec<proto::Job>,
    /// Jobs that are to end.
    pub end: Vec<JobId>,
}

/// What a room is answered. What is not listed as over was taken.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Granted {
    /// Of the names it watches or asked about.
    pub served: Served,
    /// Jobs of its wishes that there are not, and why.
    pub over: BTreeMap<JobId, String>,
}

/// What a room is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct News {
    /// Which room.
    pub room: RoomName,
    /// This life of it.
    pub sid: RoomSid,
    /// Of all names it watches, when that has changed.
    pub served: Option<Served>,
    /// How its jobs stand.
    pub jobs: BTreeMap<JobId, Standing>,
}

/// How a job stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// No worker has it.
    Waiting,
    /// A worker has it.
    Running {
        /// Which.
        worker: WorkerId,
        /// The agent's identity in the room.
        identity: Identity,
    },
    /// It is over.
    Ended(Ending),
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Why it failed; `None`: it did not.
    pub error: Option<String>,
    /// Another try may go better.
    pub retry: bool,
}

impl Ending {
    /// It did what it was to do.
    #[must_use]
    pub fn success() -> Self {
        Self { error: None, retry: false }
    }

    /// It failed; another worker may do better.
    #[must_use]
    pub fn failure(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), retry: true }
    }

    /// It failed, and would again.
    #[must_use]
    pub fn hopeless(error: impl Into<String>) -> Self {
        Self { error: Some(error.into()), retry: false }
    }
}
