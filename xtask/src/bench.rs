//! `cargo xtask bench`: sets up, then hands over to a bench binary of the tests crate.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::{repo, setup};

/// Measure; see `cargo xtask bench forward -- --help`.
#[derive(Args)]
pub struct Bench {
    /// What.
    what: What,
    /// Passed on to the measurement.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Forwarded packets per CPU second of the node, latency, loss, memory; Janus and LiveKit side by side.
    Forward,
    /// Time from connect to the first media packet.
    Join,
}

impl Bench {
    /// Becomes the measurement.
    ///
    /// # Errors
    /// When setup fails or cargo cannot be run.
    pub fn run(&self) -> Result<()> {
        setup::for_build()?;
        let binary = match self.what {
            What::Forward => "bench-forward",
            What::Join => "bench-join",
        };
        let mut cargo = repo::cargo();
        cargo.args(["run", "--release", "--package", "meridian-tests", "--bin", binary, "--"]).args(&self.arguments);
        Err(cargo.exec()).context("cannot run cargo")
    }
}
