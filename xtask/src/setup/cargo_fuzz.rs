//! cargo-fuzz: it knows the flags that make cargo build for libFuzzer.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::from_source;
use crate::repo;

/// Runs on stable Rust as long as no sanitizer is asked for.
const VERSION: &str = "0.13.2";

/// Where setup puts it.
#[must_use]
pub fn binary() -> PathBuf {
    repo::tools_dir().join("bin/cargo-fuzz")
}

pub(super) fn is_done() -> bool {
    let Ok(output) = Command::new(binary()).arg("--version").output() else { return false };
    String::from_utf8_lossy(&output.stdout).split_whitespace().nth(1) == Some(VERSION)
}

pub(super) fn install() -> Result<()> {
    from_source::install("cargo-fuzz", VERSION, &["--locked"])
}
