//! A permission changes in mid-call: nodes enforce it, and what is no longer allowed ends.

use livekit_protocol as proto;
use livekit_protocol::DisconnectReason;
use livekit_protocol::signal_response::Message;
use shared::control::RoomToNode;
use shared::ids::{ParticipantSid, TrackSid};

use super::Room;
use super::turn::Turn;
use super::update::departed;

impl Room {
    /// What a participant may do, be and see from now on; what is no longer allowed ends.
    pub(super) fn change_permission(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        permission: proto::ParticipantPermission,
    ) {
        let Some(participant) = self.participant_mut(sid) else { return };
        let was_hidden = participant.permission.hidden;
        let hidden = permission.hidden;
        participant.permit(permission);
        self.tell_grants(turn, sid);
        if hidden && !was_hidden {
            self.hide(turn, sid);
        }
        self.end_forbidden_tracks(turn, sid);
        self.publish_update(turn, sid);
        let own = self.tracks_of(sid);
        self.settle_everyone(turn, &own);
        self.offer_all_tracks(turn, sid);
    }

    /// Has the node enforce the grants as they are now.
    pub(super) fn tell_grants(&self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some((node, session)) = self.open_session_of(sid) else { return };
        if let Some(participant) = self.participants.get(sid) {
            let grants = participant.media_grants();
            turn.send_node(&node, RoomToNode::UpdateGrants { session, grants });
        }
    }

    /// For the others it has left.
    fn hide(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some(info) = self.participant_info(sid) else { return };
        let gone = departed(info, DisconnectReason::UnknownReason);
        if let Some(participant) = self.participant_mut(sid) {
            participant.version = gone.version;
        }
        self.tell(turn, &gone, |other, _| other != sid);
        self.note_departure(turn.now, &gone);
    }

    fn end_forbidden_tracks(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some(participant) = self.participants.get(sid) else { return };
        let source = |track: &TrackSid| self.publications.get(track).map(|p| p.info.source());
        let forbidden = |track: &&TrackSid| source(track).is_some_and(|source| !participant.may_publish(source));
        let forbidden: Vec<TrackSid> = participant.tracks.iter().filter(forbidden).cloned().collect();
        for track in forbidden {
            if let Some((node, session)) = self.open_session_of(sid) {
                turn.send_node(&node, RoomToNode::RetractTrack { session, track: track.clone() });
            }
            self.end_tracks(turn, sid, std::slice::from_ref(&track));
            let unpublished = proto::TrackUnpublishedResponse { track_sid: track.to_string() };
            self.send(turn, sid, Message::TrackUnpublished(unpublished));
        }
    }
}
