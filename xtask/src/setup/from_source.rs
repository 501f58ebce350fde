//! Programs that cargo builds from source, once. **What was built on the way is removed: it takes half a gigabyte each.**

use std::fs;

use anyhow::{Context, Result};

use crate::{progress, repo};

/// Installs a crate's programs at exactly this version; `more` are further arguments of `cargo install`.
pub(super) fn install(package: &str, version: &str, more: &[&str]) -> Result<()> {
    let scratch = repo::target_dir().join("tools");
    let mut cargo = repo::cargo();
    cargo.args(["install", package, "--force", "--version", version]).args(more);
    cargo.arg("--root").arg(repo::tools_dir()).arg("--target-dir").arg(&scratch);
    progress::run(&format!("building {package} {version} (minutes, once)"), &mut cargo)?;
    fs::remove_dir_all(&scratch).with_context(|| format!("removing {}", scratch.display()))
}
