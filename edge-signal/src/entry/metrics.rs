//! `GET /metrics`: asks the fleet and the directory.

use std::result::Result as StdResult;

use futures_util::future::try_join;
use shared::control::RegionNeed;
use worker::{Env, Error, Request, Response, Result};

use super::{bearer, with_headers};
use crate::api::deployment::Deployment;
use crate::api::metrics::{self, CONTENT_TYPE, Tally};
use crate::objects::directory::TALLY_PATH;
use crate::objects::fleet::NEED_PATH;
use crate::refusal::Refusal;
use crate::runtime::{self, DIRECTORY, FLEET, WHOLE};

/// Tells a monitor what the deployment has and needs.
pub(super) async fn read(
    request: &Request,
    env: &Env,
    deployment: &Deployment,
) -> Result<StdResult<Response, Refusal>> {
    if let Err(refusal) = metrics::check(deployment.metrics_token.as_deref(), bearer(request)?.as_deref()) {
        return Ok(Err(refusal));
    }
    let (fleet, directory) = (runtime::object(env, FLEET, WHOLE)?, runtime::object(env, DIRECTORY, WHOLE)?);
    let needs = runtime::call::<Vec<RegionNeed>>(&fleet, NEED_PATH, &());
    let (needs, tally) = try_join(needs, runtime::call::<Tally>(&directory, TALLY_PATH, &())).await?;
    let text = metrics::encode(&needs, tally).map_err(|error| Error::RustError(error.to_string()))?;
    with_headers(runtime::text(200, &text)?, &[("Content-Type", CONTENT_TYPE.to_owned())]).map(Ok)
}
