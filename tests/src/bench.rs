//! What `cargo xtask bench` measures: loads on a server, ours and others in turn, and what they cost it.

mod apart;
pub mod api;
pub mod command;
pub mod crowd;
pub mod drain;
pub mod failover;
pub mod impaired;
pub mod join_rate;
pub mod join_steps;
pub mod limit;
pub mod measure;
mod plot;
pub mod publisher;
pub mod report;
pub mod scenario;
pub mod servers;
pub mod signaling;
