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

/// What of a profile is over its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// [`MAX_NAME_LEN`].
    Name,
    /// [`MAX_METADATA_LEN`].
    Metadata,
    /// [`MAX_ATTRIBUTES_LEN`].
    Attributes,
}

impl Room {
    /// An empty text leaves a field as it is; an empty attribute deletes it.
    pub(super) fn update_metadata(
        &mut self,
        turn: &mut Turn,
        sid: &ParticipantSid,
        request: proto::UpdateParticipantMetadata,
    ) {
        let may = self.participants.get(sid).is_some_and(|participant| participant.permission.can_update_metadata);
        let (reason, message) = if may {
            match self.change_profile(sid, &request.name, &request.metadata, &request.attributes) {
                Ok(()) => {
                    self.publish_update(turn, sid);
                    self.refresh_token(turn, sid);
                    (Reason::Ok, "")
                }
                Err(Excess::Name) => (Reason::LimitExceeded, "exceeds name length limit"),
                Err(Excess::Metadata) => (Reason::LimitExceeded, "exceeds metadata size limit"),
                Err(Excess::Attributes) => (Reason::LimitExceeded, "exceeds attributes size limit"),
            }
        } else {
            (Reason::NotAllowed, "does not have permission to update own metadata")
        };
        let request_id = request.request_id;
        self.respond(turn, sid, request_id, reason, message.to_owned(), Some(Request::UpdateMetadata(request)));
    }

    /// Changes name, metadata and attributes; empty texts leave them as they are, an empty attribute is deleted.
    ///
    /// # Errors
    /// What is over its limit; nothing is changed then.
    pub(super) fn change_profile(
        &mut self,
        sid: &ParticipantSid,
        name: &str,
        metadata: &str,
        attributes: &HashMap<String, String>,
    ) -> Result<(), Excess> {
        let Some(participant) = self.participants.get(sid) else { return Ok(()) };
        if name.len() > MAX_NAME_LEN {
            return Err(Excess::Name);
        }
        if !fits_metadata(metadata) {
            return Err(Excess::Metadata);
        }
        let mut all = participant.claims.attributes.clone();
        all.extend(attributes.iter().map(|(key, value)| (key.clone(), value.clone())));
        all.retain(|_, value| !value.is_empty());
        if all.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() > MAX_ATTRIBUTES_LEN {
            return Err(Excess::Attributes);
        }
        let Some(participant) = self.participant_mut(sid) else { return Ok(()) };
        participant.claims.attributes = all;
        if !name.is_empty() {
            name.clone_into(&mut participant.claims.name);
        }
        if !metadata.is_empty() {
            metadata.clone_into(&mut participant.claims.metadata);
        }
        Ok(())
    }
}

/// Whether metadata is within its limits.
pub(crate) fn fits_metadata(text: &str) -> bool {
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
pub(crate) fn attributes_len(attributes: &HashMap<String, String>) -> usize {
    attributes.iter().map(|(key, value)| key.len() + value.len()).sum()
}
