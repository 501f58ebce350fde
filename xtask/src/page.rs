//! Bundling what runs in browsers: the meeting page into `web/dist`, the test page into `target/browser`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::repo;

/// Engines that livekit-client supports.
const BROWSERS: &str = "chrome94,firefox93,safari15.4";

/// Bundles the meeting page; the Worker serves `web/dist`.
///
/// # Errors
/// When esbuild fails; what it said is printed.
pub fn build() -> Result<()> {
    let web = repo::root().join("web");
    let dist = web.join("dist");
    bundle(&[web.join("src/main.js"), web.join("src/style.css")], &dist)?;
    copy(&web.join("src/index.html"), &dist)?;
    copy(&web.join("src/icon.svg"), &dist)
}

/// Bundles the page that the browser tests drive.
///
/// # Errors
/// When esbuild fails; what it said is printed.
pub fn build_test_page() -> Result<PathBuf> {
    let source = repo::root().join("tests/browser");
    let dist = repo::target_dir().join("browser");
    bundle(&[source.join("client.js"), source.join("worker.js")], &dist)?;
    copy(&source.join("client.html"), &dist)?;
    Ok(dist)
}

fn bundle(entries: &[PathBuf], dist: &Path) -> Result<()> {
    let mut esbuild = Command::new(repo::npm_bin("esbuild/bin/esbuild"));
    esbuild.args(entries).args(["--bundle", "--minify", "--sourcemap", "--format=esm", "--log-level=warning"]);
    esbuild.arg(format!("--target={BROWSERS}")).arg(format!("--outdir={}", dist.display()));
    let status = esbuild.current_dir(repo::root()).status().context("cannot run esbuild")?;
    if !status.success() {
        bail!("esbuild failed ({status})");
    }
    Ok(())
}

fn copy(file: &Path, dist: &Path) -> Result<()> {
    let name = file.file_name().context("a file has a name")?;
    std::fs::copy(file, dist.join(name)).with_context(|| format!("copying {}", file.display()))?;
    Ok(())
}
