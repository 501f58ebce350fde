//! Everything breaks under real calls: an edge, nodes on hosts of their own, LiveKit's native clients. **A seed says what
//! breaks, in which order and when; what comes of it is as quick as the machine.**
//!
//! Whenever all is mended: everyone sees everyone of their room and nobody else, nobody's call has ended, nodes have a session
//! for each participant and no more, and the edge lists the rooms and people that there are. When all have left, nodes have
//! neither sessions nor pipes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use shared::claims::VideoGrant;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use xtask::repo;
use xtask::setup::python;
use xtask::stack::access_token;

use crate::app_server::AppServer;
use crate::call::PATIENT_DRAIN;
use crate::driver::Driver;
use crate::front::Front;
use crate::scene::{Deployment, PLACES, host, signal_node, sum_metric};

/// Hosts, a node each, far from each other; people are near to them in turn, so that rooms are on several.
const HOSTS: u8 = 3;
/// Rooms that people are in.
const ROOMS: [&str; 2] = ["blue", "green"];
/// People of each room: as many as these at least and at most.
const PEOPLE: std::ops::RangeInclusive<usize> = 2..=3;
/// What breaks before all is mended, at most.
const BREAKS: u32 = 4;
/// Longest that nothing more happens, ms.
const LULL_MS: u64 = 4_000;
/// Between two looks.
const POLL: Duration = Duration::from_millis(200);
/// How long a look for pictures that stand still takes at most, seconds.
const LOOK_SECS: f64 = 2.0;
/// How long what is mended may take until all is well: somebody who left unheard is gone after 20 s of it.
const HEALING: Duration = Duration::from_secs(60);

/// What may happen to a node, the edge, or people.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// `kill -9`; mended by a new process.
    Kill,
    /// SIGSTOP; mended by SIGCONT.
    Freeze,
    /// The host's link is cut; mended by joining it.
    Cut,
    /// SIGTERM: it is to end when its calls have left; mended by a new process.
    Drain,
    /// The edge is killed; mended by a new process on its state.
    EdgeDies,
    /// Somebody joins.
    Enter,
    /// Somebody leaves.
    Quit,
}

/// All of them, those of nodes more often.
const HAPPENINGS: [Happening; 10] = [
    Happening::Kill,
    Happening::Kill,
    Happening::Freeze,
    Happening::Freeze,
    Happening::Cut,
    Happening::Cut,
    Happening::Drain,
    Happening::EdgeDies,
    Happening::Enter,
    Happening::Quit,
];

/// Breaks and mends until `length` is over, then lets everyone leave.
///
/// # Errors
/// Something is not as it should be a minute after all was mended: what.
pub async fn run(seed: u64, length: Duration) -> Result<()> {
    let mut world = World::open(seed).await?;
    world.spreads().await?;
    let mut rounds = 0;
    let all_well = async {
        while world.begun.elapsed() < length {
            rounds += 1;
            world.round().await.with_context(|| format!("round {rounds}"))?;
        }
        world.close().await.context("when all left")
    };
    if let Err(error) = all_well.await {
        let after = format!("seed {seed}, {:.0} s", world.begun.elapsed().as_secs_f64());
        let kept = world.keep_logs(&repo::target_dir().join(format!("chaos/seed-{seed}")));
        let kept = kept.map_or_else(|error| error.to_string(), |path| path.display().to_string());
        return Err(error.context(format!("{after}; logs: {kept}")));
    }
    println!("{rounds} rounds, seed {seed}: all is well");
    Ok(())
}

struct World {
    deployment: Arc<Deployment>,
    /// What is said to be where: at each node's place.
    fronts: Vec<Front>,
    clients: Arc<Clients>,
    rng: SmallRng,
    begun: Instant,
    /// By room.
    people: BTreeMap<&'static str, BTreeSet<String>>,
    entering: JoinSet<Result<()>>,
    /// What is broken, by the node's place.
    broken: BTreeMap<usize, Happening>,
    edge_is_dead: bool,
    named: usize,
}

impl World {
    async fn open(seed: u64) -> Result<Self> {
        let args = PATIENT_DRAIN.map(str::to_owned).to_vec();
        let deployment = tokio::task::spawn_blocking(move || Deployment::on_hosts(HOSTS, args)).await??;
        let mut fronts = Vec::new();
        for place in PLACES.into_iter().take(HOSTS.into()) {
            fronts.push(Front::start_from(place, deployment.url()).await?);
        }
        let mut world = Self {
            deployment,
            fronts,
            clients: Arc::new(Clients::start().await?),
            rng: SmallRng::seed_from_u64(seed),
            begun: Instant::now(),
            people: ROOMS.into_iter().map(|room| (room, BTreeSet::new())).collect(),
            entering: JoinSet::new(),
            broken: BTreeMap::new(),
            edge_is_dead: false,
            named: 0,
        };
        for room in ROOMS {
            for _ in PEOPLE {
                world.enter(room)?;
            }
        }
        world.heal().await?;
        Ok(world)
    }

    /// Things happen, are mended, and all is well again.
    async fn round(&mut self) -> Result<()> {
        for _ in 0..self.rng.random_range(1..=BREAKS) {
            let happening = HAPPENINGS.choose(&mut self.rng).copied().context("nothing may happen")?;
            self.happen(happening).await?;
            self.lull().await;
        }
        self.mend().await?;
        self.heal().await
    }

    async fn happen(&mut self, happening: Happening) -> Result<()> {
        match happening {
            Happening::Enter => {
                let room = ROOMS.choose(&mut self.rng).copied().context("no room")?;
                if self.people.get(room).is_some_and(|people| people.len() < *PEOPLE.end()) {
                    self.enter(room)?;
                }
                return Ok(());
            }
            Happening::Quit => return self.quit().await,
            Happening::EdgeDies => {
                self.say("the edge dies");
                self.deployment.stack().edge().process.kill();
                self.edge_is_dead = true;
                return Ok(());
            }
            Happening::Kill | Happening::Freeze | Happening::Cut | Happening::Drain => {}
        }
        let sound: Vec<usize> = (0..HOSTS.into()).filter(|place| !self.broken.contains_key(place)).collect();
        // Somewhere a call can go.
        if sound.len() < 2 {
            return Ok(());
        }
        let place = sound.choose(&mut self.rng).copied().context("no node")?;
        self.say(&format!("node {place}: {happening:?}"));
        match happening {
            Happening::Kill => self.node(place, |node| {
                node.process.kill();
                Ok(())
            })?,
            Happening::Freeze => self.signal(place, Signal::SIGSTOP)?,
            Happening::Cut => host(&self.deployment.stack(), place)?.cut()?,
            _ => self.signal(place, Signal::SIGTERM)?,
        }
        self.broken.insert(place, happening);
        Ok(())
    }

    async fn mend(&mut self) -> Result<()> {
        if std::mem::take(&mut self.edge_is_dead) {
            self.say("the edge is back");
            self.deployment.restart_edge().await?;
            self.lull().await;
        }
        for (place, happening) in std::mem::take(&mut self.broken) {
            match happening {
                Happening::Freeze => self.signal(place, Signal::SIGCONT)?,
                Happening::Cut => host(&self.deployment.stack(), place)?.join()?,
                Happening::Drain => {
                    let ended = async {
                        while self.node(place, |node| node.process.exited())?.is_none() {
                            sleep(POLL).await;
                        }
                        anyhow::Ok(())
                    };
                    timeout(HEALING, ended).await.with_context(|| format!("node {place} does not drain"))??;
                    self.node(place, xtask::node::Node::restart)?;
                }
                _ => self.node(place, xtask::node::Node::restart)?,
            }
            self.say(&format!("node {place} is back"));
            self.lull().await;
        }
        self.deployment.nodes_are_ready().await
    }

    /// Waits until all is well.
    async fn heal(&mut self) -> Result<()> {
        let mended = Instant::now();
        loop {
            let ill = match timeout(HEALING, self.all_in()).await {
                Ok(entered) => entered.and(self.ill().await),
                Err(_) => bail!("somebody does not get in"),
            };
            match ill {
                Ok(None) => break,
                Ok(Some(ill)) if mended.elapsed() > HEALING => {
                    let (sessions, transports) = (self.gauges("sessions").await?, self.gauges("transports").await?);
                    bail!("{ill}; by node {sessions:?} sessions, {transports:?} transports");
                }
                Err(error) if mended.elapsed() > HEALING => return Err(error),
                Ok(Some(_)) | Err(_) => sleep(POLL).await,
            }
        }
        let ended = self.clients.ask::<Vec<String>>("ended", json!([])).await?;
        ensure!(ended.is_empty(), "calls have ended: {ended:?}");
        let people: usize = self.people.values().map(BTreeSet::len).sum();
        let (nodes, took) = (self.serving().await?.len(), mended.elapsed().as_secs_f64());
        self.say(&format!("all is well with {people} people on {nodes} nodes after {took:.1} s"));
        Ok(())
    }

    /// What is not as it should be.
    async fn ill(&self) -> Result<Option<String>> {
        let strangers: Vec<String> = self.clients.ask("strangers", json!([])).await?;
        let blind: Vec<String> = self.clients.ask("blind", json!([LOOK_SECS])).await?;
        if !strangers.is_empty() || !blind.is_empty() {
            return Ok(Some([strangers, blind].concat().join(", ")));
        }
        let (sessions, transports) = (self.gauges("sessions").await?, self.gauges("transports").await?);
        let people: usize = self.people.values().map(BTreeSet::len).sum();
        if sessions.iter().sum::<f64>() != f64::from(u32::try_from(people)?) {
            return Ok(Some(format!("nodes have {sessions:?} sessions for {people} people")));
        }
        if people == 0 && transports.iter().any(|open| *open > 0.0) {
            return Ok(Some(format!("nodes have {transports:?} transports for nobody")));
        }
        let rooms = listed(&self.app_server("")?, "ListRooms", json!({}), "rooms", "name").await?;
        let with_people = self.people.iter().filter(|(_, people)| !people.is_empty());
        let expected: BTreeSet<String> = with_people.map(|(room, _)| (*room).to_owned()).collect();
        if rooms != expected {
            return Ok(Some(format!("the edge lists the rooms {rooms:?}")));
        }
        for room in rooms {
            let app_server = self.app_server(&room)?;
            let there =
                listed(&app_server, "ListParticipants", json!({ "room": room }), "participants", "identity").await?;
            if self.people.get(room.as_str()) != Some(&there) {
                return Ok(Some(format!("the edge lists {there:?} in {room}")));
            }
        }
        Ok(None)
    }

    /// Writes all logs there.
    fn keep_logs(&self, directory: &Path) -> Result<PathBuf> {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory)?;
        for (name, text) in self.deployment.logs()? {
            fs::write(directory.join(name), text)?;
        }
        Ok(directory.to_owned())
    }

    /// The nodes that have sessions, by their places.
    async fn serving(&self) -> Result<Vec<usize>> {
        let sessions = self.gauges("sessions").await?;
        Ok(sessions.into_iter().enumerate().filter(|(_, sessions)| *sessions > 0.0).map(|(node, _)| node).collect())
    }

    /// Waits until each node serves those near to it.
    async fn spreads(&self) -> Result<()> {
        let spread = async {
            while self.serving().await?.len() < usize::from(HOSTS) {
                sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        timeout(HEALING, spread).await.context("people of several places are on fewer nodes")?
    }

    /// What each node counts of something.
    async fn gauges(&self, name: &str) -> Result<Vec<f64>> {
        let mut gauges = Vec::new();
        for node in 0..HOSTS.into() {
            gauges.push(sum_metric(&self.deployment.metrics_of(node).await?, &format!("meridian_node_{name}")));
        }
        Ok(gauges)
    }

    /// Everyone leaves; nothing is left.
    async fn close(&mut self) -> Result<()> {
        for room in ROOMS {
            for identity in std::mem::take(self.people.entry(room).or_default()) {
                self.clients.ask::<Value>("quit", json!([room, identity])).await?;
            }
        }
        self.heal().await
    }

    fn enter(&mut self, room: &'static str) -> Result<()> {
        let place = self.named % self.fronts.len();
        self.named += 1;
        let identity = format!("p{}", self.named);
        self.say(&format!("{identity} enters {room} near node {place}"));
        let url = self.fronts.get(place).context("no such place")?.url().replacen("http", "ws", 1);
        let args = json!([url, room, identity, access_token(room, &identity)?]);
        self.people.entry(room).or_default().insert(identity);
        let clients = Arc::clone(&self.clients);
        self.entering.spawn(async move { clients.ask::<u32>("enter", args).await.map(drop) });
        Ok(())
    }

    async fn quit(&mut self) -> Result<()> {
        let room = ROOMS.choose(&mut self.rng).copied().context("no room")?;
        let people = self.people.entry(room).or_default();
        if people.len() <= *PEOPLE.start() {
            return Ok(());
        }
        let identity = people.pop_first().context("nobody")?;
        self.say(&format!("{identity} leaves {room}"));
        // Who is not in yet cannot leave.
        timeout(HEALING, self.all_in()).await.context("somebody does not get in")??;
        self.clients.ask::<Value>("quit", json!([room, identity])).await.map(drop)
    }

    /// Waits until all who enter are in.
    async fn all_in(&mut self) -> Result<()> {
        while let Some(entered) = self.entering.join_next().await {
            entered??;
        }
        Ok(())
    }

    async fn lull(&mut self) {
        sleep(Duration::from_millis(self.rng.random_range(0..LULL_MS))).await;
    }

    fn node<T>(&self, place: usize, ask: impl FnOnce(&mut xtask::node::Node) -> Result<T>) -> Result<T> {
        ask(self.deployment.stack().nodes().get_mut(place).context("no such node")?)
    }

    fn signal(&self, place: usize, signal: Signal) -> Result<()> {
        signal_node(&mut self.deployment.stack(), place, signal)
    }

    fn app_server(&self, room: &str) -> Result<AppServer> {
        let grant = VideoGrant { room: room.to_owned(), room_admin: true, room_list: true, ..VideoGrant::default() };
        AppServer::at(self.deployment.url(), grant)
    }

    fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.begun.elapsed().as_secs_f64());
    }
}

/// The names of what a server API method lists.
async fn listed(app_server: &AppServer, method: &str, body: Value, list: &str, name: &str) -> Result<BTreeSet<String>> {
    let answer = app_server.ask(method, body).await?;
    let all = answer.get(list).and_then(Value::as_array).context("it lists nothing")?;
    Ok(all.iter().filter_map(|one| Some(one.get(name)?.as_str()?.to_owned())).collect())
}

/// The process that has all clients.
struct Clients(Driver);

impl Clients {
    async fn start() -> Result<Self> {
        let mut command = Command::new(python::interpreter());
        command.arg(repo::root().join("tests/python/chaos.py"));
        Ok(Self(Driver::start(command).await.context("the Python clients")?))
    }

    async fn ask<T: DeserializeOwned>(&self, name: &str, args: Value) -> Result<T> {
        self.0.ask(json!({ "name": name, "args": args })).await
    }
}
