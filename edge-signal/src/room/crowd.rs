//! Many who come at once: in a crowd everyone hears of everyone, and most only watch, so they are told of together.

use shared::ids::ParticipantSid;

use super::Room;
use super::event::UnixMs;
use super::turn::Turn;
use super::update::updates;

/// Clients from which on a room is a crowd. In a smaller one everything is told at once.
pub const CROWD: usize = 32;
/// Milliseconds between two announcements of those who come to a crowd and do not publish (LiveKit's 3 s).
pub const TOGETHER_MS: u64 = 250;

impl Room {
    /// Somebody came, or its media is up. True: the others are told later, with more of its kind.
    pub(super) fn is_told_later(&mut self, turn: &Turn, sid: &ParticipantSid) -> bool {
        let (is_crowd, next) = (self.connections.len() >= CROWD, self.record.newcomers_told_at.after(TOGETHER_MS));
        let Some(participant) = self.participants.get(sid).filter(|_| is_crowd) else { return false };
        if participant.permission.hidden || participant.is_publisher {
            return false;
        }
        if turn.now >= next {
            self.record_mut().newcomers_told_at = turn.now;
            return false;
        }
        if let Some(participant) = self.participant_mut(sid) {
            participant.untold = true;
        }
        true
    }

    /// When those who wait to be told of are.
    pub(super) fn untold_deadline(&self) -> Option<UnixMs> {
        let waits = self.participants.values().any(|participant| participant.untold);
        waits.then(|| self.record.newcomers_told_at.after(TOGETHER_MS))
    }

    /// Tells everyone of those who wait for it, if it is time.
    pub(super) fn tell_untold(&mut self, turn: &mut Turn) {
        if self.untold_deadline().is_none_or(|at| at > turn.now) {
            return;
        }
        self.record_mut().newcomers_told_at = turn.now;
        let mut infos = Vec::new();
        for sid in self.participant_sids() {
            if self.participants.get(&sid).is_some_and(|participant| participant.untold)
                && let Some(participant) = self.participant_mut(&sid)
            {
                participant.untold = false;
                infos.extend(self.participant_info(&sid).filter(|info| !super::update::is_hidden(info)));
            }
        }
        for message in updates(infos) {
            turn.send_clients(self.participants.values().filter_map(|p| p.connection.as_ref()), message);
        }
    }
}
