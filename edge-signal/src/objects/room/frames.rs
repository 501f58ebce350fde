//! Frames: protobuf or proto3 JSON from clients, JSON from nodes. **Too long or unreadable closes that socket only.**

use std::rc::Rc;

use livekit_protocol::{RequestResponse, SignalRequest, SignalResponse, request_response, signal_response};
use prost::Message;
use shared::control::NodeToRoom;
use shared::ids::NodeId;
use worker::{Result, WebSocketIncomingMessage};

use super::sockets::Frame;
use super::{CLOSE_MALFORMED, CLOSE_TOO_BIG, MAX_MESSAGE, Shell};
use crate::report::Report;
use crate::room::event::{ConnectionId, Event};
use crate::runtime;

/// RFC 6455 section 7.4.1.
const CLOSE_POLICY: u16 = 1008;
/// Why, for the client.
const TOO_MANY_MESSAGES: &str = "too many messages";

fn too_many_messages() -> SignalResponse {
    let (reason, message) = (request_response::Reason::LimitExceeded.into(), TOO_MANY_MESSAGES.to_owned());
    let response = RequestResponse { reason, message, ..Default::default() };
    SignalResponse { message: Some(signal_response::Message::RequestResponse(response)) }
}

impl Shell {
    pub(super) fn client_frame(
        self: &Rc<Self>,
        connection: &ConnectionId,
        frame: WebSocketIncomingMessage,
    ) -> Result<()> {
        let (length, json) = match &frame {
            WebSocketIncomingMessage::Binary(bytes) => (bytes.len(), false),
            WebSocketIncomingMessage::String(text) => (text.len(), true),
        };
        if length > MAX_MESSAGE {
            runtime::report(
                &self.env,
                &[Report::Closed { socket: "client", code: CLOSE_TOO_BIG, reason: "message_too_large" }],
            );
            self.sockets.close_client(connection, CLOSE_TOO_BIG, "message too big");
            return self.handle(Event::ClientGone { connection: connection.clone() });
        }
        if !self.sockets.allows(connection, length) {
            runtime::report(
                &self.env,
                &[Report::Closed { socket: "client", code: CLOSE_POLICY, reason: "too_many_messages" }],
            );
            self.send_client(connection, &too_many_messages())?;
            self.sockets.close_client(connection, CLOSE_POLICY, TOO_MANY_MESSAGES);
            return self.handle(Event::ClientGone { connection: connection.clone() });
        }
        let message = match frame {
            WebSocketIncomingMessage::Binary(bytes) => SignalRequest::decode(bytes.as_slice()).ok(),
            WebSocketIncomingMessage::String(text) => serde_json::from_str(&text).ok(),
        };
        match message {
            Some(message) => {
                self.sockets.note_encoding(connection, json)?;
                self.handle(Event::ClientMessage { connection: connection.clone(), message: Box::new(message) })
            }
            None => self.handle(Event::ClientGarbage { connection: connection.clone() }),
        }
    }

    pub(super) fn node_frame(
        self: &Rc<Self>,
        node: &NodeId,
        link: &str,
        frame: WebSocketIncomingMessage,
    ) -> Result<()> {
        if !self.sockets.is_current(node, link) {
            return Ok(());
        }
        let message: Option<NodeToRoom> = match &frame {
            WebSocketIncomingMessage::String(text) if text.len() <= MAX_MESSAGE => serde_json::from_str(text).ok(),
            _ => None,
        };
        match message {
            Some(message) => self.handle(Event::NodeMessage { node: node.clone(), message: Box::new(message) }),
            None => {
                runtime::report(
                    &self.env,
                    &[Report::Closed { socket: "node", code: CLOSE_MALFORMED, reason: "message_malformed" }],
                );
                self.sockets.close_node(node, CLOSE_MALFORMED, "malformed message");
                self.handle(Event::NodeGone { node: node.clone() })
            }
        }
    }

    pub(super) fn send_client(&self, connection: &ConnectionId, message: &SignalResponse) -> Result<()> {
        let frame = |json| if json { Frame::text(message) } else { Ok(Frame::binary(message)) };
        self.sockets.send_client(connection, |json| frame(json).map(Rc::new))
    }
}

impl Frame {
    fn text(message: &SignalResponse) -> Result<Self> {
        Ok(Self::Text(serde_json::to_string(message)?))
    }

    fn binary(message: &SignalResponse) -> Self {
        Self::Binary(message.encode_to_vec())
    }
}

/// The message encoded last: many are told the same in a row.
#[derive(Default)]
pub(super) struct Encoded {
    message: Option<Rc<SignalResponse>>,
    text: Option<Rc<Frame>>,
    binary: Option<Rc<Frame>>,
}

impl Encoded {
    pub(super) fn of(&mut self, message: &Rc<SignalResponse>, json: bool) -> Result<Rc<Frame>> {
        if self.message.as_ref().is_none_or(|last| !Rc::ptr_eq(last, message)) {
            *self = Self { message: Some(Rc::clone(message)), ..Self::default() };
        }
        let frame = if json { &mut self.text } else { &mut self.binary };
        if let Some(frame) = frame {
            return Ok(Rc::clone(frame));
        }
        let made = Rc::new(if json { Frame::text(message)? } else { Frame::binary(message) });
        *frame = Some(Rc::clone(&made));
        Ok(made)
    }
}
