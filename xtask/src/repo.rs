//! Where things are in the working copy, and how cargo is called in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// The root of the working copy this xtask was built from.
#[must_use]
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where a working copy has its [`state_dir`].
pub const STATE_DIR: &str = ".meridian";

/// State of setup and of local runs; ignored by git and safe to delete.
#[must_use]
pub fn state_dir() -> PathBuf {
    root().join(STATE_DIR)
}

/// Tools that setup installed with cargo.
#[must_use]
pub fn tools_dir() -> PathBuf {
    state_dir().join("tools")
}

/// A program of an npm package: `npm_bin("workerd/bin/workerd")`.
#[must_use]
pub fn npm_bin(path: &str) -> PathBuf {
    root().join("node_modules").join(path)
}

/// Cargo's target directory, as the environment sets it.
#[must_use]
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// The cargo that runs this xtask, in the root of the working copy.
#[must_use]
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// The version Cargo.lock pins for a crate.
///
/// # Errors
/// When Cargo.lock cannot be read or has no such crate.
pub fn locked_version(package: &str) -> Result<String> {
    let path = root().join("Cargo.lock");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let lock: toml::Table = text.parse().context("Cargo.lock")?;
    let packages = lock.get("package").and_then(toml::Value::as_array).context("Cargo.lock has no packages")?;
    let named = packages.iter().find(|p| p.get("name").and_then(toml::Value::as_str) == Some(package));
    let version = named.and_then(|p| p.get("version")).and_then(toml::Value::as_str);
    version.map(str::to_owned).with_context(|| format!("Cargo.lock has no {package}"))
}

/// The version of everything in the repository.
///
/// # Errors
/// When Cargo.toml cannot be read or says none.
pub fn version() -> Result<String> {
    let path = root().join("Cargo.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let manifest: toml::Table = text.parse().context("Cargo.toml")?;
    let package = manifest.get("workspace").and_then(|workspace| workspace.get("package"));
    let version = package.and_then(|package| package.get("version")).and_then(toml::Value::as_str);
    version.map(str::to_owned).context("Cargo.toml has no version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_of_one_version() {
        assert_eq!(version().unwrap(), env!("CARGO_PKG_VERSION"));
    }

    #[test]
    fn the_lock_pins_wasm_bindgen() {
        assert!(locked_version("wasm-bindgen").unwrap().starts_with("0.2."));
        assert!(locked_version("no-such-crate").is_err());
    }
}
