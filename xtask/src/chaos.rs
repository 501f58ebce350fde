//! `cargo xtask chaos`: sets up, then hands over to the tests crate, where hosts can be made.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{hosts, repo, setup};

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
        let mut cargo = repo::cargo();
        // The profile of the tests: it is built already.
        cargo.args(["run", "--quiet", "--package", "meridian-tests", "--bin", "chaos", "--"]).args(&self.arguments);
        Err(hosts::within(&cargo).exec()).context("cannot run cargo")
    }
}
