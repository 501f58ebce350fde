//! The edge of Meridian. Natively: the pure room and fleet machines, for tests and the simulator.
//! On wasm32: the Worker and its Durable Objects around them.

pub mod agents;
pub mod api;
pub mod fleet;
pub mod flood;
pub mod ice_servers;
mod listed;
pub mod protobuf;
pub mod refusal;
pub mod report;
pub mod room;
pub mod signing;
pub mod steps;
pub mod webhook;

#[cfg(target_arch = "wasm32")]
mod entry;
#[cfg(target_arch = "wasm32")]
mod objects;
#[cfg(target_arch = "wasm32")]
mod runtime;
