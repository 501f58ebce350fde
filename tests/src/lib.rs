//! Harness of the whole-system tests: a LiveKit signaling client, a media client that shares no code with the node, and
//! the meters of the benchmarks.

pub mod client;
pub mod load;
pub mod scene;
pub mod signal;
pub mod token;
