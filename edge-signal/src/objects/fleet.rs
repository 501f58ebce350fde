//! The fleet object: nodes' keys in SQL, their links, and the placement of rooms.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::panic::RefUnwindSafe;

use futures_util::stream::{self, StreamExt};
use serde::{Deserialize, Serialize};
use shared::claims::NodeKey;
use shared::control::{
    ADMISSION_TTL_SECS, AdmitRequest, DrainRequest, EnrolResponse, FleetToNode, NodeInfo, NodeStatus, NodeToFleet,
    PlaceRequest, PlaceResponse, Placed, RevokeRequest,
};
use shared::ids::{NodeId, RegionName, RoomName};
use worker::{
    DurableObject, Env, Request, Response, Result, State, WebSocket, WebSocketIncomingMessage, WebSocketPair,
    console_error, console_log, durable_object, wasm_bindgen,
};

use crate::fleet::mint::{self, TicketUse};
use crate::fleet::{Availability, Fleet, gate};
use crate::objects::room::{NODE_REVOKED_PATH, NODE_SILENT_PATH};
use crate::refusal::{Reason, Refusal};
use crate::report::Report;
use crate::runtime::{self, ROOM};

mod admissions;
mod afar;
mod keys;

/// Where the Worker posts an [`AdmitRequest`] it has checked the token of.
pub(crate) const ADMIT_ADDRESSES_PATH: &str = "/admit-addresses";
/// Where the Worker posts an [`Enrolment`].
pub(crate) const ENROL_PATH: &str = "/enrol";
/// Where the Worker posts a [`RevokeRequest`] it has checked the token of.
pub(crate) const REVOKE_PATH: &str = "/revoke";
/// Where the Worker asks for every [`NodeStatus`].
pub(crate) const NODES_PATH: &str = "/nodes";
/// Where a room asks how a node is (its id): an [`Availability`].
pub(crate) const AVAILABILITY_PATH: &str = "/availability";
/// Where the Worker asks for every region's need.
pub(crate) const NEED_PATH: &str = "/need";
/// Where the Worker posts a [`DrainRequest`] it has checked the token of.
pub(crate) const DRAIN_PATH: &str = "/drain";
/// Where a node's upgrade goes.
pub(crate) const LINK_PATH: &str = "/link";
/// Where a room posts a [`PlaceRequest`].
pub(crate) const PLACE_PATH: &str = "/place";
/// Where a room asks whether a [`PlaceRequest`] would be met: `true` or `false`.
pub(crate) const PROBE_PATH: &str = "/probe";
/// Where a room asks whether a node may open a link ([`RoomLink`]): `true` or `false`.
pub(crate) const ADMIT_PATH: &str = "/admit";
/// Where a room that ended posts its name.
pub(crate) const ROOM_OVER_PATH: &str = "/room-over";
/// The node token of an upgrade.
pub(crate) const NODE_TOKEN_HEADER: &str = "x-meridian-node-token";

/// Where its upgrade comes from, or nothing.
pub(crate) const NODE_ADDRESS_HEADER: &str = "x-meridian-node-address";

/// WebSocket close codes of our own (RFC 6455 section 7.4.2: 4000 to 4999).
const CLOSE_MALFORMED: u16 = 4400;
const CLOSE_REVOKED: u16 = 4403;
const CLOSE_SILENT: u16 = 4408;
const CLOSE_REPLACED: u16 = 4409;
const CLOSE_VERSION: u16 = 4426;
/// Rooms told at a time that a node is silent.
const TOLD_AT_A_TIME: usize = 16;
/// Longest message of a node, bytes: a hello has a few hundred.
const MAX_MESSAGE: usize = 64 * 1024;

/// A key to enrol.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Enrolment {
    /// JWK `x`.
    pub(crate) public_key: String,
    /// It has no token: this address must be admitted. `None`: the Worker has checked its token.
    pub(crate) from: Option<IpAddr>,
}

/// A node that wants into a room.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RoomLink {
    /// Which node; its ticket and token are good.
    pub(crate) node: NodeId,
    /// Into this room.
    pub(crate) room: RoomName,
}

/// What a link's socket keeps through an eviction of this object.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Attachment {
    node: NodeId,
    link: String,
    info: Option<NodeInfo>,
    draining: bool,
    /// Where it comes from; attachments of before do not say.
    #[serde(default)]
    address: Option<IpAddr>,
}

#[durable_object]
struct FleetObject {
    state: State,
    env: Env,
    fleet: RefCell<Fleet>,
    links: RefCell<HashMap<NodeId, (WebSocket, String)>>,
    /// The minute whose needs were told last, since the epoch.
    told: Cell<u64>,
}

impl RefUnwindSafe for FleetObject {}

impl DurableObject for FleetObject {
    fn new(state: State, env: Env) -> Self {
        let object = Self { state, env, fleet: RefCell::default(), links: RefCell::default(), told: Cell::new(0) };
        object.restore();
        object
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        match request.path().as_str() {
            ADMIT_ADDRESSES_PATH => self.admit_addresses(&read(&mut request).await?),
            ENROL_PATH => self.enrol(&read(&mut request).await?),
            REVOKE_PATH => self.revoke(&read(&mut request).await?).await,
            NODES_PATH => runtime::text(200, &serde_json::to_string(&self.nodes())?),
            AVAILABILITY_PATH => {
                let availability = self.availability(&read(&mut request).await?)?;
                runtime::text(200, &serde_json::to_string(&availability)?)
            }
            NEED_PATH => {
                self.sweep();
                let needs = self.fleet.borrow().needs();
                runtime::text(200, &serde_json::to_string(&needs)?)
            }
            DRAIN_PATH => self.drain(&read(&mut request).await?),
            LINK_PATH => self.link(&request),
            PLACE_PATH => {
                let placed = self.place(&read(&mut request).await?)?;
                runtime::text(200, &serde_json::to_string(&placed)?)
            }
            PROBE_PATH => {
                let asked = read(&mut request).await?;
                self.sweep();
                let found = self.fleet.borrow().has_node(&asked);
                runtime::text(200, if found { "true" } else { "false" })
            }
            ADMIT_PATH => {
                let admitted = keys::admit(&self.state, &read(&mut request).await?)?;
                runtime::text(200, if admitted { "true" } else { "false" })
            }
            ROOM_OVER_PATH => {
                keys::forget_room(&self.state, &read(&mut request).await?)?;
                runtime::text(200, "null")
            }
            _ => runtime::text(404, "not found"),
        }
    }

    async fn websocket_message(&self, socket: WebSocket, message: WebSocketIncomingMessage) -> Result<()> {
        let Some(mut attachment) = attachment(&socket) else { return Ok(()) };
        if !self.is_current(&attachment) {
            return Ok(());
        }
        let message = match &message {
            WebSocketIncomingMessage::String(text) if text.len() <= MAX_MESSAGE => serde_json::from_str(text).ok(),
            _ => None,
        };
        let Some(message) = message else {
            runtime::report(
                &self.env,
                &[Report::Closed { socket: "fleet", code: CLOSE_MALFORMED, reason: "message_malformed" }],
            );
            return self.drop_link(&attachment.node, CLOSE_MALFORMED, "malformed message");
        };
        match message {
            NodeToFleet::Hello(info) => {
                attachment.info = Some(info.clone());
                attach(&socket, &attachment)?;
                let drained = keys::is_drained(&self.state, &attachment.node)?;
                let greeted = self.fleet.borrow_mut().hello(runtime::now(), attachment.node.clone(), info);
                self.fleet.borrow_mut().drain(&attachment.node, drained);
                match greeted {
                    Ok(()) => send(&socket, &FleetToNode::Welcome { node: attachment.node, draining: drained })?,
                    Err(error) => {
                        runtime::report(
                            &self.env,
                            &[Report::Closed { socket: "fleet", code: CLOSE_VERSION, reason: "control_version" }],
                        );
                        self.drop_link(&attachment.node, CLOSE_VERSION, &error.to_string())?;
                    }
                }
            }
            NodeToFleet::Heartbeat(load) => {
                self.fleet.borrow_mut().heartbeat(runtime::now(), &attachment.node, load);
                self.sweep();
                if let Some(sessions) = self.fleet.borrow_mut().relieve(&attachment.node) {
                    send(&socket, &FleetToNode::Shed { sessions })?;
                }
                self.call_back(&attachment.node)?;
                self.tell_needs();
            }
            NodeToFleet::Draining => {
                attachment.draining = true;
                attach(&socket, &attachment)?;
                self.fleet.borrow_mut().draining(&attachment.node);
            }
        }
        Ok(())
    }

    async fn websocket_close(&self, socket: WebSocket, _code: usize, _reason: String, _clean: bool) -> Result<()> {
        self.closed(&socket);
        // Completes the closing handshake; fails when there is nobody left to tell.
        let _ = socket.close(Some(1000), Some(""));
        Ok(())
    }

    async fn websocket_error(&self, socket: WebSocket, _error: worker::Error) -> Result<()> {
        self.closed(&socket);
        Ok(())
    }
}

impl FleetObject {
    /// Nodes whose links outlived this object's memory. They count as heard now; their next heartbeat has their load.
    fn restore(&self) {
        let now = runtime::now();
        let sockets = self.state.get_websockets();
        if sockets.is_empty() {
            self.fleet.borrow_mut().gather(now);
        }
        for socket in sockets {
            let Some(attachment) = attachment(&socket) else { continue };
            let node = attachment.node.clone();
            if let Some(info) = attachment.info {
                let mut fleet = self.fleet.borrow_mut();
                // It was accepted before; a version that was not has no attached info.
                let _ = fleet.hello(now, node.clone(), info);
                if attachment.draining {
                    fleet.draining(&node);
                }
                // Tables of a newer version refuse every join anyway.
                fleet.drain(&node, keys::is_drained(&self.state, &node).unwrap_or(false));
            }
            self.links.borrow_mut().insert(node, (socket, attachment.link));
        }
    }

    fn admit_addresses(&self, request: &AdmitRequest) -> Result<Response> {
        if let Err(refusal) = admissions::check(request) {
            return runtime::refuse_worker(&refusal);
        }
        let now = runtime::now().secs();
        admissions::admit(&self.state, &request.addresses, now, now.saturating_add(ADMISSION_TTL_SECS))?;
        runtime::text(200, "null")
    }

    fn enrol(&self, request: &Enrolment) -> Result<Response> {
        let key = NodeKey { x: request.public_key.clone() };
        if !key.is_legal() {
            let refusal = Refusal::new(Reason::NodeKeyMalformed, "public_key is not an Ed25519 key");
            return runtime::refuse_worker(&refusal);
        }
        let admitted = |from: &IpAddr| admissions::take(&self.state, *from, &key, runtime::now().secs());
        if !request.from.as_ref().map_or(Ok(true), admitted)? {
            let refusal = Refusal::new(Reason::AddressNotAdmitted, "nobody has admitted this node's address (yet)");
            return runtime::refuse_worker(&refusal);
        }
        match keys::enrol(&self.state, &key, runtime::random()?, runtime::now())? {
            Ok(node) => runtime::text(200, &serde_json::to_string(&EnrolResponse { node })?),
            Err(error) => runtime::refuse_worker(&error.refusal()),
        }
    }

    /// Revokes a key: closes the node's fleet link and has its rooms close theirs. What fails is done by repeating it.
    async fn revoke(&self, request: &RevokeRequest) -> Result<Response> {
        if !keys::revoke(&self.state, &request.node)? {
            return runtime::refuse_worker(&Refusal::new(Reason::NodeNotFound, "unknown node"));
        }
        // It fails on a link that is closed already.
        let _ = self.drop_link(&request.node, CLOSE_REVOKED, "the node's key is revoked");
        let mut untold = 0;
        for room in keys::rooms(&self.state, &request.node)? {
            let object = runtime::object(&self.env, ROOM, room.as_str())?;
            match runtime::call::<()>(&object, NODE_REVOKED_PATH, request).await {
                Ok(()) => keys::forget_link(&self.state, &request.node, &room)?,
                Err(error) => {
                    console_error!("a room cannot be told of a revoked node: {error}");
                    untold += 1;
                }
            }
        }
        match untold {
            0 => runtime::text(200, "null"),
            _ => {
                let text = format!("revoked, but {untold} rooms could not be told: repeat the request");
                runtime::refuse_worker(&Refusal::new(Reason::RevocationUntold, &text))
            }
        }
    }

    /// Every node with an open link.
    fn nodes(&self) -> Vec<NodeStatus> {
        self.sweep();
        let (links, fleet) = (self.links.borrow(), self.fleet.borrow());
        let status = |(node, (socket, _)): (&NodeId, &(WebSocket, String))| {
            fleet.status(node, attachment(socket).and_then(|attachment| attachment.address))
        };
        links.iter().filter_map(status).collect()
    }

    fn availability(&self, node: &NodeId) -> Result<Availability> {
        self.sweep();
        if let Some(known) = self.fleet.borrow().availability(node) {
            return Ok(known);
        }
        let is_enrolled = keys::find(&self.state, node)?.is_some_and(|enrolled| !enrolled.revoked);
        Ok(if is_enrolled { Availability::Away } else { Availability::Unknown })
    }

    fn drain(&self, request: &DrainRequest) -> Result<Response> {
        if !keys::set_drained(&self.state, &request.node, request.draining)? {
            return runtime::refuse_worker(&Refusal::new(Reason::NodeNotFound, "unknown node"));
        }
        self.fleet.borrow_mut().drain(&request.node, request.draining);
        if let Some((socket, _)) = self.links.borrow().get(&request.node) {
            // A link that is breaking: it is told when it is back.
            let _ = send(socket, &FleetToNode::Drain { draining: request.draining });
        }
        runtime::text(200, "null")
    }

    fn link(&self, request: &Request) -> Result<Response> {
        let token = request.headers().get(NODE_TOKEN_HEADER)?;
        let mut failed = None;
        let checked = gate::fleet_link(token.as_deref(), |node| {
            keys::find(&self.state, node).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        if let Some(error) = failed {
            // Our fault, not the node's: it is not to think that it is unknown.
            return Err(error);
        }
        let node = match checked {
            Ok(node) => node,
            Err(error) => return runtime::refuse_worker(&error.refusal()),
        };
        self.drop_link(&node, CLOSE_REPLACED, "replaced by a newer link")?;
        let pair = WebSocketPair::new()?;
        self.state.accept_web_socket(&pair.server);
        let address = request.headers().get(NODE_ADDRESS_HEADER)?.and_then(|address| address.parse().ok());
        let attachment = Attachment { node, link: runtime::random_name()?, info: None, draining: false, address };
        attach(&pair.server, &attachment)?;
        self.links.borrow_mut().insert(attachment.node, (pair.server, attachment.link));
        Response::from_websocket(pair.client)
    }

    /// Places a room, trying the next best node when a link turns out to be dead.
    fn place(&self, request: &PlaceRequest) -> Result<PlaceResponse> {
        self.sweep();
        if request.lost.as_ref().is_some_and(|lost| self.fleet.borrow().may_have(runtime::now(), lost)) {
            return Ok(PlaceResponse::StillThere);
        }
        loop {
            let Some(placed) = self.fleet.borrow_mut().place(request) else {
                return Ok(PlaceResponse::NoNode);
            };
            let Placed { node, region, .. } = &placed;
            if !request.serving.contains(node)
                && let Err(error) = self.attach_room(node, region, request)
            {
                console_log!("cannot attach {node}: {error}");
                self.fleet.borrow_mut().gone(node);
                continue;
            }
            if let Some(afar) = self.fleet.borrow_mut().served_from_afar(request, node) {
                afar::note(&keys::tables(&self.state)?, &afar)?;
            }
            return Ok(PlaceResponse::Placed(placed));
        }
    }

    fn attach_room(&self, node: &NodeId, region: &RegionName, request: &PlaceRequest) -> Result<()> {
        let deployment = runtime::deployment(&self.env).map_err(|refusal| worker::Error::RustError(refusal.text))?;
        let key = keys::find(&self.state, node)?.ok_or("no key of a linked node")?;
        let (key, now) = (NodeKey { x: key.key }, runtime::now().secs());
        let signing = deployment.signing.signer();
        let jti = runtime::random_name()?;
        let ticket = mint::ticket(signing, node, &key, &request.room, region.as_str(), TicketUse::Attach, jti, now)
            .map_err(text)?;
        let first = match request.first.clone() {
            Some(first) => {
                let jti = runtime::random_name()?;
                Some(Box::new(mint::open_session(signing, node, &request.room, first, jti, now).map_err(text)?))
            }
            None => None,
        };
        let links = self.links.borrow();
        let (socket, _) = links.get(node).ok_or("no link")?;
        send(socket, &FleetToNode::Attach { room: request.room.clone(), ticket, first })
    }

    /// Tells the operator what each region needs, once a minute.
    fn tell_needs(&self) {
        let minute = runtime::now().secs() / 60;
        if self.told.replace(minute) == minute {
            return;
        }
        let needs = self.fleet.borrow().needs();
        let reports: Vec<Report<'_>> = needs
            .iter()
            .map(|need| Report::Need { region: &need.region, wanted: need.wanted, nodes: need.nodes, why: need.why })
            .collect();
        runtime::report(&self.env, &reports);
    }

    fn sweep(&self) {
        let lost = self.fleet.borrow_mut().sweep(runtime::now());
        for node in lost {
            console_log!("node {node} missed its heartbeats");
            // Already as good as closed.
            let _ = self.drop_link(&node, CLOSE_SILENT, "heartbeats missed");
            self.tell_rooms(node);
        }
    }

    /// Tells the rooms of a silent node, whose links there may seem open still. One that is not told finds out later, when
    /// its own link breaks.
    fn tell_rooms(&self, node: NodeId) {
        let rooms = keys::rooms(&self.state, &node).unwrap_or_default();
        let env = self.env.clone();
        self.state.wait_until(async move {
            let tell = |room: RoomName| {
                let (env, node) = (&env, &node);
                async move {
                    let object = runtime::object(env, ROOM, room.as_str())?;
                    runtime::call::<()>(&object, NODE_SILENT_PATH, node).await
                }
            };
            let mut told = stream::iter(rooms).map(tell).buffer_unordered(TOLD_AT_A_TIME);
            while let Some(told) = told.next().await {
                if let Err(error) = told {
                    console_error!("a room cannot be told of a silent node: {error}");
                }
            }
        });
    }

    fn drop_link(&self, node: &NodeId, code: u16, reason: &str) -> Result<()> {
        self.fleet.borrow_mut().gone(node);
        let link = self.links.borrow_mut().remove(node);
        match link {
            Some((socket, _)) => socket.close(Some(code), Some(reason)),
            None => Ok(()),
        }
    }

    fn closed(&self, socket: &WebSocket) {
        let Some(attachment) = attachment(socket).filter(|a| self.is_current(a)) else { return };
        self.fleet.borrow_mut().gone(&attachment.node);
        self.links.borrow_mut().remove(&attachment.node);
    }

    /// Whether this is the node's newest link.
    fn is_current(&self, attachment: &Attachment) -> bool {
        self.links.borrow().get(&attachment.node).is_some_and(|(_, link)| *link == attachment.link)
    }
}

async fn read<T: serde::de::DeserializeOwned>(request: &mut Request) -> Result<T> {
    Ok(serde_json::from_str(&request.text().await?)?)
}

fn attachment(socket: &WebSocket) -> Option<Attachment> {
    serde_json::from_str(&socket.deserialize_attachment::<String>().ok()??).ok()
}

fn attach(socket: &WebSocket, attachment: &Attachment) -> Result<()> {
    socket.serialize_attachment(serde_json::to_string(attachment)?)
}

fn send(socket: &WebSocket, message: &FleetToNode) -> Result<()> {
    socket.send_with_str(serde_json::to_string(message)?)
}

fn text(error: shared::claims::TokenError) -> worker::Error {
    worker::Error::RustError(error.to_string())
}
