//! The servers that are measured: ours and others, one at a time, each run with a process of its own.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use xtask::stack::{API_KEY, API_SECRET, Stack};

use super::crowd::Measured;
use crate::door::Door;
use crate::rival::{Kind, Rival};

/// Where servers are pinned.
pub const SERVER_CPU: usize = 0;
/// Where the load client is pinned.
pub const LOAD_CPU: usize = 1;

/// A server.
#[derive(Debug, Clone)]
pub enum Server {
    /// Meridian.
    Ours,
    /// Another one.
    Rival(Kind),
}

impl Server {
    /// What it is called.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Ours => "Meridian",
            Self::Rival(kind) => kind.name(),
        }
    }
}

/// What runs a server where it is measured.
#[must_use]
pub const fn pinned() -> [&'static str; 3] {
    ["taskset", "--cpu-list", "0"]
}

/// All that take part.
pub struct Servers<'a> {
    stack: &'a mut Stack,
    directory: PathBuf,
    all: Vec<Server>,
    rivals_started: usize,
}

/// A server just started. **Dropping it kills another one's process**; ours runs until another server's turn.
pub struct Fresh {
    /// It.
    pub measured: Measured,
    rival: Option<Rival>,
}

impl Fresh {
    /// Its last lines, where it is another one.
    #[must_use]
    pub fn last_lines(&self) -> String {
        self.rival.as_ref().map(|rival| rival.process.last_lines(20)).unwrap_or_default()
    }

    /// Ends it, unless it is ours.
    pub fn stop(self) {
        if let Some(rival) = self.rival {
            rival.process.stop();
        }
    }
}

impl<'a> Servers<'a> {
    /// Ours in `stack` (its node under [`pinned`]), and these. This process moves to [`LOAD_CPU`], the edge off
    /// [`SERVER_CPU`].
    ///
    /// # Errors
    /// There are too few CPUs, or processes cannot be pinned.
    pub fn new(stack: &'a mut Stack, directory: PathBuf, rivals: Vec<Kind>) -> Result<Self> {
        let cpus = thread::available_parallelism()?.get();
        if cpus <= LOAD_CPU {
            bail!("the server needs a CPU of its own: this machine has {cpus}");
        }
        pin(std::process::id(), &LOAD_CPU.to_string())?;
        pin(stack.edge().process.pid().context("the edge has no process")?, &format!("{LOAD_CPU}-{}", cpus - 1))?;
        let all = [Server::Ours].into_iter().chain(rivals.into_iter().map(Server::Rival)).collect();
        Ok(Self { stack, directory, all, rivals_started: 0 })
    }

    /// Every server, ours first.
    #[must_use]
    pub fn all(&self) -> Vec<Server> {
        self.all.clone()
    }

    /// The deployment ours is in.
    pub fn stack(&mut self) -> &mut Stack {
        self.stack
    }

    /// A server in a new process; the others do not run. Blocks the thread.
    ///
    /// # Errors
    /// It does not start.
    pub fn fresh(&mut self, server: &Server) -> Result<Fresh> {
        let url = self.stack.url();
        let node = self.stack.nodes().first_mut().context("there is no node")?;
        let (door, pid, rival) = match server {
            Server::Ours => {
                node.restart()?;
                node.wait_until_ready()?;
                let pid = node.process.pid().context("the node has no process")?;
                (Door::LiveKit { url, key: API_KEY.to_owned(), secret: API_SECRET.to_owned() }, pid, None)
            }
            Server::Rival(kind) => {
                node.process.stop();
                self.rivals_started += 1;
                let directory = self.directory.join(format!("{}-{}", kind.name(), self.rivals_started));
                let rival = Rival::start(kind, &pinned(), &directory)?;
                (rival.door.clone(), rival.process.id(), Some(rival))
            }
        };
        Ok(Fresh { measured: Measured { door, pid, cpu: SERVER_CPU, load_cpu: LOAD_CPU }, rival })
    }
}

/// Moves every thread of a process to some CPUs.
fn pin(pid: u32, cpus: &str) -> Result<()> {
    let done = Command::new("taskset")
        .args(["--all-tasks", "--cpu-list", "--pid", cpus, &pid.to_string()])
        .stdout(Stdio::null())
        .status()
        .context("taskset (package util-linux)")?;
    if !done.success() {
        bail!("taskset cannot pin process {pid}");
    }
    Ok(())
}
