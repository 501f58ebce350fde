//! A participant on its way to another room's object. **What its client says meanwhile waits: it is for the room that it is
//! in when that is settled, or for none.**

use std::rc::Rc;

use worker::{Error, Result, WebSocketIncomingMessage, console_error};

use super::service::Asked;
use super::{Answered, SERVICE_PATH, Shell};
use crate::room::event::{ConnectionId, Event};
use crate::room::service::{self, Answer, Request};
use crate::room::transfer::{Transfer, Welcome};
use crate::runtime::{self, ROOM};

/// Most frames that wait; a client that says more meanwhile, which takes milliseconds, loses its socket.
const MAX_HELD: usize = 256;

/// A client whose participant is being transferred.
pub(super) struct Held {
    connection: ConnectionId,
    frames: Vec<WebSocketIncomingMessage>,
}

impl Shell {
    /// Has the other room take a participant in, then lets it go.
    pub(super) async fn transfer(self: &Rc<Self>, transfer: Transfer) -> Result<Answered> {
        *self.held.borrow_mut() = Some(Held { connection: transfer.connection().clone(), frames: Vec::new() });
        let taken = self.hand_over(&transfer).await;
        let held = self.held.take();
        let answer = match taken {
            Ok(Ok(welcome)) => self.let_go(transfer, welcome).await,
            Ok(Err(refused)) => Ok(Err(refused)),
            Err(error) => Err(error),
        };
        // Of one that has gone these are dropped, as if they had been lost with its socket.
        if let Some(Held { connection, frames }) = held {
            for frame in frames {
                self.client_frame(&connection, frame)?;
            }
        }
        answer
    }

    /// Keeps a frame of a client that is on its way; gives it back otherwise.
    pub(super) fn hold(
        &self,
        connection: &ConnectionId,
        frame: WebSocketIncomingMessage,
    ) -> Option<WebSocketIncomingMessage> {
        match &mut *self.held.borrow_mut() {
            Some(held) if held.connection == *connection && held.frames.len() < MAX_HELD => {
                held.frames.push(frame);
                None
            }
            _ => Some(frame),
        }
    }

    async fn hand_over(&self, transfer: &Transfer) -> Result<std::result::Result<Box<Welcome>, service::Error>> {
        let request = Request::TakeIn(Box::new(transfer.clone()));
        match self.ask_room(transfer, request).await? {
            Ok(Answer::Welcome(welcome)) => Ok(Ok(welcome)),
            Ok(_) => Err(Error::RustError("the other room does not say that it has taken it in".to_owned())),
            Err(refused) => Ok(Err(refused)),
        }
    }

    /// It is taken in. One that is not here any more is sent back.
    async fn let_go(self: &Rc<Self>, transfer: Transfer, welcome: Box<Welcome>) -> Result<Answered> {
        let event = Event::Transferred { transfer: Box::new(transfer.clone()), welcome };
        let answer = match self.take_room() {
            Some(room) => self.handle_in(room, event)?,
            None => None,
        };
        let answer = answer.unwrap_or_else(|| Err(service::Error::participant_left()));
        if answer.is_err() {
            let request = Request::SendBack(transfer.participant().clone());
            if let Err(error) = self.ask_room(&transfer, request).await {
                // It is given up there when nobody comes.
                console_error!("a participant cannot be sent back: {error}");
            }
        }
        Ok(answer)
    }

    async fn ask_room(&self, transfer: &Transfer, request: Request) -> Result<Answered> {
        let room = runtime::object(&self.env, ROOM, transfer.to.as_str())?;
        runtime::call(&room, SERVICE_PATH, &Asked { room: transfer.to.clone(), request }).await
    }
}
