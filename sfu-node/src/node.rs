//! The node as a whole: starts shard, control task, links and HTTP, and takes them down again.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rand::TryRngCore;
use rand::rngs::OsRng;
use shared::control::{CONTROL_VERSION, NodeInfo};
use shared::ids::NodeId;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::auth::Verifier;
use crate::conference::Conference;
use crate::config::Config;
use crate::control::{self, Control, ControlTask, EVENTS, Pulse, Report, Request};
use crate::edge::address::{AddressError, seen_by};
use crate::edge::departure::Exit;
use crate::edge::enrol::{EnrolError, enrol};
use crate::edge::fleet_link::{FleetLink, FleetState};
use crate::edge::identity::{IdentityError, NodeKey, load_id, store_id};
use crate::edge::room_link::{RoomContext, SHED_LIMIT};
use crate::edge::{Dialer, Leaving, backoff, endpoint};
use crate::http::{Status, router};
use crate::media::api::{Event, ShardConfig, ShardIndex};
use crate::media::shard::thread::{self, ShardHandle};
use crate::metrics::Metrics;
use crate::session::Endpoint;
use crate::session::allocator::Allocator;
use crate::tls::{StartError, TlsListener};

/// Where the edge publishes its keys (RFC 8615).
const JWKS_PATH: &str = "/.well-known/jwks.json";
/// Transports a session has at most.
const TRANSPORTS_PER_SESSION: usize = 2;

/// Why the node does not run (any more).
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    /// A port cannot be had.
    #[error("cannot listen on {address} ({what}): {error}")]
    Listen {
        /// What for.
        what: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The state directory is not usable.
    #[error("state directory: {0}")]
    Identity(#[from] IdentityError),
    /// Nobody says where clients reach the node.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The node has no id and nothing to get one with.
    #[error("this node is not enrolled yet: give an enrolment token (MERIDIAN_ENROL_TOKEN)")]
    NotEnrolled,
    /// The edge does not take the enrolment token.
    #[error(transparent)]
    Enrol(EnrolError),
    /// HTTPS cannot be served.
    #[error("HTTPS: {0}")]
    Tls(#[from] StartError),
    /// The HTTP client cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// The system gives no random bytes, or no signals.
    #[error("the system does not work: {0}")]
    System(String),
    /// A media shard ended.
    #[error("a media shard has ended")]
    ShardEnded,
}

/// Runs the node until SIGTERM or SIGINT.
///
/// # Errors
/// [`NodeError`], when it cannot start or its shard ends.
pub(crate) async fn run(mut config: Config) -> Result<(), NodeError> {
    // One process, one TLS backend; a second call finds it installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Before signals are handled: until then SIGTERM ends the process.
    if config.asks_for_addresses() {
        config.public_addresses = seen_by(&config.edge_url).await?;
        tracing::info!(addresses = ?config.public_addresses, "the edge sees this node");
    }
    let mut terminate = listen_for(SignalKind::terminate())?;
    let mut interrupt = listen_for(SignalKind::interrupt())?;
    let metrics = Arc::new(Metrics::new());
    let key = Arc::new(NodeKey::load_or_create(&config.state_dir)?);
    let (control, mut control_task, pulse) = start_media(&config, &metrics)?;
    let (leaving, exit) = (watch::Sender::new(Leaving::default()), Exit::new());
    let (state, state_seen) = watch::channel(FleetState::Down("not dialed yet".to_owned()));
    let status =
        Status { metrics: metrics.clone(), fleet: state_seen, pulse: pulse.clone(), leaving: leaving.subscribe() };
    let mut tasks = JoinSet::new();
    serve_http(&config, status, &mut tasks).await?;

    let links = Links {
        config: &config,
        key,
        control: control.clone(),
        metrics,
        pulse: pulse.clone(),
        state,
        exit: exit.clone(),
    };
    let ended = tokio::select! {
        error = links.run(&leaving) => Err(error),
        () = control_task.ended() => Err(NodeError::ShardEnded),
        () = drain(&mut terminate, &mut interrupt, &config, &control, (&leaving, &exit), pulse) => Ok(()),
    };
    tasks.shutdown().await;
    ended
}

/// Waits for a signal, then until nothing is left to do or the limit or another signal comes.
async fn drain(
    terminate: &mut Signal,
    interrupt: &mut Signal,
    config: &Config,
    control: &Control,
    (leaving, exit): (&watch::Sender<Leaving>, &Exit),
    mut pulse: watch::Receiver<Pulse>,
) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    let _ = control.send(Request::Drain).await;
    let sessions = usize::try_from(pulse.borrow().load.sessions).unwrap_or(usize::MAX);
    exit.widen(sessions, config.drain_limit());
    leaving.send_modify(|leaving| leaving.stops = true);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = timeout(config.drain_limit(), pulse.wait_for(|pulse| pulse.load.sessions == 0)) => {}
    }
    tracing::info!("bye");
}

fn listen_for(kind: SignalKind) -> Result<Signal, NodeError> {
    signal(kind).map_err(|error| NodeError::System(error.to_string()))
}

/// Starts the shards and the control task above them.
fn start_media(
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<(Control, ControlTask, watch::Receiver<Pulse>), NodeError> {
    let max_sessions = usize::try_from(config.max_sessions).unwrap_or(usize::MAX);
    let shard_config = ShardConfig {
        bind: config.bind(),
        socket_buffer: config.socket_buffer,
        max_transports: max_sessions.saturating_mul(TRANSPORTS_PER_SESSION),
        audible: config.audible(),
    };
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..config.shards).map(|_| crossbeam_channel::bounded::<Event>(EVENTS)).unzip();
    let shards = thread::start(&shard_config, senders).map_err(|error| NodeError::Listen {
        what: "media",
        address: config.bind(),
        error,
    })?;
    let mut seed = [0; 32];
    OsRng.try_fill_bytes(&mut seed).map_err(|error| NodeError::System(error.to_string()))?;
    let all = || ShardIndex::all(shards.len());
    let endpoint = |(index, shard): (_, &ShardHandle)| Endpoint {
        candidates: config.candidates(index),
        fingerprints: shard.fingerprints(),
    };
    let endpoints = all().zip(&shards).map(endpoint).collect();
    let conference = Conference::new(endpoints, config.fullness(), Allocator::new(seed), max_sessions);
    let (bridge, reports) = mpsc::channel(EVENTS);
    for (shard, events) in all().zip(receivers) {
        bridge_events(shard, events, bridge.clone()).map_err(|error| NodeError::System(error.to_string()))?;
    }
    tracing::info!(address = %config.bind(), shards = shards.len(), "media sockets are open");
    let command = move |shard: ShardIndex, command| {
        if let Some(shard) = shards.get(shard.place()) {
            shard.send(command);
        }
    };
    Ok(control::start(conference, command, usize::from(config.shards), reports, metrics.clone()))
}

/// Carries a shard's events to the control task, and the news that it ended.
fn bridge_events(
    shard: ShardIndex,
    events: crossbeam_channel::Receiver<Event>,
    bridge: mpsc::Sender<(ShardIndex, Report)>,
) -> io::Result<()> {
    let carry = move || {
        let send = |report| bridge.blocking_send((shard, report));
        // Fails only when the control task is gone: nobody is left to be told.
        let _ = events.iter().try_for_each(|event| send(Report::Said(event))).and_then(|()| send(Report::Ended));
    };
    std::thread::Builder::new().name(format!("events-{}", shard.0)).spawn(carry).map(drop)
}

async fn serve_http(config: &Config, status: Status, tasks: &mut JoinSet<()>) -> Result<(), NodeError> {
    let address = config.http_addr;
    let listener = TcpListener::bind(address).await.map_err(|error| NodeError::Listen {
        what: "health and metrics",
        address,
        error,
    })?;
    let ended = |result: io::Result<()>| {
        if let Err(error) = result {
            tracing::error!(%error, "HTTP ended");
        }
    };
    match config.tls() {
        None => tasks.spawn(async move { ended(axum::serve(listener, router(status)).await) }),
        Some(source) => {
            let listener = TlsListener::start(listener, source)?;
            tasks.spawn(async move { ended(axum::serve(listener, router(status)).await) })
        }
    };
    Ok(())
}

/// What the links to the edge are made of.
struct Links<'a> {
    config: &'a Config,
    key: Arc<NodeKey>,
    control: Control,
    metrics: Arc<Metrics>,
    pulse: watch::Receiver<Pulse>,
    state: watch::Sender<FleetState>,
    exit: Exit,
}

impl Links<'_> {
    /// Enrols where needed and keeps the fleet link up. Returns only what no waiting mends.
    async fn run(&self, leaving: &watch::Sender<Leaving>) -> NodeError {
        let http = match reqwest::Client::builder().user_agent(concat!("sfu-node/", env!("CARGO_PKG_VERSION"))).build()
        {
            Ok(http) => http,
            Err(error) => return error.into(),
        };
        let mut known = match load_id(&self.config.state_dir) {
            Ok(known) => known,
            Err(error) => return error.into(),
        };
        let mut must_enrol = known.is_none();
        let mut waits = backoff();
        loop {
            if must_enrol {
                match self.enrol(&http, known.is_some()).await {
                    Ok(node) => known = Some(node),
                    // The token is too old by now, but the node had an id before: the edge may know it again later.
                    Err(NodeError::Enrol(error)) if known.is_some() => tracing::warn!(%error, "cannot enrol again"),
                    Err(error) => return error,
                }
            }
            let Some(node) = known.clone() else { return NodeError::NotEnrolled };
            let verifier =
                Arc::new(Verifier::new(node.clone(), endpoint(&self.config.edge_url, JWKS_PATH), http.clone()));
            let context = RoomContext {
                dialer: Dialer::new(self.config.edge_url.clone(), node.clone(), self.key.clone()),
                verifier: verifier.clone(),
                control: self.control.clone(),
                metrics: self.metrics.clone(),
                pipes: self.config.pipes(),
                place: self.config.region.place,
                leaving: leaving.subscribe(),
                exit: self.exit.clone(),
                shed_limit: SHED_LIMIT,
            };
            let mut link = FleetLink {
                info: self.info(),
                context,
                pulse: self.pulse.clone(),
                leaving: leaving.clone(),
                state: self.state.clone(),
            };
            let (refused, ()) = tokio::join!(link.run(), verifier.prefetch());
            tracing::warn!(reason = refused, "the fleet does not take this node");
            self.state.send_replace(FleetState::Down(refused));
            // The edge may have lost the node's key.
            must_enrol = true;
            sleep(waits.next().unwrap_or(Duration::from_secs(1))).await;
        }
    }

    /// By token; without one, a node that has no id waits until its address is admitted.
    async fn enrol(&self, http: &reqwest::Client, has_id: bool) -> Result<NodeId, NodeError> {
        let token = self.config.enrol_token.as_ref();
        for wait in backoff() {
            match enrol(http, &self.config.edge_url, &self.key, token).await {
                Ok(node) => {
                    tracing::info!(%node, "enrolled");
                    store_id(&self.config.state_dir, &node)?;
                    return Ok(node);
                }
                Err(error @ EnrolError::Refused { .. }) if token.is_some() || has_id => {
                    return Err(NodeError::Enrol(error));
                }
                Err(error @ EnrolError::Refused { .. }) if !error.awaits_admission() => {
                    return Err(NodeError::NotEnrolled);
                }
                Err(error) => {
                    tracing::warn!(%error, "not enrolled yet");
                    self.state.send_replace(FleetState::Down(error.to_string()));
                    sleep(wait).await;
                }
            }
        }
        Err(NodeError::NotEnrolled)
    }

    fn info(&self) -> NodeInfo {
        NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control_version: CONTROL_VERSION,
            region: self.config.region.name.clone(),
            place: self.config.region.place,
            max_sessions: self.config.max_sessions,
            limits: self.config.limits(),
            pipes: self.config.pipes(),
        }
    }
}
