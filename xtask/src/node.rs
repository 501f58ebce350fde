//! Building and running `sfu-node` locally.

use std::io::{BufRead, BufReader};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::process::{Output, Process, Slot};
use crate::repo;

/// How long a node may take until it is ready.
const READY_LIMIT: Duration = Duration::from_secs(30);
/// How long one look at `/readyz` may take.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// Everything local stays on loopback.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Which build of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Quick to build.
    Dev,
    /// For measuring.
    Release,
}

/// Builds the node, with cargo's own progress, and says where it is.
///
/// # Errors
/// When it does not compile.
pub fn build(profile: Profile) -> Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
    }
    let mut cargo = repo::cargo();
    cargo.args(["build", "--package", "sfu-node", "--bin", "sfu-node", "--message-format=json-render-diagnostics"]);
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    let mut child = cargo.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let stdout = child.stdout.take().context("cargo has no stdout")?;
    let messages = BufReader::new(stdout).lines().map_while(Result::ok);
    let built = messages.filter_map(|line| serde_json::from_str::<Message>(&line).ok()?.executable).last();
    if !child.wait()?.success() {
        bail!("sfu-node does not build");
    }
    built.context("cargo built no sfu-node")
}

/// Where and how a node runs.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// [`build`]'s answer.
    pub binary: PathBuf,
    /// Region's name and place: `local-a@52.5,13.4`.
    pub region: String,
    /// The edge, `http://…`.
    pub edge_url: String,
    /// Lets it enrol at its first start.
    pub enrolment_token: String,
    /// Its key and node id.
    pub state_dir: PathBuf,
    /// Media: the first shard's port; the others take the next ones.
    pub udp_port: u16,
    /// Media threads.
    pub shards: u16,
    /// Health and metrics.
    pub http_port: u16,
    /// Where its log goes.
    pub output: Output,
    /// Runs it under another program, such as `taskset -c 0`.
    pub wrapper: Vec<String>,
    /// Where it takes media and answers HTTP.
    pub address: IpAddr,
    /// More arguments.
    pub args: Vec<String>,
    /// The address clients are told, if not the one it binds.
    pub public_address: Option<IpAddr>,
}

/// A running node. **Dropping it kills it.**
pub struct Node {
    name: String,
    config: NodeConfig,
    /// What runs.
    pub process: Slot,
}

impl Node {
    /// Starts a node; [`Node::wait_until_ready`] says when it serves.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, config: NodeConfig) -> Result<Self> {
        let mut node = Self { name: name.to_owned(), config, process: Slot::default() };
        node.restart()?;
        Ok(node)
    }

    /// Waits for `/readyz`: the fleet link is up and media can come.
    ///
    /// # Errors
    /// When it ends or takes too long, with its last log lines.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let address = self.http_addr();
        let process = self.process.running().with_context(|| format!("{} was stopped", self.name))?;
        process.wait_until("ready", READY_LIMIT, || answers_ok(address, "/readyz"))
    }

    /// Health and metrics: `http://{this}/metrics`.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        (self.config.address, self.config.http_port).into()
    }

    /// Where media goes.
    #[must_use]
    pub fn udp_addr(&self) -> SocketAddr {
        (self.config.address, self.config.udp_port).into()
    }

    /// What it is called in logs.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs this binary from its next start on.
    pub fn becomes(&mut self, binary: PathBuf) {
        self.config.binary = binary;
    }

    /// Starts it again with the same ports and state, ending what still runs.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn restart(&mut self) -> Result<()> {
        self.process.stop();
        self.process.fill(Process::spawn(&self.name, self.command()?, &self.config.output)?);
        Ok(())
    }

    fn command(&self) -> Result<Command> {
        let config = &self.config;
        let mut words = config.wrapper.iter().map(Into::into).chain([config.binary.clone().into_os_string()]);
        let mut command = Command::new(words.next().ok_or_else(|| anyhow!("no program"))?);
        command.args(words).args(["--edge-url", &config.edge_url, "--region", &config.region]);
        command.arg("--state-dir").arg(&config.state_dir);
        let public = config.public_address.unwrap_or(config.address);
        command.args(["--bind-address", &config.address.to_string(), "--public-address", &public.to_string()]);
        command.args(["--udp-port", &config.udp_port.to_string(), "--shards", &config.shards.to_string()]);
        command.args(["--http-addr", &self.http_addr().to_string()]);
        command.args(&config.args);
        // Not an argument: every user of the machine can read those.
        command.env("MERIDIAN_ENROL_TOKEN", &config.enrolment_token);
        Ok(command)
    }
}

/// Whether a GET is answered with 200. Enough HTTP for a health check on loopback.
pub(crate) fn answers_ok(address: SocketAddr, path: &str) -> bool {
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
        stream.set_read_timeout(Some(PROBE_LIMIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
        let mut status = vec![0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status)?;
        Ok(status)
    };
    ask().is_ok_and(|status| status == b"HTTP/1.1 200")
}
