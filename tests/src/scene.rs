//! What every story begins with: a fresh room on a running deployment, and people who join it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use shared::claims::{AccessClaims, ApiKeys};
use shared::geo::Place;
use xtask::hosts::Host;
use xtask::stack::{API_KEY, API_SECRET, Build, Stack, StackConfig};

use crate::client::{Client, ClientOptions, Publish};
use crate::relay::{RELAY_ADDRESS, Relay};
use crate::token;

/// Near each of the first nodes of a deployment, far from the others.
pub const PLACES: [Place; 3] = [
    Place { latitude: 30.0, longitude: -97.0 },
    Place { latitude: 52.0, longitude: 13.0 },
    Place { latitude: 35.0, longitude: 139.0 },
];

static SHARED: Mutex<Weak<Deployment>> = Mutex::new(Weak::new());
/// Building for two deployments at once would have one read what the other is writing.
static STARTING: Mutex<()> = Mutex::new(());
static COUNT: AtomicU32 = AtomicU32::new(0);

/// A running deployment. **Dropping it kills every process and removes its state.**
pub struct Deployment {
    stack: Mutex<Stack>,
    url: String,
    metrics: Vec<SocketAddr>,
    media: Vec<SocketAddr>,
    state_dir: PathBuf,
}

impl Deployment {
    /// Starts edge and nodes of its own, for stories that break them.
    ///
    /// # Errors
    /// Something did not build, start or become ready.
    pub fn start(nodes: usize) -> anyhow::Result<Arc<Self>> {
        Self::start_told(nodes, |config| config)
    }

    /// So many nodes, with more arguments for them.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub fn of_nodes(nodes: usize, node_args: Vec<String>) -> anyhow::Result<Arc<Self>> {
        Self::start_told(nodes, |config| StackConfig { node_args, ..config })
    }

    /// As [`Deployment::of_nodes`], each on a host of its own.
    ///
    /// # Errors
    /// As [`Deployment::start`]; hosts cannot be made here.
    pub fn on_hosts(count: u8, node_args: Vec<String>) -> anyhow::Result<Arc<Self>> {
        let hosts = Host::make_all(count)?;
        Self::start_told(hosts.len(), |config| StackConfig { node_args, hosts, ..config })
    }

    /// One node of so many media threads, with more arguments for it.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub fn of_shards(shards: u16, node_args: Vec<String>) -> anyhow::Result<Arc<Self>> {
        Self::start_told(1, |config| StackConfig { shards, node_args, ..config })
    }

    /// One node, and an edge with these variables.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub fn with_edge_vars(vars: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Arc<Self>> {
        Self::start_told(1, |config| StackConfig { edge_vars: vars.into_iter().collect(), ..config })
    }

    /// One node, with a relay between it and its clients.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub async fn behind_relay() -> anyhow::Result<(Arc<Self>, Relay)> {
        Self::behind_relay_with([]).await
    }

    /// As [`Deployment::behind_relay`], and an edge with these variables.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub async fn behind_relay_with(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<(Arc<Self>, Relay)> {
        let (edge_vars, public_address) = (vars.into_iter().collect(), Some(RELAY_ADDRESS));
        let start = move || Self::start_told(1, |config| StackConfig { public_address, edge_vars, ..config });
        let deployment = tokio::task::spawn_blocking(start).await??;
        let relay = Relay::start(deployment.media_address().context("no node")?).await?;
        Ok((deployment, relay))
    }

    /// As [`Deployment::of_nodes`], of what is built already.
    ///
    /// # Errors
    /// Something did not start or become ready.
    pub fn of_build(build: Build, nodes: usize, node_args: Vec<String>) -> anyhow::Result<Arc<Self>> {
        let start = |config| Stack::start_built(build, StackConfig { node_args, ..config });
        Self::start_by(nodes, start)
    }

    fn start_told(nodes: usize, told: impl FnOnce(StackConfig) -> StackConfig) -> anyhow::Result<Arc<Self>> {
        Self::start_by(nodes, |config| Stack::start(told(config)))
    }

    fn start_by(nodes: usize, start: impl FnOnce(StackConfig) -> anyhow::Result<Stack>) -> anyhow::Result<Arc<Self>> {
        let state_dir = std::env::temp_dir().join(unique("meridian-test"));
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut stack = start(StackConfig::for_tests(nodes, state_dir.clone()))?;
        let url = stack.url();
        let metrics = stack.nodes().iter().map(xtask::node::Node::http_addr).collect();
        let media = stack.nodes().iter().map(xtask::node::Node::udp_addr).collect();
        Ok(Arc::new(Self { stack: Mutex::new(stack), url, metrics, media, state_dir }))
    }

    /// The one with one node that all stories of this test binary share; it lives as long as one of them needs it.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub fn shared() -> anyhow::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Ok(running);
        }
        let started = Self::start(1)?;
        *shared = Arc::downgrade(&started);
        Ok(started)
    }

    /// The edge: `http://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where the first node takes media.
    #[must_use]
    pub fn media_address(&self) -> Option<SocketAddr> {
        self.media.first().copied()
    }

    /// The processes, to kill and restart.
    pub fn stack(&self) -> MutexGuard<'_, Stack> {
        self.stack.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Kills the edge and starts it again, as when it is deployed: every WebSocket breaks.
    ///
    /// # Errors
    /// It does not start.
    pub async fn restart_edge(self: &Arc<Self>) -> anyhow::Result<()> {
        let deployment = Arc::clone(self);
        let restart = move || {
            let mut stack = deployment.stack();
            stack.edge().process.kill();
            stack.edge().restart()
        };
        tokio::task::spawn_blocking(restart).await?
    }

    /// Waits until every node has its link to the edge.
    ///
    /// # Errors
    /// One does not get it.
    pub async fn nodes_are_ready(self: &Arc<Self>) -> anyhow::Result<()> {
        let deployment = Arc::clone(self);
        let wait = move || deployment.stack().nodes().iter_mut().try_for_each(xtask::node::Node::wait_until_ready);
        tokio::task::spawn_blocking(wait).await?
    }

    /// Where the edge keeps its objects' databases: a directory for each class.
    #[must_use]
    pub fn objects_dir(&self) -> PathBuf {
        self.state_dir.join("edge/objects")
    }

    /// What the edge has written to its log.
    #[must_use]
    pub fn edge_log(&self) -> String {
        std::fs::read_to_string(self.state_dir.join("edge.log")).unwrap_or_default()
    }

    /// All logs: name and text of each.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn logs(&self) -> anyhow::Result<Vec<(String, String)>> {
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(&self.state_dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                logs.push((name, std::fs::read_to_string(&path)?));
            }
        }
        Ok(logs)
    }

    /// A counter or gauge of the first node, summed over its labels; 0 when it does not exist.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        Ok(sum_metric(&self.metrics_text().await?, name))
    }

    /// The first node's `/metrics`.
    ///
    /// # Errors
    /// The node does not answer.
    pub async fn metrics_text(&self) -> anyhow::Result<String> {
        self.metrics_of(0).await
    }

    /// A node's `/metrics`.
    ///
    /// # Errors
    /// There is none of this index, or it does not answer.
    pub async fn metrics_of(&self, node: usize) -> anyhow::Result<String> {
        let address = self.metrics.get(node).context("no such node")?;
        Ok(reqwest::get(format!("http://{address}/metrics")).await?.error_for_status()?.text().await?)
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        // Its processes die with `stack`; files they still write are of no use to anybody.
        let _ = std::fs::remove_dir_all(&self.state_dir);
    }
}

/// Signals a node's process, by its place.
///
/// # Errors
/// It does not run.
pub fn signal_node(stack: &mut Stack, place: usize, signal: Signal) -> anyhow::Result<()> {
    let pid = stack.nodes().get(place).and_then(|node| node.process.pid()).context("no such node")?;
    Ok(kill(Pid::from_raw(pid.try_into()?), signal)?)
}

/// A node's host, by its place.
///
/// # Errors
/// It has none of its own.
pub fn host(stack: &Stack, place: usize) -> anyhow::Result<&Host> {
    stack.hosts().get(place).context("no such host")
}

/// A fresh room.
pub struct Scene {
    /// Where it is.
    pub deployment: Arc<Deployment>,
    /// The room's name.
    pub room: String,
}

impl Scene {
    /// A room on the shared deployment.
    ///
    /// # Errors
    /// As [`Deployment::shared`].
    pub async fn open() -> anyhow::Result<Self> {
        let deployment = tokio::task::spawn_blocking(Deployment::shared).await??;
        Ok(Self::on(deployment))
    }

    /// A room on a deployment of its own.
    ///
    /// # Errors
    /// As [`Deployment::start`].
    pub async fn alone(nodes: usize) -> anyhow::Result<Self> {
        let deployment = tokio::task::spawn_blocking(move || Deployment::start(nodes)).await??;
        Ok(Self::on(deployment))
    }

    /// A room on this deployment.
    #[must_use]
    pub fn on(deployment: Arc<Deployment>) -> Self {
        Self { deployment, room: unique("room") }
    }

    /// The edge: `http://…`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.deployment.url
    }

    /// Claims that let `identity` into this room.
    #[must_use]
    pub fn claims(&self, identity: &str) -> AccessClaims {
        token::join_claims(API_KEY, &self.room, identity)
    }

    /// A token of these claims, signed as the deployment's app server would.
    ///
    /// # Errors
    /// The claims name another API key.
    pub fn sign(&self, claims: &AccessClaims) -> anyhow::Result<String> {
        sign(claims)
    }

    /// How `identity` would join.
    ///
    /// # Errors
    /// No token can be signed.
    pub fn options(&self, identity: &str) -> anyhow::Result<ClientOptions> {
        Ok(ClientOptions::new(self.url(), &self.sign(&self.claims(identity))?))
    }

    /// `identity` joins, subscribes to everything and waits for its media connection.
    ///
    /// # Errors
    /// Something of that did not happen.
    pub async fn join(&self, identity: &str) -> anyhow::Result<Client> {
        self.join_publishing(identity, Vec::new()).await
    }

    /// Whoever a token is for joins with it, and waits for its media connection.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_by_token(&self, token: &str) -> anyhow::Result<Client> {
        let mut client = Client::join(ClientOptions::new(self.url(), token)).await?;
        client.connected().await?;
        Ok(client)
    }

    /// As [`Self::join`], with tracks of its own from the start.
    ///
    /// # Errors
    /// As [`Self::join`].
    pub async fn join_publishing(&self, identity: &str, publish: Vec<Publish>) -> anyhow::Result<Client> {
        let mut client = Client::join(ClientOptions { publish, ..self.options(identity)? }).await?;
        client.connected().await?;
        Ok(client)
    }
}

/// A token of these claims, signed as the app server of any deployment of ours would.
///
/// # Errors
/// The claims name another API key.
pub fn sign(claims: &AccessClaims) -> anyhow::Result<String> {
    Ok(ApiKeys::parse(&format!("{API_KEY}: {API_SECRET}")).mint(claims)?)
}

fn unique(prefix: &str) -> String {
    format!("{prefix}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Sum of all samples of a metric in the Prometheus text format.
#[must_use]
pub fn sum_metric(text: &str, name: &str) -> f64 {
    let samples = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let value = match rest.strip_prefix('{') {
            Some(labelled) => labelled.split_once('}')?.1,
            None => rest,
        };
        value.strip_prefix(' ')?.split(' ').next()?.parse::<f64>().ok()
    });
    samples.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_summed_over_labels_and_not_over_prefixes() {
        let text =
            "# TYPE drops counter\ndrops_total{reason=\"a\"} 2\ndrops_total{reason=\"b\"} 3\ndrops_totals 9\nup 1\n";
        assert!((sum_metric(text, "drops_total") - 5.0).abs() < f64::EPSILON);
        assert!((sum_metric(text, "up") - 1.0).abs() < f64::EPSILON);
    }
}
