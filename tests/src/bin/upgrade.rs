//! `cargo xtask upgrade`: a call lives through the upgrade of everything.

use std::path::PathBuf;

use anyhow::Result;
use clap::Parser;
use xtask::stack::Build;

/// Upgrade nodes and edge to this working copy's under a call.
#[derive(Parser)]
struct Args {
    /// The working copy of the version before, with its Worker built.
    source: PathBuf,
    /// Its node.
    node: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { source, node } = Args::parse();
    meridian_tests::upgrade::run(&Build::of(source, node)).await
}
