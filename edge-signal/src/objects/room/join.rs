//! Clients at the room's door.

use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shared::claims::{ACCESS_LEEWAY_SECS, AccessClaims, INTERNAL_LEEWAY_SECS};
use shared::control::{PlaceResponse, Placed};
use shared::ids::RoomName;
use worker::{Request, Response, Result, WebSocketPair};

use super::{CLAIMS_HEADER, PLACE_HEADER, SIGNALING_HEADER, Shell, USER_AGENT_HEADER};
use crate::api::deployment::Deployment;
use crate::api::join_query::Query;
use crate::api::route::Signaling;
use crate::api::user_agent;
use crate::objects::fleet::PROBE_PATH;
use crate::refusal::{Reason, Refusal};
use crate::report::Report;
use crate::room::Room;
use crate::room::event::{Admission, Event, JoinAttempt};
use crate::runtime::{self, FLEET, WHOLE};

impl Shell {
    /// Joins a client, whose token the Worker has verified.
    pub(super) async fn join(self: &Rc<Self>, request: &Request) -> Result<Response> {
        let attempt = match attempt(request)? {
            Ok(attempt) => attempt,
            Err(refusal) => return runtime::refuse_worker(&refusal),
        };
        match self.admit(&attempt)? {
            Err(refusal) => runtime::refuse_worker(&refusal),
            Ok((room, admission)) if admission.place.is_none() => self.accept(room, admission, None),
            Ok((room, _)) => {
                self.put_back(room);
                self.join_placed(attempt).await
            }
        }
    }

    /// Says whether the client would be let in.
    pub(super) async fn validate(self: &Rc<Self>, request: &Request) -> Result<Response> {
        let attempt = match attempt(request)? {
            Ok(attempt) => attempt,
            Err(refusal) => return runtime::refuse_worker(&refusal),
        };
        let (room, admission) = match self.admit(&attempt)? {
            Ok(admitted) => admitted,
            Err(refusal) => return runtime::refuse_worker(&refusal),
        };
        self.put_back(room);
        let has_node = match &admission.place {
            Some(place) if place.serving.is_empty() => {
                runtime::call(&runtime::object(&self.env, FLEET, WHOLE)?, PROBE_PATH, place).await?
            }
            _ => true,
        };
        if has_node { runtime::text(200, "success") } else { runtime::refuse_worker(&no_node()) }
    }

    /// The first join of a room, or one after its node was lost: no answer before there is a node.
    async fn join_placed(self: &Rc<Self>, attempt: JoinAttempt) -> Result<Response> {
        let _turn = self.placing.lock().await;
        // Somebody may have joined meanwhile.
        let (room, mut admission) = match self.admit(&attempt)? {
            Ok(admitted) => admitted,
            Err(refusal) => return runtime::refuse_worker(&refusal),
        };
        let Some(place) = admission.place.take() else { return self.accept(room, admission, None) };
        self.put_back(room);
        let placed = match self.ask_fleet(&place).await {
            PlaceResponse::Placed(placed) => Some(placed),
            // It was asked for a better one than there is.
            _ if !place.serving.is_empty() => None,
            _ => return runtime::refuse_worker(&no_node()),
        };
        // Other events were handled while the fleet thought: the room is as it is now.
        let room = self.room_for(&admission.attempt.room)?;
        admission.place = Some(place);
        self.accept(room, admission, placed)
    }

    fn accept(self: &Rc<Self>, room: Room, mut admission: Admission, placed: Option<Placed>) -> Result<Response> {
        let pair = WebSocketPair::new()?;
        let connection = Self::new_connection()?;
        self.sockets.accept_client(&self.state, pair.server, connection.clone())?;
        let claims = &admission.attempt.claims;
        if claims.single_use && !admission.attempt.request.reconnect {
            // One that is just expired still lets in.
            let until = claims.exp.saturating_add(ACCESS_LEEWAY_SECS);
            self.storage().mark_used(&token_id(claims), until, runtime::now(), INTERNAL_LEEWAY_SECS)?;
        }
        let ice_servers = &self.deployment()?.ice_servers;
        admission.ice_servers = ice_servers.of(admission.participant.as_str(), runtime::now().secs());
        let (participant, request) = (&admission.participant, &admission.attempt.request);
        let sdk = request.client_info.as_ref().map_or("UNKNOWN", |client| client.sdk().as_str_name());
        let placed_in = placed.as_ref().map(|placed| &placed.region);
        let joined = Report::Joined { room: room.sid(), participant, back: request.reconnect, sdk, placed_in };
        runtime::report(&self.env, &[joined]);
        self.handle_in(room, Event::Joined { connection, admission: Box::new(admission), placed })?;
        Response::from_websocket(pair.client)
    }

    /// The room's verdict, and with an admission the room itself: a new one when there was none.
    fn admit(&self, attempt: &JoinAttempt) -> Result<std::result::Result<(Room, Admission), Refusal>> {
        if let Err(refusal) = self.check_token(attempt)? {
            return Ok(Err(refusal));
        }
        let room = self.room_for(&attempt.room)?;
        match room.admit(runtime::context()?, attempt.clone()) {
            Ok(admission) => Ok(Ok((room, admission))),
            Err(refusal) => {
                self.put_back(room);
                Ok(Err(refusal))
            }
        }
    }

    /// Whether the token still lets in: it may have been revoked, or be for one join that has been.
    fn check_token(&self, attempt: &JoinAttempt) -> Result<std::result::Result<(), Refusal>> {
        let (claims, storage) = (&attempt.claims, self.storage());
        let minted = claims.iat.or(claims.nbf).unwrap_or(0);
        if storage.revoked_before(&claims.sub)?.is_some_and(|before| minted < before) {
            return Ok(Err(Refusal::new(Reason::TokenRevoked, "invalid authorization token: it was revoked")));
        }
        // Who resumes was let in by it.
        if claims.single_use
            && !attempt.request.reconnect
            && (claims.jti.is_empty() || storage.is_used(&token_id(claims))?)
        {
            return Ok(Err(Refusal::new(Reason::TokenUsed, "invalid authorization token: it was used before")));
        }
        Ok(Ok(()))
    }

    pub(super) fn room_for(&self, name: &RoomName) -> Result<Room> {
        match self.take_room() {
            Some(room) => Ok(room),
            None => Ok(Room::new(name.clone(), runtime::context()?)),
        }
    }

    /// Keeps a room that was only asked. One that nobody has joined is forgotten with the object's memory.
    pub(super) fn put_back(&self, room: Room) {
        self.room.set(Some(room));
    }

    pub(super) fn deployment(&self) -> Result<Rc<Deployment>> {
        runtime::deployment(&self.env).map_err(|refusal| worker::Error::RustError(refusal.text))
    }
}

/// An access token among used tickets.
fn token_id(claims: &AccessClaims) -> String {
    format!("access/{}", claims.jti)
}

/// No node is up, or all are full: clients try again later.
fn no_node() -> Refusal {
    Refusal::new(Reason::NoNode, "no media node is available")
}

/// The join as the Worker forwarded it.
fn attempt(request: &Request) -> Result<std::result::Result<JoinAttempt, Refusal>> {
    let headers = request.headers();
    let header = |name: &str| headers.get(name).map(Option::unwrap_or_default);
    let failed = |error: &dyn std::fmt::Display| worker::Error::RustError(error.to_string());
    let claims = URL_SAFE_NO_PAD.decode(header(CLAIMS_HEADER)?).map_err(|error| failed(&error))?;
    // From text, as rows are: reading bytes takes code of its own.
    let claims: AccessClaims = serde_json::from_str(str::from_utf8(&claims).map_err(|error| failed(&error))?)?;
    let signaling = if header(SIGNALING_HEADER)? == "single" { Signaling::Single } else { Signaling::Dual };
    let url = request.url()?;
    let mut ask = match Query::parse(url.query().unwrap_or_default()).ask(signaling) {
        Ok(ask) => ask,
        Err(refusal) => return Ok(Err(refusal)),
    };
    user_agent::complete(ask.request.client_info.get_or_insert_default(), &header(USER_AGENT_HEADER)?);
    let room = claims.video.as_ref().map(|grant| grant.room.clone()).unwrap_or_default();
    let Ok(room) = RoomName::try_from(room) else {
        return Ok(Err(Refusal::new(Reason::RoomNameMissing, "no room name")));
    };
    Ok(Ok(JoinAttempt {
        room,
        claims,
        request: ask.request,
        single_peer_connection: ask.single_peer_connection,
        place: serde_json::from_str(&header(PLACE_HEADER)?).ok(),
    }))
}
