//! The control task: owns the [`Conference`], carries its messages to the room links and its commands to the shards.

mod readings;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::claims::SessionClaims;
use shared::control::{NodeLoad, NodeToRoom, OpenSession, PipeKey, RefusalReason, RoomToNode};
use shared::ids::{RoomName, SessionKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use self::readings::Readings;
use crate::conference::{Conference, Effects};
use crate::media::api::{Command, Event, ShardIndex, ShardStats};
use crate::metrics::Metrics;

/// Requests that may wait for the control task.
const REQUESTS: usize = 1024;
/// Shard events that may wait for the control task.
pub(crate) const EVENTS: usize = 4096;
/// Messages that may wait for a room link, for as long as it is down too.
pub(crate) const OUTBOX: usize = 1024;
/// Inputs taken together before their effects go out.
const BATCH: usize = 64;
/// Time between two readings of the shards' counters.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// Readings from one word about connection quality to the next: 5 s (LiveKit's).
const READINGS_AN_ASSESSMENT: u32 = 5;

/// What is asked of the control task.
#[derive(Debug)]
pub(crate) enum Request {
    /// A room task began; messages for the room go to `outbox`.
    OpenRoom { room: RoomName, outbox: mpsc::Sender<NodeToRoom> },
    /// The room task ends, and the room's sessions with it.
    CloseRoom { room: RoomName },
    /// Open a session whose token was verified.
    OpenSession {
        room: RoomName,
        claims: Box<SessionClaims>,
        open: Box<OpenSession>,
        reply: oneshot::Sender<Result<(), RefusalReason>>,
    },
    /// Any other message of the room.
    Message { room: RoomName, message: RoomToNode },
    /// The sessions the room believes to be here.
    Reconcile { room: RoomName, keep: Vec<SessionKey> },
    /// The sessions that are here.
    Sessions { room: RoomName, reply: oneshot::Sender<Vec<SessionKey>> },
    /// How many sessions each room has.
    RoomSizes { reply: oneshot::Sender<Vec<(RoomName, usize)>> },
    /// The pipes to other nodes that are open here.
    Pipes { room: RoomName, reply: oneshot::Sender<Vec<PipeKey>> },
    /// The link to the room is up again: what went into the one before may be lost.
    Repeat { room: RoomName },
    /// Take no new rooms.
    Drain,
}

/// The control task is gone: the node is shutting down.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the control task has ended")]
pub(crate) struct ControlGone;

/// Speaks to the control task.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    requests: mpsc::Sender<Request>,
}

impl Control {
    /// Sends a request that has no answer.
    pub(crate) async fn send(&self, request: Request) -> Result<(), ControlGone> {
        self.requests.send(request).await.map_err(|_| ControlGone)
    }

    /// Opens a session.
    pub(crate) async fn open(
        &self,
        room: RoomName,
        claims: SessionClaims,
        open: OpenSession,
    ) -> Result<Result<(), RefusalReason>, ControlGone> {
        let (reply, answer) = oneshot::channel();
        let (claims, open) = (Box::new(claims), Box::new(open));
        self.send(Request::OpenSession { room, claims, open, reply }).await?;
        answer.await.map_err(|_| ControlGone)
    }

    /// Sessions of a room.
    pub(crate) async fn sessions(&self, room: RoomName) -> Result<Vec<SessionKey>, ControlGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Sessions { room, reply }).await?;
        answer.await.map_err(|_| ControlGone)
    }

    /// How many sessions each room has.
    pub(crate) async fn room_sizes(&self) -> Result<Vec<(RoomName, usize)>, ControlGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::RoomSizes { reply }).await?;
        answer.await.map_err(|_| ControlGone)
    }

    /// Pipes of a room.
    pub(crate) async fn pipes(&self, room: RoomName) -> Result<Vec<PipeKey>, ControlGone> {
        let (reply, answer) = oneshot::channel();
        self.send(Request::Pipes { room, reply }).await?;
        answer.await.map_err(|_| ControlGone)
    }
}

/// The running task. **Dropping it ends it.**
#[derive(Debug)]
pub(crate) struct ControlTask {
    task: JoinHandle<()>,
}

impl ControlTask {
    /// Waits until it ends by itself: a shard is gone.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for ControlTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a shard's thread reports.
#[derive(Debug)]
pub(crate) enum Report {
    /// Something happened.
    Said(Event),
    /// It runs no more.
    Ended,
}

/// What the control task makes known each time all shards have told their counters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pulse {
    /// Load; of the CPU only what the least busy shard says.
    pub(crate) load: NodeLoad,
    /// When the last of the shards answered.
    pub(crate) shard_answered: Option<Instant>,
}

/// Starts the control task. `command` hands a command to one of the `shards`; `reports` are theirs.
pub(crate) fn start(
    conference: Conference,
    command: impl Fn(ShardIndex, Command) + Send + 'static,
    shards: usize,
    reports: mpsc::Receiver<(ShardIndex, Report)>,
    metrics: Arc<Metrics>,
) -> (Control, ControlTask, watch::Receiver<Pulse>) {
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let (pulse, pulses) = watch::channel(Pulse::default());
    let readings = Readings::new(shards);
    let state = State { conference, command, outboxes: HashMap::new(), metrics, pulse, readings };
    let task = tokio::spawn(state.run(inbox, reports));
    (Control { requests }, ControlTask { task }, pulses)
}

struct State<F> {
    conference: Conference,
    command: F,
    outboxes: HashMap<RoomName, mpsc::Sender<NodeToRoom>>,
    metrics: Arc<Metrics>,
    pulse: watch::Sender<Pulse>,
    readings: Readings,
}

impl<F: Fn(ShardIndex, Command) + Send + 'static> State<F> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>, mut reports: mpsc::Receiver<(ShardIndex, Report)>) {
        let mut ticks = tokio::time::interval(STATS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut readings: u32 = 0;
        loop {
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(request) => self.request(request),
                    None => return,
                },
                report = reports.recv() => match report {
                    Some((shard, Report::Said(event))) => self.event(shard, &event),
                    Some((_, Report::Ended)) | None => return tracing::error!("a shard has ended"),
                },
                _ = ticks.tick() => {
                    ShardIndex::all(self.readings.shards()).for_each(|shard| (self.command)(shard, Command::ReadStats));
                    readings = (readings + 1) % READINGS_AN_ASSESSMENT;
                    if readings == 0 {
                        self.conference.assess();
                    }
                }
            }
            for _ in 0..BATCH {
                let mut idle = true;
                if let Ok(request) = inbox.try_recv() {
                    self.request(request);
                    idle = false;
                }
                match reports.try_recv() {
                    Ok((shard, Report::Said(event))) => {
                        self.event(shard, &event);
                        idle = false;
                    }
                    Ok((_, Report::Ended)) => return tracing::error!("a shard has ended"),
                    Err(_) => {}
                }
                if idle {
                    break;
                }
            }
            let effects = self.conference.flush();
            self.carry_out(effects);
        }
    }

    fn request(&mut self, request: Request) {
        match request {
            Request::OpenRoom { room, outbox } => {
                self.outboxes.insert(room, outbox);
            }
            Request::CloseRoom { room } => {
                self.outboxes.remove(&room);
                self.conference.close_room(&room);
            }
            Request::OpenSession { room, claims, open, reply } => {
                let result = self.conference.open(&room, *claims, *open);
                // The room task may have ended meanwhile; it closes its sessions when it does.
                let _ = reply.send(result);
            }
            Request::Message { room, message } => self.conference.handle(&room, message),
            Request::Reconcile { room, keep } => self.conference.reconcile(&room, &keep),
            Request::Sessions { room, reply } => {
                let _ = reply.send(self.conference.sessions_of(&room));
            }
            Request::RoomSizes { reply } => {
                let _ = reply.send(self.conference.room_sizes());
            }
            Request::Pipes { room, reply } => {
                let _ = reply.send(self.conference.pipes_of(&room));
            }
            Request::Repeat { room } => self.conference.repeat(&room),
            Request::Drain => self.conference.drain(),
        }
    }

    fn event(&mut self, shard: ShardIndex, event: &Event) {
        if let Event::Stats(stats) = event {
            self.stats(shard, **stats);
        }
        self.conference.shard_event(event);
    }

    fn stats(&mut self, shard: ShardIndex, stats: ShardStats) {
        let now = Instant::now();
        let traffic = self.readings.take(now, shard, stats);
        self.conference.measured(shard, traffic.packets_per_second);
        self.conference.set_overloaded(shard, stats.relief > 0);
        let Some((all, traffic)) = self.readings.complete() else { return };
        let (sessions, tracks) = (self.conference.session_count(), self.conference.track_count());
        self.metrics.set_shards(all, sessions, tracks);
        let load = NodeLoad {
            sessions: u32::try_from(sessions).unwrap_or(u32::MAX),
            egress_bps: traffic.egress_bps,
            packets_per_second: traffic.packets_per_second,
            cpu: all.iter().map(fullness).fold(1.0, f32::min),
        };
        self.pulse.send_replace(Pulse { load, shard_answered: Some(now) });
    }

    fn carry_out(&mut self, effects: Effects) {
        // The shards first: they must know a transport before the client can.
        effects.commands.into_iter().for_each(|(shard, command)| (self.command)(shard, command));
        for (room, message) in effects.messages {
            let Entry::Occupied(outbox) = self.outboxes.entry(room) else { continue };
            if is_momentary(&message) && outbox.get().capacity() < OUTBOX / 2 {
                continue;
            }
            if outbox.get().try_send(message).is_err() {
                // What is lost cannot be made good: the room starts its sessions anew.
                self.metrics.room_outbox_full.inc();
                let (room, _) = outbox.remove_entry();
                tracing::warn!(%room, "room link is too slow or down for too long, closing its sessions");
                self.conference.close_room(&room);
                let effects = self.conference.flush();
                effects.commands.into_iter().for_each(|(shard, command)| (self.command)(shard, command));
            }
        }
    }
}

/// Soon it will be something else: a link that is slow or down gets other messages instead.
fn is_momentary(message: &NodeToRoom) -> bool {
    matches!(message, NodeToRoom::Speakers { .. })
}

/// Share of what a shard's thread can do, 0.0 to 1.0.
fn fullness(stats: &ShardStats) -> f32 {
    if stats.relief > 0 { 1.0 } else { f32::from(u8::try_from(stats.busy_percent).unwrap_or(100)) / 100.0 }
}
