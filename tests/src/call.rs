//! A call of LiveKit's own SDKs over several nodes, for stories that end nodes under it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use nix::sys::signal::Signal;
use serde_json::json;
use shared::control::{DRAIN_PATH, DrainRequest, NODES_PATH, NodeStatus};
use shared::geo::Place;
use shared::ids::NodeId;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{sleep, timeout};
use xtask::stack::Build;

use crate::browser::Browser;
use crate::front::Front;
use crate::node_impostor::post;
use crate::scene::{Deployment, Scene, host, signal_node, sum_metric};
use crate::sdk::{Mode, PATIENCE, SdkClient};

/// Each call has several browsers.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());
/// Data packets sent until one is heard, and how long it is waited for.
const DATA_ATTEMPTS: usize = 30;
/// See [`DATA_ATTEMPTS`].
const DATA_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at a node.
const POLL: Duration = Duration::from_millis(100);
/// Gives calls far more seconds to leave a node than they take.
pub(crate) const PATIENT_DRAIN: [&str; 2] = ["--drain-secs", "120"];

/// Which SDK somebody uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sdk {
    /// `livekit-client` in Chromium. A browser for each: the pages of one share its fake camera.
    Browser,
    /// The native core, in Python.
    Native,
}

/// Where people come in.
#[derive(Debug, Clone, Copy)]
enum Doors<'a> {
    /// At the edge itself.
    Edge,
    /// Where the platform says that they are there, in their order.
    At(&'a [Place]),
    /// Where requests wait for an edge that is being replaced.
    Platform,
}

/// Everyone sees and hears everyone.
pub struct Call {
    /// Who is in it.
    pub clients: Vec<SdkClient>,
    /// Where it is.
    pub scene: Scene,
    nodes: usize,
    _browsers: Vec<Browser>,
    fronts: Vec<Front>,
    _alone: MutexGuard<'static, ()>,
}

impl Call {
    /// Everyone joins and publishes; it is up when all see and hear each other.
    ///
    /// # Errors
    /// It does not come about.
    pub async fn open(nodes: usize, mode: Mode, people: &[(&str, Sdk)]) -> Result<Self> {
        Self::on(move |args| Deployment::of_nodes(nodes, args), mode, people, Doors::Edge).await
    }

    /// Nobody is in it: for crowds. Nodes take at most so many sessions.
    ///
    /// # Errors
    /// The nodes do not start.
    pub async fn of_small_nodes(nodes: usize, max_sessions: usize) -> Result<Self> {
        let start = move |mut args: Vec<String>| {
            args.extend(["--max-sessions".to_owned(), max_sessions.to_string()]);
            Deployment::of_nodes(nodes, args)
        };
        Self::on(start, Mode::Single, &[], Doors::Edge).await
    }

    /// As [`Self::open`], where edge and nodes are of this build, and clients wait for an edge that is being replaced.
    ///
    /// # Errors
    /// As it.
    pub async fn open_of(build: Build, nodes: usize, mode: Mode, people: &[(&str, Sdk)]) -> Result<Self> {
        Self::on(move |args| Deployment::of_build(build, nodes, args), mode, people, Doors::Platform).await
    }

    /// As [`Self::open`], where the platform says that the people are at these places, in their order.
    ///
    /// # Errors
    /// As it.
    pub async fn open_from(places: &[Place], mode: Mode, people: &[(&str, Sdk)]) -> Result<Self> {
        let nodes = places.len();
        Self::on(move |args| Deployment::of_nodes(nodes, args), mode, people, Doors::At(places)).await
    }

    /// As [`Self::open`], each node on a host of its own.
    ///
    /// # Errors
    /// As it; hosts cannot be made here.
    pub async fn open_on_hosts(hosts: u8, mode: Mode, people: &[(&str, Sdk)]) -> Result<Self> {
        Self::on(move |args| Deployment::on_hosts(hosts, args), mode, people, Doors::Edge).await
    }

    /// As [`Self::open_from`], on a deployment that runs.
    ///
    /// # Errors
    /// As it.
    pub async fn open_in(
        deployment: Arc<Deployment>,
        places: &[Place],
        mode: Mode,
        people: &[(&str, Sdk)],
    ) -> Result<Self> {
        Self::on(move |_| Ok(deployment), mode, people, Doors::At(places)).await
    }

    async fn on(
        start: impl FnOnce(Vec<String>) -> Result<Arc<Deployment>> + Send + 'static,
        mode: Mode,
        people: &[(&str, Sdk)],
        doors: Doors<'_>,
    ) -> Result<Self> {
        let alone = ONE_AT_A_TIME.lock().await;
        let args = PATIENT_DRAIN.map(str::to_owned).to_vec();
        let deployment = tokio::task::spawn_blocking(move || start(args)).await??;
        let nodes = deployment.stack().nodes().len();
        let scene = Scene::on(deployment);
        let (mut clients, mut browsers) = (Vec::new(), Vec::new());
        for (name, sdk) in people {
            match sdk {
                Sdk::Browser => {
                    let browser = Browser::launch().await?;
                    clients.push(browser.client(name).await?);
                    browsers.push(browser);
                }
                Sdk::Native => clients.push(SdkClient::python(name).await?),
            }
        }
        let mut call = Self { clients, scene, nodes, _browsers: browsers, fronts: Vec::new(), _alone: alone };
        for (index, client) in call.clients.iter().enumerate() {
            let edge = call.scene.url();
            let front = match doors {
                Doors::Edge => None,
                Doors::Platform => Some(Front::start_patient(edge).await?),
                Doors::At(places) => match places.get(index) {
                    Some(place) => Some(Front::start_from(*place, edge).await?),
                    None => None,
                },
            };
            let Some(front) = front else {
                client.join(&call.scene, mode).await?;
                continue;
            };
            client.join_room(front.url(), &call.scene.room, mode).await?;
            call.fronts.push(front);
        }
        try_join_all(call.clients.iter().map(SdkClient::publish)).await?;
        comes_about(&call.clients).await?;
        Ok(call)
    }

    /// Waits until everyone has seen and heard more of everyone.
    ///
    /// # Errors
    /// Somebody has not.
    pub async fn goes_on(&self) -> Result<()> {
        goes_on(&self.clients).await
    }

    /// Data gets through from everyone to the next, on both channels. What was on its way while the node died may be lost.
    ///
    /// # Errors
    /// It does not.
    pub async fn data_gets_through(&self, text: &str) -> Result<()> {
        for (from, to) in self.clients.iter().zip(self.clients.iter().cycle().skip(1)) {
            for reliable in [true, false] {
                let mut attempts = 0..DATA_ATTEMPTS;
                loop {
                    let Some(attempt) = attempts.next() else {
                        let channel = if reliable { "reliable" } else { "lossy" };
                        bail!("no {channel} data of {} gets through to {}: {text}", from.identity(), to.identity());
                    };
                    let (mark, text) = (to.mark().await?, format!("{text} {reliable} {attempt}"));
                    from.send_data(&text, reliable).await?;
                    let data = json!({ "event": "data", "identity": from.identity(), "text": text });
                    if to.hears_within(data, mark, DATA_PATIENCE).await.is_ok() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// How many events each has heard.
    ///
    /// # Errors
    /// A client's process is gone.
    pub async fn marks(&self) -> Result<Vec<usize>> {
        try_join_all(self.clients.iter().map(SdkClient::mark)).await
    }

    /// Nothing ended for anybody, or came again, since these [`Self::marks`].
    ///
    /// # Errors
    /// What somebody heard instead.
    pub async fn heard_of_no_end(&self, since: &[usize]) -> Result<()> {
        try_join_all(self.clients.iter().zip(since).map(|(client, since)| client.heard_of_no_end(*since))).await?;
        Ok(())
    }

    /// Nobody had to come back on a new socket either, of the first so many as have a mark.
    ///
    /// # Errors
    /// Who did.
    pub async fn nobody_resumed(&self, since: &[usize]) -> Result<()> {
        for (client, since) in self.clients.iter().zip(since) {
            if let Some(heard) = client.heard(*since).await?.into_iter().find(|heard| heard.event.contains("econnect"))
            {
                bail!("{} heard {heard:?}", client.identity());
            }
        }
        Ok(())
    }

    /// The longest that any picture stood still since the last look, ms.
    ///
    /// # Errors
    /// A client's process is gone.
    pub async fn stillness(&self) -> Result<f64> {
        Ok(stills(&self.clients).await?.into_iter().fold(0.0, f64::max))
    }

    /// Waits until a node has so many sessions.
    ///
    /// # Errors
    /// It gets others.
    pub async fn has_sessions(&self, node: usize, count: f64) -> Result<()> {
        let sessions = async {
            while sum_metric(&self.metrics(node).await?, "meridian_node_sessions") != count {
                sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        timeout(PATIENCE, sessions).await.with_context(|| format!("not {count} sessions"))?
    }

    /// The node that has the call, by its place; waits until one says so.
    ///
    /// # Errors
    /// None does.
    pub async fn serving(&self) -> Result<usize> {
        self.serving_but(None).await
    }

    /// The same after a node was killed: another one.
    ///
    /// # Errors
    /// None gets the call.
    pub async fn served_elsewhere(&self, killed: usize) -> Result<usize> {
        self.serving_but(Some(killed)).await
    }

    async fn serving_but(&self, killed: Option<usize>) -> Result<usize> {
        let found = async {
            loop {
                for node in (0..self.nodes).filter(|node| Some(*node) != killed) {
                    // One that was killed answers nothing.
                    let Ok(metrics) = self.metrics(node).await else { continue };
                    if sum_metric(&metrics, "meridian_node_sessions") > 0.0 {
                        return node;
                    }
                }
                sleep(POLL).await;
            }
        };
        timeout(PATIENCE, found).await.context("no node has a session")
    }

    /// A node's `/metrics`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn metrics(&self, node: usize) -> Result<String> {
        self.scene.deployment.metrics_of(node).await
    }

    /// Waits until a node has no session any more.
    ///
    /// # Errors
    /// It keeps some.
    pub async fn is_left(&self, node: usize) -> Result<()> {
        self.has_sessions(node, 0.0).await.context("it keeps its sessions")
    }

    /// Signals a node's process.
    ///
    /// # Errors
    /// It does not run.
    pub fn signal(&self, node: usize, signal: Signal) -> Result<()> {
        signal_node(&mut self.scene.deployment.stack(), node, signal)
    }

    /// Cuts the link of a node's host, or undoes it.
    ///
    /// # Errors
    /// It has none of its own.
    pub fn cut(&self, node: usize, cut: bool) -> Result<()> {
        let stack = self.scene.deployment.stack();
        let host = host(&stack, node)?;
        if cut { host.cut() } else { host.join() }
    }

    /// Waits until a node's process has ended by itself.
    ///
    /// # Errors
    /// It goes on, or failed.
    pub async fn ended(&self, node: usize) -> Result<()> {
        let ended = async {
            loop {
                let exited =
                    self.scene.deployment.stack().nodes().get_mut(node).context("no such node")?.process.exited()?;
                match exited {
                    Some(status) if status.success() => return Ok(()),
                    Some(status) => bail!("it ended with {status}"),
                    None => sleep(POLL).await,
                }
            }
        };
        timeout(PATIENCE, ended).await.context("it does not end")?
    }

    /// Starts a node again, and waits until it serves.
    ///
    /// # Errors
    /// It does not.
    pub async fn restart(&self, node: usize) -> Result<()> {
        let deployment = self.scene.deployment.clone();
        let restart = move || {
            let mut stack = deployment.stack();
            let node = stack.nodes().get_mut(node).context("no such node")?;
            node.restart()?;
            node.wait_until_ready()
        };
        tokio::task::spawn_blocking(restart).await?
    }

    /// Kills the edge and starts it again, as when it is deployed; waits until every node has its link.
    ///
    /// # Errors
    /// It does not come back.
    pub async fn restart_edge(&self) -> Result<()> {
        self.scene.deployment.restart_edge().await?;
        self.scene.deployment.nodes_are_ready().await
    }

    /// As an operator sees the fleet.
    ///
    /// # Errors
    /// The edge does not say.
    pub async fn nodes(&self) -> Result<Vec<NodeStatus>> {
        let token = self.scene.deployment.stack().secrets().enrolment_token()?;
        let (status, text) = post(self.scene.url(), NODES_PATH, Some(&token), &json!({})).await?;
        serde_json::from_str(&text).with_context(|| format!("{status}: {text}"))
    }

    /// The first node that the fleet knows to have sessions; waits for its heartbeat.
    ///
    /// # Errors
    /// There is none.
    pub async fn in_use(&self) -> Result<NodeId> {
        let found = async {
            loop {
                let has_sessions = |node: &NodeStatus| node.load.is_some_and(|load| load.sessions > 0);
                match self.nodes().await?.into_iter().find(has_sessions) {
                    Some(node) => return Ok(node.node),
                    None => sleep(POLL).await,
                }
            }
        };
        timeout(PATIENCE, found).await.context("the fleet knows of no session")?
    }

    /// As an operator drains a node, or no longer.
    ///
    /// # Errors
    /// The edge does not take it.
    pub async fn drain(&self, node: &NodeId, draining: bool) -> Result<()> {
        let token = self.scene.deployment.stack().secrets().enrolment_token()?;
        let request = DrainRequest { node: node.clone(), draining };
        match post(self.scene.url(), DRAIN_PATH, Some(&token), &request).await? {
            (200, _) => Ok(()),
            (status, text) => bail!("{status}: {text}"),
        }
    }
}

/// Waits until everyone sees everyone for the first time, and sees and hears more.
///
/// # Errors
/// Somebody does not.
pub async fn comes_about(clients: &[SdkClient]) -> Result<()> {
    for (one, other) in pairs(clients) {
        one.hears(json!({ "event": "firstFrame", "identity": other.identity() })).await?;
    }
    goes_on(clients).await
}

/// Waits until everyone has seen and heard more of everyone.
///
/// # Errors
/// Somebody has not.
pub async fn goes_on(clients: &[SdkClient]) -> Result<()> {
    try_join_all(pairs(clients).map(|(one, other)| one.sees_and_hears(other.identity()))).await?;
    Ok(())
}

/// How long each picture stood still since the last look, ms.
///
/// # Errors
/// A client's process is gone.
pub async fn stills(clients: &[SdkClient]) -> Result<Vec<f64>> {
    try_join_all(pairs(clients).map(|(one, other)| one.stillness(other.identity()))).await
}

fn pairs(clients: &[SdkClient]) -> impl Iterator<Item = (&SdkClient, &SdkClient)> {
    let all = clients.iter().flat_map(move |one| clients.iter().map(move |other| (one, other)));
    all.filter(|(one, other)| one.identity() != other.identity())
}
