//! The standard library for `wasm32-unknown-unknown`, from wherever this machine can have it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Result, bail};

use super::apt;
use crate::{progress, repo};

/// The Worker's target triple.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Debian's compiler, cargo, clippy, std source and linker for the web.
const DEBIAN_PACKAGES: [&str; 5] = ["rustc-web", "cargo-web", "rust-web-clippy", "rust-web-src", "lld-22"];
/// Where those land.
const DEBIAN_FILES: [&str; 5] = [
    "/usr/bin/rustc",
    "/usr/bin/cargo",
    "/usr/bin/cargo-clippy",
    "/usr/lib/rustlib/src/rust/library/std",
    "/usr/bin/wasm-ld-22",
];

/// Where std for the Worker comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WasmStd {
    /// Built from the `rust-src` of the active toolchain: panics unwind.
    RustSrc,
    /// Built from Debian's source tree with Debian's compiler: panics unwind.
    Debian,
}

impl WasmStd {
    /// For people.
    #[must_use]
    pub fn describe(self) -> &'static str {
        match self {
            Self::RustSrc => "std built from the active toolchain's rust-src",
            Self::Debian => "std built from Debian's rust-web-src with Debian's rustc",
        }
    }
}

/// What this machine has, the best first. The prebuilt std of rustup's target is no choice: its panics abort,
/// and an abort takes every object of the isolate with it.
#[must_use]
pub fn detect() -> Option<WasmStd> {
    if active_source().is_some_and(|source| source.join("std").is_dir()) {
        return Some(WasmStd::RustSrc);
    }
    DEBIAN_FILES.iter().all(|file| Path::new(file).exists()).then_some(WasmStd::Debian)
}

pub(super) fn is_present() -> bool {
    detect().is_some()
}

pub(super) fn install() -> Result<()> {
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src"]).current_dir(repo::root());
    if progress::run("adding rust-src with rustup", &mut rustup).is_err() {
        if !apt::is_usable() {
            bail!("install the std source: rustup component add rust-src");
        }
        eprintln!("  rustup cannot fetch it; Debian's packages have it too");
        apt::install(&DEBIAN_PACKAGES)?;
    }
    match detect() {
        Some(choice) => eprintln!("  {TARGET}: {}", choice.describe()),
        None => bail!("install the std source: rustup component add rust-src"),
    }
    Ok(())
}

/// `library/` of the active toolchain's rust-src, whether or not it is installed.
fn active_source() -> Option<PathBuf> {
    static SYSROOT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let sysroot = SYSROOT.get_or_init(|| {
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let output = Command::new(rustc).args(["--print", "sysroot"]).current_dir(repo::root()).output().ok()?;
        Some(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
    });
    Some(sysroot.as_ref()?.join("lib/rustlib/src/rust/library"))
}
