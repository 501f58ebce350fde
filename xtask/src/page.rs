//! Bundling what runs in browsers: the meeting page into `web/dist`, the test page into `target/browser`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

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
    publish(&dist, |staging| {
        bundle(&[web.join("src/main.js"), web.join("src/style.css")], staging)?;
        copy(&web.join("src/index.html"), staging)?;
        copy(&web.join("src/icon.svg"), staging)
    })
}

/// Bundles the page that the browser tests drive.
///
/// # Errors
/// When esbuild fails; what it said is printed.
pub fn build_test_page() -> Result<PathBuf> {
    let source = repo::root().join("tests/browser");
    let dist = repo::target_dir().join("browser");
    publish(&dist, |staging| {
        bundle(&[source.join("client.js"), source.join("worker.js")], staging)?;
        copy(&source.join("client.html"), staging)
    })?;
    Ok(dist)
}

/// Puts what is made elsewhere into `dist`, each file at once: a browser that loads it meanwhile gets the old or the new one,
/// never half of it. What is there already stays untouched: an edge on wrangler starts anew whenever a file of the page is
/// written, and calls with it.
fn publish(dist: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let staging = dist.with_extension(format!("{}-{number}.new", std::process::id()));
    fs::create_dir_all(&staging).and_then(|()| fs::create_dir_all(dist)).context("making directories for the page")?;
    let made = make(&staging).and_then(|()| {
        for file in fs::read_dir(&staging)? {
            let (made, known) = file.map(|file| (file.path(), dist.join(file.file_name())))?;
            if fs::read(&known).ok() != Some(fs::read(&made)?) {
                fs::rename(made, known)?;
            }
        }
        Ok(())
    });
    let _ = fs::remove_dir_all(&staging);
    made
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
    fs::copy(file, dist.join(name)).with_context(|| format!("copying {}", file.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_not_changed_is_not_written() {
        let dist = std::env::temp_dir().join(format!("meridian-page-same-{}", std::process::id()));
        let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(dist.join("client.js")).unwrap());
        publish(&dist, |staging| Ok(fs::write(staging.join("client.js"), "same")?)).unwrap();
        let before = inode();
        publish(&dist, |staging| Ok(fs::write(staging.join("client.js"), "same")?)).unwrap();
        assert_eq!(inode(), before);
        publish(&dist, |staging| Ok(fs::write(staging.join("client.js"), "another")?)).unwrap();
        assert_ne!(inode(), before);
        fs::remove_dir_all(dist).unwrap();
    }

    #[test]
    fn what_is_published_was_whole_before() {
        let dist = std::env::temp_dir().join(format!("meridian-page-test-{}", std::process::id()));
        publish(&dist, |staging| Ok(fs::write(staging.join("client.js"), "old")?)).unwrap();
        publish(&dist, |staging| {
            fs::write(staging.join("client.js"), "ne")?;
            assert_eq!(fs::read_to_string(dist.join("client.js"))?, "old");
            Ok(fs::write(staging.join("client.js"), "new")?)
        })
        .unwrap();
        publish(&dist, |_| bail!("esbuild failed")).unwrap_err();
        assert_eq!(fs::read_to_string(dist.join("client.js")).unwrap(), "new");
        let left = fs::read_dir(dist.parent().unwrap()).unwrap();
        let name = dist.file_name().unwrap().to_str().unwrap().to_owned();
        let left: Vec<_> = left.filter_map(|file| file.ok()?.file_name().into_string().ok()).collect();
        assert_eq!(left.iter().filter(|file| file.starts_with(&name)).count(), 1, "{left:?}");
        fs::remove_dir_all(dist).unwrap();
    }
}
