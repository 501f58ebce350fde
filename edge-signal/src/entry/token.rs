//! `POST /token` and the key set.

use std::result::Result as StdResult;

use serde_json::json;
use shared::claims::JwkSet;
use worker::{Method, Request, Response, Result};

use super::{body, header, json as json_response};
use crate::api::access;
use crate::api::deployment::Deployment;
use crate::api::token_request::{Caller, Chance, TokenRequest, TokenResponse};
use crate::room::effect::Refusal;
use crate::runtime::{self, log_refusal};

/// How long a node may keep the key set, seconds. An unknown key id makes it ask again at once.
const JWKS_MAX_AGE: &str = "max-age=300";

/// Mints an access token; refusals are JSON with the reason.
pub(super) async fn mint(mut request: Request, deployment: &Deployment) -> Result<StdResult<Response, Refusal>> {
    match minted(&mut request, deployment).await? {
        Ok(response) => Ok(Ok(json_response(201, &response)?)),
        Err(refusal) => {
            log_refusal("Token", refusal.status, &refusal.reason);
            let response = json_response(refusal.status, &json!({ "error": refusal.reason }))?;
            if refusal.status == 401 {
                response.headers().set("WWW-Authenticate", "Basic realm=\"API key and secret\"")?;
            }
            Ok(Ok(response))
        }
    }
}

async fn minted(request: &mut Request, deployment: &Deployment) -> Result<StdResult<TokenResponse, Refusal>> {
    if request.method() != Method::Post {
        return Ok(Err(Refusal::new(405, "use POST")));
    }
    let caller = match caller(header(request, "Authorization")?.as_deref(), deployment) {
        Ok(caller) => caller,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let body = match body(request).await? {
        Ok(body) => body,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let chance = Chance { now: runtime::now().secs(), random: runtime::random()? };
    let claims = TokenRequest::parse(&body).and_then(|asked| asked.claims(caller, chance));
    let token = claims.and_then(|claims| {
        deployment.keys.mint(&claims).map_err(|error| Refusal::new(500, &format!("cannot sign: {error}")))
    });
    let url = request.url()?;
    let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(token
        .map(|participant_token| TokenResponse { server_url: format!("{scheme}://{host}{port}"), participant_token }))
}

fn caller(authorization: Option<&str>, deployment: &Deployment) -> StdResult<Caller, Refusal> {
    match authorization {
        Some(authorization) => access::minter(&deployment.keys, authorization).map(Caller::Key),
        None if deployment.open_meetings => {
            let first = deployment.keys.first().map(|(key, _)| key.to_owned());
            first.map(Caller::Anybody).ok_or_else(|| Refusal::new(500, "no API key"))
        }
        None => Err(Refusal::new(401, "an API key and secret, or a token with roomCreate, is required")),
    }
}

/// `/.well-known/jwks.json`.
pub(super) fn jwks(deployment: &Deployment) -> Result<Response> {
    let response = json_response(200, &JwkSet { keys: vec![deployment.signing.public_jwk()] })?;
    response.headers().set("Cache-Control", JWKS_MAX_AGE)?;
    Ok(response)
}
