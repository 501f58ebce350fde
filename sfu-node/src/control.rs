//! The control task: owns the [`Conference`], carries its messages to the room links and its commands to the shard.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use shared::claims::SessionClaims;
use shared::control::{NodeLoad, NodeToRoom, OpenSession, RefusalReason, RoomToNode};
use shared::ids::{RoomName, SessionKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::conference::{Conference, Effects};
use crate::media::api::{Command, Event, ShardStats};
use crate::metrics::Metrics;

/// Requests that may wait for the control task.
const REQUESTS: usize = 1024;
/// Shard events that may wait for the control task.
pub(crate) const EVENTS: usize = 4096;
/// Messages that may wait for a room link, for as long as it is down too.
pub(crate) const OUTBOX: usize = 1024;
/// Inputs taken together before their effects go out.
const BATCH: usize = 64;
/// Time between two readings of the shard's counters.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

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
    /// Take no new sessions.
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
}

/// The running task. **Dropping it ends it.**
#[derive(Debug)]
pub(crate) struct ControlTask {
    task: JoinHandle<()>,
}

impl ControlTask {
    /// Waits until it ends by itself: the shard is gone.
    pub(crate) async fn ended(&mut self) {
        let _ = (&mut self.task).await;
    }
}

impl Drop for ControlTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the control task makes known each time it reads the shard's counters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pulse {
    /// Load without the process's CPU.
    pub(crate) load: NodeLoad,
    /// When the shard last answered.
    pub(crate) shard_answered: Option<Instant>,
}

/// Starts the control task. `command` hands a command to the shard; `events` are the shard's.
pub(crate) fn start(
    conference: Conference,
    command: impl Fn(Command) + Send + 'static,
    events: mpsc::Receiver<Event>,
    metrics: Arc<Metrics>,
) -> (Control, ControlTask, watch::Receiver<Pulse>) {
    let (requests, inbox) = mpsc::channel(REQUESTS);
    let (pulse, pulses) = watch::channel(Pulse::default());
    let state = State { conference, command, outboxes: HashMap::new(), metrics, pulse, last: None };
    let task = tokio::spawn(state.run(inbox, events));
    (Control { requests }, ControlTask { task }, pulses)
}

struct State<F> {
    conference: Conference,
    command: F,
    outboxes: HashMap<RoomName, mpsc::Sender<NodeToRoom>>,
    metrics: Arc<Metrics>,
    pulse: watch::Sender<Pulse>,
    /// The last counters and when they were read.
    last: Option<(Instant, ShardStats)>,
}

impl<F: Fn(Command) + Send + 'static> State<F> {
    async fn run(mut self, mut inbox: mpsc::Receiver<Request>, mut events: mpsc::Receiver<Event>) {
        let mut ticks = tokio::time::interval(STATS_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                request = inbox.recv() => match request {
                    Some(request) => self.request(request),
                    None => return,
                },
                event = events.recv() => match event {
                    Some(event) => self.event(&event),
                    None => return tracing::error!("the shard has ended"),
                },
                _ = ticks.tick() => (self.command)(Command::ReadStats),
            }
            for _ in 0..BATCH {
                let mut idle = true;
                if let Ok(request) = inbox.try_recv() {
                    self.request(request);
                    idle = false;
                }
                if let Ok(event) = events.try_recv() {
                    self.event(&event);
                    idle = false;
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
            Request::Drain => self.conference.drain(),
        }
    }

    fn event(&mut self, event: &Event) {
        if let Event::Stats(stats) = event {
            self.stats(**stats);
        }
        self.conference.shard_event(event);
    }

    fn stats(&mut self, stats: ShardStats) {
        let now = Instant::now();
        let (sessions, tracks) = (self.conference.session_count(), self.conference.track_count());
        self.metrics.set_shard(stats, sessions, tracks);
        let mut load = NodeLoad { sessions: u32::try_from(sessions).unwrap_or(u32::MAX), ..NodeLoad::default() };
        if let Some((then, last)) = self.last {
            let millis = u64::try_from(now.duration_since(then).as_millis()).unwrap_or(u64::MAX).max(1);
            let per_second = |new: u64, old: u64| new.saturating_sub(old).saturating_mul(1000) / millis;
            load.egress_bps = per_second(stats.bytes_sent, last.bytes_sent).saturating_mul(8);
            let packets = stats.packets_received.saturating_add(stats.packets_sent);
            let before = last.packets_received.saturating_add(last.packets_sent);
            load.packets_per_second = u32::try_from(per_second(packets, before)).unwrap_or(u32::MAX);
        }
        self.last = Some((now, stats));
        self.pulse.send_replace(Pulse { load, shard_answered: Some(now) });
    }

    fn carry_out(&mut self, effects: Effects) {
        // The shard first: it must know a transport before the client can.
        effects.commands.into_iter().for_each(&self.command);
        for (room, message) in effects.messages {
            let Entry::Occupied(outbox) = self.outboxes.entry(room) else { continue };
            if outbox.get().try_send(message).is_err() {
                // What is lost cannot be made good: the room starts its sessions anew.
                self.metrics.room_outbox_full.inc();
                let (room, _) = outbox.remove_entry();
                tracing::warn!(%room, "room link is too slow or down for too long, closing its sessions");
                self.conference.close_room(&room);
                let effects = self.conference.flush();
                effects.commands.into_iter().for_each(&self.command);
            }
        }
    }
}
