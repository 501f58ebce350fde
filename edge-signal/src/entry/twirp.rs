//! `/twirp/…`: the server API, asked of the room or the directory it concerns.

use shared::ids::RoomName;
use worker::{Env, Headers, Request, Response, ResponseBody, ResponseBuilder, Result};

use super::{body, header, json};
use crate::api::access;
use crate::api::deployment::Deployment;
use crate::api::twirp::room_service::{self, Ask};
use crate::api::twirp::{self, Code, Encoding, Error, answer_json};
use crate::objects::directory::{LIST_PATH, Listed};
use crate::objects::room::{Asked, SERVICE_PATH};
use crate::refusal::{Reason, Refusal};
use crate::report::Report;
use crate::room::service;
use crate::runtime::{self, DIRECTORY, ROOM, WHOLE};

/// Answers a call; errors are answers too.
pub(super) async fn call(mut request: Request, env: &Env, deployment: &Deployment) -> Result<Response> {
    let content_type = header(&request, "Content-Type")?.unwrap_or_default();
    let (path, method) = (request.path(), request.method().to_string());
    if !twirp::is_service(&path) {
        return runtime::refuse(&Refusal::new(Reason::NotFound, "404 page not found\n"));
    }
    let (name, encoding) = match twirp::route(&method, &path, &content_type) {
        Ok(route) => route,
        Err(error) => return refuse(&error, env),
    };
    let authorization = header(&request, "Authorization")?;
    let claims = match access::server(&deployment.keys, authorization.as_deref()) {
        Ok(claims) => claims,
        Err(refusal) => return refuse(&Error::new(Code::Unauthenticated, refusal.text), env),
    };
    let bytes = match body(&mut request, twirp::MAX_BODY).await? {
        Ok(bytes) => bytes,
        Err(_) => return refuse(&Error::new(Code::ResourceExhausted, "request body too large"), env),
    };
    let answered = match twirp::ask(name, encoding, &bytes, &claims.video.unwrap_or_default()) {
        Ok(ask) => carry_out(ask, encoding, env).await?,
        Err(error) => Err(error),
    };
    match answered {
        Ok(answer) => {
            let headers = Headers::new();
            headers.set("Content-Type", encoding.content_type())?;
            Ok(ResponseBuilder::new().with_status(200).with_headers(headers).body(ResponseBody::Body(answer)))
        }
        Err(error) => refuse(&error, env),
    }
}

async fn carry_out(ask: Ask, encoding: Encoding, env: &Env) -> Result<std::result::Result<Vec<u8>, Error>> {
    match ask {
        Ask::Room(room, request) => {
            let stub = runtime::object(env, ROOM, room.as_str())?;
            let asked = Asked { room, request };
            let answer: std::result::Result<service::Answer, service::Error> =
                runtime::call(&stub, SERVICE_PATH, &asked).await?;
            Ok(room_service::answer(encoding, answer))
        }
        Ask::Rooms(names) => {
            let directory = runtime::object(env, DIRECTORY, WHOLE)?;
            let names: Vec<_> = names.iter().filter_map(|name| RoomName::try_from(name.as_str()).ok()).collect();
            let Listed(rooms) = runtime::call(&directory, LIST_PATH, &names).await?;
            Ok(encoding.encode(&rooms, answer_json::ROOMS))
        }
    }
}

fn refuse(error: &Error, env: &Env) -> Result<Response> {
    let (status, reason) = (error.code.status(), error.code.as_str());
    runtime::report(env, &[Report::Refused { route: "twirp", status, reason }]);
    json(status, &error.body())
}
