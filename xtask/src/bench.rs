//! `cargo xtask bench`: sets up, then hands over to a bench binary of the tests crate.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::Args;

use crate::{repo, setup};

/// Measure; see `cargo xtask bench --help`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Bench {
    /// What and how; passed on to the measurement.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Bench {
    /// Becomes the measurement.
    ///
    /// # Errors
    /// When setup fails or cargo cannot be run.
    pub fn run(&self) -> Result<()> {
        setup::for_build()?;
        let mut cargo = repo::cargo();
        cargo.args(["run", "--release", "--package", "meridian-tests", "--bin", "bench", "--"]).args(&self.arguments);
        Err(cargo.exec()).context("cannot run cargo")
    }
}
