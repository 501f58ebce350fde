//! Pipes between the nodes of the room: one for each two that sessions are on, for data; and for tracks, each once, as far
//! as somebody at the other end is to see them. **A track goes only from the node that its publisher is on to those that its
//! subscribers are on**: one hop, so that nothing can go round.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use shared::control::{MediaState, PipeEnd, PipeKey, PipedStream, PipedTrack, RoomToNode};
use shared::ids::{NodeId, ParticipantSid, TrackSid};

use super::Room;
use super::delivery::delivery;
use super::event::UnixMs;
use super::session::Media;
use super::snapshot::RowKey;
use super::turn::Turn;

/// Milliseconds until a pipe that failed is opened anew.
pub const REOPEN_AFTER_MS: u64 = 1_000;
/// Milliseconds that a pipe has to have been tried for, before nodes count as unable to reach each other.
pub const IN_VAIN_AFTER_MS: u64 = 10_000;

/// A node's end of a pipe; part of its row, by the node at the other end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct End {
    key: PipeKey,
    /// What it is like, once the node has opened it.
    like: Option<PipeEnd>,
    /// What is to go in here.
    fill: Vec<PipedTrack>,
    /// The node has been told.
    told: bool,
    /// How it does, as the node has said.
    streams: Vec<PipedStream>,
    /// It has failed, and is opened anew then.
    reopen_at: Option<UnixMs>,
    /// When the node was told to open it.
    #[serde(default)]
    opened_at: UnixMs,
    /// The two nodes have reached each other.
    #[serde(default)]
    was_up: bool,
}

impl End {
    fn new(key: PipeKey, opened_at: UnixMs) -> Self {
        let (like, fill, streams) = (None, Vec::new(), Vec::new());
        Self { key, like, fill, told: true, streams, reopen_at: None, opened_at, was_up: false }
    }
}

/// What is to go from one node to another, by track.
type Routes = BTreeMap<(NodeId, NodeId), BTreeMap<TrackSid, PipedTrack>>;

impl Room {
    /// Makes pipes and what goes through them what they should be, after anything changed that may concern them.
    pub(super) fn route_pipes(&mut self, turn: &mut Turn) {
        let is_apart = self.nodes.len() > 1 || self.nodes.values().any(|node| !node.pipes.is_empty());
        let concerns = |row: &RowKey| {
            matches!(row, RowKey::Session(_) | RowKey::Publication(_) | RowKey::Subscription(..) | RowKey::Node(_))
        };
        if !is_apart || !self.changed.iter().any(concerns) {
            return;
        }
        let present = self.present();
        self.close_pipes(turn, &present);
        for from in &present {
            for to in present.iter().filter(|to| from < *to) {
                self.open_pipe(turn, from, to);
            }
        }
        let mut routes = self.routes();
        for from in &present {
            for to in present.iter().filter(|to| *to != from) {
                let tracks = routes.remove(&(from.clone(), to.clone())).unwrap_or_default();
                self.fill_pipe(turn, from, to, tracks.into_values().collect());
            }
        }
    }

    /// An end of a pipe is open.
    pub(super) fn pipe_opened(&mut self, turn: &mut Turn, id: &NodeId, pipe: PipeKey, like: PipeEnd) {
        if self.forward_opened(id, pipe, &like) {
            return;
        }
        let Some(other) = self.pipe_to(id, pipe) else { return };
        if let Some(end) = self.end_mut(id, &other) {
            end.like = Some(like.clone());
        }
        self.tell_node(turn, &other, RoomToNode::ConnectPipe { pipe, end: like });
    }

    /// A node puts these into a pipe: they come out at its other end.
    pub(super) fn pipe_filled(&mut self, turn: &mut Turn, id: &NodeId, pipe: PipeKey, mut streams: Vec<PipedStream>) {
        if self.forward_filled(id, pipe, &streams) {
            return;
        }
        let Some(other) = self.pipe_to(id, pipe) else { return };
        if let Some(end) = self.end_mut(id, &other) {
            // A node speaks for those who are on it, and for nobody else.
            streams.retain(|stream| end.fill.iter().any(|track| track.track == stream.track));
            end.streams.clone_from(&streams);
        }
        self.tell_node(turn, &other, RoomToNode::DrawPipe { pipe, streams });
    }

    /// A pipe is up, interrupted, or over; one that is over is opened anew, but not at once. **Where it never was up, the room
    /// gathers on one of the two nodes:** people who do not see each other are worse off than far from their node.
    pub(super) fn pipe_state(&mut self, turn: &mut Turn, id: &NodeId, pipe: PipeKey, state: MediaState) {
        if self.forward_state(turn.now, id, pipe, state) {
            return;
        }
        let Some(other) = self.pipe_to(id, pipe) else { return };
        let ends = [(id, &other), (&other, id)];
        if state == MediaState::Connected {
            let untold = |(from, to): &(&NodeId, &NodeId)| self.pipe_end(from, to).is_some_and(|end| !end.was_up);
            for (from, to) in ends.into_iter().filter(untold).collect::<Vec<_>>() {
                if let Some(end) = self.end_mut(from, to) {
                    end.was_up = true;
                }
            }
        }
        if state != MediaState::Failed {
            return;
        }
        self.tell_node(turn, &other, RoomToNode::ClosePipe { pipe });
        let in_vain = |end: &End| !end.was_up && end.opened_at.after(IN_VAIN_AFTER_MS) <= turn.now;
        if self.pipe_end(id, &other).is_some_and(in_vain) {
            self.counters.pipes_in_vain += 1;
            let record = self.record_mut();
            record.gathered = true;
            record.sought.clear();
            let is_home = self.usable_node() == Some(id);
            if let Some(node) = self.node_mut(if is_home { &other } else { id }) {
                // Until it says hello again.
                node.takes_pipes = false;
            }
        }
        let reopen_at = Some(turn.now.after(REOPEN_AFTER_MS));
        for (from, to) in ends {
            if let Some(end) = self.end_mut(from, to) {
                *end = End { reopen_at, ..End::new(pipe, turn.now) };
            }
        }
    }

    /// A node is back and says which pipes it has; `None`: it takes none.
    pub(super) fn pipes_known(&mut self, turn: &mut Turn, id: &NodeId, present: Option<Vec<PipeKey>>) {
        let Some(node) = self.node_mut(id) else { return };
        node.takes_pipes = present.is_some();
        let ends = node.pipes.clone();
        let present = present.unwrap_or_default();
        let others = self.forwards_known(turn, id, &present);
        let is_known = |pipe: &PipeKey| others.contains(pipe) || ends.values().any(|end| end.key == *pipe);
        for pipe in present.iter().filter(|pipe| !is_known(pipe)) {
            self.tell_node(turn, id, RoomToNode::ClosePipe { pipe: *pipe });
        }
        for (other, end) in ends {
            let pipe = end.key;
            if !present.contains(&pipe) {
                self.forget_pipe(turn, id, &other);
                continue;
            }
            let Some(theirs) = self.nodes.get(&other).and_then(|node| node.pipes.get(id)).cloned() else { continue };
            // Each may be repeated without harm.
            if let Some(end) = theirs.like {
                self.tell_node(turn, id, RoomToNode::ConnectPipe { pipe, end });
            }
            self.tell_node(turn, id, RoomToNode::DrawPipe { pipe, streams: theirs.streams });
            // What goes in may be something else by now.
            if let Some(end) = self.end_mut(id, &other) {
                end.told = false;
            }
        }
    }

    /// When a pipe is to be opened anew.
    pub(super) fn pipe_deadline(&self) -> Option<UnixMs> {
        self.nodes.values().flat_map(|node| node.pipes.values()).filter_map(|end| end.reopen_at).min()
    }

    /// Pipes that failed a while ago may be opened anew.
    pub(super) fn check_pipes(&mut self, turn: &Turn) {
        let due = |end: &End| end.reopen_at.is_some_and(|at| at <= turn.now);
        for id in self.nodes.keys().cloned().collect::<Vec<_>>() {
            if self.nodes.get(&id).is_some_and(|node| node.pipes.values().any(due))
                && let Some(node) = self.node_mut(&id)
            {
                node.pipes.retain(|_, end| !due(end));
            }
        }
    }

    /// Closes pipes of nodes that are not there any more, or have no sessions.
    fn close_pipes(&mut self, turn: &mut Turn, present: &BTreeSet<NodeId>) {
        let ends = self.nodes.iter().flat_map(|(id, node)| node.pipes.keys().map(move |other| (id, other)));
        let over = ends.filter(|(id, other)| !present.contains(*id) || !present.contains(*other));
        for (id, other) in over.map(|(id, other)| (id.clone(), other.clone())).collect::<Vec<_>>() {
            self.close_end(turn, &id, &other);
        }
    }

    fn open_pipe(&mut self, turn: &mut Turn, low: &NodeId, high: &NodeId) {
        let ready = |id: &NodeId| self.listens(id) && self.nodes.get(id).is_some_and(|node| node.takes_pipes);
        let is_open = self.nodes.get(low).is_none_or(|node| node.pipes.contains_key(high));
        if is_open || !ready(low) || !ready(high) {
            return;
        }
        let [a, b, c, d, ..] = turn.random();
        let pipe = PipeKey(u32::from_be_bytes([a, b, c, d]));
        for (id, other, dials) in [(low, high, false), (high, low, true)] {
            if let Some(node) = self.node_mut(id) {
                node.pipes.insert(other.clone(), End::new(pipe, turn.now));
            }
            turn.send_node(id, RoomToNode::OpenPipe { pipe, dials, tracks_only: false });
        }
    }

    fn fill_pipe(&mut self, turn: &mut Turn, from: &NodeId, to: &NodeId, tracks: Vec<PipedTrack>) {
        let end = self.nodes.get(from).and_then(|node| node.pipes.get(to));
        let Some(pipe) =
            end.filter(|end| end.reopen_at.is_none() && !(end.told && end.fill == tracks)).map(|end| end.key)
        else {
            return;
        };
        if let Some(end) = self.end_mut(from, to) {
            end.fill.clone_from(&tracks);
            end.told = true;
        }
        self.tell_node(turn, from, RoomToNode::FillPipe { pipe, tracks });
    }

    /// Both ends of a pipe are void.
    fn forget_pipe(&mut self, turn: &mut Turn, id: &NodeId, other: &NodeId) {
        self.close_end(turn, other, id);
        if let Some(node) = self.node_mut(id) {
            node.pipes.remove(other);
        }
    }

    fn close_end(&mut self, turn: &mut Turn, id: &NodeId, other: &NodeId) {
        let closed = self.node_mut(id).and_then(|node| node.pipes.remove(other));
        if let Some(end) = closed.filter(|end| end.reopen_at.is_none()) {
            self.tell_node(turn, id, RoomToNode::ClosePipe { pipe: end.key });
        }
    }

    /// What is to go where: tracks somebody elsewhere is served and has not paused, each up to the highest layer wanted there.
    fn routes(&self) -> Routes {
        let mut routes = Routes::new();
        for (to, piped, paused) in self.wanted_elsewhere() {
            let Some(from) = self.media_at(&piped.publisher).filter(|_| !paused) else { continue };
            let tracks = routes.entry((from.clone(), to)).or_default();
            let known = tracks.entry(piped.track.clone()).or_insert_with(|| piped.clone());
            // `None` is all.
            known.max_layer = known.max_layer.zip(piped.max_layer).map(|(a, b)| a.max(b));
        }
        routes
    }

    /// What each subscriber is served that is on another node: at which node, of which track, and whether it is paused.
    pub(super) fn wanted_elsewhere(&self) -> impl Iterator<Item = (NodeId, PipedTrack, bool)> {
        let at = self.subscriptions.iter().filter_map(|(sid, mine)| Some((sid, mine, self.media_at(sid)?)));
        at.flat_map(move |(subscriber, mine, to)| {
            let served = mine.iter().filter(|(_, subscription)| subscription.served);
            served.filter_map(move |(track, subscription)| {
                let publication = self.publications.get(track)?;
                let publisher = publication.publisher.clone();
                if self.media_at(&publisher) == Some(to) {
                    return None;
                }
                let wanted = delivery(&publication.info, self.settings_of(subscriber, subscription.settings));
                let piped = PipedTrack { publisher, track: track.clone(), max_layer: wanted.max_layer };
                Some((to.clone(), piped, wanted.paused))
            })
        })
    }

    /// Nodes that sessions are on, or are about to be.
    fn present(&self) -> BTreeSet<NodeId> {
        let next = self.sessions.values().filter(|session| session.media != Media::Ended && session.opened);
        let now = self.sessions.keys().filter_map(|sid| self.media_at(sid));
        now.chain(next.filter_map(|session| session.node.as_ref())).cloned().collect()
    }

    /// The node that a participant's media is on: the one before, while it is being moved.
    pub(super) fn media_at(&self, sid: &ParticipantSid) -> Option<&NodeId> {
        let session = self.sessions.get(sid).filter(|session| session.media != Media::Ended)?;
        let before = session.moving.as_ref().and_then(|moving| moving.origin());
        let before = before.filter(|id| self.nodes.contains_key(*id));
        before.or(session.node.as_ref().filter(|_| session.opened))
    }

    /// The node at the other end of a pipe.
    fn pipe_to(&mut self, id: &NodeId, pipe: PipeKey) -> Option<NodeId> {
        let ends = self.nodes.get(id).into_iter().flat_map(|node| &node.pipes);
        let found = ends.filter(|(_, end)| end.reopen_at.is_none()).find(|(_, end)| end.key == pipe);
        let other = found.map(|(other, _)| other.clone());
        self.counters.dropped_stale += u64::from(other.is_none());
        other
    }

    fn pipe_end(&self, id: &NodeId, other: &NodeId) -> Option<&End> {
        self.nodes.get(id)?.pipes.get(other)
    }

    fn end_mut(&mut self, id: &NodeId, other: &NodeId) -> Option<&mut End> {
        self.node_mut(id)?.pipes.get_mut(other)
    }

    /// What a node that does not listen missed it is told after its next hello.
    pub(super) fn tell_node(&self, turn: &mut Turn, id: &NodeId, message: RoomToNode) {
        if self.listens(id) {
            turn.send_node(id, message);
        }
    }
}
