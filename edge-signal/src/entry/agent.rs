//! `/agent`: a worker of LiveKit's Agents framework.

use std::result::Result as StdResult;

use worker::{Env, Request, Response, Result};

use super::{header, is_upgrade};
use crate::api::access;
use crate::api::deployment::Deployment;
use crate::api::join_query::Query;
use crate::objects::agents::WORKER_PATH;
use crate::refusal::{Reason, Refusal};
use crate::runtime::{self, AGENTS, WHOLE, from_object};

/// A worker's upgrade.
pub(super) async fn upgrade(
    request: &Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    if !is_upgrade(request)? {
        // Without a body, as LiveKit's server.
        return Ok(Err(Refusal::new(Reason::UpgradeMissing, "")));
    }
    let url = request.url()?;
    let query = Query::parse(url.query().unwrap_or_default());
    let authorization = header(request, "Authorization")?;
    let token = access::bearer(authorization.as_deref(), query.value("access_token"));
    if let Err(refusal) = token.and_then(|token| access::agent_worker(&deployment.keys, token)) {
        return Ok(Err(refusal));
    }
    let forwarded = runtime::upgrade(WORKER_PATH, &[])?;
    from_object(runtime::object(env, AGENTS, WHOLE)?.fetch_with_request(forwarded).await?).await
}
