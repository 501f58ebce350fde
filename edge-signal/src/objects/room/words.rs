//! What other rooms are to hear of participants that are forwarded: kept until they have, also when this room is over.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use shared::ids::{ParticipantSid, RoomName};
use worker::{Error, Result};

use super::service::Asked;
use super::{Answered, SERVICE_PATH, Shell};
use crate::room::event::{Event, UnixMs};
use crate::room::forward::{Subject, Word};
use crate::room::service::{self, Answer, Request};
use crate::runtime::{self, ROOM};

/// How long until a room is told again that could not be told, milliseconds.
pub(super) const RETRY_MS: u64 = 1_000;

/// A word on its way. A newer one about the same participant takes its place.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) to: RoomName,
    pub(super) word: Word,
}

impl Letter {
    /// Its place.
    pub(super) fn key(&self) -> String {
        // Names of rooms may hold anything: what tells subjects apart comes first.
        let subject = match self.word.subject() {
            Subject::Forwarding => "",
            Subject::Loudness => "loudness/",
            Subject::Quality => "quality/",
        };
        format!("{subject}{}/{}", self.word.participant, self.to)
    }

    fn is_of(&self, participant: &ParticipantSid, to: &RoomName) -> bool {
        self.word.participant == *participant && self.to == *to && self.word.subject() == Subject::Forwarding
    }
}

impl Shell {
    pub(super) fn keep_word(&self, to: RoomName, word: Word) -> Result<()> {
        self.telling_rooms.keeps();
        self.storage().keep_letter(&Letter { to, word })
    }

    fn letters(&self) -> Result<Vec<(String, Letter)>> {
        self.telling_rooms.kept(|| self.storage().letters())
    }

    /// Tells other rooms what they have not heard, in the background; when to look again.
    pub(super) fn tell_rooms(self: &Rc<Self>) -> Result<Option<UnixMs>> {
        let waits = !self.letters()?.is_empty();
        Ok(waits.then(|| self.tell(|shell| &shell.telling_rooms, Self::rooms_told)))
    }

    /// Returns when all have heard, or one cannot be told.
    async fn rooms_told(self: Rc<Self>) -> Result<()> {
        while let Some((text, letter)) = self.letters()?.into_iter().next() {
            // The machine knows of a refusal.
            drop(self.deliver(&text, &letter).await?);
        }
        Ok(())
    }

    /// Has another room show a participant. **What was asked once is told until it is heard, though nobody waits for it.**
    pub(super) async fn forward(self: &Rc<Self>, asked: Asked) -> Result<Answered> {
        let Request::Forward(_, to) = &asked.request else { return self.ask(asked) };
        let to = to.clone();
        // Whoever tells other rooms at the moment would hear its answer.
        let _turn = self.telling_rooms.turn().await;
        let participant = match self.ask(asked)? {
            Ok(Answer::Forward(participant)) => participant,
            answer => return Ok(answer),
        };
        let waits = self.letters()?.into_iter().find(|(_, letter)| letter.is_of(&participant, &to));
        let (text, letter) = waits.ok_or_else(|| Error::RustError("there is nothing to tell".to_owned()))?;
        Ok(self.deliver(&text, &letter).await?.map(|()| Answer::Done))
    }

    /// Tells a room, and the machine what came of it.
    async fn deliver(self: &Rc<Self>, text: &str, letter: &Letter) -> Result<std::result::Result<(), service::Error>> {
        let Letter { to, word } = letter.clone();
        let participant = word.participant.clone();
        let room = runtime::object(&self.env, ROOM, to.as_str())?;
        let asked = Asked { room: to.clone(), request: Request::Hear(Box::new(word)) };
        let answer: Answered = runtime::call(&room, SERVICE_PATH, &asked).await?;
        self.storage().drop_letter(text)?;
        match answer {
            Ok(_) => self.handle(Event::WordTaken { to, participant }).map(Ok),
            Err(error) => self.handle(Event::WordRefused { to, participant }).map(|()| Err(error)),
        }
    }
}
