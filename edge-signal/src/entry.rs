//! The Worker: each request to its route.

use futures_util::TryStreamExt;
use worker::{
    Context, Env, Headers, Method, Request, Response, ResponseBody, ResponseBuilder, Result, console_error,
    console_log, event,
};

use crate::api::cors::Origin;
use crate::api::route::Route;
use crate::refusal::{Reason, Refusal};
use crate::runtime;

mod node;
mod rtc;
mod token;

/// Largest body a route reads, bytes.
const MAX_BODY: usize = 64 * 1024;

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
        Ok(Err(refusal)) => refuse(route, &refusal)?,
        Err(error) => {
            console_error!("{route:?}: {error}");
            refuse(route, &Refusal::new(Reason::Internal, "internal error"))?
        }
    };
    // The answer to an upgrade is read by no browser script.
    if response.status_code() == 101 {
        return Ok(response);
    }
    with_headers(response, &origin.answer(matches!(route, Route::Validate(_))))
}

/// Answers with a refusal, its line in the log.
fn refuse(route: Route, refusal: &Refusal) -> Result<Response> {
    console_log!("{}", refusal.log_line(route.name()));
    if route == Route::Token { token::refuse(refusal) } else { runtime::refuse(refusal) }
}

async fn answer(route: Route, request: Request, env: &Env) -> Result<std::result::Result<Response, Refusal>> {
    let deployment = match runtime::deployment(env) {
        Ok(deployment) => deployment,
        Err(refusal) => return Ok(Err(refusal)),
    };
    Ok(match route {
        Route::Rtc(signaling) => rtc::upgrade(signaling, &request, env, &deployment).await?,
        Route::Validate(signaling) => rtc::validate(signaling, &request, env, &deployment).await?,
        Route::Token => token::mint(request, &deployment).await?,
        Route::Jwks => token::jwks(&deployment).map(Ok)?,
        Route::Enrol => node::enrol(request, env, &deployment).await?,
        Route::Revoke => node::revoke(request, env, &deployment).await?,
        Route::FleetLink => node::fleet_link(&request, env).await?,
        Route::RoomLink => node::room_link(&request, env).await?,
        Route::Health | Route::Root => Ok(runtime::text(200, "OK")?),
        Route::Regions | Route::Asset => Err(Refusal::new(Reason::NotFound, "not found")),
    })
}

/// A file of the meeting page.
async fn asset(request: Request, env: &Env) -> Result<Response> {
    match env.assets("ASSETS") {
        Ok(assets) => assets.fetch_request(request).await,
        Err(_) => refuse(Route::Asset, &Refusal::new(Reason::NotFound, "not found")),
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

/// The body, if it is within bounds. **No more is read than that, whatever length was announced.**
async fn body(request: &mut Request) -> Result<std::result::Result<Vec<u8>, Refusal>> {
    let mut bytes = Vec::new();
    if request.inner().body().is_none() {
        return Ok(Ok(bytes));
    }
    let mut stream = request.stream()?;
    while let Some(chunk) = stream.try_next().await? {
        bytes.extend(chunk);
        if bytes.len() > MAX_BODY {
            return Ok(Err(Refusal::new(Reason::BodyTooLarge, "the request is longer than 65536 bytes")));
        }
    }
    Ok(Ok(bytes))
}

/// A JSON answer.
fn json(status: u16, value: &impl serde::Serialize) -> Result<Response> {
    let headers = Headers::new();
    headers.set("Content-Type", "application/json")?;
    let body = ResponseBody::Body(serde_json::to_vec(value)?);
    Ok(ResponseBuilder::new().with_status(status).with_headers(headers).body(body))
}
