//! wasm-bindgen's command line at exactly the version of the crate in Cargo.lock.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::from_source;
use crate::repo;

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
    from_source::install("wasm-bindgen-cli", &repo::locked_version("wasm-bindgen")?, &[])
}
