//! Nodes at the room's door.

use std::rc::Rc;

use shared::claims::INTERNAL_LEEWAY_SECS;
use shared::control::RevokeRequest;
use shared::geo::Place;
use shared::ids::{NodeId, RegionName, RoomName};
use worker::{Request, Response, Result, WebSocketPair};

use super::{CLOSE_REVOKED, CLOSE_SILENT, Shell, TICKET_HEADER};
use crate::fleet::gate::{self, GateError};
use crate::fleet::mint::{self, TicketUse};
use crate::objects::fleet::{ADMIT_PATH, NODE_TOKEN_HEADER, RoomLink};
use crate::refusal::{Reason, Refusal};
use crate::room::event::Event;
use crate::runtime::{self, FLEET, WHOLE};

impl Shell {
    /// Lets a node in that has a ticket for this room and the key it is bound to.
    pub(super) async fn link(self: &Rc<Self>, request: &Request) -> Result<Response> {
        // The join that asked for this node comes first.
        let _turn = self.placing.lock().await;
        let (ticket, token) = (request.headers().get(TICKET_HEADER)?, request.headers().get(NODE_TOKEN_HEADER)?);
        let Some(name) = self.room_created() else {
            return room_over();
        };
        let deployment = self.deployment()?;
        let storage = self.storage();
        // What cannot be looked up counts as used.
        let used = |jti: &str| storage.is_used(jti).unwrap_or(true);
        let checked = gate::room_link(ticket.as_deref(), token.as_deref(), &deployment.signing, &name, used);
        let claims = match checked {
            Ok(claims) => claims,
            Err(error) => return runtime::refuse_worker(&error.refusal()),
        };
        // A ticket outlives the revocation of its node's key.
        let asked = RoomLink { node: claims.sub.clone(), room: name.clone() };
        if !runtime::call::<bool>(&runtime::object(&self.env, FLEET, WHOLE)?, ADMIT_PATH, &asked).await? {
            return runtime::refuse_worker(&GateError::Revoked.refusal());
        }
        // It may have ended meanwhile.
        if self.room_created().is_none() {
            return room_over();
        }
        let (now, node) = (runtime::now(), claims.sub);
        storage.mark_used(&claims.jti, claims.exp, now, INTERNAL_LEEWAY_SECS)?;
        let Ok(region) = RegionName::try_from(claims.region.as_str()) else {
            return runtime::refuse_worker(&Refusal::new(Reason::TicketWithoutRegion, "the ticket has no region"));
        };
        let (signing, jti) = (deployment.signing.signer(), runtime::random_name()?);
        let rejoin_ticket =
            mint::ticket(signing, &node, &claims.cnf, &name, &claims.region, TicketUse::Rejoin, jti, now.secs())
                .map_err(|error| worker::Error::RustError(error.to_string()))?;
        let pair = WebSocketPair::new()?;
        self.sockets.accept_node(&self.state, pair.server, node.clone(), runtime::random_name()?)?;
        self.handle(Event::NodeLinked { node, region, rejoin_ticket })?;
        Response::from_websocket(pair.client)
    }

    /// The name of the room, if somebody has joined it: one that was only asked about has no use for a node.
    fn room_created(&self) -> Option<RoomName> {
        let room = self.take_room();
        let name = room.as_ref().filter(|room| room.is_created()).map(|room| room.name().clone());
        self.room.set(room);
        name
    }

    /// The fleet has revoked a node's key: its link is closed, its sessions go elsewhere.
    pub(super) async fn node_revoked(self: &Rc<Self>, request: &mut Request) -> Result<Response> {
        let RevokeRequest { node } = serde_json::from_str(&request.text().await?)?;
        // Whoever dials in just now may have been admitted before.
        let _turn = self.placing.lock().await;
        self.sockets.close_node(&node, CLOSE_REVOKED, "the node's key is revoked");
        self.handle(Event::NodeGone { node })?;
        runtime::text(200, "null")
    }

    /// A node has missed its heartbeats: it is frozen, or cut off, and its sockets do not say so.
    pub(super) async fn node_silent(self: &Rc<Self>, request: &mut Request) -> Result<Response> {
        let node: NodeId = serde_json::from_str(&request.text().await?)?;
        self.sockets.close_node(&node, CLOSE_SILENT, "heartbeats missed");
        self.handle(Event::NodeGone { node: node.clone() })?;
        self.handle(Event::NodeLost { node })?;
        runtime::text(200, "null")
    }

    /// There is a node near people who are served from afar.
    pub(super) async fn node_near(self: &Rc<Self>, request: &mut Request) -> Result<Response> {
        let place: Place = serde_json::from_str(&request.text().await?)?;
        self.handle(Event::NodeNear { place })?;
        runtime::text(200, "null")
    }
}

fn room_over() -> Result<Response> {
    runtime::refuse_worker(&Refusal::new(Reason::RoomOver, "the room is over"))
}
