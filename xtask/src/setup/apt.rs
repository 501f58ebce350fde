//! Debian's package manager, where there is one and we may use it.

use std::path::Path;
use std::process::Command;
use std::sync::Once;

use anyhow::{Result, bail};

use crate::progress;

/// Whether this is Debian or one of its children and we are root.
pub(super) fn is_usable() -> bool {
    Path::new("/usr/bin/apt-get").exists() && rustix::process::geteuid().is_root()
}

/// Installs packages; where that is not for us to do, the error names them.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    static UPDATED: Once = Once::new();
    let list = packages.join(" ");
    if !is_usable() {
        bail!("install the packages `{list}` (Debian and Ubuntu: sudo apt-get install {list})");
    }
    // A stale index is the usual reason for a failing install; a failing update alone is none.
    UPDATED.call_once(|| {
        let _ = progress::run("updating the package index", apt().arg("update"));
    });
    let mut command = apt();
    command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
    progress::run(&format!("installing {list}"), &mut command)
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive");
    command
}
