//! Moves: a session goes on at another node, on the connection its client has. The client sees new ICE credentials and
//! another certificate for the sections it knows; tracks, ids and channels stay. **The gentlest way that its SDK takes
//! comes first, the next one when it is not connected in time.**
//!
//! From a node that drains a room goes as a whole, because a room is on one node: everyone is still served there until all
//! have made the offer that the new node answers, and then everyone changes over at once.

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::signal_response::Message;
use serde::{Deserialize, Serialize};
use shared::control::{Established, PeerConnections, RoomToNode};
use shared::ids::{Generation, NodeId, ParticipantSid, SessionKey};

use super::Room;
use super::effect::Effect;
use super::event::UnixMs;
use super::session::{Media, Progress, Session, Side};
use super::track_info;
use super::turn::Turn;

/// Milliseconds from the new node's start to a connection, in each way; then comes the next stronger one.
pub const MOVE_STEP_MS: u64 = 2_000;
/// Milliseconds that a client which is to come back on a new socket has for it.
pub const MOVE_RESUME_MS: u64 = 5_000;
/// Milliseconds until there is a node to move to; then clients join anew.
pub const MOVE_LIMIT_MS: u64 = 15_000;
/// Milliseconds that those who are ready to leave a draining node wait for the others: SDKs come back on a new socket within
/// half a second and some round trips.
pub const MOVE_TOGETHER_MS: u64 = 1_500;

/// A move under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moving {
    way: Way,
    /// When the next way is taken.
    until: UnixMs,
    /// It is served there until it is connected.
    #[serde(default)]
    from: Option<Origin>,
    /// Its descriptions wait for those of the others until this time.
    #[serde(default)]
    held: Option<UnixMs>,
    /// Its client is to offer: the one connection, or a publisher connection that is up.
    #[serde(default = "yes")]
    offers: bool,
    /// The new node has offered the subscriber connection.
    #[serde(default)]
    offered: bool,
    /// The primary connection is up, and the new node has not answered the other one yet.
    #[serde(default)]
    connected: bool,
}

/// Moves of before were of single connections.
fn yes() -> bool {
    true
}

/// Where a session comes from that is moved without need.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Origin {
    node: NodeId,
    generation: Generation,
}

/// How the client is made to talk to the new node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Way {
    /// It offers once more, on the socket it has, and sees nothing of the move.
    Offer,
    /// It resumes: its socket is closed, and it comes back with an ICE restart.
    Resume,
}

impl Moving {
    /// The node that serves it until it is connected to the next one.
    pub(super) fn origin(&self) -> Option<&NodeId> {
        self.from.as_ref().map(|origin| &origin.node)
    }

    /// The new node works on it from now on.
    fn start(&mut self, now: UnixMs) {
        let patience = match self.way {
            Way::Offer => MOVE_STEP_MS,
            Way::Resume => MOVE_RESUME_MS,
        };
        self.until = now.after(patience);
    }
}

impl Session {
    /// The new node works on it.
    pub(super) fn note_opened(&mut self, now: UnixMs) {
        if let Some(moving) = &mut self.moving {
            moving.start(now);
        }
    }

    /// Its offer waits for those of the others.
    pub(super) fn is_held(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| moving.held.is_some())
    }

    /// Its client and the new node have offered what they have to.
    fn is_offered(&self) -> bool {
        let is_single = self.peer_connections == PeerConnections::Single;
        self.moving
            .as_ref()
            .is_some_and(|moving| (!moving.offers || self.offer == Progress::Unsent) && (is_single || moving.offered))
    }

    /// The new node has not offered the subscriber connection to the client yet: what this answers is another node's.
    pub(super) fn answers_before(&self) -> bool {
        self.moving.as_ref().is_some_and(|moving| !moving.offered || moving.held.is_some())
    }
}

impl Room {
    /// A node wants its sessions to go on elsewhere, or keeps them after all.
    pub(super) fn node_drains(&mut self, id: &NodeId, draining: bool) {
        if let Some(node) = self.node_mut(id) {
            node.draining = draining;
        }
    }

    /// Those on nodes that drain, and those apart from most of the others: a drain that is taken back while its room is on the
    /// way leaves newcomers where it was to go. `None`: there are none.
    pub(super) fn sessions_to_move(&self) -> Option<Vec<ParticipantSid>> {
        // Asked after each event, and nearly always so.
        if self.nodes.len() < 2 && !self.nodes.values().any(|node| node.draining) {
            return None;
        }
        let home = self.usable_node().filter(|id| self.listens(id));
        let leaves = |session: &Session| {
            let id = session.node.as_ref()?;
            let is_apart = home.is_some_and(|home| home != id && !self.are_spread(home, id)) && self.listens(id);
            self.nodes.get(id).filter(|node| node.draining || is_apart).map(drop)
        };
        let leaving: Vec<_> =
            self.sessions.iter().filter(|(_, s)| leaves(s).is_some()).map(|(sid, _)| sid.clone()).collect();
        (!leaving.is_empty()).then_some(leaving)
    }

    /// Takes sessions to a node that listens, while the one they are on still serves them.
    pub(super) fn move_gently(&mut self, turn: &mut Turn, leaving: &[ParticipantSid], target: &NodeId) {
        for sid in leaving {
            let Some(key) = self.sessions.get(sid).map(|session| session.key(sid)) else { continue };
            let Some(origin) = self.sessions.get(sid).and_then(|session| session.node.clone()) else { continue };
            let opened = self.open_session_of(sid);
            if !self.is_described(sid) {
                // Its client has not heard of any node yet.
                if let Some((node, session)) = opened {
                    turn.send_node(&node, RoomToNode::CloseSession { session, quietly: false });
                }
                self.renew_session(turn, sid);
            } else {
                let from = Origin { node: origin, generation: key.generation };
                if !self.move_session(turn, sid, Some(from)) {
                    self.end_session(turn, sid, DisconnectReason::ServerShutdown);
                    continue;
                }
            }
            self.open_session_at(turn, sid, target);
        }
    }

    /// Takes a session from its node, for the next one to go on with; `from` goes on serving it meanwhile. False: its client
    /// cannot.
    pub(super) fn move_session(&mut self, turn: &mut Turn, sid: &ParticipantSid, from: Option<Origin>) -> bool {
        let is_here = self.participants.get(sid).is_some_and(|participant| participant.connection.is_some());
        let offers_quietly = is_here && self.moves_quietly(sid);
        let has_offered = self.description(sid, Side::ClientOffer).is_some();
        let Some(session) = self.session_mut(sid) else { return false };
        let is_single = session.peer_connections == PeerConnections::Single;
        // Of two connections not much may be there yet.
        if session.media == Media::Ended || (session.media == Media::New && !is_single) {
            return false;
        }
        // It waits for an answer, and takes the new node's.
        let asks = session.offer != Progress::Done;
        session.generation.0 += 1;
        session.node = None;
        session.opened = false;
        session.offer = if asks { Progress::Unsent } else { Progress::Done };
        session.answer = Progress::Done;
        session.answer_repeated = false;
        let way = if offers_quietly { Way::Offer } else { Way::Resume };
        let held = from.as_ref().filter(|_| is_here).map(|_| turn.now.after(MOVE_TOGETHER_MS));
        let before = session.moving.take();
        let has_resumed = asks && before.as_ref().is_some_and(|moving| moving.way == Way::Resume);
        let offers = is_single || has_offered || before.as_ref().is_some_and(|moving| moving.offers);
        // The node that was to take it is lost, the one that has it is not.
        let from = from.or_else(|| before?.from);
        let until = turn.now.after(MOVE_LIMIT_MS);
        let moving = Moving { way, until, from, held, offers, offered: false, connected: false };
        session.moving = Some(moving);
        self.put_description(sid, Side::NodeAnswer, None);
        self.put_description(sid, Side::ClientAnswer, None);
        if !asks {
            self.put_description(sid, Side::ClientOffer, None);
        }
        self.counters.moves += 1;
        match way {
            Way::Offer if offers && !asks => {
                self.send(turn, sid, Message::MediaSectionsRequirement(proto::MediaSectionsRequirement::default()));
            }
            Way::Resume if !has_resumed => self.make_resume(turn, sid),
            Way::Offer | Way::Resume => {}
        }
        true
    }

    /// Its client keeps its socket while it is moved.
    pub(super) fn moves_quietly(&self, sid: &ParticipantSid) -> bool {
        self.participants.get(sid).is_some_and(|participant| {
            let client = &participant.client.traits;
            // Others were not seen to take an answer with other credentials to an offer that restarts nothing.
            client.sdk == "js" && client.browser == "chrome"
        })
    }

    /// Sessions that this node serves until they are connected to another one.
    pub(super) fn leaving(&self, id: &NodeId) -> Vec<SessionKey> {
        let origin = |session: &Session| session.moving.as_ref()?.from.clone().filter(|from| from.node == *id);
        let leaving = self.sessions.iter().filter_map(|(sid, session)| {
            Some(SessionKey { participant: sid.clone(), generation: origin(session)?.generation })
        });
        leaving.collect()
    }

    /// Has the new node answer everyone, once everyone has offered or it has taken too long.
    pub(super) fn release_when_all_offer(&mut self, turn: &mut Turn) {
        let held: Vec<_> = self.sessions.iter().filter(|(_, session)| session.is_held()).collect();
        let serves = |session: &Session| {
            let from = session.moving.as_ref().and_then(|moving| moving.from.as_ref());
            from.is_some_and(|from| self.listens(&from.node))
        };
        let is_due = |session: &Session| {
            session.moving.as_ref().and_then(|moving| moving.held).is_some_and(|until| until <= turn.now)
        };
        let all_offer = held.iter().all(|(_, session)| session.opened && session.is_offered());
        if held.is_empty() || !(all_offer || held.iter().any(|(_, session)| is_due(session) || !serves(session))) {
            return;
        }
        let held: Vec<_> = held.into_iter().map(|(sid, _)| sid.clone()).collect();
        for sid in held {
            let now = turn.now;
            let Some(moving) = self.session_mut(&sid).and_then(|session| session.moving.as_mut()) else { continue };
            moving.held = None;
            moving.start(now);
            if moving.offered {
                self.pass_offer(turn, &sid);
            }
            self.pass_on(turn, &sid);
        }
    }

    /// The new node offers the subscriber connection. False: the client is to have the offer later.
    pub(super) fn note_offered(&mut self, sid: &ParticipantSid) -> bool {
        let Some(moving) = self.session_mut(sid).and_then(|session| session.moving.as_mut()) else { return true };
        moving.offered = true;
        moving.held.is_none()
    }

    /// The primary connection is up, or the publisher connection is answered: with both the move is over.
    pub(super) fn note_arrival(&mut self, turn: &mut Turn, sid: &ParticipantSid, media: Option<Media>) {
        let Some(session) = self.session_mut(sid) else { return };
        let answered = session.offer == Progress::Done && media.is_none();
        let waits = session.peer_connections != PeerConnections::Single;
        let Some(moving) = &mut session.moving else { return };
        moving.connected |= media == Some(Media::Connected);
        moving.offers &= !answered;
        if moving.connected && !(waits && moving.offers) {
            self.move_over(turn, sid);
        }
    }

    /// It is connected where it went to, or will never be: who served it until now has done so.
    pub(super) fn move_over(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some(moving) = self.sessions.get(sid).and_then(|session| session.moving.clone()) else { return };
        if let Some(session) = self.session_mut(sid) {
            session.moving = None;
        }
        let Some(Origin { node, generation }) = moving.from else { return };
        // One that is away is told when it comes back.
        if self.listens(&node) {
            let session = SessionKey { participant: sid.clone(), generation };
            turn.send_node(&node, RoomToNode::CloseSession { session, quietly: false });
        }
    }

    /// What the client has from the nodes before; `None` unless it is being moved.
    pub(super) fn established(&self, sid: &ParticipantSid) -> Option<Established> {
        let session = self.sessions.get(sid).filter(|session| session.moving.is_some())?;
        let published = |track| Some(track_info::received(&track, &self.publications.get(&track)?.info));
        Some(Established {
            subscribed: session.mid_to_track.clone(),
            published: self.tracks_of(sid).into_iter().filter_map(published).collect(),
            carried: session.carried.clone(),
            channels: session.channels.clone(),
            offered: self.description(sid, Side::NodeOffer).cloned(),
            srtp: session.srtp,
        })
    }

    /// When a move that goes nowhere takes the next way.
    pub(super) fn move_deadline(&self, sid: &ParticipantSid) -> Option<UnixMs> {
        self.sessions.get(sid)?.moving.as_ref().map(|moving| moving.held.unwrap_or(moving.until))
    }

    /// A move has taken too long.
    pub(super) fn check_move(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        if self.move_deadline(sid).is_none_or(|until| until > turn.now) {
            return;
        }
        if self.sessions.get(sid).is_some_and(Session::is_held) {
            return self.release_when_all_offer(turn);
        }
        let opened = self.open_session_of(sid).is_some();
        let Some(moving) = self.session_mut(sid).and_then(|session| session.moving.as_mut()) else { return };
        if moving.way == Way::Offer && opened {
            moving.way = Way::Resume;
            moving.until = turn.now.after(MOVE_RESUME_MS);
            self.make_resume(turn, sid);
        } else {
            self.end_session(turn, sid, DisconnectReason::ServerShutdown);
        }
    }

    /// Closes the client's socket without a word: all SDKs come back on a new one then.
    fn make_resume(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some(connection) = self.participants.get(sid).and_then(|participant| participant.connection.clone()) else {
            return;
        };
        turn.effects.push(Effect::CloseClient { connection });
        self.forget_connection(turn, sid);
    }
}
