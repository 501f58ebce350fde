//! The contract between edge and node: ids, tokens, control messages, regions.
//! No I/O, no clock, no randomness; builds on wasm32 and natively.

pub mod claims;
pub mod control;
pub mod geo;
pub mod ids;
