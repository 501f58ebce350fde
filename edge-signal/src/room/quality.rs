//! Connection quality: nodes score how well each participant's media gets through, the room passes it on to those who
//! are subscribed to it. Nothing of it is kept.

use livekit_protocol as proto;
use livekit_protocol::ConnectionQuality;
use livekit_protocol::signal_response::Message;
use shared::control::{BEST_SCORE, EXCELLENT_SCORE, GOOD_SCORE, RoomToNode, SessionQuality};
use shared::ids::{NodeId, ParticipantSid, SessionKey};

use super::Room;
use super::turn::Turn;

/// Mean opinion scores at the ends of the scale.
const BEST_OPINION: f32 = 4.5;
const WORST_OPINION: f32 = 1.0;

/// Whose connection, and what clients are told of it.
type Fares = (ParticipantSid, proto::ConnectionQualityInfo);

impl Room {
    /// Tells each client how it and those it is subscribed to fare: what changed, or all if it has not heard of them; and
    /// rooms that show them.
    pub(super) fn quality_changed(
        &mut self,
        turn: &mut Turn,
        id: &NodeId,
        changed: &[SessionQuality],
        same: &[SessionQuality],
        newcomers: &[SessionKey],
    ) {
        let [changed, same] = [changed, same].map(|told| self.current(id, told));
        let mut known = infos(&same);
        known.extend(self.qualities_of_forwarded());
        self.tell_qualities(turn, &infos(&changed), &known, newcomers);
        // Those of other nodes are in the answer to such a question.
        let here: Vec<_> = newcomers.iter().filter(|newcomer| self.is_current(id, newcomer)).collect();
        self.ask_for_qualities(turn, id, &here);
        self.forward_quality(turn, &changed);
        self.forward_quality(turn, &same);
    }

    /// Tells each client what of this concerns it.
    pub(super) fn tell_qualities(&self, turn: &mut Turn, changed: &[Fares], same: &[Fares], newcomers: &[SessionKey]) {
        for (listener, participant) in &self.participants {
            let Some(connection) = &participant.connection else { continue };
            let is_new = newcomers.iter().any(|newcomer| newcomer.participant == *listener);
            let same = same.iter().filter(|_| is_new);
            let concerned = |(whose, _): &&Fares| whose == listener || self.hears(listener, whose);
            let updates: Vec<_> = changed.iter().chain(same).filter(concerned).map(|(_, info)| info.clone()).collect();
            if !updates.is_empty() {
                turn.send_client(connection, Message::ConnectionQuality(proto::ConnectionQualityUpdate { updates }));
            }
        }
    }

    /// Has the other nodes say how those fare whom newcomers at this one hear.
    fn ask_for_qualities(&self, turn: &mut Turn, id: &NodeId, newcomers: &[&SessionKey]) {
        let others = self.nodes.iter().filter(|(other, node)| *other != id && node.takes_pipes);
        for (other, _) in others.filter(|(other, _)| self.listens(other)) {
            let there = self.sessions_on(other);
            let is_concerned = |newcomer: &&&SessionKey| there.iter().any(|sid| self.hears(&newcomer.participant, sid));
            let newcomers: Vec<_> = newcomers.iter().filter(is_concerned).map(|key| (*key).clone()).collect();
            if !newcomers.is_empty() {
                turn.send_node(other, RoomToNode::TellQuality { newcomers });
            }
        }
    }

    fn current(&mut self, id: &NodeId, all: &[SessionQuality]) -> Vec<SessionQuality> {
        let current: Vec<_> = all.iter().filter(|told| self.is_current(id, &told.session)).cloned().collect();
        self.counters.dropped_stale += (all.len() - current.len()) as u64;
        current
    }
}

fn infos(told: &[SessionQuality]) -> Vec<Fares> {
    let whose = |told: &SessionQuality| told.session.participant.clone();
    told.iter().map(|one| (whose(one), info(&whose(one), one.score))).collect()
}

/// As clients are told of a participant.
pub(super) fn info(sid: &ParticipantSid, score: Option<u8>) -> proto::ConnectionQualityInfo {
    let (quality, score) = match score {
        None => (ConnectionQuality::Lost, WORST_OPINION),
        Some(score) if score > EXCELLENT_SCORE => (ConnectionQuality::Excellent, opinion(score)),
        Some(score) if score > GOOD_SCORE => (ConnectionQuality::Good, opinion(score)),
        Some(score) => (ConnectionQuality::Poor, opinion(score)),
    };
    proto::ConnectionQualityInfo { participant_sid: sid.to_string(), quality: quality.into(), score }
}

/// Mean opinion score of a transmission rating factor (ITU-T G.107 annex B).
fn opinion(score: u8) -> f32 {
    let rating = f32::from(score.min(BEST_SCORE));
    (1.0 + 0.035 * rating + 7e-6 * rating * (rating - 60.0) * (100.0 - rating)).clamp(WORST_OPINION, BEST_OPINION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opinions_go_with_scores() {
        assert!((opinion(100) - BEST_OPINION).abs() < 1e-6 && (opinion(0) - WORST_OPINION).abs() < 1e-6);
        assert!((opinion(60) - 3.1).abs() < 1e-5);
        assert!((10..=100).collect::<Vec<u8>>().windows(2).all(|pair| opinion(pair[0]) <= opinion(pair[1])));
    }
}
