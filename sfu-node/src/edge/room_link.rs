//! One room on this node: its link to the room's object, from attach until the room needs the node no more.
//!
//! **Sessions outlive a broken link**: messages wait, the node dials in again, and only when that fails for
//! [`REJOIN_LIMIT`] do the sessions end.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use shared::control::{CONTROL_VERSION, NodeToRoom, OpenSession, RefusalReason, RoomToNode};
use shared::geo::Place;
use shared::ids::RoomName;
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout_at};

use super::departure::{Departure, Exit};
use super::socket::{Incoming, LinkError, Socket};
use super::{DialError, Dialer, Leaving, backoff};
use crate::auth::{Verifier, claimed_session};
use crate::control::{Control, ControlGone, OUTBOX, Request};
use crate::metrics::{Metrics, Reason};

/// How long a node tries to get back to a room that it still has sessions of.
const REJOIN_LIMIT: Duration = Duration::from_secs(20);
/// How long a room is asked to leave a busy node; where no other one takes it by then, it stays.
pub(crate) const SHED_LIMIT: Duration = Duration::from_secs(20);

/// The fleet wants the node in a room.
#[derive(Debug)]
pub(crate) struct Attach {
    /// Ticket for the room link.
    pub(crate) ticket: String,
    /// The session to open at once.
    pub(crate) first: Option<Box<OpenSession>>,
}

/// What a room link needs of the node.
#[derive(Debug, Clone)]
pub(crate) struct RoomContext {
    pub(crate) dialer: Dialer,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) control: Control,
    pub(crate) metrics: Arc<Metrics>,
    /// Rooms may open pipes to other nodes.
    pub(crate) pipes: bool,
    /// Where the node is.
    pub(crate) place: Place,
    /// Rooms are told of it.
    pub(crate) leaving: watch::Receiver<Leaving>,
    /// What rooms leave by then.
    pub(crate) exit: Exit,
    /// How long a room is asked to leave: [`SHED_LIMIT`].
    pub(crate) shed_limit: Duration,
}

/// Why a link ended that was up.
enum Ended {
    Lost(LinkError),
    /// The fleet attached the node anew: the room has given this link up.
    Replaced(Attach),
    /// The control task has dropped the room, or the node shuts down.
    Dropped,
}

struct RoomLink {
    room: RoomName,
    context: RoomContext,
    outbox: mpsc::Receiver<NodeToRoom>,
    attaches: mpsc::Receiver<Attach>,
    /// The node drains: when the room is to leave.
    departure: Departure,
    /// The node is busy: the room is to leave.
    shed: Arc<Notify>,
    /// Until then the room is asked to.
    sheds_until: Option<Instant>,
    /// Refusals, for the next link if there is none now.
    refusals: VecDeque<NodeToRoom>,
    /// For the next dial.
    ticket: String,
    /// There was a link before.
    was_up: bool,
}

/// Serves a room until nothing is left to serve. Later attaches to the same room come through `attaches`; given back, for
/// those that came too late. When `shed` is notified, the room is asked to leave the node.
pub(crate) async fn run(
    room: RoomName,
    context: RoomContext,
    attaches: mpsc::Receiver<Attach>,
    shed: Arc<Notify>,
) -> mpsc::Receiver<Attach> {
    let (sender, outbox) = mpsc::channel(OUTBOX);
    let control = context.control.clone();
    if control.send(Request::OpenRoom { room: room.clone(), outbox: sender }).await.is_err() {
        return attaches;
    }
    let mut link = RoomLink {
        room: room.clone(),
        context,
        outbox,
        attaches,
        departure: Departure::Stays,
        shed,
        sheds_until: None,
        refusals: VecDeque::new(),
        ticket: String::new(),
        was_up: false,
    };
    if link.serve().await.is_ok() {
        tracing::debug!(%room, "room link ended");
    }
    let _ = control.send(Request::CloseRoom { room }).await;
    link.attaches
}

impl RoomLink {
    async fn serve(&mut self) -> Result<(), ControlGone> {
        let Some(attach) = self.attaches.recv().await else { return Ok(()) };
        let mut attach = Some(attach);
        let mut give_up = Instant::now() + REJOIN_LIMIT;
        let mut waits = backoff();
        loop {
            let dialed = match attach.take() {
                Some(Attach { ticket, first }) => {
                    self.ticket = ticket;
                    give_up = Instant::now() + REJOIN_LIMIT;
                    waits = backoff();
                    let (dialer, ticket) = (self.context.dialer.clone(), self.ticket.clone());
                    // The session opens while the link comes up.
                    let (dialed, opened) = tokio::join!(dialer.room(&ticket), self.open_first(first));
                    opened?;
                    dialed
                }
                None => self.context.dialer.room(&self.ticket).await,
            };
            match dialed {
                Ok(socket) => {
                    self.context.metrics.room_links_up.inc();
                    let ended = self.relay(socket).await;
                    self.context.metrics.room_links_up.dec();
                    match ended? {
                        Ended::Dropped => return Ok(()),
                        Ended::Replaced(next) => {
                            attach = Some(next);
                            continue;
                        }
                        Ended::Lost(reason) => {
                            if self.is_idle().await? {
                                return Ok(());
                            }
                            self.context.metrics.links_lost.inc();
                            tracing::warn!(room = %self.room, %reason, "room link lost, dialing again");
                            give_up = Instant::now() + REJOIN_LIMIT;
                            waits = backoff();
                        }
                    }
                }
                Err(error) if self.may_retry(&error, give_up) => {
                    tracing::debug!(room = %self.room, %error, "cannot open the room link yet");
                }
                Err(error) => {
                    tracing::warn!(room = %self.room, %error, "giving the room up");
                    return Ok(());
                }
            }
            let until = Instant::now() + waits.next().unwrap_or(REJOIN_LIMIT);
            match timeout_at(until, self.attaches.recv()).await {
                Ok(Some(next)) => attach = Some(next),
                Ok(None) => return Ok(()),
                Err(_) => {}
            }
        }
    }

    fn may_retry(&self, error: &DialError, give_up: Instant) -> bool {
        !error.is_refusal() && Instant::now() < give_up
    }

    /// No session is left here, so the link need not come back.
    async fn is_idle(&self) -> Result<bool, ControlGone> {
        Ok(self.context.control.sessions(self.room.clone()).await?.is_empty())
    }

    async fn departure(&self) -> Result<Departure, ControlGone> {
        let sessions = self.context.control.sessions(self.room.clone()).await?.len();
        Ok(Departure::of(sessions, &self.context.exit))
    }

    async fn open_first(&mut self, first: Option<Box<OpenSession>>) -> Result<(), ControlGone> {
        match first {
            Some(open) => self.open(*open).await,
            None => Ok(()),
        }
    }

    /// Relays both ways for as long as the link lives.
    async fn relay(&mut self, mut socket: Socket) -> Result<Ended, ControlGone> {
        let sessions = self.context.control.sessions(self.room.clone()).await?;
        tracing::info!(room = %self.room, sessions = sessions.len(), "room link up");
        let pipes = match self.context.pipes {
            true => Some(self.context.control.pipes(self.room.clone()).await?),
            false => None,
        };
        let hello =
            NodeToRoom::Hello { control_version: CONTROL_VERSION, sessions, pipes, place: Some(self.context.place) };
        if let Err(error) = socket.send(&hello).await {
            return Ok(Ended::Lost(error));
        }
        if std::mem::replace(&mut self.was_up, true) {
            self.context.control.send(Request::Repeat { room: self.room.clone() }).await?;
        }
        let mut leaving = self.context.leaving.clone();
        let mut told = false;
        loop {
            let leaves = leaving.borrow_and_update().is_set();
            if leaves != self.departure.is_set() {
                self.departure = if leaves { self.departure().await? } else { Departure::Stays };
            }
            let draining = self.departure.has_come() || self.sheds_until.is_some();
            if draining != told {
                if let Err(error) = socket.send(&NodeToRoom::Draining { draining }).await {
                    return Ok(Ended::Lost(error));
                }
                told = draining;
            }
            while let Some(refusal) = self.refusals.pop_front() {
                if let Err(error) = socket.send(&refusal).await {
                    return Ok(Ended::Lost(error));
                }
            }
            tokio::select! {
                message = socket.next::<RoomToNode>() => match message {
                    Ok(Incoming::Message(message)) => self.handle(message).await?,
                    Ok(Incoming::Garbage) => {
                        self.context.metrics.bad_messages.inc();
                        tracing::warn!(room = %self.room, "a frame of the room does not parse");
                    }
                    Err(error) => return Ok(Ended::Lost(error)),
                },
                message = self.outbox.recv() => match message {
                    Some(message) => if let Err(error) = socket.send(&message).await {
                        return Ok(Ended::Lost(error));
                    },
                    None => {
                        socket.close().await;
                        return Ok(Ended::Dropped);
                    }
                },
                Ok(()) = leaving.changed() => {}
                () = self.departure.next() => {}
                () = self.shed.notified() => self.sheds_until = Some(Instant::now() + self.context.shed_limit),
                () = over(self.sheds_until) => self.sheds_until = None,
                attach = self.attaches.recv() => {
                    socket.close().await;
                    return Ok(attach.map_or(Ended::Dropped, Ended::Replaced));
                }
            }
        }
    }

    async fn handle(&mut self, message: RoomToNode) -> Result<(), ControlGone> {
        match message {
            RoomToNode::Welcome { rejoin_ticket, sessions: keep, .. } => {
                self.ticket = rejoin_ticket;
                self.context.control.send(Request::Reconcile { room: self.room.clone(), keep }).await
            }
            RoomToNode::OpenSession(open) => self.open(*open).await,
            message => self.context.control.send(Request::Message { room: self.room.clone(), message }).await,
        }
    }

    async fn open(&mut self, open: OpenSession) -> Result<(), ControlGone> {
        let claimed = claimed_session(&open.token);
        let claims = match self.context.verifier.verify(&open.token, &self.room).await {
            Ok(claims) => claims,
            Err(refusal) => {
                self.refuse(claimed, RefusalReason::BadToken, refusal.label(), refusal.to_string());
                return Ok(());
            }
        };
        let is_move = open.established.is_some();
        if let Err(reason) = self.context.control.open(self.room.clone(), claims, open).await? {
            let (label, detail) = match reason {
                RefusalReason::BadToken => ("stale_generation", "an equal or newer session is open"),
                RefusalReason::NoCapacity => ("no_capacity", "the node is full"),
                RefusalReason::Draining => ("draining", "the node is draining"),
            };
            self.refuse(claimed, reason, label, detail.to_owned());
        } else if is_move {
            self.context.metrics.sessions_moved_here.inc();
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        session: Option<shared::ids::SessionKey>,
        reason: RefusalReason,
        label: &'static str,
        detail: String,
    ) {
        self.context.metrics.sessions_refused.get_or_create(&Reason { reason: label }).inc();
        tracing::warn!(room = %self.room, reason = label, "session refused");
        // Bounded: a link that is down gets at most the one refusal of each attach.
        self.refusals.truncate(OUTBOX);
        self.refusals.push_back(NodeToRoom::SessionRefused { session, reason, detail });
    }
}

/// Waits until then; for ever where there is no such time.
async fn over(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
pub(super) mod tests;
