//! Running the Worker locally: on bare workerd (tests, benchmarks) or under `wrangler dev`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::node::answers_ok;
use crate::process::{Output, Process, Slot};
use crate::repo;
use crate::setup::node;
use crate::wasm::{self, Bundle};

mod workerd;

pub use workerd::CF_HEADER;

/// How long the edge may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(60);

/// What the Worker runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Bare workerd: ready in a fifth of a second, and nothing between client and Worker.
    Workerd,
    /// `wrangler dev`, as Cloudflare's users know it.
    Wrangler,
}

/// Where and how the edge runs.
#[derive(Debug, Clone)]
pub struct EdgeConfig {
    /// [`wasm::build`]'s answer.
    pub bundle: Bundle,
    /// On what.
    pub mode: Mode,
    /// Which environment of wrangler.toml, under wrangler; `None`: its top level.
    pub environment: Option<&'static str>,
    /// Where it listens: 127.0.0.1, or all addresses of this host.
    pub address: IpAddr,
    /// On which port.
    pub port: u16,
    /// The objects' storage; kept between starts.
    pub state_dir: PathBuf,
    /// Variables and secrets.
    pub vars: BTreeMap<String, String>,
    /// Where its log goes.
    pub output: Output,
}

/// A running edge. **Dropping it kills it.**
pub struct Edge {
    config: EdgeConfig,
    /// What runs.
    pub process: Slot,
}

impl Edge {
    /// Starts it and waits until `/healthz` answers.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not ready in time; with its last log lines.
    pub fn start(config: EdgeConfig) -> Result<Self> {
        let mut edge = Self { config, process: Slot::default() };
        edge.restart()?;
        Ok(edge)
    }

    /// The variables and secrets it has from its next start on.
    pub fn vars(&mut self) -> &mut BTreeMap<String, String> {
        &mut self.config.vars
    }

    /// Runs this Worker from its next start on.
    pub fn becomes(&mut self, bundle: Bundle) {
        self.config.bundle = bundle;
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(Ipv4Addr::LOCALHOST.into())
    }

    /// As another host reaches it.
    #[must_use]
    pub fn url_at(&self, address: IpAddr) -> String {
        format!("http://{}", SocketAddr::new(address, self.config.port))
    }

    /// Starts it again on the same port and state, ending what still runs, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Edge::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        let config = &self.config;
        fs::create_dir_all(&config.state_dir).with_context(|| format!("creating {}", config.state_dir.display()))?;
        fs::create_dir_all(repo::root().join("web/dist"))?;
        let command = match config.mode {
            Mode::Workerd => workerd::command(config)?,
            Mode::Wrangler => wrangler(config)?,
        };
        let mut process = Process::spawn("edge", command, &config.output)?;
        let address = ([127, 0, 0, 1], config.port).into();
        process.wait_until("ready", READY_LIMIT, || answers_ok(address, "/healthz"))?;
        self.process.fill(process);
        Ok(())
    }
}

fn wrangler(config: &EdgeConfig) -> Result<Command> {
    let vars = config.state_dir.join("dev.vars");
    write_secret(&vars, &dotenv(&config.vars))?;
    let mut command = Command::new(node::for_wrangler());
    command.current_dir(repo::root()).arg(repo::npm_bin("wrangler/bin/wrangler.js"));
    command.arg("dev").arg(config.bundle.dir.join(wasm::SCRIPT)).arg("--local");
    command.args(config.environment.into_iter().flat_map(|environment| ["--env", environment]));
    command.args(["--ip", &config.address.to_string(), "--port", &config.port.to_string(), "--inspector-port", "0"]);
    command.arg("--persist-to").arg(config.state_dir.join("wrangler")).arg("--env-file").arg(vars);
    command.arg("--show-interactive-dev-session=false");
    command.env("WRANGLER_SEND_METRICS", "false").env("WRANGLER_SEND_ERROR_REPORTS", "false");
    command.env("CLOUDFLARE_CF_FETCH_ENABLED", "false");
    Ok(command)
}

/// `NAME='value'` lines. Neither kind of local secret holds a single quote.
fn dotenv(vars: &BTreeMap<String, String>) -> String {
    vars.iter().fold(String::new(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name}='{value}'");
        text
    })
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes()).with_context(|| format!("writing {}", path.display()))
}
