//! What rooms are told of who speaks and how well media gets through: only what they do not know yet.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use shared::control::{NodeToRoom, Speaking};
use shared::ids::{RoomName, SessionKey};

use crate::conference::{Conference, session_at};
use crate::session::Session;

impl Conference {
    /// Sessions of other nodes have not heard how those fare who publish here.
    pub(super) fn tell_quality(&mut self, name: &RoomName, newcomers: Vec<SessionKey>) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let space = self.max_sessions.saturating_sub(room.newcomers.len());
        room.newcomers.extend(newcomers.into_iter().take(space));
    }

    /// Tells the rooms how well media gets through, as far as they do not know; for every few seconds.
    pub(crate) fn assess(&mut self) {
        for (name, room) in &mut self.rooms {
            let (mut changed, mut same, mut newcomers) = (Vec::new(), Vec::new(), std::mem::take(&mut room.newcomers));
            for session in room.sessions.values_mut() {
                let Some((reach, is_news)) = session.assess() else { continue };
                if session.take_newcomer() {
                    newcomers.push(reach.session.clone());
                }
                if is_news {
                    changed.push(reach);
                } else if session.publishes() {
                    same.push(reach);
                }
            }
            if newcomers.is_empty() {
                same.clear();
            } else if let Some(speakers) = sorted(room.sessions.values().filter_map(Session::speaking).collect()) {
                let present = NodeToRoom::Speakers { speakers, newcomers: newcomers.clone() };
                self.effects.messages.push((name.clone(), present));
            }
            if !changed.is_empty() || !newcomers.is_empty() {
                let quality = NodeToRoom::ConnectionQuality { changed, same, newcomers };
                self.effects.messages.push((name.clone(), quality));
            }
        }
    }

    /// Tells each room who is louder or quieter now, in one message.
    pub(super) fn tell_speakers(&mut self) {
        let mut news: BTreeMap<RoomName, Vec<Speaking>> = BTreeMap::new();
        for owner in std::mem::take(&mut self.speaking) {
            let Some(session) = session_at(&mut self.rooms, &owner) else { continue };
            let Some(step) = session.take_loudness() else { continue };
            news.entry(owner.0).or_default().push(Speaking { session: session.key().clone(), step });
        }
        for (name, news) in news {
            let Some(speakers) = sorted(news) else { continue };
            self.effects.messages.push((name, NodeToRoom::Speakers { speakers, newcomers: Vec::new() }));
        }
    }
}

/// The loudest first; `None`: nobody.
fn sorted(mut speakers: Vec<Speaking>) -> Option<Vec<Speaking>> {
    speakers.sort_by_key(|speaking| Reverse(speaking.step));
    (!speakers.is_empty()).then_some(speakers)
}
