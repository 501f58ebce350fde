//! The deployment a benchmark measures. **Whatever happens to the measurement, every process of it ends.**

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};
use xtask::stack::{Build, Mode, Ports, Profile, Stack, StackConfig};

/// Last log lines shown of each part when one has ended.
const SHOWN_LINES: usize = 20;

/// One edge on bare workerd and one node, release builds, the node under `node_wrapper`.
#[must_use]
pub fn config(node_wrapper: &[&str]) -> StackConfig {
    StackConfig {
        nodes: 1,
        shards: 1,
        node_args: Vec::new(),
        edge_vars: BTreeMap::new(),
        mode: Mode::Workerd,
        profile: Profile::Release,
        ports: Ports::Free,
        state_dir: std::env::temp_dir().join(format!("meridian-bench-{}", std::process::id())),
        show_logs: false,
        node_wrapper: node_wrapper.iter().map(|word| (*word).to_owned()).collect(),
        public_address: None,
        hosts: Vec::new(),
    }
}

/// Builds and starts a deployment, measures, ends it and removes its state. Builds and starts in the calling thread.
///
/// # Errors
/// Something did not build or start, the measurement failed, or SIGINT, SIGTERM or SIGHUP came.
pub async fn measure<T>(config: StackConfig, measurement: impl AsyncFnOnce(&mut Stack) -> Result<T>) -> Result<T> {
    // Compilers are in our process group: they get a terminal's signal themselves.
    let build = Build::make(config.profile)?;
    // Edge and nodes are not; from here on a signal must not end us before them.
    let interrupted = interrupted()?;
    let _state = StateDir(config.state_dir.clone());
    let mut stack = Stack::start_built(build, config)?;
    let measured = tokio::select! {
        biased;
        name = interrupted => Err(anyhow!("ended by {name}")),
        measured = measurement(&mut stack) => measured,
    };
    let measured = match (measured, fallen(&mut stack)?) {
        (Ok(_), Some(fallen)) => Err(anyhow!(fallen)),
        (Err(error), Some(fallen)) => Err(error.context(fallen)),
        (measured, None) => measured,
    };
    stack.stop();
    measured
}

/// Watches from now on; resolves to the name of the first signal.
fn interrupted() -> Result<impl Future<Output = &'static str>> {
    let watch = |kind| signal(kind).context("cannot watch signals");
    let mut interrupt = watch(SignalKind::interrupt())?;
    let mut terminate = watch(SignalKind::terminate())?;
    let mut hangup = watch(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "SIGINT",
            _ = terminate.recv() => "SIGTERM",
            _ = hangup.recv() => "SIGHUP",
        }
    })
}

/// What ended by itself, with the last lines of every log.
fn fallen(stack: &mut Stack) -> Result<Option<String>> {
    let Some(fallen) = stack.fallen()? else { return Ok(None) };
    let nodes: String = stack.nodes().iter().map(|node| node.process.last_lines(SHOWN_LINES)).collect();
    Ok(Some(format!("{fallen}; the last lines:\n{}{nodes}", stack.edge().process.last_lines(SHOWN_LINES))))
}

/// Removed when dropped; files that something still writes are of no use to anybody.
struct StateDir(PathBuf);

impl Drop for StateDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
