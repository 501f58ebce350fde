//! The browser of the system tests.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::apt;

/// Names a browser of libwebrtc's family that playwright can drive.
pub const CHROMIUM_ENV: &str = "MERIDIAN_CHROMIUM";
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const MAC_PATHS: [&str; 2] = [
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
];

/// The browser: the one the environment names, or the first known one.
#[must_use]
pub fn binary() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(CHROMIUM_ENV) {
        return Some(named.into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = NAMES.iter().flat_map(|name| std::env::split_paths(&path).map(move |dir| dir.join(name)));
    on_path.chain(MAC_PATHS.iter().map(PathBuf::from)).find(|candidate| candidate.is_file())
}

pub(super) fn is_present() -> bool {
    binary().is_some_and(|binary| binary.is_file())
}

pub(super) fn install() -> Result<()> {
    if let Some(named) = std::env::var_os(CHROMIUM_ENV) {
        bail!("{CHROMIUM_ENV} names {}, which is not a file", Path::new(&named).display());
    }
    if !apt::is_usable() {
        bail!("install Chromium or Chrome, or name one in {CHROMIUM_ENV}");
    }
    apt::install(&["chromium"])
}
