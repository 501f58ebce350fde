//! Typed ids. A value that exists is legal: parsing checks prefix, alphabet and length.

use std::fmt;

use serde::{Deserialize, Serialize};

/// LiveKit's id alphabet (base57: no `0 1 I O l`).
pub const ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
/// Random characters after an id's prefix.
pub const RANDOM_LEN: usize = 12;
/// Longest room name, participant identity, and participant name, in bytes.
pub const MAX_NAME_LEN: usize = 256;

/// Why a string is not an id or a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The prefix, length or alphabet is not the id's.
    #[error("not a {0} id")]
    Malformed(&'static str),
    /// A name or identity without a character.
    #[error("must not be empty")]
    Empty,
    /// A name or identity longer than [`MAX_NAME_LEN`] bytes.
    #[error("longer than {MAX_NAME_LEN} bytes")]
    TooLong,
}

/// `RANDOM_LEN` characters of the id alphabet from as many random bytes.
///
/// 57 does not divide 256, so the first 28 letters come up 25 % more often: 69 bits remain of 70.
#[must_use]
pub fn random_part(random: [u8; RANDOM_LEN]) -> String {
    random.iter().map(|b| char::from(ALPHABET.get(usize::from(*b) % ALPHABET.len()).copied().unwrap_or(b'2'))).collect()
}

macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text as it stands on the wire.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                let check: fn(&str) -> Result<(), IdError> = $parse;
                check(&text)?;
                Ok(Self(text))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = IdError;
            fn try_from(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn check_name(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_NAME_LEN {
        return Err(IdError::TooLong);
    }
    Ok(())
}

fn check_sid(text: &str, prefix: &'static str, max_len: usize) -> Result<(), IdError> {
    let rest = text.strip_prefix(prefix).ok_or(IdError::Malformed(prefix))?;
    let legal = !rest.is_empty() && rest.len() <= max_len && rest.bytes().all(|b| b.is_ascii_alphanumeric());
    if legal { Ok(()) } else { Err(IdError::Malformed(prefix)) }
}

text_type!(
    /// A room's name: what a token's `video.room` says. Unique in a deployment.
    RoomName, check_name);
text_type!(
    /// A participant's identity: a token's `sub`. Unique in a room.
    Identity, check_name);
text_type!(
    /// `RM_…`: one life of a room.
    RoomSid, |t| check_sid(t, "RM_", RANDOM_LEN));
text_type!(
    /// `PA_…`: one join of a participant. New on every join that is not a resume.
    ParticipantSid, |t| check_sid(t, "PA_", RANDOM_LEN));
text_type!(
    /// `TR_` + kind letter + source letter + random: one published track.
    TrackSid, |t| check_sid(t, "TR_", RANDOM_LEN + 2));
text_type!(
    /// `ND_…`: one node, for as long as it keeps its key.
    NodeId, |t| check_sid(t, "ND_", RANDOM_LEN));
text_type!(
    /// `AD_…`: one wish of a room for an agent.
    DispatchId, |t| check_sid(t, "AD_", RANDOM_LEN));
text_type!(
    /// `AJ_…`: one piece of work for an agent.
    JobId, |t| check_sid(t, "AJ_", RANDOM_LEN));
text_type!(
    /// `AW_…`: one connection of an agent worker.
    WorkerId, |t| check_sid(t, "AW_", RANDOM_LEN));
text_type!(
    /// What workers of one program call themselves; empty: they are dispatched to every room.
    AgentName, |t| if t.len() > MAX_NAME_LEN { Err(IdError::TooLong) } else { Ok(()) });
text_type!(
    /// A region's name, such as `eu-central`.
    RegionName, check_name);

impl RoomSid {
    /// A new id from random bytes.
    #[must_use]
    pub fn from_random(random: [u8; RANDOM_LEN]) -> Self {
        Self(format!("RM_{}", random_part(random)))
    }
}

impl ParticipantSid {
    /// A new id from random bytes.
    #[must_use]
    pub fn from_random(random: [u8; RANDOM_LEN]) -> Self {
        Self(format!("PA_{}", random_part(random)))
    }
}

impl NodeId {
    /// A new id from random bytes.
    #[must_use]
    pub fn from_random(random: [u8; RANDOM_LEN]) -> Self {
        Self(format!("ND_{}", random_part(random)))
    }
}

impl DispatchId {
    /// A new id from random bytes.
    #[must_use]
    pub fn from_random(random: [u8; RANDOM_LEN]) -> Self {
        Self(format!("AD_{}", random_part(random)))
    }
}

impl JobId {
    /// A new id from random bytes.
    #[must_use]
    pub fn from_random(random: [u8; RANDOM_LEN]) -> Self {
        Self(format!("AJ_{}", random_part(random)))
    }
}

impl WorkerId {
    /// A new id from random bytes.
    #[must_use]
    pub fn from_random(random: [u8; RANDOM_LEN]) -> Self {
        Self(format!("AW_{}", random_part(random)))
    }
}

impl AgentName {
    /// The name of workers that have none.
    #[must_use]
    pub fn unnamed() -> Self {
        Self(String::new())
    }

    /// Whether workers of this name are dispatched to every room.
    #[must_use]
    pub fn is_unnamed(&self) -> bool {
        self.0.is_empty()
    }
}

impl TrackSid {
    /// A new id; `letters` is LiveKit's kind and source, such as `AM` (audio, microphone) or `VC`.
    #[must_use]
    pub fn from_random(letters: &str, random: [u8; RANDOM_LEN]) -> Self {
        Self(format!("TR_{letters}{}", random_part(random)))
    }
}

/// Counts the sessions a participant has had; a message of an older generation is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default)]
pub struct Generation(pub u32);

/// One participant's media on one node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SessionKey {
    /// Whose session.
    pub participant: ParticipantSid,
    /// Which of the participant's sessions.
    pub generation: Generation,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.participant, self.generation.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sids_keep_prefix_and_alphabet() {
        let sid = ParticipantSid::from_random([255; RANDOM_LEN]);
        assert_eq!(ParticipantSid::try_from(sid.as_str()).unwrap(), sid);
        assert!(ParticipantSid::try_from("PA_").is_err());
        assert!(ParticipantSid::try_from("TR_AM9DHZyfS89Dc4").is_err());
        assert!(ParticipantSid::try_from("PA_a|b").is_err());
        assert!(TrackSid::try_from("TR_AM9DHZyfS89Dc4").is_ok());
    }

    #[test]
    fn names_are_bounded() {
        assert_eq!(RoomName::try_from(""), Err(IdError::Empty));
        assert!(RoomName::try_from("x".repeat(MAX_NAME_LEN)).is_ok());
        assert_eq!(RoomName::try_from("x".repeat(MAX_NAME_LEN + 1)), Err(IdError::TooLong));
    }

    #[test]
    fn deserializing_checks_too() {
        assert!(serde_json::from_str::<RoomSid>("\"RM_KYftpTJjWCr8\"").is_ok());
        assert!(serde_json::from_str::<RoomSid>("\"KYftpTJjWCr8\"").is_err());
    }
}
