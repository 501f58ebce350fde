//! What rooms tell each other of participants that are forwarded, as `edge-signal/src/objects/room/words.rs` has it.

use std::collections::VecDeque;

use edge_signal::room::Room;
use edge_signal::room::event::Event;
use edge_signal::room::forward::Word;
use edge_signal::room::service::Request;
use shared::ids::RoomName;

use super::RoomObject;
use crate::net::{Call, Net, Reply};

/// How long until a room is told again that could not be told, milliseconds.
const RETRY_MS: u64 = 1_000;

/// What other rooms have not heard; it outlives the room.
#[derive(Default)]
pub(crate) struct Words {
    letters: VecDeque<(RoomName, Word)>,
    pub(super) is_telling: bool,
    deaf_until: u64,
    /// Whether the last question was answered with what it asked for.
    pub(super) taken: Option<bool>,
}

impl Words {
    /// A newer word takes the place of one about the same.
    pub(super) fn keep(&mut self, to: RoomName, word: Word) {
        self.letters.retain(|(room, known)| {
            *room != to || known.participant != word.participant || known.subject() != word.subject()
        });
        self.letters.push_back((to, word));
    }

    /// Everybody has heard everything.
    pub(crate) fn are_told(&self) -> bool {
        self.letters.is_empty()
    }
}

impl RoomObject {
    /// Tells another room what it has not heard; when to look again.
    pub(super) fn tell_rooms(&mut self, net: &mut Net) -> Option<u64> {
        let (to, word) = self.words.letters.front().cloned()?;
        if !self.words.is_telling && net.now >= self.words.deaf_until {
            // Now and then it cannot be reached.
            if net.dice(1, 20) {
                self.words.deaf_until = net.now + RETRY_MS;
            } else {
                self.words.is_telling = true;
                net.call_inside(Call::Word { to, life: self.life, word: Box::new(word) });
            }
        }
        Some(net.now + RETRY_MS)
    }

    /// Another room says something, also to one that is not there.
    pub(super) fn hear_word(&mut self, net: &mut Net, life: u64, word: Box<Word>) {
        let room = self.take_room(net);
        let context = net.context();
        self.room = Some(room.unwrap_or_else(|| Room::new(self.name.clone(), context)));
        self.words.taken = None;
        self.handle(net, Event::Request(Box::new(Request::Hear(word.clone()))));
        let taken = self.words.taken == Some(true);
        net.reply_inside(Reply::Heard { to: self.name.clone(), life, word, taken });
    }

    pub(super) fn word_heard(&mut self, net: &mut Net, to: RoomName, word: Word, taken: bool) {
        self.words.is_telling = false;
        self.words.letters.retain(|(room, known)| *room != to || *known != word);
        let participant = word.participant;
        let event = if taken { Event::WordTaken { to, participant } } else { Event::WordRefused { to, participant } };
        self.handle(net, event);
    }

    /// An app server has somebody shown in another room too.
    pub(crate) fn forward(&mut self, net: &mut Net, identity: &str, to: RoomName) {
        self.handle(net, Event::Request(Box::new(Request::Forward(identity.to_owned(), to))));
        self.settle(net);
    }

    /// See [`Words::are_told`].
    pub(crate) fn has_told_all(&self) -> bool {
        self.words.are_told()
    }
}
