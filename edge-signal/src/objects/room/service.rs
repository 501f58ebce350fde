//! App servers at the room's door.

use std::rc::Rc;

use futures_channel::oneshot;
use serde::{Deserialize, Serialize};
use shared::ids::RoomName;
use worker::{Error, Request, Response, Result, console_error};

use super::{Answered, Shell};
use crate::fleet::Availability;
use crate::objects::fleet::AVAILABILITY_PATH;
use crate::room::event::Event;
use crate::room::service::{self, Answer};
use crate::runtime::{self, FLEET, WHOLE};

/// A request about a room that may not exist.
#[derive(Serialize, Deserialize)]
pub(crate) struct Asked {
    pub(crate) room: RoomName,
    pub(crate) request: service::Request,
}

impl Shell {
    /// Answers a request whose grants the Worker has checked.
    pub(super) async fn serve(self: &Rc<Self>, request: &mut Request) -> Result<Response> {
        let asked: Asked = serde_json::from_str(&request.text().await?)?;
        let answer = if asked.request.is_from_room() {
            // That room waits for it: were it to wait for another transfer here, two rooms could wait for each other.
            self.ask(asked)?
        } else if asked.request.is_transfer() {
            self.serve_to_the_end(asked).await?
        } else {
            self.serve_in_turn(asked).await?
        };
        if let Ok(Answer::Called(called)) = answer {
            let answer = self.calls.wait(called).await;
            return runtime::text(200, &serde_json::to_string(&answer)?);
        }
        // Who is answered finds what it wrote in the list of rooms.
        self.directory_told().await;
        runtime::text(200, &serde_json::to_string(&answer)?)
    }

    async fn serve_in_turn(self: &Rc<Self>, asked: Asked) -> Result<Answered> {
        let _turn = self.serving.lock().await;
        if matches!(asked.request, service::Request::Forward(..)) {
            return self.forward(asked).await;
        }
        if let Err(refused) = self.check_node(&asked).await? {
            return Ok(Err(refused));
        }
        match self.ask(asked)? {
            Ok(Answer::Transfer(transfer)) => self.transfer(*transfer).await,
            answer => Ok(answer),
        }
    }

    /// Whether a room that is made can be on the node that its maker names.
    async fn check_node(&self, asked: &Asked) -> Result<std::result::Result<(), service::Error>> {
        let room = self.room_for(&asked.room)?;
        let wanted = room.node_wanted(&asked.request);
        self.put_back(room);
        let node = match wanted {
            Ok(Some(node)) => node,
            Ok(None) => return Ok(Ok(())),
            Err(refused) => return Ok(Err(refused)),
        };
        let fleet = runtime::object(&self.env, FLEET, WHOLE)?;
        let availability: Availability = runtime::call(&fleet, AVAILABILITY_PATH, &node).await?;
        Ok(service::Error::of_node(availability).map_or(Ok(()), Err))
    }

    /// The same, also when the caller is gone meanwhile: nobody is to be left between two rooms.
    async fn serve_to_the_end(self: &Rc<Self>, asked: Asked) -> Result<Answered> {
        let (tell, told) = oneshot::channel();
        let shell = Rc::clone(self);
        self.state.wait_until(async move {
            let answer = shell.serve_in_turn(asked).await;
            if let Err(error) = shell.settle().await {
                console_error!("after a transfer: {error}");
            }
            // A caller that is gone does not care.
            let _ = tell.send(answer);
        });
        told.await.unwrap_or_else(|_| Err(Error::RustError("the transfer was given up".to_owned())))
    }

    pub(super) fn ask(self: &Rc<Self>, asked: Asked) -> Result<Answered> {
        let room = self.room_for(&asked.room)?;
        let answer = self.handle_in(room, Event::Request(Box::new(asked.request)))?;
        answer.ok_or_else(|| Error::RustError("the room does not answer".to_owned()))
    }
}
