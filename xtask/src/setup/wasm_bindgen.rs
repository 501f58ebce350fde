//! wasm-bindgen's command line at exactly the version of the crate in Cargo.lock.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{progress, repo};

/// Where setup puts it.
#[must_use]
pub fn binary() -> PathBuf {
    repo::tools_dir().join("bin/wasm-bindgen")
}

pub(super) fn is_done() -> bool {
    let Ok(wanted) = repo::locked_version("wasm-bindgen") else { return false };
    let Ok(output) = Command::new(binary()).arg("--version").output() else { return false };
    String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1) == Some(wanted.as_str())
}

pub(super) fn install() -> Result<()> {
    let version = repo::locked_version("wasm-bindgen")?;
    let mut cargo = repo::cargo();
    cargo.args(["install", "wasm-bindgen-cli", "--force", "--version", &version, "--root"]).arg(repo::tools_dir());
    cargo.arg("--target-dir").arg(repo::target_dir().join("tools"));
    progress::run(&format!("building wasm-bindgen {version} (two minutes, once)"), &mut cargo)
}
