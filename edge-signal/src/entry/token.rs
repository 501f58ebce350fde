//! `POST /token` and the key set.

use std::result::Result as StdResult;

use serde_json::json;
use worker::{Env, Request, Response, Result};

use super::{MAX_BODY, body, header, json as json_response};
use crate::api::access;
use crate::api::deployment::Deployment;
use crate::api::token_request::{Chance, TokenRequest, TokenResponse};
use crate::refusal::{Reason, Refusal};
use crate::runtime;

/// How long a node may keep the key set, seconds. An unknown key id makes it ask again at once.
const JWKS_MAX_AGE: &str = "max-age=300";

/// Mints an access token.
pub(super) async fn mint(
    mut request: Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    match minted(&mut request, env, deployment).await? {
        Ok(response) => Ok(Ok(json_response(201, &response)?)),
        Err(refusal) => Ok(Err(refusal)),
    }
}

/// A refusal as JSON with its text.
pub(super) fn refuse(refusal: &Refusal) -> Result<Response> {
    let status = refusal.reason.status();
    let response = json_response(status, &json!({ "error": refusal.text }))?;
    if status == 401 {
        response.headers().set("WWW-Authenticate", "Basic realm=\"API key and secret\"")?;
    }
    Ok(response)
}

async fn minted(
    request: &mut Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<TokenResponse, Refusal>> {
    let authorization = header(request, "Authorization")?;
    let caller = match access::caller(&deployment.keys, authorization.as_deref(), deployment.open_meetings) {
        Ok(caller) => caller,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let body = match body(request, MAX_BODY).await? {
        Ok(body) => body,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let chance = Chance { now: runtime::now().secs(), random: runtime::random()? };
    let minted = TokenRequest::parse(&body).and_then(|asked| asked.mint(caller, chance));
    let token = minted.and_then(|minted| {
        let token = deployment.keys.mint(&minted.claims);
        let token = token.map_err(|error| Refusal::new(Reason::Internal, &format!("cannot sign: {error}")))?;
        runtime::report(env, &[minted.report()]);
        Ok(token)
    });
    let url = request.url()?;
    let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(token
        .map(|participant_token| TokenResponse { server_url: format!("{scheme}://{host}{port}"), participant_token }))
}

/// `/.well-known/jwks.json`.
pub(super) fn jwks(deployment: &Deployment) -> Result<Response> {
    let response = json_response(200, &deployment.signing.key_set())?;
    response.headers().set("Cache-Control", JWKS_MAX_AGE)?;
    Ok(response)
}
