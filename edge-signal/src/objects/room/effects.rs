//! Carrying out what the room machine wants.

use std::rc::Rc;

use livekit_protocol::{RoomMovedResponse, SignalResponse, signal_response};
use shared::claims::AccessClaims;
use shared::control::{PlaceRequest, PlaceResponse, RoomToNode};
use shared::ids::{NodeId, RoomName};
use worker::{Result, console_error};

use super::frames::Encoded;
use super::{Answered, Shell};
use crate::fleet::mint;
use crate::objects::directory::{LINE_PATH, Line};
use crate::objects::fleet::{PLACE_PATH, ROOM_OVER_PATH};
use crate::room::Room;
use crate::room::effect::Effect;
use crate::room::event::{ConnectionId, Event, UnixMs};
use crate::runtime::{self, DIRECTORY, FLEET, WHOLE};

impl Shell {
    pub(super) fn carry_out(self: &Rc<Self>, room: &RoomName, effects: Vec<Effect>) -> Result<Option<Answered>> {
        let mut answered = None;
        let mut encoded = Encoded::default();
        for effect in effects {
            match effect {
                Effect::ToClient { connection, message } => {
                    self.sockets.send_client(&connection, |json| encoded.of(&message, json))?;
                }
                Effect::RefreshToken { connection, claims } => self.refresh_token(&connection, *claims)?,
                Effect::RoomMoved { connection, claims, moved } => self.send_moved(&connection, *claims, *moved)?,
                Effect::CloseClient { connection } => self.sockets.close_client(&connection, 1000, ""),
                Effect::ToNode { node, message } => self.send_node(&node, &message)?,
                Effect::OpenSession { node, session } => {
                    let deployment = self.deployment()?;
                    let (jti, now) = (runtime::random_name()?, runtime::now().secs());
                    let open = mint::open_session(deployment.signing.signer(), &node, room, *session, jti, now);
                    let open = open.map_err(|error| worker::Error::RustError(error.to_string()))?;
                    self.send_node(&node, &RoomToNode::OpenSession(Box::new(open)))?;
                }
                Effect::Place(request) => self.place(request),
                Effect::Directory(entry) => {
                    self.storage().keep_line(&Line { room: room.clone(), entry })?;
                }
                Effect::RevokeTokens { identity, before, until, asked } => {
                    if asked || !self.deployment()?.keep_tokens_of_removed {
                        self.storage().revoke(&identity, before, until, runtime::now())?;
                    }
                }
                Effect::ToRoom { to, word } => self.keep_word(to, *word)?,
                Effect::Webhook(event) => self.keep_webhook(&event)?,
                // The operator has been told.
                Effect::Left { .. } => {}
                Effect::CallHeard { id, heard } => self.calls.hear(&id, heard),
                Effect::AgentsOver { sid } => self.keep_agents_over(room, sid)?,
                Effect::Answer(answer) => answered = Some(*answer),
            }
        }
        Ok(answered)
    }

    /// Asks the fleet for a node.
    pub(super) async fn ask_fleet(&self, request: &PlaceRequest) -> PlaceResponse {
        let asked = async {
            let fleet = runtime::object(&self.env, FLEET, WHOLE)?;
            runtime::call::<PlaceResponse>(&fleet, PLACE_PATH, request).await
        };
        asked.await.unwrap_or_else(|error| {
            console_error!("the fleet cannot be asked: {error}");
            // Nobody says that the node is lost.
            if request.lost.is_some() { PlaceResponse::StillThere } else { PlaceResponse::NoNode }
        })
    }

    /// Tells the directory what it does not know, in the background; when to look again.
    pub(super) fn tell_directory(self: &Rc<Self>) -> Result<Option<UnixMs>> {
        let waits = self.storage().pending_line()?.is_some();
        Ok(waits.then(|| self.tell(|shell| &shell.telling_directory, Self::lines_told)))
    }

    /// Returns when the directory has the newest line, or could not be told.
    pub(super) async fn directory_told(self: &Rc<Self>) {
        self.told(&self.telling_directory, Rc::clone(self).lines_told()).await;
    }

    async fn lines_told(self: Rc<Self>) -> Result<()> {
        while let Some(text) = self.storage().pending_line()? {
            let line: Line = serde_json::from_str(&text)?;
            let directory = runtime::object(&self.env, DIRECTORY, WHOLE)?;
            runtime::call::<()>(&directory, LINE_PATH, &line).await?;
            if line.entry.is_none() {
                self.end_links(&line.room).await?;
            }
            self.storage().drop_line(&text)?;
        }
        Ok(())
    }

    /// Has the fleet forget which nodes were in a room that ended.
    async fn end_links(&self, room: &RoomName) -> Result<()> {
        // No node is let in meanwhile: the fleet would forget it too.
        let _turn = self.placing.lock().await;
        let current = self.take_room();
        let again = current.as_ref().is_some_and(Room::is_created);
        self.room.set(current);
        if again {
            // Somebody came back. When that room ends, the links of both do.
            return Ok(());
        }
        let fleet = runtime::object(&self.env, FLEET, WHOLE)?;
        runtime::call::<()>(&fleet, ROOM_OVER_PATH, room).await
    }

    fn place(self: &Rc<Self>, request: Box<PlaceRequest>) {
        let shell = Rc::clone(self);
        self.state.wait_until(async move {
            let turn = shell.placing.lock().await;
            let answer = shell.ask_fleet(&request).await;
            let handled = shell.placed(request.lost, answer);
            drop(turn);
            let settled = shell.settle().await;
            if let Err(error) = handled.and(settled) {
                console_error!("placing failed: {error}");
            }
        });
    }

    fn placed(self: &Rc<Self>, lost: Option<NodeId>, answer: PlaceResponse) -> Result<()> {
        let node = match answer {
            PlaceResponse::StillThere => return self.handle(Event::NodeStillThere),
            PlaceResponse::Placed(placed) => Some(placed),
            PlaceResponse::NoNode => None,
        };
        if let Some(node) = lost {
            self.handle(Event::NodeLost { node })?;
        }
        self.handle(Event::Placed { node })
    }

    fn refresh_token(&self, connection: &ConnectionId, claims: AccessClaims) -> Result<()> {
        let Some(token) = self.mint(claims)? else { return Ok(()) };
        let message = Some(signal_response::Message::RefreshToken(token));
        self.send_client(connection, &SignalResponse { message })
    }

    /// The token comes first by itself: not every SDK takes the one in `room_moved`.
    fn send_moved(&self, connection: &ConnectionId, claims: AccessClaims, moved: RoomMovedResponse) -> Result<()> {
        let Some(token) = self.mint(claims)? else { return Ok(()) };
        let refreshed = Some(signal_response::Message::RefreshToken(token.clone()));
        self.send_client(connection, &SignalResponse { message: refreshed })?;
        let message = Some(signal_response::Message::RoomMoved(RoomMovedResponse { token, ..moved }));
        self.send_client(connection, &SignalResponse { message })
    }

    /// An access token of the first key.
    fn mint(&self, mut claims: AccessClaims) -> Result<Option<String>> {
        let deployment = self.deployment()?;
        let Some((key, _)) = deployment.keys.first() else { return Ok(None) };
        key.clone_into(&mut claims.iss);
        let minted = deployment.keys.mint(&claims);
        Ok(minted.inspect_err(|error| console_error!("cannot refresh a token: {error}")).ok())
    }

    fn send_node(&self, node: &NodeId, message: &RoomToNode) -> Result<()> {
        self.sockets.send_node(node, &serde_json::to_string(message)?);
        Ok(())
    }
}
