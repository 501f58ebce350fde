//! What happens to the registry of agent workers, and what it wants done.

use livekit_protocol::{ServerMessage, WorkerMessage};
use shared::claims::AccessClaims;
use shared::ids::{RoomName, RoomSid, WorkerId};

use super::link::{Granted, News, Wishes};
use super::worker::Worker;

/// An event.
#[derive(Debug, Clone)]
pub enum Event {
    /// A worker's socket is open, its token checked.
    WorkerCame {
        /// A new id.
        worker: WorkerId,
    },
    /// A worker's message.
    WorkerSaid {
        /// From.
        worker: WorkerId,
        /// Decoded.
        message: Box<WorkerMessage>,
    },
    /// A worker's socket closed or broke.
    WorkerGone {
        /// Which.
        worker: WorkerId,
    },
    /// A room wants something; answered by [`Effect::Answer`].
    RoomWishes(Box<Wishes>),
    /// A room is over.
    RoomOver {
        /// Which.
        room: RoomName,
        /// This life of it.
        sid: RoomSid,
    },
    /// A room has heard its news.
    RoomTold {
        /// What it was told.
        news: Box<News>,
        /// It is the room that they were for.
        known: bool,
    },
    /// A room could not be told.
    RoomDeaf {
        /// Which.
        room: RoomName,
    },
    /// `deadline()` has come.
    Alarm,
}

/// An effect; carried out in order, after the rows are written.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send to a worker.
    ToWorker {
        /// To.
        worker: WorkerId,
        /// What.
        message: Box<ServerMessage>,
    },
    /// Mint a token from these claims and send it in `JobAssignment`.
    Assign {
        /// To.
        worker: WorkerId,
        /// The job.
        job: Box<livekit_protocol::Job>,
        /// The claims; `iss` is set by the shell to its first key.
        claims: Box<AccessClaims>,
    },
    /// Keep what is known of a worker with its socket.
    Keep {
        /// Which.
        worker: WorkerId,
        /// What.
        known: Box<Worker>,
    },
    /// Close a worker's socket.
    Close {
        /// Which.
        worker: WorkerId,
        /// Why, for its log.
        reason: &'static str,
    },
    /// Answer to the [`Event::RoomWishes`] at hand.
    Answer(Box<Granted>),
    /// For the operator.
    Counted {
        /// What; a name that never changes.
        reason: &'static str,
    },
}

/// Every table a [`RowChange`] may name.
pub const TABLES: [&str; 3] = ["job", "watch", "pool"];

pub use crate::room::effect::RowChange;
