//! The room: a pure state machine. Event in, effects out; no worker types, no clock, no randomness.
//!
//! **The shell carries out the effects of an event in their order, after the event's row changes are written.**
//! Memory is a cache of the rows: [`Room::restore`] at any moment gives a room that goes on as if nothing had happened.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use shared::control::Description;
use shared::ids::{DispatchId, Identity, JobId, NodeId, ParticipantSid, RoomName, RoomSid, TrackSid};

use dispatch::Dispatch;
use effect::Effect;
use event::{ConnectionId, Context, Event, UnixMs};
use forward::destination::Forwarded;
use forward::source::{Forward, ForwardKey};
use job::Job;
use node::Node;
use participant::Participant;
use publication::Publication;
use record::Record;
use resume::Departed;
use session::{Session, Side};
use snapshot::RowKey;
use subscription::Subscription;
use turn::Turn;

pub mod admit;
pub mod call;
pub mod configuration;
pub mod crowd;
mod delivery;
pub mod depart;
pub mod dispatch;
pub mod dynacast;
pub mod effect;
pub mod event;
pub mod forward;
pub mod job;
pub mod join;
pub mod metadata;
pub mod migrate;
pub mod moving;
pub mod nearer;
pub mod node;
mod participant;
mod permission;
pub mod pipes;
pub mod placement;
pub mod publication;
mod quality;
pub mod record;
pub mod resume;
pub mod service;
mod session;
mod signal;
pub mod snapshot;
mod speakers;
mod store;
pub mod subscription;
pub mod timers;
mod track_info;
pub mod transfer;
mod turn;
pub mod unanswered;
mod update;
mod webhook;

/// One room.
///
/// **Of an event the shell first writes [`Room::changes`], then carries out the effects, then sets its alarm to
/// [`Room::deadline`]; when the room [`Room::is_over`] it forgets it and wipes its rows.**
#[derive(Debug)]
pub struct Room {
    record: Record,
    participants: BTreeMap<ParticipantSid, Participant>,
    sessions: BTreeMap<ParticipantSid, Session>,
    descriptions: BTreeMap<(ParticipantSid, Side), Description>,
    publications: BTreeMap<TrackSid, Publication>,
    /// By subscriber, then track.
    subscriptions: BTreeMap<ParticipantSid, BTreeMap<TrackSid, Subscription>>,
    nodes: BTreeMap<NodeId, Node>,
    /// Who left lately.
    departed: BTreeMap<ParticipantSid, Departed>,
    /// Who is shown in other rooms.
    forwards: BTreeMap<ForwardKey, Forward>,
    /// Who of other rooms is shown here.
    forwarded: BTreeMap<ParticipantSid, Forwarded>,
    dispatches: BTreeMap<DispatchId, Dispatch>,
    jobs: BTreeMap<JobId, Job>,
    connections: HashMap<ConnectionId, ParticipantSid>,
    identities: HashMap<Identity, ParticipantSid>,
    changed: BTreeSet<RowKey>,
    counters: Counters,
}

/// What went wrong since the object woke; for metrics, never for decisions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Frames that could not be decoded, and messages that made no sense.
    pub bad_messages: u64,
    /// Requests about tracks that are not there.
    pub unknown_track: u64,
    /// Messages of connections and sessions that are over.
    pub dropped_stale: u64,
    /// Sessions that were taken to another node.
    pub moves: u64,
    /// Session descriptions that could not be used.
    pub rejected_descriptions: u64,
    /// Sessions that a node did not open.
    pub refused_sessions: u64,
    /// Pipes between nodes that cannot reach each other.
    pub pipes_in_vain: u64,
    /// Agents' jobs that failed.
    pub failed_jobs: u64,
    /// Agents' jobs over [`job::MAX_JOBS`].
    pub refused_jobs: u64,
}

impl Counters {
    /// What was counted since `earlier`: a name that never changes, and how often.
    pub fn since(self, earlier: Self) -> impl Iterator<Item = (&'static str, u64)> {
        let counted = [
            ("bad_message", self.bad_messages, earlier.bad_messages),
            ("unknown_track", self.unknown_track, earlier.unknown_track),
            ("stale_message", self.dropped_stale, earlier.dropped_stale),
            ("session_moved", self.moves, earlier.moves),
            ("rejected_description", self.rejected_descriptions, earlier.rejected_descriptions),
            ("refused_session", self.refused_sessions, earlier.refused_sessions),
            ("pipe_in_vain", self.pipes_in_vain, earlier.pipes_in_vain),
            ("failed_job", self.failed_jobs, earlier.failed_jobs),
            ("refused_job", self.refused_jobs, earlier.refused_jobs),
        ];
        counted.into_iter().map(|(name, now, then)| (name, now.saturating_sub(then))).filter(|(_, count)| *count > 0)
    }
}

impl Room {
    /// A room that nobody has joined: it has no rows and is forgotten if nobody does.
    #[must_use]
    pub fn new(name: RoomName, context: Context) -> Self {
        let mut turn = Turn::new(context);
        let sid = RoomSid::from_random(turn.random());
        Self {
            record: Record::new(name, sid, turn.now),
            participants: BTreeMap::new(),
            sessions: BTreeMap::new(),
            descriptions: BTreeMap::new(),
            publications: BTreeMap::new(),
            subscriptions: BTreeMap::new(),
            nodes: BTreeMap::new(),
            departed: BTreeMap::new(),
            forwards: BTreeMap::new(),
            forwarded: BTreeMap::new(),
            dispatches: BTreeMap::new(),
            jobs: BTreeMap::new(),
            connections: HashMap::new(),
            identities: HashMap::new(),
            changed: BTreeSet::new(),
            counters: Counters::default(),
        }
    }

    /// Handles one event. The effects are to be carried out in their order.
    pub fn handle(&mut self, context: Context, event: Event) -> Vec<Effect> {
        let mut turn = Turn::new(context);
        if self.record.over {
            self.counters.dropped_stale += 1;
            return turn.effects;
        }
        match event {
            Event::Joined { connection, admission, placed } => self.join(&mut turn, &connection, *admission, placed),
            Event::ClientMessage { connection, message } => self.client_message(&mut turn, &connection, *message),
            Event::ClientGarbage { connection } => {
                self.counters.bad_messages += 1;
                turn.effects.push(Effect::CloseClient { connection: connection.clone() });
                self.connection_gone(&mut turn, &connection);
            }
            Event::ClientGone { connection } => self.connection_gone(&mut turn, &connection),
            Event::Request(request) => self.serve_request(&mut turn, *request),
            Event::Transferred { transfer, welcome } => self.transferred(&mut turn, &transfer, *welcome),
            Event::WordTaken { to, participant } => self.word_taken(&mut turn, &to, &participant),
            Event::WordRefused { to, participant } => self.word_refused(&mut turn, &to, &participant),
            Event::NodeLinked { node, region, rejoin_ticket } => {
                self.node_linked(&mut turn, &node, region, rejoin_ticket);
            }
            Event::NodeMessage { node, message } => self.node_message(&mut turn, &node, *message),
            Event::NodeGone { node } => self.node_gone(turn.now, &node),
            Event::NodeLost { node } => self.confirm_loss(&mut turn, &node),
            Event::NodeStillThere => self.node_still_there(turn.now),
            Event::Placed { node } => self.placed(&mut turn, node),
            Event::NodeNear { place } => self.seek_near(place),
            Event::AgentsGranted { wishes, granted } => self.agents_granted(&mut turn, &wishes, *granted),
            Event::AgentsNews(news) => self.agents_news(&mut turn, *news),
            Event::Alarm => self.alarm(&mut turn),
        }
        if !self.changed.is_empty() {
            self.settle(&mut turn);
        }
        turn.effects
    }

    /// The room's name.
    #[must_use]
    pub fn name(&self) -> &RoomName {
        &self.record.name
    }

    /// This life of the room.
    #[must_use]
    pub fn sid(&self) -> &RoomSid {
        &self.record.sid
    }

    /// Somebody has joined: it has rows.
    #[must_use]
    pub fn is_created(&self) -> bool {
        self.record.created
    }

    /// The room ended: its rows and alarm are to be deleted, the next join makes a new one.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.record.over
    }

    /// How long there has been this room, seconds.
    #[must_use]
    pub fn age_secs(&self, now: UnixMs) -> u64 {
        now.secs_since(self.record.created_at)
    }

    /// What went wrong since the object woke.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn connection_gone(&mut self, turn: &mut Turn, connection: &ConnectionId) {
        if let Some(sid) = self.connections.get(connection).cloned() {
            self.client_gone(turn, &sid);
        }
    }

    /// What follows from whatever changed.
    fn settle(&mut self, turn: &mut Turn) {
        if !self.record.created || self.record.over {
            return;
        }
        self.place_sessions(turn);
        self.release_when_all_offer(turn);
        self.route_pipes(turn);
        self.settle_forwards(turn);
        let empty = self.counts().participants == 0;
        if empty != self.record.empty_since.is_some() {
            self.record_mut().empty_since = empty.then_some(turn.now);
        }
        self.tell_counts(turn);
    }
}
