//! Who is forwarded is heard to speak and seen to fare well or badly in the other room too. Of that only what was told last
//! of a connection is kept: who comes later has to hear of it.

use livekit_protocol as proto;
use shared::control::{RoomToNode, SessionQuality, Speaking};
use shared::ids::{ParticipantSid, RoomName};

use super::News;
use super::source::ForwardKey;
use crate::room::Room;
use crate::room::turn::Turn;
use crate::room::{quality, speakers};

impl Room {
    /// Tells other rooms who is louder or quieter.
    pub(in crate::room) fn forward_loudness(&self, turn: &mut Turn, changed: &[Speaking]) {
        for speaking in changed {
            for to in self.shown_in(&speaking.session.participant) {
                self.send_word(turn, &to.1, &to.0, turn.now.0, News::Loud(speaking.step));
            }
        }
    }

    /// Tells other rooms how connections are, where they have not heard that.
    pub(in crate::room) fn forward_quality(&mut self, turn: &mut Turn, told: &[SessionQuality]) {
        for SessionQuality { session, score } in told {
            for to in self.shown_in(&session.participant) {
                let known = self.forwards.get(&to).and_then(|forward| forward.score);
                if known == Some(*score) {
                    continue;
                }
                if let Some(forward) = self.forward_mut(&to) {
                    forward.score = Some(*score);
                }
                self.send_word(turn, &to.1, &to.0, turn.now.0, News::Fares(*score));
            }
        }
    }

    /// Another room has just taken it: its node is asked how it fares.
    pub(super) fn ask_how_it_fares(&self, turn: &mut Turn, sid: &ParticipantSid) {
        let Some((node, session)) = self.open_session_of(sid) else { return };
        if self.can_open_at(&node) {
            turn.send_node(&node, RoomToNode::TellQuality { newcomers: vec![session] });
        }
    }

    fn shown_in(&self, sid: &ParticipantSid) -> Vec<ForwardKey> {
        let shown = self.forwards.iter().filter(|((participant, _), forward)| participant == sid && forward.accepted);
        shown.map(|(key, _)| key.clone()).collect()
    }

    /// The other room says how loud it is.
    pub(super) fn hear_loudness(&self, turn: &mut Turn, from: &RoomName, participant: &ParticipantSid, step: u8) {
        if let Some(sid) = self.forwarded_from(from, participant) {
            let info = speakers::info(&sid, step);
            self.tell_speakers(turn, &[(sid, info)], &[]);
        }
    }

    /// The other room says how its connection is.
    pub(super) fn hear_quality(
        &mut self,
        turn: &mut Turn,
        from: &RoomName,
        participant: &ParticipantSid,
        score: Option<u8>,
    ) {
        let Some(sid) = self.forwarded_from(from, participant) else { return };
        if let Some(forwarded) = self.forwarded_mut(&sid) {
            forwarded.score = Some(score);
        }
        let info = quality::info(&sid, score);
        self.tell_qualities(turn, &[(sid, info)], &[], &[]);
    }

    /// How those fare who are forwarded to here, as far as that is known.
    pub(in crate::room) fn qualities_of_forwarded(&self) -> Vec<(ParticipantSid, proto::ConnectionQualityInfo)> {
        let known = self.forwarded.iter().filter_map(|(sid, forwarded)| Some((sid, forwarded.score?)));
        known.map(|(sid, score)| (sid.clone(), quality::info(sid, score))).collect()
    }
}
