//! Participants leave: by themselves, by losing their socket or media, or by being sent away.

use livekit_protocol::DisconnectReason;
use livekit_protocol::leave_request::Action;
use shared::control::RoomToNode;
use shared::ids::{ParticipantSid, TrackSid};

use super::Room;
use super::effect::Effect;
use super::session::Media;
use super::turn::Turn;
use super::update::{departed, dismiss, is_hidden, leave};
use super::webhook::end_reason;

impl Room {
    /// The client said goodbye.
    pub(super) fn client_leaves(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        self.remove(turn, sid, DisconnectReason::ClientInitiated, Some(Action::Disconnect));
    }

    /// The socket is gone. Without media there is nothing to wait for.
    pub(super) fn client_gone(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        self.forget_connection(turn, sid);
        if self.sessions.get(sid).is_none_or(|session| session.media == Media::New) {
            self.remove(turn, sid, DisconnectReason::SignalClose, None);
        }
    }

    /// Takes a participant out of the room and tells the others; with an action, its client too.
    pub(super) fn remove(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        reason: DisconnectReason,
        action: Option<Action>,
    ) {
        let Some(info) = self.participant_info(sid) else { return };
        let hidden = is_hidden(&info);
        if let Some(action) = action {
            self.dismiss_client(turn, sid, reason, action);
        }
        if !hidden {
            let gone = departed(info, reason);
            self.tell(turn, &gone, |other, _| other != sid);
            self.note_departure(turn.now, &gone);
        }
        self.erase(turn, sid, reason);
    }

    /// Takes a participant out of the room with its session and tracks, without a word to anyone's client.
    pub(super) fn erase(&mut self, turn: &mut Turn, sid: &ParticipantSid, reason: DisconnectReason) {
        // Who goes to another room goes on there with the connection it has.
        let quietly = reason == DisconnectReason::Migration;
        if let Some((node, session)) = self.open_session_of(sid) {
            turn.send_node(&node, RoomToNode::CloseSession { session, quietly });
        }
        self.move_over(turn, sid);
        let watched: Vec<TrackSid> = self.served_to(sid).into_iter().map(|served| served.track).collect();
        let gone = self.participant_info(sid).map(|info| departed(info, reason));
        let Some(participant) = self.take_participant(sid) else { return };
        self.agents_without(turn.now, &participant.identity, reason);
        let seconds = turn.now.secs_since(participant.joined_at);
        turn.effects.push(Effect::Left { participant: sid.clone(), reason, seconds });
        watched.iter().for_each(|track| self.want_less(turn, track));
        for track in &participant.tracks {
            if let Some(ended) = self.remove_publication(track) {
                self.hook_unpublished(turn, &ended, participant.identity.as_str());
            }
        }
        self.drop_subscriptions_to(turn, &participant.tracks);
        self.forwards_without(turn, sid, reason);
        if let Some(gone) = gone {
            self.hook_left(turn, gone, participant.active);
        }
    }

    /// Media is over for good, but the client may join anew: it is told to, and kept in the list meanwhile.
    pub(super) fn end_session(&mut self, turn: &mut Turn, sid: &ParticipantSid, reason: DisconnectReason) {
        if let Some((node, session)) = self.open_session_of(sid) {
            turn.send_node(&node, RoomToNode::CloseSession { session, quietly: false });
        }
        self.move_over(turn, sid);
        let Some(session) = self.session_mut(sid) else { return };
        session.media = Media::Ended;
        session.node = None;
        let tracks: Vec<TrackSid> = self.participants.get(sid).map(|p| p.tracks.clone()).unwrap_or_default();
        self.dismiss_client(turn, sid, reason, Action::Reconnect);
        self.end_tracks(turn, sid, &tracks);
        self.offer_all_tracks(turn, sid);
    }

    /// Sends a leave and closes the client's socket.
    pub(super) fn dismiss_client(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        reason: DisconnectReason,
        action: Action,
    ) {
        let Some(participant) = self.participants.get(sid) else { return };
        let Some(connection) = participant.connection.clone() else { return };
        let message = leave(participant.protocol(), reason, action);
        dismiss(turn, &connection, message);
        self.forget_connection(turn, sid);
    }

    pub(super) fn forget_connection(&mut self, turn: &Turn, sid: &ParticipantSid) {
        let Some(participant) = self.participant_mut(sid) else { return };
        let Some(connection) = participant.connection.take() else { return };
        participant.gone_since = Some(turn.now);
        participant.queued.clear();
        self.connections.remove(&connection);
    }

    /// The room is over for everyone.
    pub(super) fn end(&mut self, turn: &mut Turn, reason: DisconnectReason) {
        for sid in self.participant_sids() {
            self.remove(turn, &sid, reason, Some(Action::Disconnect));
        }
        self.record_mut().over = true;
        self.hook_finished(turn, end_reason(reason));
        if self.involves_agents() {
            turn.effects.push(Effect::AgentsOver { sid: self.record.sid.clone() });
        }
        turn.effects.push(Effect::Directory(None));
    }
}
