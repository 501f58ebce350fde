//! `cargo xtask upgrade`: builds another version, then hands over to the tests crate, where a call lives through its upgrade
//! to this working copy.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{progress, repo, setup};

/// Upgrade nodes and edge of another version to this working copy's under a call: nodes first, then edge first.
#[derive(Args)]
pub struct Upgrade {
    /// The version before: a commit, tag or branch.
    #[arg(long, value_name = "REVISION")]
    from: String,
}

impl Upgrade {
    /// Becomes the call.
    ///
    /// # Errors
    /// When setup fails, there is no such version, it does not build, or cargo cannot be run.
    pub fn run(&self) -> Result<()> {
        setup::for_tests()?;
        let source = self.check_out()?;
        let node = build(&source)?;
        let mut cargo = repo::cargo();
        // The profile of the tests: it is built already.
        cargo.args(["run", "--quiet", "--package", "meridian-tests", "--bin", "upgrade", "--"]).args([source, node]);
        Err(cargo.exec()).context("cannot run cargo")
    }

    /// The version's files, in a directory of its own; found there if they were before.
    fn check_out(&self) -> Result<PathBuf> {
        let commit = format!("{}^{{commit}}", self.from);
        let said = git(&["rev-parse", "--verify", "--short=12", "--end-of-options", &commit]).output()?;
        ensure!(said.status.success(), "no version {}: {}", self.from, String::from_utf8_lossy(&said.stderr).trim());
        let commit = String::from_utf8(said.stdout)?.trim().to_owned();
        let source = builds().join(&commit);
        if source.is_dir() {
            return Ok(source);
        }
        let partial = source.with_extension("partial");
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).with_context(|| format!("creating {}", partial.display()))?;
        let mut archive = git(&["archive", "--format=tar", &commit]).stdout(Stdio::piped()).spawn()?;
        let tar = archive.stdout.take().context("git has no stdout")?;
        let unpacked = Command::new("tar").arg("-x").arg("-C").arg(&partial).stdin(tar).status().context("tar")?;
        ensure!(archive.wait()?.success() && unpacked.success(), "{commit} cannot be unpacked");
        fs::rename(&partial, &source)?;
        Ok(source)
    }
}

/// What other versions are built from, and their common target directory.
fn builds() -> PathBuf {
    repo::target_dir().join("upgrade")
}

/// Builds a version's Worker, which it finds in its own state, and its node; says where that is.
fn build(source: &Path) -> Result<PathBuf> {
    let node = source.join("sfu-node.built");
    if node.is_file() {
        return Ok(node);
    }
    // What setup compiled: another version looks itself whether it is of the right version.
    let (tools, state) = (repo::tools_dir(), source.join(repo::STATE_DIR));
    fs::create_dir_all(&state)?;
    progress::run("lending it tools", Command::new("cp").arg("-a").arg(&tools).arg(&state))?;
    let target = builds().join("build");
    let cargo = |words: &[&str]| {
        let mut cargo = repo::cargo();
        let status = cargo.args(words).current_dir(source).env("CARGO_TARGET_DIR", &target).status();
        match status.context("cannot run cargo")? {
            status if status.success() => Ok(()),
            status => bail!("{} does not build: cargo {}: {status}", source.display(), words.join(" ")),
        }
    };
    cargo(&["run", "--package", "xtask", "--", "worker"])?;
    cargo(&["build", "--package", "sfu-node", "--bin", "sfu-node"])?;
    // The next version that is built takes its place.
    fs::copy(target.join("debug/sfu-node"), &node).context("copying the node")?;
    Ok(node)
}

fn git(words: &[&str]) -> Command {
    let mut git = Command::new("git");
    git.current_dir(repo::root()).args(words);
    git
}
