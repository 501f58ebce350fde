//! Who speaks: nodes tell each participant's loudness as it changes, the room passes it on to those who hear it. Nothing
//! of it is kept.

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message;
use shared::control::{LOUDEST_STEP, Speaking};
use shared::ids::{NodeId, ParticipantSid, SessionKey};

use super::Room;
use super::turn::Turn;

impl Room {
    /// Tells each client which of those it is subscribed to are louder or quieter, and itself; and rooms that show them.
    /// With newcomers it is for them alone: the others have heard of it.
    pub(super) fn speakers_changed(
        &mut self,
        turn: &mut Turn,
        id: &NodeId,
        mut changed: Vec<Speaking>,
        newcomers: &[SessionKey],
    ) {
        let before = changed.len();
        changed.retain(|speaking| self.is_current(id, &speaking.session));
        self.counters.dropped_stale += (before - changed.len()) as u64;
        let whose = |speaking: &Speaking| speaking.session.participant.clone();
        let speakers: Vec<_> = changed.iter().map(|one| (whose(one), info(&whose(one), one.step))).collect();
        self.tell_speakers(turn, &speakers, newcomers);
        // One that has just been shown elsewhere is a newcomer here.
        changed.retain(|speaking| newcomers.is_empty() || newcomers.contains(&speaking.session));
        self.forward_loudness(turn, &changed);
    }

    /// Tells each client what of this it may know; with newcomers these alone.
    pub(super) fn tell_speakers(
        &self,
        turn: &mut Turn,
        speakers: &[(ParticipantSid, proto::SpeakerInfo)],
        newcomers: &[SessionKey],
    ) {
        for (listener, participant) in &self.participants {
            let Some(connection) = &participant.connection else { continue };
            if !newcomers.is_empty() && !newcomers.iter().any(|newcomer| newcomer.participant == *listener) {
                continue;
            }
            let concerned = |(speaker, info): &&(ParticipantSid, proto::SpeakerInfo)| {
                speaker == listener || if info.active { self.hears(listener, speaker) } else { self.sees(speaker) }
            };
            let speakers: Vec<_> = speakers.iter().filter(concerned).map(|(_, info)| info.clone()).collect();
            if !speakers.is_empty() {
                turn.send_client(connection, Message::SpeakersChanged(proto::SpeakersChanged { speakers }));
            }
        }
    }

    /// Who heard it before may not be served its tracks any more: its end is told to everyone who knows of it.
    fn sees(&self, speaker: &ParticipantSid) -> bool {
        self.participants.get(speaker).is_some_and(|speaker| !speaker.permission.hidden)
    }

    /// It is served a track of the other.
    pub(super) fn hears(&self, listener: &ParticipantSid, speaker: &ParticipantSid) -> bool {
        let Some(mine) = self.subscriptions.get(listener) else { return false };
        let tracks = self.participants.get(speaker).map(|speaker| speaker.tracks.as_slice()).unwrap_or_default();
        tracks.iter().any(|track| mine.get(track).is_some_and(|subscription| subscription.served))
    }
}

/// As clients are told of a participant.
pub(super) fn info(sid: &ParticipantSid, step: u8) -> proto::SpeakerInfo {
    let step = step.min(LOUDEST_STEP);
    proto::SpeakerInfo { sid: sid.to_string(), level: f32::from(step) / f32::from(LOUDEST_STEP), active: step > 0 }
}
