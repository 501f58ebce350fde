//! Where sessions are: assigning them to the room's node, asking the fleet for one, losing one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use livekit_protocol::DisconnectReason;
use shared::control::{FirstSession, OpenSession, PlaceRequest, Placed, SPREAD_KM};
use shared::geo::Place;
use shared::ids::{NodeId, ParticipantSid};

use super::Room;
use super::effect::Effect;
use super::event::UnixMs;
use super::node::{Link, Node};
use super::record::Placing;
use super::session::{Media, Progress, Session, Side};
use super::track_info;
use super::turn::Turn;

/// Milliseconds after which a placement without an answer is asked for again.
pub const PLACE_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds to the second attempt when the fleet had no node; doubled up to [`MAX_BACKOFF_MS`].
const MIN_BACKOFF_MS: u64 = 250;
/// Milliseconds after which the fleet is asked again about a node whose link to the room broke: with a process both links end,
/// within milliseconds of each other.
const DOUBT_AGAIN_MS: u64 = 40;
/// Milliseconds that sessions whose node drains or died wait for a node that is nearer to them than all that the room has:
/// first for the fleet to name one, then for that to dial in.
pub const NEARER_WAIT_MS: u64 = 1_000;
/// Most nodes of a room, where participants are served near to them: each two of them have a pipe.
pub const MAX_NODES: usize = 8;
/// Milliseconds between attempts at most.
const MAX_BACKOFF_MS: u64 = 10_000;

impl Room {
    /// The node the room's sessions go to, unless one of their own is much nearer to them ([`Room::node_for`]).
    pub(super) fn usable_node(&self) -> Option<&NodeId> {
        let rank = |link: Link| match link {
            Link::Ready => 0,
            Link::Linked { .. } => 1,
            Link::Expected { .. } => 2,
            Link::Away { .. } => 3,
        };
        let sessions = |id: &NodeId| self.sessions.values().filter(|session| session.node.as_ref() == Some(id)).count();
        let in_use = |id: &NodeId| sessions(id) > 0;
        // One that drains takes no room it does not have.
        let usable = self.nodes.iter().filter(|(id, node)| !node.draining || in_use(id));
        let order = |id: &NodeId, node: &Node| (node.draining, !in_use(id), rank(node.link), Reverse(sessions(id)));
        usable.min_by_key(|(id, node)| order(id, node)).map(|(id, _)| id)
    }

    /// The node for someone from there: the room's, unless another one is nearer by [`SPREAD_KM`] and both take pipes.
    pub(super) fn node_for(&self, client: Option<Place>) -> Option<&NodeId> {
        let home = self.usable_node()?;
        let Some(home_km) = self.spread_km(home, client) else { return Some(home) };
        let others = self.nodes.keys().filter(|id| self.listens(id));
        let nearest =
            others.filter_map(|id| Some((id, self.spread_km(id, client)?))).min_by(|a, b| a.1.total_cmp(&b.1));
        nearest.filter(|(_, km)| km + SPREAD_KM < home_km).map(|(id, _)| id).or(Some(home))
    }

    /// The nodes of the room, when all that listen are so far from someone there that the fleet may know a better one.
    pub(super) fn serving_far_from(&self, client: Option<Place>) -> Vec<NodeId> {
        let km = self.node_for(client).and_then(|id| self.spread_km(id, client));
        let is_far = km.is_some_and(|km| km > SPREAD_KM) && !self.record.is_pinned() && !self.record.gathered;
        if !is_far || self.nodes.len() >= MAX_NODES {
            return Vec::new();
        }
        self.nodes.iter().filter(|(_, node)| !node.draining).map(|(id, _)| id.clone()).collect()
    }

    /// The nodes that the room has without this one, where it may be on several.
    fn serving_without(&self, lost: &NodeId) -> Vec<NodeId> {
        let stays = |(id, node): &(&NodeId, &Node)| *id != lost && node.takes_pipes && !node.draining;
        let others = self.nodes.iter().filter(stays).map(|(id, _)| id).filter(|id| self.listens(id));
        others.filter(|_| !self.record.is_pinned()).cloned().collect()
    }

    /// How far a node is that need not be the only one of the room.
    pub(super) fn spread_km(&self, id: &NodeId, client: Option<Place>) -> Option<f64> {
        let node = self.nodes.get(id).filter(|node| node.takes_pipes && !node.draining)?;
        Some(client?.distance_km(node.place?))
    }

    /// Whether sessions may stay on both of two nodes: each is nearer to its own.
    pub(super) fn are_spread(&self, one: &NodeId, other: &NodeId) -> bool {
        let place = self.nodes.get(other).and_then(|node| node.place);
        self.spread_km(other, place).is_some() && self.spread_km(one, place).is_some_and(|km| km > SPREAD_KM)
    }

    /// The fleet answered.
    pub(super) fn placed(&mut self, turn: &mut Turn, node: Option<Placed>) {
        let Placing::Asked { attempt, client, .. } = self.record.placing else { return };
        match node {
            Some(placed) => {
                self.record_mut().placing = Placing::Idle;
                let id = placed.node.clone();
                turn.none_nearer = client.filter(|_| self.listens(&id));
                if !self.nodes.contains_key(&id) {
                    self.put_node(&id, Node::expected(placed, turn.now));
                }
            }
            None => {
                let delay = MIN_BACKOFF_MS.saturating_mul(1 << attempt.min(10)).min(MAX_BACKOFF_MS);
                let until = turn.now.after(delay);
                self.record_mut().placing = Placing::Backoff { until, attempt: attempt.saturating_add(1) };
            }
        }
    }

    /// Puts sessions that wait on the room's nodes, takes others from those that drain, or asks the fleet for a node.
    pub(super) fn place_sessions(&mut self, turn: &mut Turn) {
        let waiting = self.waiting_sessions();
        if let Some(first) = waiting.first() {
            let Some(id) = self.node_for_waiting(&waiting).cloned() else {
                return self.ask_fleet(turn, self.place_of(first), None, &waiting);
            };
            let displaced: Vec<_> = waiting.iter().filter(|sid| self.move_deadline(sid).is_some()).cloned().collect();
            let seeking = self.seek_nearer(turn, &displaced);
            let going: Vec<_> = waiting.into_iter().filter(|sid| !seeking.contains(sid)).collect();
            self.may_go_far(turn, &going);
            for sid in &going {
                let nearest = self.node_for(self.place_of(sid)).cloned();
                self.open_session_at(turn, sid, nearest.as_ref().unwrap_or(&id));
            }
        } else if let Some(doubtful) = self.doubtful_node(turn.now) {
            let sessions = self.sessions_on(&doubtful);
            let place = sessions.first().and_then(|sid| self.place_of(sid));
            return self.ask_fleet(turn, place, Some(doubtful), &sessions);
        }
        if let Some(leaving) = self.sessions_to_move() {
            let draining: Vec<_> = leaving.iter().filter(|sid| self.is_on_draining(sid)).cloned().collect();
            let seeking = self.seek_nearer(turn, &draining);
            let leaving: Vec<_> = leaving.into_iter().filter(|sid| !seeking.contains(sid)).collect();
            self.may_go_far(turn, &leaving);
            if let Some(homeless) = self.move_to_targets(turn, &leaving) {
                return self.ask_fleet(turn, self.place_of(&homeless), None, &leaving);
            }
        }
        self.go_near(turn);
        if self.placing_deadline().is_some_and(|at| at <= turn.now) {
            self.record_mut().placing = Placing::Idle;
        }
    }

    /// Where those who wait may go, if the room has a node for them.
    fn node_for_waiting(&self, waiting: &[ParticipantSid]) -> Option<&NodeId> {
        // A node that drains takes nobody from another one.
        let moves = waiting.iter().any(|sid| self.move_deadline(sid).is_some());
        self.usable_node().filter(|id| !moves || self.nodes.get(id).is_some_and(|node| !node.draining))
    }

    /// Takes each to its next node, as soon as that listens. Who has none, if somebody.
    fn move_to_targets(&mut self, turn: &mut Turn, leaving: &[ParticipantSid]) -> Option<ParticipantSid> {
        let mut groups: BTreeMap<NodeId, Vec<ParticipantSid>> = BTreeMap::new();
        for sid in leaving {
            // One that drains takes over from none.
            let target = self.node_for(self.place_of(sid)).filter(|id| self.nodes.get(id).is_some_and(|n| !n.draining));
            let Some(target) = target.cloned() else { return Some(sid.clone()) };
            let is_there = self.sessions.get(sid).is_some_and(|session| session.node.as_ref() == Some(&target));
            if self.listens(&target) && !is_there {
                groups.entry(target).or_default().push(sid.clone());
            }
        }
        for (target, sids) in groups {
            self.move_gently(turn, &sids, &target);
        }
        None
    }

    /// Which of these sessions wait, because the fleet may know a node much nearer to them than all that the room has: it is
    /// asked, once for all who are near to each other, and what it names has [`NEARER_WAIT_MS`] to come.
    fn seek_nearer(&mut self, turn: &mut Turn, sids: &[ParticipantSid]) -> Vec<ParticipantSid> {
        let is_far = |sid: &&ParticipantSid| !self.serving_far_from(self.place_of(sid)).is_empty();
        let may_be_near = |sid: &&ParticipantSid| self.place_of(sid).is_some_and(|place| turn.may_be_nearer(place));
        let far: Vec<_> = sids.iter().filter(is_far).filter(may_be_near).cloned().collect();
        match self.nearer_until() {
            Some(until) if until <= turn.now => Vec::new(),
            Some(_) => far,
            None => {
                if let Some(first) = far.first() {
                    self.ask_fleet(turn, self.place_of(first), None, &far);
                }
                far
            }
        }
    }

    /// Until when sessions wait for a nearer node that was asked for, or named; long ago if the fleet has none.
    fn nearer_until(&self) -> Option<UnixMs> {
        let asked = match self.record.placing {
            Placing::Idle => None,
            Placing::Asked { since, .. } => Some(since.after(NEARER_WAIT_MS)),
            Placing::Backoff { .. } => Some(UnixMs(0)),
        };
        let dialing = self.nodes.values().filter(|node| !node.draining).filter_map(|node| match node.link {
            Link::Expected { since } | Link::Linked { since } => Some(since.after(NEARER_WAIT_MS)),
            Link::Ready | Link::Away { .. } => None,
        });
        dialing.chain(asked).max()
    }

    /// When those who wait for a nearer node go on at what the room has. `None` also where it has nothing: then only an answer
    /// of the fleet helps, and who is woken before would be woken forever.
    pub(super) fn nearer_deadline(&self) -> Option<UnixMs> {
        let waiting = self.waiting_sessions();
        let is_helpless = match waiting.is_empty() {
            // Nobody goes anywhere while a node is in doubt.
            true => self.doubtful_node(UnixMs(u64::MAX)).is_some(),
            false => self.node_for_waiting(&waiting).is_none(),
        };
        if is_helpless {
            return None;
        }
        let is_far = |sid: &ParticipantSid| !self.serving_far_from(self.place_of(sid)).is_empty();
        let waits = |sid: &ParticipantSid| self.move_deadline(sid).is_some() && is_far(sid);
        let could_go = |sid: &ParticipantSid| {
            let target = self.node_for(self.place_of(sid)).filter(|id| self.listens(id));
            target.is_some() && self.sessions.get(sid).is_some_and(|session| session.node.as_ref() != target)
        };
        let leaves = |sid: &ParticipantSid| self.is_on_draining(sid) && is_far(sid) && could_go(sid);
        let is_awaited =
            waiting.iter().any(waits) || self.sessions_to_move().is_some_and(|leaving| leaving.iter().any(leaves));
        is_awaited.then(|| self.nearer_until()).flatten()
    }

    fn is_on_draining(&self, sid: &ParticipantSid) -> bool {
        let node = self.sessions.get(sid).and_then(|session| self.nodes.get(session.node.as_ref()?));
        node.is_some_and(|node| node.draining)
    }

    pub(super) fn place_of(&self, sid: &ParticipantSid) -> Option<Place> {
        self.participants.get(sid)?.place
    }

    pub(super) fn open_session_at(&mut self, turn: &mut Turn, sid: &ParticipantSid, id: &NodeId) {
        if let Some(session) = self.session_mut(sid) {
            session.node = Some(id.clone());
        }
        self.open_session(turn, sid);
    }

    /// Sessions without a node whose client is there.
    fn waiting_sessions(&self) -> Vec<ParticipantSid> {
        let waits = |sid: &ParticipantSid| self.participants.get(sid).is_some_and(|p| p.connection.is_some());
        let homeless = |s: &&Session| s.node.is_none() && (s.media == Media::New || s.moving.is_some());
        let homeless = self.sessions.iter().filter(|(_, s)| homeless(s));
        homeless.map(|(sid, _)| sid).filter(|sid| waits(sid)).cloned().collect()
    }

    pub(super) fn ask_fleet(
        &mut self,
        turn: &mut Turn,
        client: Option<Place>,
        lost: Option<NodeId>,
        sessions: &[ParticipantSid],
    ) {
        let attempt = match self.record.placing {
            Placing::Idle => 0,
            Placing::Asked { since, attempt, .. } if since.after(PLACE_TIMEOUT_MS) <= turn.now => attempt,
            Placing::Backoff { until, attempt } if until <= turn.now => attempt,
            Placing::Asked { .. } | Placing::Backoff { .. } => return,
        };
        let draining = self.nodes.iter().filter(|(_, node)| node.draining).map(|(id, _)| id.clone());
        let exclude = self.record.avoided_nodes(turn.now).into_iter().chain(lost.clone()).chain(draining).collect();
        let sessions = u32::try_from(sessions.len()).unwrap_or(u32::MAX);
        self.record_mut().placing = Placing::Asked { since: turn.now, attempt, client };
        let (room, region, node) = (self.record.name.clone(), self.record.region.clone(), self.record.node.clone());
        let serving = match &lost {
            Some(lost) => self.serving_without(lost),
            None => self.serving_far_from(client),
        };
        let request = PlaceRequest { room, client, region, node, exclude, first: None, lost, serving, sessions };
        turn.effects.push(Effect::Place(Box::new(request)));
    }

    /// When the fleet is to be asked (again).
    pub(super) fn placing_deadline(&self) -> Option<UnixMs> {
        match self.record.placing {
            Placing::Idle => None,
            Placing::Asked { since, .. } => Some(since.after(PLACE_TIMEOUT_MS)),
            Placing::Backoff { until, .. } => Some(until),
        }
    }

    /// Has the node open a session, with all the room knows of it. Not before the node listens.
    pub(super) fn open_session(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some(id) = self.sessions.get(sid).and_then(|session| session.node.clone()) else { return };
        if !self.listens(&id) {
            return;
        }
        let (subscriptions, established) = (self.served_to(sid), self.established(sid));
        let Some(participant) = self.participants.get(sid) else { return };
        let own = participant.tracks.iter().filter_map(|t| Some((t, self.publications.get(t)?)));
        let tracks = own.map(|(track, publication)| track_info::announcement(track, &publication.info)).collect();
        let (identity, grants) = (participant.identity.clone(), participant.media_grants());
        let playout_delay = self.playout_delay_for(&participant.client, None);
        let client = participant.client.traits.clone();
        let offer = self.description(sid, Side::ClientOffer).cloned();
        let Some(session) = self.session_mut(sid) else { return };
        session.opened = true;
        session.note_opened(turn.now);
        let offer = offer.filter(|_| !session.is_held());
        if session.offer == Progress::Unsent && offer.is_some() {
            session.offer = Progress::Sent;
        }
        let key = session.key(sid);
        let open = OpenSession {
            token: String::new(),
            peer_connections: session.peer_connections,
            client,
            offer,
            tracks,
            subscriptions,
            established,
            playout_delay,
        };
        let first = FirstSession { participant: sid.clone(), identity, generation: key.generation, grants, open };
        turn.effects.push(Effect::OpenSession { node: id.clone(), session: Box::new(first) });
        self.mute_anew(turn, &id, &key);
    }

    /// The node lost this session. A client that has heard nothing from it does not notice; any other is moved, or has to
    /// join anew where that cannot be: it ignores a second answer to its offer.
    pub(super) fn restart_session(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        if self.is_described(sid) {
            if !self.move_session(turn, sid, None) {
                self.end_session(turn, sid, DisconnectReason::ServerShutdown);
            }
        } else {
            self.renew_session(turn, sid);
        }
    }

    /// Its client has heard from a node.
    pub(super) fn is_described(&self, sid: &ParticipantSid) -> bool {
        let described = [Side::NodeAnswer, Side::NodeOffer].iter().any(|side| self.description(sid, *side).is_some());
        described || self.sessions.get(sid).is_some_and(|session| session.media != Media::New)
    }

    /// Starts the session over under the next generation, on whatever node comes next; the client's offer stays
    /// good. Only for a session the client heard nothing of.
    pub(super) fn renew_session(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let offered = self.description(sid, Side::ClientOffer).is_some();
        let Some(session) = self.session_mut(sid) else { return };
        session.generation.0 += 1;
        session.node = None;
        session.opened = false;
        session.offer = if offered { Progress::Unsent } else { Progress::Done };
        self.hide_tracks(turn, sid);
    }

    /// The fleet does not have the node either. Unless it is back: then it dialed the fleet later than the room.
    pub(super) fn confirm_loss(&mut self, turn: &mut Turn, id: &NodeId) {
        if self.nodes.get(id).is_some_and(|node| matches!(node.link, Link::Away { .. })) {
            self.lose_node(turn, id);
            // When the fleet names it again it is back.
            self.record_mut().lost_node = None;
        }
    }

    /// The fleet still has the node that was asked about: its link may break a moment later, so it is asked again.
    pub(super) fn node_still_there(&mut self, now: UnixMs) {
        if let Placing::Asked { .. } = self.record.placing {
            let until = now.after(DOUBT_AGAIN_MS);
            self.record_mut().placing = Placing::Backoff { until, attempt: 0 };
        }
    }

    /// A node with sessions whose link broke just now, and not because the edge had to start again.
    fn doubtful_node(&self, now: UnixMs) -> Option<NodeId> {
        let is_away = |node: &Node| matches!(node.link, Link::Away { since } if since <= now);
        let away = self.nodes.iter().filter(|(_, node)| is_away(node)).map(|(id, _)| id);
        away.filter(|id| self.sessions.values().any(|session| session.node.as_ref() == Some(id))).min().cloned()
    }

    /// The node is lost: who had heard from it joins anew, who had not goes to the next node.
    pub(super) fn lose_node(&mut self, turn: &mut Turn, id: &NodeId) {
        let (affected, now) = (self.sessions_on(id), turn.now);
        let Some(lost) = self.remove_node(id) else { return };
        // One that had nothing to do here may have closed its link for that.
        if !affected.is_empty() || !matches!(lost.link, Link::Away { .. }) {
            self.record_mut().lost_node = Some((id.clone(), now));
        }
        // It may have been named for people nearby, and has not come.
        if let Some(place) = lost.place.filter(|_| affected.is_empty()) {
            self.seek_near(place);
        }
        for sid in affected {
            self.restart_session(turn, &sid);
        }
    }

    /// Tracks whose media has to arrive anew are pending again.
    fn hide_tracks(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let own = self.tracks_of(sid);
        let visible: Vec<_> = own.into_iter().filter(|t| self.publications.get(t).is_some_and(|p| p.visible)).collect();
        for track in &visible {
            if let Some(publication) = self.publication_mut(track) {
                publication.visible = false;
            }
        }
        if visible.is_empty() {
            return;
        }
        self.publish_update(turn, sid);
        self.settle_everyone(turn, &visible);
    }
}
