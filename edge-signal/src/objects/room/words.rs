//! What other rooms are to hear of participants that are forwarded: kept until they have, also when this room is over.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use shared::ids::{ParticipantSid, RoomName};
use worker::{Error, Result, console_error, console_log};

use super::service::Asked;
use super::{Answered, SERVICE_PATH, Shell};
use crate::room::event::{Event, UnixMs};
use crate::room::forward::Word;
use crate::room::service::{self, Answer, Request};
use crate::runtime::{self, ROOM};

/// How long until a room is told again that could not be told, milliseconds.
const RETRY_MS: u64 = 1_000;

/// A word on its way. A newer one about the same participant takes its place.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Letter {
    pub(super) to: RoomName,
    pub(super) word: Word,
}

impl Letter {
    /// Its place.
    pub(super) fn key(&self) -> String {
        format!("{}/{}", self.word.participant, self.to)
    }

    fn is_of(&self, participant: &ParticipantSid, to: &RoomName) -> bool {
        self.word.participant == *participant && self.to == *to
    }
}

impl Shell {
    pub(super) fn keep_word(&self, to: RoomName, word: Word) -> Result<()> {
        self.words_used.set(Some(true));
        self.storage().keep_letter(&Letter { to, word })
    }

    fn letters(&self) -> Result<Vec<(String, Letter)>> {
        if self.words_used.get() == Some(false) {
            return Ok(Vec::new());
        }
        let letters = self.storage().letters()?;
        self.words_used.set(Some(!letters.is_empty()));
        Ok(letters)
    }

    /// Tells other rooms what they have not heard, in the background; when to look again.
    pub(super) fn tell_rooms(self: &Rc<Self>) -> Result<Option<UnixMs>> {
        if self.letters()?.is_empty() {
            return Ok(None);
        }
        let now = runtime::now();
        if now >= self.rooms_deaf_until.get() && self.telling_rooms.try_lock().is_some() {
            let shell = Rc::clone(self);
            self.state.wait_until(async move {
                let told = shell.rooms_told().await;
                if let Err(error) = told.and(shell.settle().await) {
                    console_error!("other rooms: {error}");
                }
            });
        }
        Ok(Some(now.after(RETRY_MS)))
    }

    /// Returns when all have heard, or one cannot be told.
    async fn rooms_told(self: &Rc<Self>) -> Result<()> {
        let _turn = self.telling_rooms.lock().await;
        while let Some((text, letter)) = self.letters()?.into_iter().next() {
            if let Err(error) = self.deliver(&text, &letter).await {
                console_log!("another room is not told yet: {error}");
                self.rooms_deaf_until.set(runtime::now().after(RETRY_MS));
                return Ok(());
            }
        }
        Ok(())
    }

    /// Has another room show a participant. **What was asked once is told until it is heard, though nobody waits for it.**
    pub(super) async fn forward(self: &Rc<Self>, asked: Asked) -> Result<Answered> {
        let Request::Forward(_, to) = &asked.request else { return self.ask(asked) };
        let to = to.clone();
        // Whoever tells other rooms at the moment would hear its answer.
        let _turn = self.telling_rooms.lock().await;
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
