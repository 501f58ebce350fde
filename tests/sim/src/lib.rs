//! Room, fleet and nodes as they are deployed, with virtual clients, links and time, in one process. **One seed is one run.**
//!
//! Real: the room and fleet machines, a node's conference and shard (negotiation, ICE, SRTP, forwarding). Written anew, after
//! the shells they stand for: the objects around the machines, a node's links to the edge. Left out: signatures, DTLS, SCTP.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a simulation may panic"
)]

mod client;
mod directory;
mod fleet_object;
mod judge;
mod net;
mod node;
mod peer;
mod room_object;
mod room_task;
pub mod rules;
mod sdp;
mod story;
mod world;

pub use story::{Outcome, run};
