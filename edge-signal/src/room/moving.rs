//! Moves: a session goes on at another node, on the connection its client has. The client sees new ICE credentials and
//! another certificate for the sections it knows; tracks, ids and channels stay. **The gentlest way that its SDK takes
//! comes first, the next one when it is not connected in time.**

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::signal_response::Message;
use serde::{Deserialize, Serialize};
use shared::control::{Established, PeerConnections};
use shared::ids::ParticipantSid;

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

/// A move under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Moving {
    way: Way,
    /// When the next way is taken.
    until: UnixMs,
}

/// How the client is made to talk to the new node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Way {
    /// It offers once more, on the socket it has, and sees nothing of the move.
    Offer,
    /// It resumes: its socket is closed, and it comes back with an ICE restart.
    Resume,
}

impl Session {
    /// The new node works on it.
    pub(super) fn note_opened(&mut self, now: UnixMs) {
        if let Some(moving) = &mut self.moving {
            let patience = match moving.way {
                Way::Offer => MOVE_STEP_MS,
                Way::Resume => MOVE_RESUME_MS,
            };
            moving.until = now.after(patience);
        }
    }
}

impl Room {
    /// Takes a session from its node, for the next one to go on with. False: its client cannot.
    pub(super) fn move_session(&mut self, turn: &mut Turn, sid: &ParticipantSid) -> bool {
        let offers_quietly = self.participants.get(sid).is_some_and(|participant| {
            let client = &participant.client.traits;
            // Others were not seen to take an answer with other credentials to an offer that restarts nothing.
            client.sdk == "js" && client.browser == "chrome" && participant.connection.is_some()
        });
        let Some(session) = self.session_mut(sid) else { return false };
        if session.peer_connections != PeerConnections::Single || session.media == Media::Ended {
            return false;
        }
        // It waits for an answer, and takes the new node's.
        let asks = session.offer != Progress::Done;
        session.generation.0 += 1;
        session.node = None;
        session.opened = false;
        session.offer = if asks { Progress::Unsent } else { Progress::Done };
        let way = if offers_quietly { Way::Offer } else { Way::Resume };
        session.moving = Some(Moving { way, until: turn.now.after(MOVE_LIMIT_MS) });
        self.put_description(sid, Side::NodeAnswer, None);
        if !asks {
            self.put_description(sid, Side::ClientOffer, None);
        }
        self.counters.moves += 1;
        match way {
            Way::Offer if !asks => {
                self.send(turn, sid, Message::MediaSectionsRequirement(proto::MediaSectionsRequirement::default()));
            }
            Way::Offer => {}
            Way::Resume => self.make_resume(turn, sid),
        }
        true
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
        })
    }

    /// When a move that goes nowhere takes the next way.
    pub(super) fn move_deadline(&self, sid: &ParticipantSid) -> Option<UnixMs> {
        self.sessions.get(sid)?.moving.map(|moving| moving.until)
    }

    /// A move has taken too long.
    pub(super) fn check_move(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        if self.move_deadline(sid).is_none_or(|until| until > turn.now) {
            return;
        }
        let opened = self.open_session_of(sid).is_some();
        let Some(moving) = self.session_mut(sid).and_then(|session| session.moving.as_mut()) else { return };
        if moving.way == Way::Offer && opened {
            *moving = Moving { way: Way::Resume, until: turn.now.after(MOVE_RESUME_MS) };
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
