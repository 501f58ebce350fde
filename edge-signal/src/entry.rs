//! The Worker: each request to its route.

use std::net::{IpAddr, Ipv6Addr};

use futures_util::TryStreamExt;
use worker::{
    Context, Env, Headers, Method, Request, Response, ResponseBody, ResponseBuilder, Result, console_error, event,
};

use crate::api::cors::Origin;
use crate::api::description::DESCRIPTION;
use crate::api::route::Route;
use crate::refusal::{Reason, Refusal};
use crate::runtime;

mod agent;
mod metrics;
mod node;
mod rtc;
mod token;
mod twirp;

/// Largest body a route reads, bytes; the server API has its own limit.
const MAX_BODY: usize = 64 * 1024;

/// Where Cloudflare says that a request came from. It sets it on every request, whatever the client sent.
const CLIENT_ADDRESS_HEADER: &str = "CF-Connecting-IP";

#[event(fetch)]
async fn fetch(request: Request, env: Env, _context: Context) -> Result<Response> {
    let route = Route::of(&request.path());
    let origin = origin(&request)?;
    if request.method() == Method::Options {
        let headers = origin.preflight().unwrap_or_else(|| origin.answer(false));
        return with_headers(ResponseBuilder::new().with_status(204).empty(), &headers);
    }
    if matches!(route, Route::Asset | Route::Root) && request.method() != Method::Head {
        return asset(request, &env).await;
    }
    let response = match answer(route, request, &env).await {
        Ok(Ok(response)) => response,
        Ok(Err(refusal)) => refuse(route, &refusal, &env)?,
        Err(error) => {
            console_error!("{route:?}: {error}");
            refuse(route, &Refusal::new(Reason::Internal, "internal error"), &env)?
        }
    };
    // The answer to an upgrade is read by no browser script.
    if response.status_code() == 101 {
        return Ok(response);
    }
    with_headers(response, &origin.answer(matches!(route, Route::Validate(_))))
}

/// Answers with a refusal, its line in the log.
fn refuse(route: Route, refusal: &Refusal, env: &Env) -> Result<Response> {
    runtime::report(env, &[refusal.report(route.name())]);
    let response = if route == Route::Token { token::refuse(refusal) } else { runtime::refuse(refusal) }?;
    if let (Reason::MethodNotAllowed, Some(allow)) = (refusal.reason, route.allow()) {
        response.headers().set("Allow", allow)?;
    }
    Ok(response)
}

async fn answer(route: Route, request: Request, env: &Env) -> Result<std::result::Result<Response, Refusal>> {
    // As it was sent: worker's `Method` takes one that it does not know for GET.
    if !route.takes(&request.inner().method()) {
        let text = format!("use {}", route.allow().unwrap_or_default());
        return Ok(Err(Refusal::new(Reason::MethodNotAllowed, &text)));
    }
    if is_over_limit(route, &request, env).await? {
        return Ok(Err(Refusal::new(Reason::RateLimited, "too many requests, try again in a minute")));
    }
    let deployment = match runtime::deployment(env) {
        Ok(deployment) => deployment,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(match route {
        Route::Rtc(signaling) => rtc::upgrade(signaling, &request, env, &deployment).await?,
        Route::Validate(signaling) => rtc::validate(signaling, &request, env, &deployment).await?,
        Route::Twirp => Ok(twirp::call(request, env, &deployment).await?),
        Route::Agent => agent::upgrade(&request, env, &deployment).await?,
        Route::Token => token::mint(request, env, &deployment).await?,
        Route::Jwks => token::jwks(&deployment).map(Ok)?,
        Route::Address => node::address(&request)?,
        Route::Admit => node::admit(request, env, &deployment).await?,
        Route::Enrol => node::enrol(request, env, &deployment).await?,
        Route::Revoke => node::revoke(request, env, &deployment).await?,
        Route::Drain => node::drain(request, env, &deployment).await?,
        Route::Nodes => node::nodes(&request, env, &deployment).await?,
        Route::Need => node::need(&request, env, &deployment).await?,
        Route::FleetLink => node::fleet_link(&request, env).await?,
        Route::RoomLink => node::room_link(&request, env).await?,
        Route::Metrics => metrics::read(&request, env, &deployment).await?,
        Route::Health | Route::Root => Ok(runtime::text(200, "OK")?),
        Route::Description => Ok(json_bytes(200, DESCRIPTION.as_bytes().to_vec())?),
        Route::Regions | Route::Asset => Err(Refusal::new(Reason::NotFound, "not found")),
    })
}

/// Whether this client has asked too often. A limiter that does not answer limits nobody.
async fn is_over_limit(route: Route, request: &Request, env: &Env) -> Result<bool> {
    let limiter = route.limit().and_then(|binding| env.rate_limiter(binding).ok());
    let (Some(limiter), Some(address)) = (limiter, client_address(request)?) else { return Ok(false) };
    let client = match address {
        IpAddr::V4(_) => address,
        // One subscriber has at least a /64 of IPv6.
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    };
    Ok(limiter.limit(client.to_string()).await.is_ok_and(|outcome| !outcome.success))
}

/// The address a request came from, where the platform says.
fn client_address(request: &Request) -> Result<Option<IpAddr>> {
    let address = header(request, CLIENT_ADDRESS_HEADER)?.and_then(|text| text.parse::<IpAddr>().ok());
    Ok(address.map(|address| address.to_canonical()))
}

/// A file of the meeting page.
async fn asset(request: Request, env: &Env) -> Result<Response> {
    match env.assets("ASSETS") {
        Ok(assets) => assets.fetch_request(request).await,
        Err(_) => refuse(Route::Asset, &Refusal::new(Reason::NotFound, "not found"), env),
    }
}

fn origin(request: &Request) -> Result<Origin> {
    let headers = request.headers();
    Ok(Origin {
        origin: headers.get("Origin")?,
        method: headers.get("Access-Control-Request-Method")?,
        headers: headers.get("Access-Control-Request-Headers")?,
    })
}

/// The same answer with more headers; those of an object's answer cannot be changed in place.
fn with_headers(response: Response, more: &[(&'static str, String)]) -> Result<Response> {
    let headers = Headers::new();
    for (name, value) in response.headers() {
        headers.set(&name, &value)?;
    }
    for (name, value) in more {
        headers.set(name, value)?;
    }
    let (builder, body) = response.into_parts();
    Ok(builder.with_headers(headers).body(body))
}

/// A header that may be absent.
fn header(request: &Request, name: &str) -> Result<Option<String>> {
    request.headers().get(name)
}

/// The bearer token of the `Authorization` header.
fn bearer(request: &Request) -> Result<Option<String>> {
    Ok(header(request, "Authorization")?.and_then(|value| value.strip_prefix("Bearer ").map(str::to_owned)))
}

fn is_upgrade(request: &Request) -> Result<bool> {
    Ok(header(request, "Upgrade")?.is_some_and(|value| value.eq_ignore_ascii_case("websocket")))
}

/// The body, if it has at most `max` bytes. **No more is read than that, whatever length was announced.**
async fn body(request: &mut Request, max: usize) -> Result<std::result::Result<Vec<u8>, Refusal>> {
    let mut bytes = Vec::new();
    if request.inner().body().is_none() {
        return Ok(Ok(bytes));
    }
    let mut stream = request.stream()?;
    while let Some(chunk) = stream.try_next().await? {
        bytes.extend(chunk);
        if bytes.len() > max {
            let text = format!("the request is longer than {max} bytes");
            return Ok(Err(Refusal::new(Reason::BodyTooLarge, &text)));
        }
    }
    Ok(Ok(bytes))
}

/// A JSON answer.
fn json(status: u16, value: &impl serde::Serialize) -> Result<Response> {
    json_bytes(status, serde_json::to_vec(value)?)
}

/// One that is written already.
fn json_bytes(status: u16, bytes: Vec<u8>) -> Result<Response> {
    let headers = Headers::new();
    headers.set("Content-Type", "application/json")?;
    Ok(ResponseBuilder::new().with_status(status).with_headers(headers).body(ResponseBody::Body(bytes)))
}
