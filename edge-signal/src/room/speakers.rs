//! Who speaks: nodes tell each participant's loudness as it changes, the room passes it on to those who hear it. Nothing
//! of it is kept.

use livekit_protocol as proto;
use livekit_protocol::signal_response::Message;
use shared::control::{LOUDEST_STEP, Speaking};
use shared::ids::{NodeId, ParticipantSid};

use super::Room;
use super::turn::Turn;

impl Room {
    /// Tells each client which of those it is subscribed to are louder or quieter, and itself.
    pub(super) fn speakers_changed(&mut self, turn: &mut Turn, id: &NodeId, changed: &[Speaking]) {
        let mut speakers = Vec::with_capacity(changed.len());
        for speaking in changed {
            if self.is_current(id, &speaking.session) {
                speakers.push((&speaking.session.participant, info(speaking)));
            } else {
                self.counters.dropped_stale += 1;
            }
        }
        for (listener, participant) in &self.participants {
            let Some(connection) = &participant.connection else { continue };
            let concerned = |(speaker, info): &&(&ParticipantSid, proto::SpeakerInfo)| {
                *speaker == listener || if info.active { self.hears(listener, speaker) } else { self.sees(speaker) }
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

fn info(speaking: &Speaking) -> proto::SpeakerInfo {
    let step = speaking.step.min(LOUDEST_STEP);
    proto::SpeakerInfo {
        sid: speaking.session.participant.to_string(),
        level: f32::from(step) / f32::from(LOUDEST_STEP),
        active: step > 0,
    }
}
