//! A machine for tests: systemd and cloud-init in a container, on a copy of this machine that forgets.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Outcome, said, state, succeed};
use crate::{repo, setup};

const SCRIPT: &str = include_str!("boot/boot.sh");
const TARGET: &str = include_str!("boot/meridian-boot.target");
/// Where [`SCRIPT`] is, for those who check scripts.
pub(super) const SCRIPT_FILE: &str = "xtask/src/infra/boot/boot.sh";
/// What the machine's systemd is told to start: an argument of its first process.
pub const BOOT_ARGUMENT: &str = "systemd.unit=meridian-boot.target";
/// What it and its test run.
const PROGRAMS: [&str; 6] = ["systemd-nspawn", "unshare", "cloud-init", "dpkg", "curl", "terraform"];

/// How to boot with this user data, as a cloud would. `state` must not be there yet, and is the caller's to remove.
///
/// # Errors
/// `state` cannot be made.
pub fn boot(state: &Path, user_data: &str) -> Result<Command> {
    start(state, user_data, &["--boot", BOOT_ARGUMENT])
}

fn start(state: &Path, user_data: &str, what: &[&str]) -> Result<Command> {
    fs::create_dir_all(state.join("machine")).with_context(|| format!("creating {}", state.display()))?;
    fs::write(state.join("user-data"), user_data)?;
    fs::write(state.join("meta-data"), "instance-id: i-1\nlocal-hostname: fra-1\n")?;
    fs::write(state.join("meridian-boot.target"), TARGET)?;
    let mut command = Command::new("unshare");
    // The machine is the first process of its namespaces: its mounts and everything it started end with it.
    command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    command.args(["sh", "-c", SCRIPT, "boot.sh"]).arg(state).args(what);
    Ok(command)
}

/// User data and package, executed by cloud-init and systemd: a test of its own, for it needs much of its machine.
pub(super) fn check() -> Result<Outcome> {
    if let Some(program) = PROGRAMS.into_iter().find(|program| !setup::on_path(program)) {
        return Ok(Outcome::Skipped(format!("{program} is not installed")));
    }
    let probe = Probe(state().join("probe"));
    let _ = fs::remove_dir_all(&probe.0);
    let tried = start(&probe.0, "", &["--pipe", "/bin/true"])?.output().context("cannot run unshare")?;
    if !tried.status.success() {
        return Ok(Outcome::Skipped(format!("this machine may not start containers: {}", said(&tried))));
    }
    let mut cargo = repo::cargo();
    cargo.args(["test", "--package", "meridian-tests", "--test", "system", "--", "--ignored"]);
    cargo.arg("a_machine_boots_into_a_node::");
    succeed(&mut cargo)?;
    Ok(Outcome::Passed)
}

/// Removed when dropped.
struct Probe(PathBuf);

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
