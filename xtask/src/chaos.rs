//! `cargo xtask chaos`: sets up, then hands over to the tests crate, where hosts can be made.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{hosts, progress, repo, setup};

const BIN: [&str; 4] = ["--package", "meridian-tests", "--bin", "chaos"];

/// Break edge, nodes and links under real calls; see `cargo xtask chaos --help`.
#[derive(Args)]
#[command(disable_help_flag = true)]
pub struct Chaos {
    /// How long, which seed; passed on.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

impl Chaos {
    /// Becomes it.
    ///
    /// # Errors
    /// When setup fails, hosts cannot be made here, or cargo cannot be run.
    pub fn run(&self) -> Result<()> {
        setup::for_tests()?;
        if let Some(reason) = hosts::impossible()? {
            bail!("nothing to break here: {reason}");
        }
        // Where hosts are made there is no network to fetch a crate from.
        progress::run("building chaos", repo::cargo().arg("build").args(BIN))?;
        let mut cargo = repo::cargo();
        cargo.args(["run", "--quiet"]).args(BIN).arg("--").args(&self.arguments);
        Err(hosts::within(&cargo).exec()).context("cannot run cargo")
    }
}
