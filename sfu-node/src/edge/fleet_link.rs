//! The link to the fleet: says hello, sends heartbeats, and starts a room link for each attach. Comes back by itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use shared::control::{FleetToNode, HEARTBEAT_SECS, NodeInfo, NodeToFleet};
use shared::ids::{NodeId, RoomName};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::relief::choose;
use super::room_link::{self, Attach, RoomContext};
use super::socket::{Incoming, LinkError, Socket};
use super::{Leaving, backoff};
use crate::control::Pulse;
use crate::cpu::CpuMeter;

/// Attaches of one room that may wait for its task.
const ATTACHES: usize = 16;
/// A link that lived this long was a good one: the next dial does not wait.
const GOOD_LINK: Duration = Duration::from_secs(10);

/// State of the fleet link, for readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FleetState {
    /// Down, and why.
    Down(String),
    /// Up: the fleet may place sessions here.
    Up,
}

/// The fleet link with its room links. **Dropping its future ends them all.**
pub(crate) struct FleetLink {
    /// What the node is.
    pub(crate) info: NodeInfo,
    /// For rooms.
    pub(crate) context: RoomContext,
    /// Load.
    pub(crate) pulse: watch::Receiver<Pulse>,
    /// Whether calls are to leave; an operator's word is noted there.
    pub(crate) leaving: watch::Sender<Leaving>,
    /// Where the link's state is shown.
    pub(crate) state: watch::Sender<FleetState>,
}

/// Room tasks by room.
#[derive(Default)]
struct Rooms {
    /// End with the attaches they did not come to.
    tasks: JoinSet<(RoomName, mpsc::Receiver<Attach>)>,
    known: HashMap<RoomName, Task>,
}

/// Reaches a room's task.
struct Task {
    attaches: mpsc::Sender<Attach>,
    /// The room is to leave.
    shed: Arc<Notify>,
}

impl FleetLink {
    /// Keeps the link up until the future is dropped, or until the edge refuses the node: then it returns why.
    pub(crate) async fn run(&mut self) -> String {
        let mut rooms = Rooms::default();
        let mut waits = backoff();
        let mut cpu = CpuMeter::new();
        loop {
            let reason = match self.context.dialer.fleet().await {
                Ok(socket) => {
                    let since = tokio::time::Instant::now();
                    let Err(error) = self.serve(socket, &mut rooms, &mut cpu).await;
                    self.context.metrics.fleet_link_up.set(0);
                    self.context.metrics.links_lost.inc();
                    if since.elapsed() > GOOD_LINK {
                        waits = backoff();
                    }
                    error.to_string()
                }
                Err(error) if error.is_refusal() && rooms.known.is_empty() => return error.to_string(),
                Err(error) => error.to_string(),
            };
            tracing::warn!(reason, "fleet link is down");
            self.state.send_replace(FleetState::Down(reason));
            let wait = sleep(waits.next().unwrap_or(GOOD_LINK));
            tokio::pin!(wait);
            loop {
                tokio::select! {
                    () = &mut wait => break,
                    (room, left) = rooms.ended() => rooms.restart(&room, left, &self.context),
                }
            }
        }
    }

    async fn serve(
        &mut self,
        mut socket: Socket,
        rooms: &mut Rooms,
        cpu: &mut CpuMeter,
    ) -> Result<std::convert::Infallible, LinkError> {
        socket.send(&NodeToFleet::Hello(self.info.clone())).await?;
        let mut heartbeats = interval(Duration::from_secs(HEARTBEAT_SECS));
        heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut leaving, mut told_draining) = (self.leaving.subscribe(), false);
        loop {
            if leaving.borrow_and_update().stops && !told_draining {
                socket.send(&NodeToFleet::Draining).await?;
                told_draining = true;
            }
            tokio::select! {
                message = socket.next::<FleetToNode>() => match message? {
                    Incoming::Message(message) => self.handle(message, rooms).await,
                    Incoming::Garbage => {
                        self.context.metrics.bad_messages.inc();
                        tracing::warn!("a frame of the fleet does not parse");
                    }
                },
                _ = heartbeats.tick() => {
                    let mut load = self.pulse.borrow().load;
                    load.cpu = load.cpu.max(cpu.read());
                    socket.send(&NodeToFleet::Heartbeat(load)).await?;
                }
                (room, left) = rooms.ended() => rooms.restart(&room, left, &self.context),
                Ok(()) = leaving.changed() => {}
            }
        }
    }

    async fn handle(&self, message: FleetToNode, rooms: &mut Rooms) {
        match message {
            FleetToNode::Welcome { node, draining } => {
                self.welcome(&node);
                self.drain(draining);
            }
            FleetToNode::Drain { draining } => self.drain(draining),
            FleetToNode::Shed { sessions } => self.shed(usize::try_from(sessions).unwrap_or(usize::MAX), rooms).await,
            FleetToNode::Attach { room, ticket, first } => {
                tracing::info!(%room, "attach");
                rooms.attach(room, Attach { ticket, first }, &self.context);
            }
        }
    }

    fn drain(&self, drained: bool) {
        self.leaving.send_if_modified(|leaving| {
            let news = leaving.drained != drained;
            if news {
                tracing::info!(drained, "an operator has spoken");
                leaving.drained = drained;
            }
            news
        });
    }

    /// Asks rooms to leave. Which, only this node knows.
    async fn shed(&self, sessions: usize, rooms: &Rooms) {
        // Fails when the node ends anyway.
        let Ok(sizes) = self.context.control.room_sizes().await else { return };
        let chosen = choose(sizes, sessions);
        tracing::info!(sessions, rooms = chosen.len(), "busy: rooms are asked to leave");
        for task in chosen.iter().filter_map(|room| rooms.known.get(room)) {
            self.context.metrics.rooms_shed.inc();
            task.shed.notify_one();
        }
    }

    fn welcome(&self, node: &NodeId) {
        if node != self.context.dialer.node() {
            tracing::warn!(%node, "the fleet calls this node by another id");
        }
        tracing::info!(%node, "fleet link is up");
        self.context.metrics.fleet_link_up.set(1);
        self.state.send_replace(FleetState::Up);
    }
}

impl Rooms {
    fn attach(&mut self, room: RoomName, attach: Attach, context: &RoomContext) {
        let attach = match self.known.get(&room) {
            None => attach,
            Some(known) => match known.attaches.try_send(attach) {
                Ok(()) => return,
                Err(TrySendError::Closed(attach)) => attach,
                Err(TrySendError::Full(_)) => {
                    return tracing::warn!(%room, "too many attaches to one room, dropping one");
                }
            },
        };
        let (sender, receiver) = mpsc::channel(ATTACHES);
        if sender.try_send(attach).is_ok() {
            let shed = Arc::new(Notify::new());
            self.known.insert(room.clone(), Task { attaches: sender, shed: shed.clone() });
            let task = room_link::run(room.clone(), context.clone(), receiver, shed);
            self.tasks.spawn(async move {
                let left = task.await;
                (room, left)
            });
        }
    }

    /// The next room whose task has ended; waits for ever while there is none.
    async fn ended(&mut self) -> (RoomName, mpsc::Receiver<Attach>) {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(ended)) => return ended,
                Some(Err(error)) => tracing::error!(%error, "a room task failed"),
                None => std::future::pending().await,
            }
        }
    }

    /// Drops what is kept of a room whose task has ended, and begins anew if it was attached again meanwhile.
    fn restart(&mut self, room: &RoomName, mut left: mpsc::Receiver<Attach>, context: &RoomContext) {
        self.known.remove(room);
        while let Ok(attach) = left.try_recv() {
            self.attach(room.clone(), attach, context);
        }
    }
}

#[cfg(test)]
mod tests;
