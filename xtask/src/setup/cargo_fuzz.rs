//! cargo-fuzz: it knows the flags that make cargo build for libFuzzer.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::{progress, repo};

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
    let mut cargo = repo::cargo();
    cargo.args(["install", "cargo-fuzz", "--locked", "--force", "--version", VERSION, "--root"]).arg(repo::tools_dir());
    cargo.arg("--target-dir").arg(repo::target_dir().join("tools"));
    progress::run(&format!("building cargo-fuzz {VERSION} (a minute, once)"), &mut cargo)
}
