//! What app servers hear of a room (LiveKit's `WebhookEvent`). Counts are those after the event.

use livekit_protocol as proto;
use livekit_protocol::{DisconnectReason, RoomEndReason};
use shared::ids::{ParticipantSid, TrackSid, random_part};

use super::Room;
use super::effect::Effect;
use super::publication::Publication;
use super::record::signed;
use super::turn::Turn;

impl Room {
    /// The room is there: somebody joins it, or an app server made it.
    pub(super) fn hook_started(&self, turn: &mut Turn) {
        post(turn, "room_started", proto::WebhookEvent { room: Some(self.info()), ..Default::default() });
    }

    /// The room is over.
    pub(super) fn hook_finished(&self, turn: &mut Turn, reason: RoomEndReason) {
        let room = Some(self.info());
        post(turn, "room_finished", proto::WebhookEvent { room, room_end_reason: reason.into(), ..Default::default() });
    }

    /// Its media is up: only now is it said to have joined.
    pub(super) fn hook_joined(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let (room, participant) = (Some(self.info()), self.participant_info(sid));
        post(turn, "participant_joined", proto::WebhookEvent { room, participant, ..Default::default() });
        for track in self.tracks_of(sid) {
            self.hook_published(turn, &track);
        }
    }

    /// A participant is out of the room; of one that never was active it was not said that it joined.
    pub(super) fn hook_left(&self, turn: &mut Turn, gone: proto::ParticipantInfo, was_active: bool) {
        let (room, participant) = (Some(self.info()), Some(gone));
        let name = if was_active { "participant_left" } else { "participant_connection_aborted" };
        post(turn, name, proto::WebhookEvent { room, participant, ..Default::default() });
    }

    /// A track is there for others, for the first time. Those of a participant that has not joined wait for that.
    pub(super) fn hook_published(&mut self, turn: &mut Turn, track: &TrackSid) {
        let Some(publication) = self.publications.get(track).filter(|track| track.visible && !track.hooked) else {
            return;
        };
        let Some(publisher) = self.participants.get(&publication.publisher).filter(|publisher| publisher.active) else {
            return;
        };
        self.hook_track(turn, "track_published", publication, publisher.identity.as_str());
        if let Some(publication) = self.publication_mut(track) {
            publication.hooked = true;
        }
    }

    /// A track that was there for others is gone.
    pub(super) fn hook_unpublished(&self, turn: &mut Turn, ended: &Publication, identity: &str) {
        if ended.hooked {
            self.hook_track(turn, "track_unpublished", ended, identity);
        }
    }

    /// Room and participant are only named.
    fn hook_track(&self, turn: &mut Turn, name: &str, publication: &Publication, identity: &str) {
        let room =
            proto::Room { sid: self.record.sid.to_string(), name: self.record.name.to_string(), ..Default::default() };
        let participant = proto::ParticipantInfo {
            sid: publication.publisher.to_string(),
            identity: identity.to_owned(),
            ..Default::default()
        };
        let (room, participant, track) = (Some(room), Some(participant), Some(publication.info.clone()));
        post(turn, name, proto::WebhookEvent { room, participant, track, ..Default::default() });
    }
}

/// Why a room ended, as far as participants are told.
pub(super) fn end_reason(reason: DisconnectReason) -> RoomEndReason {
    match reason {
        DisconnectReason::RoomDeleted => RoomEndReason::RoomEndApiDelete,
        DisconnectReason::RoomClosed => RoomEndReason::RoomEndIdleTimeout,
        _ => RoomEndReason::RoomEndUnknown,
    }
}

fn post(turn: &mut Turn, name: &str, event: proto::WebhookEvent) {
    let id = format!("EV_{}", random_part(turn.random()));
    let created_at = signed(turn.now.secs());
    let event = proto::WebhookEvent { event: name.to_owned(), id, created_at, ..event };
    turn.effects.push(Effect::Webhook(Box::new(event)));
}
