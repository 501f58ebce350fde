//! The object's WebSockets. What each is stands in its attachment, which outlives the object's memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use shared::ids::NodeId;
use worker::{Result, State, WebSocket, console_log};

use crate::flood::Allowance;
use crate::room::event::ConnectionId;
use crate::runtime;

/// What a socket is.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Attachment {
    /// A client's.
    Client { connection: ConnectionId, json: bool },
    /// A node's room link; `link` tells it from the node's next one.
    Node { node: NodeId, link: String },
    /// Being closed by us: nothing it still says counts.
    Closed,
}

/// All open sockets by what they are: a cache of the attachments.
#[derive(Default)]
pub(super) struct Sockets {
    clients: RefCell<HashMap<ConnectionId, Client>>,
    nodes: RefCell<HashMap<NodeId, Link>>,
}

struct Client {
    socket: WebSocket,
    json: bool,
    allowance: Allowance,
}

struct Link {
    socket: WebSocket,
    link: String,
}

/// A frame for a client, in both encodings' clothes.
pub(super) enum Frame {
    Binary(Vec<u8>),
    Text(String),
}

impl Sockets {
    /// The sockets that outlived the object's memory.
    pub(super) fn restore(state: &State) -> Self {
        let sockets = Self::default();
        for socket in state.get_websockets() {
            match attachment(&socket) {
                Attachment::Client { connection, json } => {
                    let allowance = Allowance::new(runtime::now());
                    sockets.clients.borrow_mut().insert(connection, Client { socket, json, allowance });
                }
                Attachment::Node { node, link } => {
                    sockets.nodes.borrow_mut().insert(node, Link { socket, link });
                }
                Attachment::Closed => {}
            }
        }
        sockets
    }

    /// Clients and nodes whose sockets are open.
    pub(super) fn open(&self) -> (Vec<ConnectionId>, Vec<NodeId>) {
        (self.clients.borrow().keys().cloned().collect(), self.nodes.borrow().keys().cloned().collect())
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.clients.borrow().len(), self.nodes.borrow().len())
    }

    pub(super) fn accept_client(&self, state: &State, socket: WebSocket, connection: ConnectionId) -> Result<()> {
        state.accept_web_socket(&socket);
        attach(&socket, &Attachment::Client { connection: connection.clone(), json: false })?;
        let allowance = Allowance::new(runtime::now());
        self.clients.borrow_mut().insert(connection, Client { socket, json: false, allowance });
        Ok(())
    }

    /// Accepts a room link; an older one of the same node is closed.
    pub(super) fn accept_node(&self, state: &State, socket: WebSocket, node: NodeId, link: String) -> Result<()> {
        state.accept_web_socket(&socket);
        attach(&socket, &Attachment::Node { node: node.clone(), link: link.clone() })?;
        let old = self.nodes.borrow_mut().insert(node, Link { socket, link });
        if let Some(old) = old {
            close(&old.socket, 4409, "replaced by a newer link");
        }
        Ok(())
    }

    /// Whether a client may send a message of so many bytes now.
    pub(super) fn allows(&self, connection: &ConnectionId, bytes: usize) -> bool {
        let mut clients = self.clients.borrow_mut();
        clients.get_mut(connection).is_none_or(|client| client.allowance.take(runtime::now(), bytes))
    }

    /// Notes the encoding of a client's last frame: it is answered in the same.
    pub(super) fn note_encoding(&self, connection: &ConnectionId, json: bool) -> Result<()> {
        let mut clients = self.clients.borrow_mut();
        let Some(client) = clients.get_mut(connection).filter(|client| client.json != json) else { return Ok(()) };
        client.json = json;
        attach(&client.socket, &Attachment::Client { connection: connection.clone(), json })
    }

    /// Sends to a client; `frame` is asked for the encoding it uses.
    pub(super) fn send_client(
        &self,
        connection: &ConnectionId,
        frame: impl FnOnce(bool) -> Result<Rc<Frame>>,
    ) -> Result<()> {
        let clients = self.clients.borrow();
        let Some(client) = clients.get(connection) else { return Ok(()) };
        let sent = match &*frame(client.json)? {
            Frame::Binary(bytes) => client.socket.send_with_bytes(bytes),
            Frame::Text(text) => client.socket.send_with_str(text),
        };
        // A socket that cannot be written to is about to be reported closed.
        sent.unwrap_or_else(|error| console_log!("cannot send to a client: {error}"));
        Ok(())
    }

    pub(super) fn send_node(&self, node: &NodeId, text: &str) {
        if let Some(link) = self.nodes.borrow().get(node) {
            let sent = link.socket.send_with_str(text);
            sent.unwrap_or_else(|error| console_log!("cannot send to node {node}: {error}"));
        }
    }

    /// Whether this is the node's newest link.
    pub(super) fn is_current(&self, node: &NodeId, link: &str) -> bool {
        self.nodes.borrow().get(node).is_some_and(|current| current.link == link)
    }

    pub(super) fn close_client(&self, connection: &ConnectionId, code: u16, reason: &str) {
        if let Some(client) = self.clients.borrow_mut().remove(connection) {
            close(&client.socket, code, reason);
        }
    }

    pub(super) fn close_node(&self, node: &NodeId, code: u16, reason: &str) {
        if let Some(link) = self.nodes.borrow_mut().remove(node) {
            close(&link.socket, code, reason);
        }
    }

    pub(super) fn close_all(&self) {
        self.clients.borrow_mut().drain().for_each(|(_, client)| close(&client.socket, 1000, ""));
        self.nodes.borrow_mut().drain().for_each(|(_, link)| close(&link.socket, 1000, "the room is over"));
    }

    pub(super) fn forget_client(&self, connection: &ConnectionId) {
        self.clients.borrow_mut().remove(connection);
    }

    /// Forgets a node's link, if it is the newest one.
    pub(super) fn forget_node(&self, node: &NodeId, link: &str) -> bool {
        self.is_current(node, link) && self.nodes.borrow_mut().remove(node).is_some()
    }
}

/// What a socket is; one without a readable attachment is none of ours.
pub(super) fn attachment(socket: &WebSocket) -> Attachment {
    let text = socket.deserialize_attachment::<String>().ok().flatten();
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or(Attachment::Closed)
}

fn attach(socket: &WebSocket, attachment: &Attachment) -> Result<()> {
    socket.serialize_attachment(serde_json::to_string(attachment)?)
}

fn close(socket: &WebSocket, code: u16, reason: &str) {
    // Both fail on a socket that is closed already.
    let _ = attach(socket, &Attachment::Closed);
    let _ = socket.close(Some(code), Some(reason));
}
