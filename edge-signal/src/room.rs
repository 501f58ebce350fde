//! The room: a pure state machine. Event in, effects out; no worker types, no clock, no randomness.
//!
//! **The shell carries out the effects of an event in their order, after the event's row changes are written.**

pub mod effect;
pub mod event;
