//! `update_metadata`: a client changes its own name, metadata and attributes.

use std::collections::HashMap;

use livekit_protocol as proto;
use livekit_protocol::request_response::{Reason, Request};
use shared::ids::{MAX_NAME_LEN, ParticipantSid};

use super::Room;
use super::turn::Turn;

/// Longest participant metadata, bytes (LiveKit's).
pub const MAX_METADATA_LEN: usize = 512 * 1024;
/// Longest participant metadata as JSON text, bytes: a row of an object's storage holds 2 MB.
const MAX_STORED_METADATA_LEN: usize = 1024 * 1024;
/// Longest participant attributes, bytes of all keys and values (LiveKit's).
pub const MAX_ATTRIBUTES_LEN: usize = 64 * 1024;

impl Room {
    /// An empty text leaves a field as it is; an empty attribute deletes it.
    pub(super) fn update_metadata(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request: proto::UpdateParticipantMetadata,
    ) {
        let (reason, message) = match self.apply_metadata(sid, &request) {
            Ok(()) => {
                self.publish_update(turn, sid);
                self.refresh_token(turn, sid);
                (Reason::Ok, "")
            }
            Err(refused) => refused,
        };
        let request_id = request.request_id;
        self.respond(turn, sid, request_id, reason, message.to_owned(), Some(Request::UpdateMetadata(request)));
    }

    fn apply_metadata(
        &mut self,
        sid: &ParticipantSid,
        request: &proto::UpdateParticipantMetadata,
    ) -> Result<(), (Reason, &'static str)> {
        let Some(participant) = self.participants.get(sid) else { return Err((Reason::NotFound, "")) };
        if !participant.permission.can_update_metadata {
            return Err((Reason::NotAllowed, "does not have permission to update own metadata"));
        }
        if request.name.len() > MAX_NAME_LEN {
            return Err((Reason::LimitExceeded, "exceeds name length limit"));
        }
        if !fits_metadata(&request.metadata) {
            return Err((Reason::LimitExceeded, "exceeds metadata size limit"));
        }
        let mut attributes = participant.claims.attributes.clone();
        attributes.extend(request.attributes.iter().map(|(key, value)| (key.clone(), value.clone())));
        attributes.retain(|_, value| !value.is_empty());
        if attributes.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_ATTRIBUTES_LEN {
            return Err((Reason::LimitExceeded, "exceeds attributes size limit"));
        }
        let Some(participant) = self.participant_mut(sid) else { return Err((Reason::NotFound, "")) };
        participant.claims.attributes = attributes;
        if !request.name.is_empty() {
            participant.claims.name.clone_from(&request.name);
        }
        if !request.metadata.is_empty() {
            participant.claims.metadata.clone_from(&request.metadata);
        }
        Ok(())
    }
}

/// Whether metadata is within its limits.
pub(super) fn fits_metadata(text: &str) -> bool {
    text.len() <= MAX_METADATA_LEN && text.bytes().map(stored_len).sum::<usize>() <= MAX_STORED_METADATA_LEN
}

/// Bytes a byte takes as JSON text (RFC 8259 section 7).
fn stored_len(byte: u8) -> usize {
    match byte {
        0..=0x1f => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    }
}

/// Bytes of all keys and values.
pub(super) fn attributes_len(attributes: &HashMap<String, String>) -> usize {
    attributes.iter().map(|(key, value)| key.len() + value.len()).sum()
}
