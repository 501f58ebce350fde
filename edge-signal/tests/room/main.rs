//! The room machine as its clients and nodes see it, in a virtual world that also checks, event by event, that a room
//! rebuilt from its rows goes on exactly like one that never slept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test may panic"
)]

mod agents;
mod app_server;
mod calling;
mod crowd;
mod departures;
mod draining;
mod dynacast;
mod forwarding;
mod joining;
mod moving;
mod negotiation;
mod node_loss;
mod piping;
mod playout;
mod publishing;
mod quality;
mod random_events;
mod relaying;
mod resuming;
mod returning;
mod serving;
mod speaking;
mod spreading;
mod subscribing;
mod transferring;
mod virtual_client;
mod virtual_node;
mod webhooks;
mod who;
mod world;
