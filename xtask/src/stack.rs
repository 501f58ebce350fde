//! A whole local deployment: one edge and its nodes, started together and stopped together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::edge::{Edge, EdgeConfig};
use crate::hosts::Host;
use crate::node::{self, Node, NodeConfig};
use crate::process::Output;
use crate::secrets::Secrets;
use crate::{page, repo, wasm};

pub use crate::edge::Mode;
pub use crate::node::Profile;
pub use crate::secrets::{API_KEY, API_SECRET, access_token};

/// Where local regions lie: the first where local workerd says every client is, the others far away.
const PLACES: [&str; 4] = ["30.27,-97.74", "52.52,13.4", "35.68,139.69", "-23.55,-46.63"];
/// First node's UDP port less the edge's.
const UDP_OFFSET: u16 = 20;
/// First node's HTTP port less the edge's.
const HTTP_OFFSET: u16 = 100;
/// Most nodes of a local deployment, with a shard each: their UDP ports end where their HTTP ports begin.
pub const MAX_NODES: u16 = HTTP_OFFSET - UDP_OFFSET;
/// Places looked at for free ports in a row.
const PORT_SEARCHES: u32 = 100;
/// Colours of the logs (ANSI 256): the edge, then the nodes in turn.
const COLOURS: [u8; 5] = [75, 114, 179, 176, 80];

/// What to start.
#[derive(Debug, Clone)]
pub struct StackConfig {
    /// How many nodes, in regions `local-a`, `local-b`, …
    pub nodes: usize,
    /// Media threads of each node, each with a UDP port.
    pub shards: u16,
    /// More arguments for the nodes.
    pub node_args: Vec<String>,
    /// More variables for the edge.
    pub edge_vars: BTreeMap<String, String>,
    /// What runs the Worker.
    pub mode: Mode,
    /// Debug or release.
    pub profile: Profile,
    /// Which ports.
    pub ports: Ports,
    /// State of edge and nodes, secrets, and logs unless they go to the terminal.
    pub state_dir: PathBuf,
    /// Logs to this terminal instead of files.
    pub show_logs: bool,
    /// Runs each node under another program, such as `taskset -c 0`.
    pub node_wrapper: Vec<String>,
    /// The address clients are told, if not where nodes take media: something stands in between.
    pub public_address: Option<IpAddr>,
    /// Nodes on hosts of their own, the first on the first; none: all of them on this one.
    pub hosts: Vec<Host>,
}

/// Which ports a stack takes.
#[derive(Debug, Clone, Copy)]
pub enum Ports {
    /// Any that are free: tests.
    Free,
    /// The edge's port; nodes take UDP from 20 above it and HTTP from 100 above it (7880: 7900, 7980).
    From(u16),
}

impl StackConfig {
    /// What tests want: bare workerd, debug builds, free ports, logs in `state_dir`.
    #[must_use]
    pub fn for_tests(nodes: usize, state_dir: PathBuf) -> Self {
        Self {
            nodes,
            shards: 1,
            node_args: Vec::new(),
            edge_vars: BTreeMap::new(),
            mode: Mode::Workerd,
            profile: Profile::Dev,
            ports: Ports::Free,
            state_dir,
            show_logs: false,
            node_wrapper: Vec::new(),
            public_address: None,
            hosts: Vec::new(),
        }
    }
}

/// All that a stack runs, built.
#[derive(Debug, Clone)]
pub struct Build {
    bundle: wasm::Bundle,
    node_binary: PathBuf,
}

impl Build {
    /// Builds what is not built: page, Worker, node.
    ///
    /// # Errors
    /// The first part that does not build.
    pub fn make(profile: Profile) -> Result<Self> {
        let wasm_profile = match profile {
            Profile::Dev => wasm::Profile::Dev,
            Profile::Release => wasm::Profile::Release,
        };
        page::build()?;
        Ok(Self { bundle: wasm::build(wasm_profile)?, node_binary: node::build(profile)? })
    }

    /// What another working copy has built: its Worker for deployment, and a node.
    #[must_use]
    pub fn of(source: PathBuf, node_binary: PathBuf) -> Self {
        let dir = wasm::Profile::Release.directory_in(&source.join(repo::STATE_DIR));
        Self { bundle: wasm::Bundle { dir, source }, node_binary }
    }
}

/// A running deployment. **Dropping it kills every process.**
pub struct Stack {
    // Nodes go first: an edge that vanishes under them only fills their logs.
    nodes: Vec<Node>,
    edge: Edge,
    config: StackConfig,
    secrets: Secrets,
    node_binary: PathBuf,
}

impl Stack {
    /// Builds what is not built, starts everything and waits until it is ready.
    ///
    /// # Errors
    /// The first part that does not build, start or become ready; with its last log lines.
    pub fn start(config: StackConfig) -> Result<Self> {
        let build = Build::make(config.profile)?;
        Self::start_built(build, config)
    }

    /// As [`Stack::start`], of what is built already.
    ///
    /// # Errors
    /// The first part that does not start or become ready, with its last log lines.
    pub fn start_built(build: Build, config: StackConfig) -> Result<Self> {
        let Build { bundle, node_binary } = build;
        let secrets = Secrets::load_or_make(&config.state_dir)?;
        let edge = Edge::start(EdgeConfig {
            bundle,
            mode: config.mode,
            environment: None,
            address: if config.hosts.is_empty() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED }.into(),
            port: match config.ports {
                Ports::Free => free_tcp_port()?,
                Ports::From(port) => port,
            },
            state_dir: config.state_dir.join("edge"),
            vars: secrets.vars()?.into_iter().chain(config.edge_vars.clone()).collect(),
            output: output(&config, "edge", 0),
        })?;
        let nodes = Vec::new();
        let wanted = config.nodes;
        let mut stack = Self { nodes, edge, config, secrets, node_binary };
        for _ in 0..wanted {
            stack.spawn_node()?;
        }
        for node in &mut stack.nodes {
            node.wait_until_ready()?;
        }
        Ok(stack)
    }

    /// Starts one more node and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start or become ready.
    pub fn add_node(&mut self) -> Result<&mut Node> {
        self.spawn_node()?;
        let node = self.nodes.last_mut().context("a node was just started")?;
        node.wait_until_ready()?;
        Ok(node)
    }

    /// Each part runs this build from its next start on.
    pub fn becomes(&mut self, build: &Build) {
        self.edge.becomes(build.bundle.clone());
        for node in &mut self.nodes {
            node.becomes(build.node_binary.clone());
        }
        self.node_binary.clone_from(&build.node_binary);
    }

    /// The edge, `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        self.edge.url()
    }

    /// The edge for LiveKit clients, `ws://127.0.0.1:PORT`.
    #[must_use]
    pub fn ws_url(&self) -> String {
        self.url().replacen("http", "ws", 1)
    }

    /// The edge's process, to kill and restart.
    pub fn edge(&mut self) -> &mut Edge {
        &mut self.edge
    }

    /// Where its nodes are, if not all on this host.
    #[must_use]
    pub fn hosts(&self) -> &[Host] {
        &self.config.hosts
    }

    /// The nodes, in the order they were started.
    pub fn nodes(&mut self) -> &mut [Node] {
        &mut self.nodes
    }

    /// The program that its nodes run.
    #[must_use]
    pub fn node_binary(&self) -> &Path {
        &self.node_binary
    }

    /// The deployment's secrets: enrolment tokens and the Worker's variables.
    #[must_use]
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// The first part that ended by itself, in words.
    ///
    /// # Errors
    /// When the system cannot say.
    pub fn fallen(&mut self) -> Result<Option<String>> {
        if let Some(status) = self.edge.process.exited()? {
            return Ok(Some(format!("the edge ended ({status})")));
        }
        for node in &mut self.nodes {
            if let Some(status) = node.process.exited()? {
                return Ok(Some(format!("{} ended ({status})", node.name())));
            }
        }
        Ok(None)
    }

    /// Ends everything in order: nodes first, then the edge.
    pub fn stop(self) {
        let Self { mut nodes, mut edge, .. } = self;
        std::thread::scope(|scope| {
            for node in &mut nodes {
                scope.spawn(|| node.process.stop());
            }
        });
        edge.process.stop();
    }

    fn spawn_node(&mut self) -> Result<()> {
        let index = self.nodes.len();
        let letter = char::from(b'a' + u8::try_from(index % 26)?);
        let place = PLACES.get(index % PLACES.len()).copied().unwrap_or("0,0");
        let name = format!("node-{letter}");
        let offset = u16::try_from(index)?;
        let (udp_port, http_port) = match self.config.ports {
            Ports::Free => (free_udp_ports(self.config.shards)?, free_tcp_port()?),
            Ports::From(port) => {
                let shards_before = offset * self.config.shards;
                ensure!(shards_before + self.config.shards <= MAX_NODES, "no UDP ports left for {name}");
                (port + UDP_OFFSET + shards_before, port + HTTP_OFFSET + offset)
            }
        };
        let host = self.config.hosts.get(index);
        ensure!(host.is_some() || self.config.hosts.is_empty(), "no host for {name}");
        let node = Node::start(
            &name,
            NodeConfig {
                binary: self.node_binary.clone(),
                region: format!("local-{letter}@{place}"),
                edge_url: host.map_or_else(|| self.url(), |host| self.edge.url_at(host.gateway())),
                address: host.map_or(node::LOOPBACK, Host::address),
                enrolment_token: self.secrets.enrolment_token()?,
                state_dir: self.config.state_dir.join(&name),
                udp_port,
                shards: self.config.shards,
                args: self.config.node_args.clone(),
                http_port,
                output: output(&self.config, &name, index + 1),
                wrapper: host
                    .map(Host::wrapper)
                    .into_iter()
                    .flatten()
                    .chain(self.config.node_wrapper.clone())
                    .collect(),
                public_address: self.config.public_address,
            },
        )?;
        self.nodes.push(node);
        Ok(())
    }
}

fn output(config: &StackConfig, name: &str, index: usize) -> Output {
    if config.show_logs {
        Output::Terminal { colour: COLOURS.get(index % COLOURS.len()).copied().unwrap_or_default() }
    } else {
        Output::File(config.state_dir.join(format!("{name}.log")))
    }
}

fn free_tcp_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// The first of as many consecutive ports that are free.
fn free_udp_ports(count: u16) -> Result<u16> {
    let bind = |port| UdpSocket::bind((Ipv4Addr::LOCALHOST, port));
    for _ in 0..PORT_SEARCHES {
        let first = bind(0)?;
        let port = first.local_addr()?.port();
        if (1..count).all(|more| port.checked_add(more).is_some_and(|port| bind(port).is_ok())) {
            return Ok(port);
        }
    }
    bail!("no {count} free UDP ports in a row")
}
