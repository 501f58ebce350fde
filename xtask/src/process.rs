//! A child process in its own process group, with its log kept and shown. **Dropping it kills the whole group.**

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// How long a child may take to end by itself before it is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(5);
/// Last log lines kept for error reports.
const KEPT_LINES: usize = 200;
/// How long the log of an ended child is waited for.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
/// Between two looks at a condition of a child.
const POLL: Duration = Duration::from_millis(20);

/// Where a child's log goes.
#[derive(Debug, Clone)]
pub enum Output {
    /// To this process's stdout, each line with the child's name, on a terminal in this colour (ANSI 256).
    Terminal {
        /// Colour of the name.
        colour: u8,
    },
    /// Appended to a file.
    File(PathBuf),
}

/// A running child and everything it started.
pub struct Process {
    name: String,
    child: Child,
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts a command in a new process group, its stdin closed.
    ///
    /// # Errors
    /// When the program cannot be started or the log file not opened.
    pub fn spawn(name: &str, mut command: Command, output: &Output) -> Result<Self> {
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let program = command.get_program().to_string_lossy().into_owned();
        let mut child = command.spawn().with_context(|| format!("starting {name} ({program})"))?;
        let lines = Arc::default();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
            child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
        ];
        let process = Self { name: name.to_owned(), child, lines };
        for stream in streams.into_iter().flatten() {
            let (sink, lines) = (Sink::open(name, output)?, Arc::clone(&process.lines));
            // The thread ends with the stream: when the group is dead.
            thread::spawn(move || copy_lines(stream, sink, &lines));
        }
        Ok(process)
    }

    /// What it is called in logs and errors.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id, also that of its group.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        let lines = locked(&self.lines);
        let skip = lines.len().saturating_sub(count);
        lines.iter().skip(skip).map(|line| format!("  {}: {line}\n", self.name)).collect()
    }

    /// Waits until `ready` holds.
    ///
    /// # Errors
    /// When the child ends first or `limit` passes; the error has the last lines of its log.
    pub fn wait_until(&mut self, what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + limit;
        while !ready() {
            if let Some(status) = self.exited()? {
                self.drain_log();
                bail!("{} ended ({status}) before it was {what}; its last lines:\n{}", self.name, self.last_lines(20));
            }
            if Instant::now() > deadline {
                let waited = limit.as_secs();
                bail!("{} was not {what} after {waited} s; its last lines:\n{}", self.name, self.last_lines(20));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Waits until it has ended by itself.
    ///
    /// # Errors
    /// When `limit` passes; the error has the last lines of its log.
    pub fn wait_for_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.exited()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {} s; its last lines:\n{}", self.name, limit.as_secs(), self.last_lines(20));
            }
            thread::sleep(POLL);
        }
    }

    /// Asks the group to end (SIGTERM), kills it after [`STOP_GRACE`].
    pub fn stop(mut self) {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + STOP_GRACE;
        while Instant::now() < deadline {
            let ended = !matches!(self.exited(), Ok(None));
            if ended && !self.group_lives() {
                return;
            }
            thread::sleep(POLL);
        }
    }

    /// Lets the reader threads finish, unless a grandchild holds the streams open.
    fn drain_log(&self) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        while Arc::strong_count(&self.lines) > 1 && Instant::now() < deadline {
            thread::sleep(POLL);
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group() {
            // It fails only when nobody is left.
            let _ = kill_process_group(group, signal);
        }
    }

    fn group_lives(&self) -> bool {
        self.group().is_some_and(|group| test_kill_process_group(group).is_ok())
    }

    fn group(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }
}

/// A child that may be ended and started again. **Dropping it kills what runs.**
#[derive(Default)]
pub struct Slot(Option<Process>);

impl Slot {
    /// Its process id while it runs; that of the wrapper where there is one.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.0.as_ref().map(Process::id)
    }

    /// How it ended, if it did so by itself.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.0.as_mut().map_or(Ok(None), Process::exited)
    }

    /// The last lines it wrote.
    #[must_use]
    pub fn last_lines(&self, count: usize) -> String {
        self.0.as_ref().map(|process| process.last_lines(count)).unwrap_or_default()
    }

    /// Kills it (SIGKILL), as a crash would.
    pub fn kill(&mut self) {
        self.0 = None;
    }

    /// Asks it to end (SIGTERM) and waits for it.
    pub fn stop(&mut self) {
        if let Some(process) = self.0.take() {
            process.stop();
        }
    }

    /// This child runs from now on; one that ran before is killed.
    pub(crate) fn fill(&mut self, process: Process) {
        self.0 = Some(process);
    }

    /// The child, unless it was killed or stopped.
    pub(crate) fn running(&mut self) -> Option<&mut Process> {
        self.0.as_mut()
    }
}

enum Sink {
    Terminal { prefix: String },
    File(File),
}

impl Sink {
    fn open(name: &str, output: &Output) -> Result<Self> {
        Ok(match output {
            Output::Terminal { colour } if std::io::stdout().is_terminal() => {
                Self::Terminal { prefix: format!("\x1b[38;5;{colour}m{name:>8}\x1b[0m ") }
            }
            Output::Terminal { .. } => Self::Terminal { prefix: format!("{name:>8} ") },
            Output::File(path) => Self::File(
                File::options()
                    .create(true)
                    .append(true)
                    .open(path)
                    .with_context(|| format!("opening {}", path.display()))?,
            ),
        })
    }

    fn write(&mut self, line: &str) {
        // A log that cannot be written must not take the child down.
        let _ = match self {
            Self::Terminal { prefix } => writeln!(std::io::stdout().lock(), "{prefix}{line}"),
            Self::File(file) => writeln!(file, "{line}"),
        };
    }
}

fn copy_lines(stream: impl Read, mut sink: Sink, lines: &Mutex<VecDeque<String>>) {
    let mut reader = BufReader::new(stream);
    let mut bytes = Vec::new();
    while matches!(reader.read_until(b'\n', &mut bytes), Ok(n) if n > 0) {
        let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
        bytes.clear();
        sink.write(&line);
        let mut kept = locked(lines);
        if kept.len() == KEPT_LINES {
            kept.pop_front();
        }
        kept.push_back(line);
    }
}

fn locked(lines: &Mutex<VecDeque<String>>) -> MutexGuard<'_, VecDeque<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let log = std::env::temp_dir().join(format!("meridian-process-test-{}.log", std::process::id()));
        Process::spawn("shell", command, &Output::File(log)).unwrap()
    }

    #[test]
    fn stopping_ends_grandchildren_too() {
        let mut process = shell("sleep 600 & echo started; wait");
        let lines = Arc::clone(&process.lines);
        process.wait_until("started", STOP_GRACE, || !locked(&lines).is_empty()).unwrap();
        let group = process.group().unwrap();
        process.stop();
        assert!(test_kill_process_group(group).is_err());
    }

    #[test]
    fn a_child_that_ends_early_is_reported_with_its_log() {
        let mut process = shell("echo no such port >&2; exit 3");
        let error = process.wait_until("ready", STOP_GRACE, || false).unwrap_err().to_string();
        assert!(error.contains("ended") && error.contains("no such port"), "{error}");
    }
}
