//! What the platform gives: time, randomness, configuration, answers, and calls between Worker and objects.

use std::cell::OnceCell;
use std::rc::Rc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::ids::{RANDOM_LEN, random_part};
use worker::js_sys;
use worker::wasm_bindgen::JsValue;
use worker::{
    AnalyticsEngineDataPointBuilder, Date, Env, Headers, Method, Request, RequestInit, Response, ResponseBuilder,
    Result, ScheduledTime, State, Stub, console_error, console_log, console_warn,
};

use crate::api::deployment::{Deployment, DeploymentError};
use crate::refusal::{Reason, Refusal};
use crate::report::{self, Point, Report};
use crate::room::event::{Context, UnixMs};

/// Binding of the room objects, one for each room name.
pub(crate) const ROOM: &str = "ROOM";
/// Binding of the fleet objects.
pub(crate) const FLEET: &str = "FLEET";
/// Binding of the object of agents' workers.
pub(crate) const AGENTS: &str = "AGENTS";
/// Binding of the directory object.
pub(crate) const DIRECTORY: &str = "DIRECTORY";
/// Binding of the dataset that data points go to; a deployment may have none.
const ANALYTICS: &str = "ANALYTICS";
/// The reason's code on an object's refusal.
const REASON_HEADER: &str = "x-meridian-reason";
/// Name of the one fleet object, the one directory object and the one agents' object.
pub(crate) const WHOLE: &str = "whole";

thread_local! {
    // One deployment per isolate: a change of its variables starts new isolates.
    static DEPLOYMENT: OnceCell<std::result::Result<Rc<Deployment>, DeploymentError>> = const { OnceCell::new() };
}

/// The deployment's configuration; what is wrong with it is logged once.
pub(crate) fn deployment(env: &Env) -> std::result::Result<Rc<Deployment>, Refusal> {
    let read = || {
        let read = Deployment::read(|name| env.var(name).ok().map(|value| value.to_string()));
        match &read {
            Ok(deployment) => deployment.warnings.iter().for_each(|warning| console_warn!("{warning}")),
            Err(error) => console_error!("{error}"),
        }
        read.map(Rc::new)
    };
    let deployment = DEPLOYMENT.with(|cell| cell.get_or_init(read).clone());
    deployment.map_err(|error| Refusal::new(Reason::NotConfigured, &error.to_string()))
}

/// Now.
pub(crate) fn now() -> UnixMs {
    UnixMs(Date::now().as_millis())
}

/// Has the platform wake an object up then, and no longer when it was told before.
pub(crate) async fn set_alarm(state: &State, UnixMs(due): UnixMs) -> Result<()> {
    // Milliseconds since the epoch are exact in a double.
    #[allow(clippy::cast_precision_loss)]
    let date = js_sys::Date::new(&(due as f64).into());
    state.storage().set_alarm(ScheduledTime::new(date)).await
}

/// Random bytes from the platform.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| worker::Error::RustError(format!("no randomness: {error}")))?;
    Ok(bytes)
}

/// A random name: of a connection, a link, a `jti`.
pub(crate) fn random_name() -> Result<String> {
    Ok(format!("{}{}", random_part(random::<RANDOM_LEN>()?), random_part(random::<RANDOM_LEN>()?)))
}

/// Time and randomness for one event of a room.
pub(crate) fn context() -> Result<Context> {
    Ok(Context { now: now(), seed: random()? })
}

/// The object of a room, or the one of another kind.
pub(crate) fn object(env: &Env, binding: &str, name: &str) -> Result<Stub> {
    env.durable_object(binding)?.get_by_name(name)
}

/// An answer in plain text.
pub(crate) fn text(status: u16, body: &str) -> Result<Response> {
    let headers = Headers::new();
    headers.set("Content-Type", "text/plain; charset=utf-8")?;
    Ok(ResponseBuilder::new().with_status(status).with_headers(headers).fixed(body.as_bytes().to_vec()))
}

/// A refusal as LiveKit answers it.
pub(crate) fn refuse(refusal: &Refusal) -> Result<Response> {
    text(refusal.reason.status(), &refusal.text)
}

/// A refusal of an object, for [`from_object`].
pub(crate) fn refuse_worker(refusal: &Refusal) -> Result<Response> {
    let response = refuse(refusal)?;
    response.headers().set(REASON_HEADER, refusal.reason.as_str())?;
    Ok(response)
}

/// An answer of an object: passed on, or turned into the refusal it is.
pub(crate) async fn from_object(mut response: Response) -> Result<std::result::Result<Response, Refusal>> {
    if response.status_code() < 300 {
        return Ok(Ok(response));
    }
    let reason = response.headers().get(REASON_HEADER)?.and_then(|code| Reason::of_code(&code));
    let text = response.text().await?;
    match reason {
        Some(reason) => Ok(Err(Refusal { reason, text })),
        // No refusal, but an error that nobody caught: for the log, not for the client.
        None => Err(worker::Error::RustError(text)),
    }
}

/// A request for an object that asks for a WebSocket. **Built from nothing: no header of a client reaches an object.**
pub(crate) fn upgrade(path: &str, headers: &[(&str, &str)]) -> Result<Request> {
    let list = Headers::new();
    list.set("Upgrade", "websocket")?;
    plain(path, Method::Get, list, headers, None)
}

/// A request for an object without a WebSocket.
pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Result<Request> {
    plain(path, Method::Get, Headers::new(), headers, None)
}

/// Posts JSON to an object and reads its JSON answer.
pub(crate) async fn call<T: DeserializeOwned>(stub: &Stub, path: &str, body: &impl Serialize) -> Result<T> {
    let mut response = post(stub, path, body).await?;
    if response.status_code() != 200 {
        let status = response.status_code();
        return Err(worker::Error::RustError(format!("{path}: {status} {}", response.text().await?)));
    }
    // Through text: serde_wasm_bindgen would see JavaScript values instead of what serde_json wrote.
    Ok(serde_json::from_str(&response.text().await?)?)
}

/// Posts JSON to an object; the answer is the caller's to read.
pub(crate) async fn post(stub: &Stub, path: &str, body: &impl Serialize) -> Result<Response> {
    let body = JsValue::from_str(&serde_json::to_string(body)?);
    stub.fetch_with_request(plain(path, Method::Post, Headers::new(), &[], Some(body))?).await
}

/// Tells the operator. A deployment without a dataset has the lines alone.
pub(crate) fn report(env: &Env, reports: &[Report<'_>]) {
    for report in reports {
        console_log!("{}", report.log_line());
    }
    if reports.is_empty() {
        return;
    }
    let Ok(dataset) = env.analytics_engine(ANALYTICS) else { return };
    // Counts are exact in a double.
    #[allow(clippy::cast_precision_loss)]
    let double = |number: u64| number as f64;
    for Point { event, reason, place, sdk, count, seconds } in report::points(reports) {
        let point = AnalyticsEngineDataPointBuilder::new()
            .indexes([event])
            .blobs([event, &reason, &place, sdk])
            .doubles([double(count), double(seconds)]);
        // A point that is not taken is only not counted.
        let _ = point.write_to(&dataset);
    }
}

fn plain(
    path: &str,
    method: Method,
    list: Headers,
    headers: &[(&str, &str)],
    body: Option<JsValue>,
) -> Result<Request> {
    for (name, value) in headers {
        list.set(name, value)?;
    }
    let mut init = RequestInit::new();
    init.with_method(method).with_headers(list).with_body(body);
    // Objects look at the path alone.
    Request::new_with_init(&format!("https://object{path}"), &init)
}
