//! Deadlines: when the room has to be woken, and what happens then.

use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use shared::ids::{NodeId, ParticipantSid};

use super::Room;
use super::event::UnixMs;
use super::moving::MOVE_RESUME_MS;
use super::participant::Participant;
use super::session::Media;
use super::turn::Turn;
use super::update::COUNTS_INTERVAL_MS;

/// Milliseconds a joined client has to get its media connected (LiveKit's 60 s).
pub const CONNECT_TIMEOUT_MS: u64 = 60_000;
/// Tokens that fall due within this many milliseconds are refreshed together, to wake the room less often.
const REFRESH_TOGETHER_MS: u64 = 60_000;

impl Room {
    /// When the room next wants [`super::event::Event::Alarm`]; earlier alarms do no harm.
    #[must_use]
    pub fn deadline(&self) -> Option<UnixMs> {
        if self.record.over || !self.record.created {
            return None;
        }
        let participants = self.participants.values().map(|p| self.participant_deadline(p));
        let nodes = self.nodes.values().filter_map(|node| node.link.lost_at());
        let counts = (self.counts() != self.record.told).then(|| self.record.told_at.after(COUNTS_INTERVAL_MS));
        let room = [
            self.record.ends_at(),
            self.placing_deadline(),
            self.nearer_deadline(),
            self.record.settles_at,
            self.quality_deadline(),
            self.jobs_deadline(),
            self.untold_deadline(),
            self.pipe_deadline(),
            self.forward_deadline(),
            counts,
        ];
        participants.chain(nodes).chain(room.into_iter().flatten()).min()
    }

    fn participant_deadline(&self, participant: &Participant) -> UnixMs {
        if let Some(since) = participant.gone_since {
            let kept = self.record.departure_timeout_ms();
            return match self.sessions.get(&participant.sid) {
                // It may be gone because it is to come back on a new socket.
                Some(session) if session.moving.is_some() => since.after(kept.max(MOVE_RESUME_MS)),
                Some(session) if session.media != Media::New => since.after(kept),
                _ => since,
            };
        }
        let connect_by = (!participant.active).then(|| participant.joined_at.after(CONNECT_TIMEOUT_MS));
        let move_by = self.move_deadline(&participant.sid);
        let others = [connect_by, move_by, participant.served_from, participant.answer_at];
        others.into_iter().flatten().fold(participant.refresh_at, UnixMs::min)
    }

    pub(super) fn alarm(&mut self, turn: &mut Turn) {
        let now = turn.now;
        let lost: Vec<NodeId> = self
            .nodes
            .iter()
            .filter(|(_, n)| n.link.lost_at().is_some_and(|at| at <= now))
            .map(|(id, _)| id.clone())
            .collect();
        for id in lost {
            self.lose_node(turn, &id);
        }
        let refresh = self.participants.values().any(|p| p.gone_since.is_none() && p.refresh_at <= now);
        for sid in self.participant_sids() {
            self.check_participant(turn, &sid, refresh);
            self.release_tracks(turn, &sid);
            self.answer_wishes(turn, &sid);
        }
        self.review_qualities(turn);
        self.review_jobs(turn);
        self.tell_untold(turn);
        self.check_pipes(turn);
        self.check_forwards(now);
        self.forget_settled(now);
        self.settle(turn);
        if self.record.ends_at().is_some_and(|at| at <= now) {
            self.end(turn, DisconnectReason::RoomClosed);
        }
    }

    /// Tracks were held back from a client that came back.
    fn release_tracks(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let due = |participant: &Participant| participant.served_from.is_some_and(|from| from <= turn.now);
        if !self.participants.get(sid).is_some_and(due) {
            return;
        }
        if let Some(participant) = self.participant_mut(sid) {
            participant.served_from = None;
        }
        self.offer_all_tracks(turn, sid);
    }

    fn check_participant(&mut self, turn: &mut Turn, sid: &ParticipantSid, refresh: bool) {
        let Some(participant) = self.participants.get(sid) else { return };
        let media = self.sessions.get(sid).map_or(Media::New, |session| session.media);
        if participant.gone_since.is_some() {
            if self.participant_deadline(participant) <= turn.now {
                let reason = match media {
                    Media::New | Media::Connected => DisconnectReason::SignalClose,
                    Media::Disconnected | Media::Ended => DisconnectReason::ConnectionTimeout,
                };
                self.remove(turn, sid, reason, None);
            }
        } else if !participant.active && participant.joined_at.after(CONNECT_TIMEOUT_MS) <= turn.now {
            self.remove(turn, sid, DisconnectReason::JoinFailure, Some(Action::Disconnect));
        } else if self.move_deadline(sid).is_some_and(|until| until <= turn.now) {
            self.check_move(turn, sid);
        } else if refresh && participant.refresh_at <= turn.now.after(REFRESH_TOGETHER_MS) {
            self.refresh_token(turn, sid);
        }
    }
}
