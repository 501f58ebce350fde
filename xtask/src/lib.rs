//! Setting up and starting the parts of Meridian: shared by `cargo xtask` and the system tests.

pub mod bench;
pub mod chaos;
pub mod deploy;
pub mod dev;
pub mod edge;
pub mod fuzz;
pub mod hosts;
pub mod infra;
pub mod node;
pub mod operator;
pub mod package;
pub mod page;
pub mod pin;
pub mod process;
pub mod progress;
pub mod repo;
pub mod secrets;
pub mod setup;
pub mod sim;
pub mod stack;
pub mod suite;
pub mod upgrade;
pub mod wasm;
