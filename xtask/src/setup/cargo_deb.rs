//! cargo-deb: it makes a Debian package of a crate.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{progress, repo};

const VERSION: &str = "3.8.0";

/// Where setup puts it.
#[must_use]
pub fn binary() -> PathBuf {
    repo::tools_dir().join("bin/cargo-deb")
}

pub(super) fn is_done() -> bool {
    let Ok(output) = Command::new(binary()).arg("--version").output() else { return false };
    String::from_utf8_lossy(&output.stdout).trim().ends_with(VERSION)
}

pub(super) fn install() -> Result<()> {
    let mut cargo = repo::cargo();
    cargo.args(["install", "cargo-deb", "--locked", "--force", "--version", VERSION, "--root"]).arg(repo::tools_dir());
    cargo.arg("--target-dir").arg(repo::target_dir().join("tools"));
    progress::run(&format!("building cargo-deb {VERSION} (a minute, once)"), &mut cargo)
}
