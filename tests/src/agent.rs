//! Workers of LiveKit's Agents framework, unmodified: the program of `docs/agents.md`, in processes of their own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use xtask::process::{Output, Process};
use xtask::setup::python;
use xtask::stack::{API_KEY, API_SECRET};

use crate::guide;

static COUNT: AtomicU32 = AtomicU32::new(0);

/// A worker with its agents. **Dropping it kills them all.**
pub struct AgentWorker {
    process: Process,
    directory: PathBuf,
}

impl AgentWorker {
    /// Starts the guide's worker under another name; `""` for one that is dispatched to every room. `kind`: `ROOM`, …
    ///
    /// # Errors
    /// Setup has not run, or the guide has another program.
    pub fn start(url: &str, name: &str, kind: &str) -> Result<Self> {
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("meridian-agent-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let program = directory.join("parrot.py");
        std::fs::write(&program, adapted(&guide::block("agents.md", "python", "AgentServer()")?, name, kind)?)?;
        let mut command = Command::new(python::agents_interpreter());
        command.arg(&program).arg("start").current_dir(&directory);
        command.env("LIVEKIT_URL", url.replacen("http", "ws", 1));
        command.env("LIVEKIT_API_KEY", API_KEY).env("LIVEKIT_API_SECRET", API_SECRET);
        let log = directory.join("worker.log");
        let process = Process::spawn("agent worker", command, &Output::File(log)).context("an agent worker")?;
        Ok(Self { process, directory })
    }

    /// Ends it as an operator would (SIGTERM), with what it runs.
    pub fn stop(self) {
        drop(self);
    }

    /// The last lines of its log.
    #[must_use]
    pub fn last_lines(&self) -> String {
        self.process.last_lines(40)
    }
}

impl Drop for AgentWorker {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the agent worker's log ends with\n{}", self.process.last_lines(200));
        }
        // Files it still writes are of no use to anybody.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// The guide's program for a busy machine: no port of its own, no processes for later, never full.
fn adapted(program: &str, name: &str, kind: &str) -> Result<String> {
    let mut text = program.to_owned();
    let of_kind = format!("agent_name=\"{name}\", type=WorkerType.{kind}");
    for (from, to) in [
        (
            "AgentServer()",
            "AgentServer(host=\"127.0.0.1\", port=0, num_idle_processes=0, load_threshold=float(\"inf\"))",
        ),
        ("agent_name=\"parrot\"", of_kind.as_str()),
        ("JobContext, cli", "JobContext, WorkerType, cli"),
    ] {
        ensure!(text.contains(from), "the guide's program has no {from}");
        text = text.replace(from, to);
    }
    Ok(text)
}
