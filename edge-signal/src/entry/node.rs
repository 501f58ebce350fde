//! Nodes at the door: enrolment, revocation, fleet link, room link.

use std::result::Result as StdResult;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::claims;
use shared::control::{EnrolRequest, RevokeRequest};
use worker::{Env, Method, Request, Response, Result};

use super::{bearer, body, is_upgrade};
use crate::api::deployment::Deployment;
use crate::api::join_query::Query;
use crate::fleet::gate::GateError;
use crate::objects::fleet::{ENROL_PATH, LINK_PATH, NODE_TOKEN_HEADER, REVOKE_PATH};
use crate::objects::room::{NODE_LINK_PATH, TICKET_HEADER};
use crate::refusal::{Reason, Refusal};
use crate::runtime::{self, FLEET, ROOM, WHOLE, from_object};

/// Enrols a node's key.
pub(super) async fn enrol(
    request: Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    operator::<EnrolRequest>(request, env, deployment, ENROL_PATH).await
}

/// Revokes a node's key.
pub(super) async fn revoke(
    request: Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    operator::<RevokeRequest>(request, env, deployment, REVOKE_PATH).await
}

/// A request of somebody who has an enrolment token, for the fleet object.
async fn operator<T: Serialize + DeserializeOwned>(
    mut request: Request,
    env: &Env,
    deployment: &Deployment,
    path: &str,
) -> Result<StdResult<Response, Refusal>> {
    if request.method() != Method::Post {
        return Ok(Err(Refusal::new(Reason::MethodNotAllowed, "use POST")));
    }
    let Some(token) = bearer(&request)? else {
        return Ok(Err(Refusal::new(Reason::TokenMissing, "an enrolment token is required")));
    };
    if let Err(error) = claims::verify_enrol(&token, &deployment.fleet_secret) {
        return Ok(Err(Refusal::new(Reason::of_token(&error), &format!("enrolment token: {error}"))));
    }
    let body = match body(&mut request).await? {
        Ok(body) => body,
        Err(refusal) => return Ok(Err(refusal)),
    };
    match serde_json::from_slice::<T>(&body) {
        Ok(asked) => from_object(runtime::post(&runtime::object(env, FLEET, WHOLE)?, path, &asked).await?).await,
        Err(error) => Ok(Err(Refusal::new(Reason::BodyMalformed, &format!("malformed request: {error}")))),
    }
}

/// A node's fleet link; the fleet object knows its key.
pub(super) async fn fleet_link(request: &Request, env: &Env) -> Result<StdResult<Response, Refusal>> {
    if !is_upgrade(request)? {
        return Ok(Err(Refusal::new(Reason::UpgradeRequired, "a WebSocket is required")));
    }
    let Some(token) = bearer(request)? else { return Ok(Err(GateError::NoToken.refusal())) };
    let forwarded = runtime::upgrade(LINK_PATH, &[(NODE_TOKEN_HEADER, &token)])?;
    from_object(runtime::object(env, FLEET, WHOLE)?.fetch_with_request(forwarded).await?).await
}

/// A node's room link; the room object checks ticket and token.
pub(super) async fn room_link(request: &Request, env: &Env) -> Result<StdResult<Response, Refusal>> {
    if !is_upgrade(request)? {
        return Ok(Err(Refusal::new(Reason::UpgradeRequired, "a WebSocket is required")));
    }
    let url = request.url()?;
    let query = Query::parse(url.query().unwrap_or_default());
    let Some(ticket) = query.value("ticket") else { return Ok(Err(GateError::NoTicket.refusal())) };
    let Some(room) = claims::claimed_room(ticket) else {
        return Ok(Err(GateError::BadTicket(claims::TokenError::Malformed).refusal()));
    };
    let token = bearer(request)?;
    let mut headers = vec![(TICKET_HEADER, ticket)];
    headers.extend(token.as_deref().map(|token| (NODE_TOKEN_HEADER, token)));
    let forwarded = runtime::upgrade(NODE_LINK_PATH, &headers)?;
    from_object(runtime::object(env, ROOM, room.as_str())?.fetch_with_request(forwarded).await?).await
}
