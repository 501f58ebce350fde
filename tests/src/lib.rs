//! Harness of the whole-system tests: a LiveKit signaling client, a media client that shares no code with the node,
//! LiveKit's own SDKs, and what the benchmarks share.

pub mod agent;
pub mod app_server;
pub mod bench;
pub mod booted;
pub mod browser;
pub mod call;
pub mod chaos;
pub mod client;
pub mod door;
pub mod driver;
pub mod edge_impostor;
pub mod front;
pub mod guide;
pub mod load;
pub mod machine;
pub mod native_crowd;
pub mod node_impostor;
pub mod probe;
pub mod relay;
pub mod rig;
pub mod rival;
pub mod rows;
pub mod scene;
pub mod sdk;
pub mod server_sdk;
pub mod signal;
pub mod statistics;
pub mod token;
pub mod turn_server;
pub mod upgrade;
pub mod watcher;
