//! A machine that boots from user data: systemd and cloud-init in a container, on a copy of this machine that forgets.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use xtask::process::{Output, Process};

const SCRIPT: &str = include_str!("booted/boot.sh");
const TARGET: &str = include_str!("booted/meridian-boot.target");
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
        fs::create_dir_all(state.join("machine"))?;
        fs::write(state.join("user-data"), user_data)?;
        fs::write(state.join("meta-data"), "instance-id: i-1\nlocal-hostname: fra-1\n")?;
        fs::write(state.join("meridian-boot.target"), TARGET)?;
        let mut command = Command::new("unshare");
        // The machine is the first process of its namespaces: its mounts and everything it started end with it.
        command.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", SCRIPT, "boot.sh"]).arg(&state);
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

    /// What the program at this path may do, which the machine runs.
    ///
    /// # Errors
    /// It does not run.
    pub fn confinement(&self, program: &str) -> Result<Confinement> {
        let wanted = format!("{program}\0");
        let mut processes = fs::read_dir("/proc")?.filter_map(|entry| Some(entry.ok()?.path()));
        let process = processes
            .find(|path| fs::read_to_string(path.join("cmdline")).is_ok_and(|line| line == wanted))
            .with_context(|| format!("{program} does not run"))?;
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

impl Drop for Booted {
    fn drop(&mut self) {
        // What it still writes is of no use to anybody.
        let _ = fs::remove_dir_all(&self.state);
    }
}
