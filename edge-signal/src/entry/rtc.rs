//! `/rtc`, `/rtc/v1` and `validate`: checks what needs no room, then asks the room's object.

use std::result::Result as StdResult;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use shared::geo::Place;
use shared::ids::RoomName;
use worker::js_sys::Reflect;
use worker::wasm_bindgen::JsValue;
use worker::{Env, Request, Response, Result};

use super::{header, is_upgrade};
use crate::api::access;
use crate::api::deployment::Deployment;
use crate::api::join_query::Query;
use crate::api::route::Signaling;
use crate::objects::room::{
    CLAIMS_HEADER, JOIN_PATH, PLACE_HEADER, SIGNALING_HEADER, USER_AGENT_HEADER, VALIDATE_PATH,
};
use crate::refusal::{Reason, Refusal};
use crate::runtime::{self, ROOM, from_object};

/// A client's upgrade.
pub(super) async fn upgrade(
    signaling: Signaling,
    request: &Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    if !is_upgrade(request)? {
        // Without a body, as LiveKit's server.
        return Ok(Err(Refusal::new(Reason::UpgradeMissing, "")));
    }
    ask(signaling, request, env, deployment, true).await
}

/// The same question without joining: browsers cannot see why an upgrade failed.
pub(super) async fn validate(
    signaling: Signaling,
    request: &Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    ask(signaling, request, env, deployment, false).await
}

async fn ask(
    signaling: Signaling,
    request: &Request,
    env: &Env,
    deployment: &Deployment,
    join: bool,
) -> Result<StdResult<Response, Refusal>> {
    let url = request.url()?;
    let query = Query::parse(url.query().unwrap_or_default());
    let (claims, room) = match check(signaling, request, &query, deployment)? {
        Ok(checked) => checked,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let user_agent = header(request, "User-Agent")?.unwrap_or_default();
    let place = place(request).map(|place| serde_json::to_string(&place)).transpose()?.unwrap_or_default();
    let headers = [
        (CLAIMS_HEADER, claims.as_str()),
        (PLACE_HEADER, &place),
        (
            SIGNALING_HEADER,
            match signaling {
                Signaling::Single => "single",
                Signaling::Dual => "dual",
            },
        ),
        (USER_AGENT_HEADER, &user_agent),
    ];
    // The token has done its work.
    let parameters = url.query_pairs().filter(|(name, _)| name != "access_token");
    let parameters = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    let forwarded = if join {
        runtime::upgrade(&format!("{JOIN_PATH}?{parameters}"), &headers)?
    } else {
        runtime::get(&format!("{VALIDATE_PATH}?{parameters}"), &headers)?
    };
    from_object(runtime::object(env, ROOM, room.as_str())?.fetch_with_request(forwarded).await?).await
}

/// Claims (encoded for a header) and room of a join that may be asked for.
fn check(
    signaling: Signaling,
    request: &Request,
    query: &Query,
    deployment: &Deployment,
) -> Result<StdResult<(String, RoomName), Refusal>> {
    let authorization = header(request, "Authorization")?;
    let checked = || {
        let token = access::bearer(authorization.as_deref(), query.value("access_token"))?;
        let (mut claims, room) = access::join(&deployment.keys, token)?;
        if let Some(suffix) = query.value("publish") {
            access::publish_only(&mut claims, suffix)?;
        }
        // Malformed requests do not reach the object.
        query.ask(signaling)?;
        Ok((claims, room))
    };
    Ok(match checked() {
        Ok((claims, room)) => Ok((URL_SAFE_NO_PAD.encode(serde_json::to_vec(&claims)?), room)),
        Err(refusal) => Err(refusal),
    })
}

/// Where the platform says the client is. Read by hand: worker's accessor panics where `cf` is not complete.
fn place(request: &Request) -> Option<Place> {
    let cf = Reflect::get(request.inner(), &JsValue::from_str("cf")).ok().filter(JsValue::is_object)?;
    let degrees = |name: &str| Reflect::get(&cf, &JsValue::from_str(name)).ok()?.as_string()?.parse::<f64>().ok();
    Some(Place { latitude: degrees("latitude")?, longitude: degrees("longitude")? })
}
