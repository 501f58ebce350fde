//! What a room is made with: of `CreateRoom`, or of the token that creates it. **Later ones change nothing of it.**

use livekit_protocol as proto;
use shared::control::{PlayoutDelay, PlayoutDelayError};
use shared::ids::ParticipantSid;

use super::Room;
use super::dispatch::check_agents;
use super::event::JoinAttempt;
use super::participant::Client;
use super::publication::Publication;
use super::service::{Code, Error};
use crate::refusal::{Reason, Refusal};

/// The fields of a `RoomConfiguration` that a room heeds, in both spellings of proto3 JSON.
const FIELDS: [&str; 14] = [
    "emptyTimeout",
    "empty_timeout",
    "departureTimeout",
    "departure_timeout",
    "maxParticipants",
    "max_participants",
    "metadata",
    "agents",
    "minPlayoutDelay",
    "min_playout_delay",
    "maxPlayoutDelay",
    "max_playout_delay",
    "syncStreams",
    "sync_streams",
];
/// Signal protocol from which clients tell tracks apart that come in one stream (LiveKit's).
const SYNC_STREAMS_PROTOCOL: u32 = 10;

/// The configuration of a room that is made by name.
pub(super) fn of_request(request: &proto::CreateRoomRequest) -> proto::RoomConfiguration {
    proto::RoomConfiguration {
        empty_timeout: request.empty_timeout,
        departure_timeout: request.departure_timeout,
        max_participants: request.max_participants,
        metadata: request.metadata.clone(),
        min_playout_delay: request.min_playout_delay,
        max_playout_delay: request.max_playout_delay,
        sync_streams: request.sync_streams,
        agents: request.agents.clone(),
        ..Default::default()
    }
}

/// The configuration a token brings for a room it creates.
///
/// # Errors
/// It cannot be read, or no room can be like that.
pub(super) fn of_token(attempt: &JoinAttempt) -> Result<proto::RoomConfiguration, Refusal> {
    if !attempt.claims.room_preset.is_empty() {
        // Nor must they believe that there are presets.
        return Err(Refusal::new(Reason::RoomConfigUnsupported, "roomPreset of the token: there are no presets"));
    }
    let Some(value) = &attempt.claims.room_config else { return Ok(proto::RoomConfiguration::default()) };
    if value.get("egress").is_some_and(|egress| !egress.is_null()) {
        // Whoever asks for a recording must not believe that there is one.
        let text = "roomConfig of the token: egress is not implemented: mint it without";
        return Err(Refusal::new(Reason::RoomConfigUnsupported, text));
    }
    let mut known = value.clone();
    if let Some(fields) = known.as_object_mut() {
        // What later versions of the protocol add is no fault of the token.
        fields.retain(|field, _| FIELDS.contains(&field.as_str()));
    }
    let refused = |error: &dyn std::fmt::Display| {
        Refusal::new(Reason::RoomConfigMalformed, &format!("roomConfig of the token: {error}"))
    };
    let config: proto::RoomConfiguration = serde_json::from_str(&known.to_string()).map_err(|error| refused(&error))?;
    check(&config).map_err(|error| refused(&error.text))?;
    Ok(config)
}

/// Whether a room can be like that.
///
/// # Errors
/// Why not.
pub(crate) fn check(config: &proto::RoomConfiguration) -> Result<(), Error> {
    check_agents(&config.agents)?;
    playout_delay(config).map(drop).map_err(|error| {
        let argument = match error {
            PlayoutDelayError::TooLong if config.max_playout_delay > PlayoutDelay::MAX_MS.into() => "max_playout_delay",
            PlayoutDelayError::TooLong | PlayoutDelayError::Reversed => "min_playout_delay",
        };
        Error { argument: Some(argument.to_owned()), ..Error::new(Code::InvalidArgument, &error.to_string()) }
    })
}

/// How late subscribers show video, if the room says so.
///
/// # Errors
/// It cannot be that.
pub(super) fn playout_delay(config: &proto::RoomConfiguration) -> Result<Option<PlayoutDelay>, PlayoutDelayError> {
    PlayoutDelay::new(config.min_playout_delay, config.max_playout_delay)
}

impl Room {
    /// What the node is to ask a client for with every video, in this room or the one it makes with `config`.
    pub(super) fn playout_delay_for(
        &self,
        client: &Client,
        config: Option<&proto::RoomConfiguration>,
    ) -> Option<PlayoutDelay> {
        let (delay, sync) = match config.filter(|_| !self.record.created) {
            Some(config) => (playout_delay(config).unwrap_or_default(), config.sync_streams),
            None => (self.record.playout_delay, self.record.sync_streams),
        };
        // A browser that keeps no streams in step would show the video alone later (LiveKit's rule).
        delay.filter(|_| !sync || client.takes_common_streams())
    }

    /// The stream in which a subscriber gets a track together with others of its publisher; `None`: in one of its own.
    pub(super) fn common_stream(&self, subscriber: &ParticipantSid, publication: &Publication) -> Option<String> {
        let takes = || self.participants.get(subscriber).is_some_and(|one| one.client.takes_common_streams());
        let stream = Some(&publication.info.stream).filter(|stream| self.record.sync_streams && !stream.is_empty());
        stream.filter(|_| takes()).cloned()
    }
}

impl Client {
    /// Firefox does not keep a stream's tracks in step, and makes up their ids (LiveKit's rule).
    fn takes_common_streams(&self) -> bool {
        self.traits.protocol >= SYNC_STREAMS_PROTOCOL && self.traits.browser != "firefox"
    }
}
