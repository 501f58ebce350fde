//! What clients are told: participant updates, request responses, counters.

use livekit_protocol as proto;
use livekit_protocol::participant_info::State;
use livekit_protocol::request_response::{Reason, Request};
use livekit_protocol::signal_response::Message;
use prost::Message as _;
use shared::ids::ParticipantSid;

use super::Room;
use super::effect::{DirectoryEntry, Effect};
use super::event::ConnectionId;
use super::turn::Turn;

/// Milliseconds between two announcements of the counters, when they change (LiveKit's).
pub(super) const COUNTS_INTERVAL_MS: u64 = 5_000;
/// Bytes of participants in one `update` (LiveKit's).
const MAX_UPDATE_LEN: usize = 128 * 1024;
/// Clients below this signal protocol cannot decode `request_response` (Rust SDKs).
const RESPONSE_PROTOCOL: u32 = 10;
/// Clients from this signal protocol on get a `request_response` on success too.
const OK_RESPONSE_PROTOCOL: u32 = 15;

impl Room {
    /// Sends to a participant's client, if it has one now.
    pub(super) fn send(&self, turn: &mut Turn, sid: &ParticipantSid, message: Message) {
        if let Some(connection) = self.participants.get(sid).and_then(|participant| participant.connection.as_ref()) {
            turn.send_client(connection, message);
        }
    }

    /// Answers a request with a reason.
    pub(super) fn respond(
        &self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request_id: u32,
        reason: Reason,
        message: String,
        request: Option<Request>,
    ) {
        let least = if reason == Reason::Ok { OK_RESPONSE_PROTOCOL } else { RESPONSE_PROTOCOL };
        if self.participants.get(sid).is_some_and(|participant| participant.protocol() >= least) {
            let response = proto::RequestResponse { request_id, reason: reason.into(), message, request };
            self.send(turn, sid, Message::RequestResponse(response));
        }
    }

    /// A participant changed: counts its version up and tells everyone who may see it, itself included.
    pub(super) fn publish_update(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some(participant) = self.participant_mut(sid) else { return };
        participant.version += 1;
        participant.untold = false;
        let hidden = participant.permission.hidden;
        let Some(info) = self.participant_info(sid) else { return };
        if hidden {
            self.send(turn, sid, update(info));
        } else {
            self.tell(turn, &info, |_, _| true);
        }
    }

    /// A participant changed, which the others are told later.
    pub(super) fn update_own(&mut self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some(participant) = self.participant_mut(sid) else { return };
        participant.version += 1;
        if let Some(info) = self.participant_info(sid) {
            self.send(turn, sid, update(info));
        }
    }

    /// Sends a participant's state to those clients that the filter takes.
    pub(super) fn tell(
        &self,
        turn: &mut Turn,
        info: &proto::ParticipantInfo,
        filter: impl Fn(&ParticipantSid, u32) -> bool,
    ) {
        let told = self.participants.iter().filter(|(sid, participant)| filter(sid, participant.protocol()));
        turn.send_clients(told.filter_map(|(_, participant)| participant.connection.as_ref()), update(info.clone()));
    }

    /// A participant as others see it, with its visible tracks in the order announced.
    pub(super) fn participant_info(&self, sid: &ParticipantSid) -> Option<proto::ParticipantInfo> {
        let participant = self.participants.get(sid)?;
        let visible = participant.tracks.iter().filter_map(|t| self.publications.get(t)).filter(|p| p.visible);
        Some(participant.info(visible.map(|publication| publication.info.clone()).collect()))
    }

    /// Tells clients and directory the counters if they changed, at most once in [`COUNTS_INTERVAL_MS`]; that it is being
    /// recorded at once.
    pub(super) fn tell_counts(&mut self, turn: &mut Turn) {
        let counts = self.counts();
        let (told, at) = (self.record.told, self.record.told_at);
        if counts == told || (counts.recording == told.recording && turn.now < at.after(COUNTS_INTERVAL_MS)) {
            return;
        }
        self.announce_room(turn);
    }

    /// LiveKit's `Room` as of now.
    pub(super) fn info(&self) -> proto::Room {
        self.record.info(self.counts())
    }

    /// Tells clients and directory what the room is like now.
    pub(super) fn announce_room(&mut self, turn: &mut Turn) {
        self.note_counts(turn);
        let room = self.info();
        let all = self.participants.values().filter_map(|participant| participant.connection.as_ref());
        turn.send_clients(all, Message::RoomUpdate(proto::RoomUpdate { room: Some(room) }));
    }

    /// Writes the counters to the directory.
    pub(super) fn note_counts(&mut self, turn: &mut Turn) {
        let counts = self.counts();
        let now = turn.now;
        let record = self.record_mut();
        record.told = counts;
        record.told_at = now;
        let entry = DirectoryEntry {
            sid: record.sid.to_string(),
            created_at: record.created_at.0,
            participants: counts.participants,
            publishers: counts.publishers,
            room: Some(Box::new(record.info(counts))),
        };
        turn.effects.push(Effect::Directory(Some(entry)));
    }
}

/// `ParticipantInfo` of one who left.
pub(super) fn departed(mut info: proto::ParticipantInfo, reason: proto::DisconnectReason) -> proto::ParticipantInfo {
    info.state = State::Disconnected.into();
    info.version += 1;
    info.tracks.clear();
    info.disconnect_reason = reason.into();
    info
}

/// Nobody else sees one of this `ParticipantInfo`.
pub(super) fn is_hidden(info: &proto::ParticipantInfo) -> bool {
    info.permission.as_ref().is_some_and(|permission| permission.hidden)
}

/// A `leave`; clients below protocol 13 know `can_reconnect` only.
pub(super) fn leave(protocol: u32, reason: proto::DisconnectReason, action: proto::leave_request::Action) -> Message {
    use proto::leave_request::Action;
    const ACTION_PROTOCOL: u32 = 13;
    let reason = reason.into();
    Message::Leave(if protocol >= ACTION_PROTOCOL {
        proto::LeaveRequest { reason, action: action.into(), ..Default::default() }
    } else {
        proto::LeaveRequest { reason, can_reconnect: action != Action::Disconnect, ..Default::default() }
    })
}

/// Sends a leave and closes: **nothing may follow on this connection.**
pub(super) fn dismiss(turn: &mut Turn, connection: &ConnectionId, leave: Message) {
    turn.send_client(connection, leave);
    turn.effects.push(Effect::CloseClient { connection: connection.clone() });
}

/// As few messages as hold these participants, and are not too long.
pub(super) fn updates(infos: impl IntoIterator<Item = proto::ParticipantInfo>) -> Vec<Message> {
    let mut parts: Vec<Vec<proto::ParticipantInfo>> = Vec::new();
    let mut room = 0;
    for info in infos {
        let length = info.encoded_len();
        match parts.last_mut().filter(|_| length <= room) {
            Some(part) => part.push(info),
            None => {
                parts.push(vec![info]);
                room = MAX_UPDATE_LEN;
            }
        }
        room = room.saturating_sub(length);
    }
    parts.into_iter().map(|participants| Message::Update(proto::ParticipantUpdate { participants })).collect()
}

fn update(info: proto::ParticipantInfo) -> Message {
    Message::Update(proto::ParticipantUpdate { participants: vec![info] })
}
