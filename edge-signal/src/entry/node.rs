//! Nodes at the door: addresses, enrolment, revocation, fleet link, room link.

use std::result::Result as StdResult;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::claims;
use shared::control::{AdmitRequest, DrainRequest, EnrolRequest, RevokeRequest, SeenAddress};
use worker::{Env, Request, Response, Result};

use super::{MAX_BODY, bearer, body, client_address, is_upgrade, json as json_response, with_headers};
use crate::api::deployment::Deployment;
use crate::api::join_query::Query;
use crate::api::json;
use crate::fleet::gate::GateError;
use crate::objects::fleet::{
    ADMIT_ADDRESSES_PATH, DRAIN_PATH, ENROL_PATH, Enrolment, LINK_PATH, NEED_PATH, NODE_ADDRESS_HEADER,
    NODE_TOKEN_HEADER, NODES_PATH, REVOKE_PATH,
};
use crate::objects::room::{NODE_LINK_PATH, TICKET_HEADER};
use crate::refusal::{Reason, Refusal};
use crate::runtime::{self, FLEET, ROOM, WHOLE, from_object};

/// Tells a node where it is seen.
pub(super) fn address(request: &Request) -> Result<StdResult<Response, Refusal>> {
    match client_address(request)? {
        Some(address) => json_response(200, &SeenAddress { address }).map(Ok),
        None => Ok(Err(Refusal::new(Reason::AddressUnknown, "the platform does not say where you are"))),
    }
}

/// Lets nodes enrol from addresses.
pub(super) async fn admit(
    request: Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    operator::<AdmitRequest>(request, env, deployment, ADMIT_ADDRESSES_PATH).await
}

/// Enrols a node's key: with an enrolment token, or from an admitted address.
pub(super) async fn enrol(
    mut request: Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    let from = client_address(&request)?;
    let from = match bearer(&request)? {
        None if from.is_some() => from,
        // The token decides, or its absence.
        _ => match check_operator(&request, deployment)? {
            Ok(()) => None,
            Err(refusal) => return Ok(Err(refusal)),
        },
    };
    match parse::<EnrolRequest>(&mut request).await? {
        Ok(EnrolRequest { public_key }) => to_fleet(env, ENROL_PATH, &Enrolment { public_key, from }).await,
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Revokes a node's key.
pub(super) async fn revoke(
    request: Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    operator::<RevokeRequest>(request, env, deployment, REVOKE_PATH).await
}

/// Has a node drain, or takes that back.
pub(super) async fn drain(
    request: Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    operator::<DrainRequest>(request, env, deployment, DRAIN_PATH).await
}

/// Tells which nodes there are.
pub(super) async fn nodes(
    request: &Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    operator_asks(request, env, deployment, NODES_PATH).await
}

/// Tells how many nodes each region needs.
pub(super) async fn need(
    request: &Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    operator_asks(request, env, deployment, NEED_PATH).await
}

/// A request of somebody who has an enrolment token, for the fleet object.
async fn operator<T: Serialize + DeserializeOwned>(
    mut request: Request,
    env: &Env,
    deployment: &Deployment,
    path: &str,
) -> Result<StdResult<Response, Refusal>> {
    if let Err(refusal) = check_operator(&request, deployment)? {
        return Ok(Err(refusal));
    }
    match parse::<T>(&mut request).await? {
        Ok(asked) => to_fleet(env, path, &asked).await,
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// The same of what needs no body.
async fn operator_asks(
    request: &Request,
    env: &Env,
    deployment: &Deployment,
    path: &str,
) -> Result<StdResult<Response, Refusal>> {
    match check_operator(request, deployment)? {
        Ok(()) => to_fleet(env, path, &()).await,
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// Whether the request has an enrolment token.
fn check_operator(request: &Request, deployment: &Deployment) -> Result<StdResult<(), Refusal>> {
    let Some(token) = bearer(request)? else {
        return Ok(Err(Refusal::new(Reason::TokenMissing, "an enrolment token is required")));
    };
    let verified = claims::verify_enrol(&token, &deployment.fleet_secret);
    Ok(verified.map(drop).map_err(|error| Refusal::new(Reason::of_token(&error), &format!("enrolment token: {error}"))))
}

async fn parse<T: DeserializeOwned>(request: &mut Request) -> Result<StdResult<T, Refusal>> {
    Ok(body(request, MAX_BODY).await?.and_then(|body| {
        let malformed = |error| Refusal::new(Reason::BodyMalformed, &format!("malformed request: {error}"));
        json::parse(&body).map_err(malformed)
    }))
}

async fn to_fleet(env: &Env, path: &str, asked: &impl Serialize) -> Result<StdResult<Response, Refusal>> {
    let answer = from_object(runtime::post(&runtime::object(env, FLEET, WHOLE)?, path, asked).await?).await?;
    match answer {
        Ok(response) => with_headers(response, &[("Content-Type", "application/json".to_owned())]).map(Ok),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// A node's fleet link; the fleet object knows its key.
pub(super) async fn fleet_link(request: &Request, env: &Env) -> Result<StdResult<Response, Refusal>> {
    if !is_upgrade(request)? {
        return Ok(Err(Refusal::new(Reason::UpgradeRequired, "a WebSocket is required")));
    }
    let Some(token) = bearer(request)? else { return Ok(Err(GateError::NoToken.refusal())) };
    let address = client_address(request)?.map(|address| address.to_string()).unwrap_or_default();
    let forwarded = runtime::upgrade(LINK_PATH, &[(NODE_TOKEN_HEADER, &token), (NODE_ADDRESS_HEADER, &address)])?;
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
