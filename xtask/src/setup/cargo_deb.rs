//! cargo-deb: it makes a Debian package of a crate.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::from_source;
use crate::repo;

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
    from_source::install("cargo-deb", VERSION, &["--locked"])
}
