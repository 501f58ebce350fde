//! A machine that boots from user data, and what it lets the programs on it do.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use xtask::infra::boot::{BOOT_ARGUMENT, boot};
use xtask::process::{Output, Process};

/// How long it may take until a condition on it holds: it fetches packages.
const LIMIT: Duration = Duration::from_secs(300);

/// A running machine. **Dropping it takes its power.**
pub struct Booted {
    process: Process,
    state: PathBuf,
}

/// What the kernel lets a process do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// Its user.
    pub user: u32,
    /// Its capabilities (`CapEff`).
    pub capabilities: u64,
    /// It can gain no more by running another program.
    pub no_new_privileges: bool,
    /// Its system calls are filtered.
    pub filtered: bool,
}

impl Booted {
    /// Boots with this user data, as a cloud would.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(user_data: &str) -> Result<Self> {
        let state = std::env::temp_dir().join(format!("meridian-boot-{}", std::process::id()));
        let command = boot(&state, user_data)?;
        let process = Process::spawn("machine", command, &Output::File(state.join("console.log")))?;
        Ok(Self { process, state })
    }

    /// Waits until this holds, as long as the machine runs.
    ///
    /// # Errors
    /// It has ended, or it took too long; with the last lines of its console.
    pub fn wait_until(&mut self, what: &str, condition: impl FnMut() -> bool) -> Result<()> {
        self.process.wait_until(what, LIMIT, condition)
    }

    /// Asks it to power off, as a cloud does before it takes a machine away.
    ///
    /// # Errors
    /// It does not run.
    pub fn power_off(&self) -> Result<()> {
        let init = running(|line| line.contains("/systemd\0") && line.contains(BOOT_ARGUMENT))?;
        let pid = init.file_name().context("no process")?;
        // systemd(1), "SIGRTMIN+4": starts poweroff.target.
        let status = Command::new("kill").args(["-s", "RTMIN+4"]).arg(pid).status()?;
        if !status.success() {
            bail!("kill: {status}");
        }
        Ok(())
    }

    /// Whether it has powered off.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn is_off(&mut self) -> Result<bool> {
        Ok(self.process.exited()?.is_some())
    }

    /// Waits until it has powered off.
    ///
    /// # Errors
    /// It takes too long.
    pub fn wait_off(&mut self) -> Result<ExitStatus> {
        self.process.wait_for_exit(LIMIT)
    }

    /// What the program at this path may do, which the machine runs.
    ///
    /// # Errors
    /// It does not run.
    pub fn confinement(&self, program: &str) -> Result<Confinement> {
        let process = running(|line| line == format!("{program}\0"))?;
        let status = fs::read_to_string(process.join("status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.split_whitespace().next()).with_context(|| format!("no {name}"))
        };
        Ok(Confinement {
            user: field("Uid")?.parse()?,
            capabilities: u64::from_str_radix(field("CapEff")?, 16)?,
            no_new_privileges: field("NoNewPrivs")? == "1",
            // SECCOMP_MODE_FILTER.
            filtered: field("Seccomp")? == "2",
        })
    }
}

/// The process whose command line (each argument ends with a zero byte) is as wanted: its directory in `/proc`.
fn running(wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let mut processes = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
    processes
        .find(|path| fs::read_to_string(path.join("cmdline")).is_ok_and(|line| wanted(&line)))
        .context("no such process runs")
}

impl Drop for Booted {
    fn drop(&mut self) {
        // What it still writes is of no use to anybody.
        let _ = fs::remove_dir_all(&self.state);
    }
}
