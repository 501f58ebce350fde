//! `cargo xtask sim`: room, fleet and nodes in one virtual world; hands over to the simulation.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use crate::{repo, setup};

/// Simulate calls while everything breaks; see `cargo xtask sim --help`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Sim {
    /// Which seeds; passed on to the simulation.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Sim {
    /// Becomes the simulation.
    ///
    /// # Errors
    /// When setup fails or cargo cannot be run.
    pub fn run(&self) -> Result<()> {
        setup::for_build()?;
        let mut cargo = repo::cargo();
        // The profile of the tests: it is fast enough, and built already.
        cargo.args(["run", "--quiet", "--package", "meridian-sim", "--"]).args(&self.arguments);
        Err(cargo.exec()).context("cannot run cargo")
    }
}
