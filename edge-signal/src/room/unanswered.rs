//! Wishes for tracks that do not come: after a while the client is told.

use livekit_protocol as proto;
use livekit_protocol::SubscriptionError;
use livekit_protocol::signal_response::Message;
use shared::ids::{ParticipantSid, TrackSid};

use super::Room;
use super::event::UnixMs;
use super::subscription::Subscription;
use super::turn::Turn;

/// Milliseconds that a track may take to come (LiveKit's).
pub const TRACK_TIMEOUT_MS: u64 = 60_000;

impl Room {
    /// A wish is to be answered in time.
    pub(super) fn answer_in_time(&mut self, now: UnixMs, sid: &ParticipantSid) {
        if let Some(participant) = self.participant_mut(sid) {
            participant.answer_at.get_or_insert(now.after(TRACK_TIMEOUT_MS));
        }
    }

    /// Tells a client which of the tracks it wished for have not come.
    pub(super) fn answer_wishes(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let now = turn.now;
        if self.participants.get(sid).and_then(|p| p.answer_at).is_none_or(|at| at > now) {
            return;
        }
        let mine = self.subscriptions.get(sid).into_iter().flatten();
        let waiting = mine.filter_map(|(track, mine)| Some((track.clone(), *mine, mine.unanswered?)));
        let waiting: Vec<(TrackSid, Subscription, UnixMs)> =
            waiting.filter(|(track, ..)| !self.publications.contains_key(track)).collect();
        let next = waiting.iter().map(|(.., since)| since.after(TRACK_TIMEOUT_MS)).filter(|at| *at > now).min();
        if let Some(participant) = self.participant_mut(sid) {
            participant.answer_at = next;
        }
        for (track, mine, _) in waiting.into_iter().filter(|(.., since)| since.after(TRACK_TIMEOUT_MS) <= now) {
            self.put_subscription(sid, &track, Subscription { unanswered: None, ..mine });
            let err = SubscriptionError::SeTrackNotfound.into();
            let response = proto::SubscriptionResponse { track_sid: track.to_string(), err };
            self.send(turn, sid, Message::SubscriptionResponse(response));
        }
    }
}
