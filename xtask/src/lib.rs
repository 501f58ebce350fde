//! Setting up and starting the parts of Meridian: shared by `cargo xtask` and the system tests.

pub mod process;
pub mod repo;
