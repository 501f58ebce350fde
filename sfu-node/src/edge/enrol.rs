//! Enrolment: the edge learns the node's public key and gives the node its id.

use std::time::Duration;

use shared::control::{ENROL_PATH, EnrolRequest, EnrolResponse};
use shared::ids::NodeId;
use url::Url;

use super::identity::NodeKey;
use super::{MAX_REASON_LEN, endpoint};
use crate::config::Secret;

/// Longest enrolment may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why the node is not enrolled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnrolError {
    /// The edge says no; another enrolment token is needed.
    #[error("the edge refused to enrol this node with {status}: {reason}")]
    Refused {
        /// Its status.
        status: reqwest::StatusCode,
        /// Its reason.
        reason: String,
    },
    /// The edge did not answer, or not as it should.
    #[error("cannot reach the edge to enrol: {0}")]
    Http(#[from] reqwest::Error),
}

/// Enrols the node's key. The same key always gets the same id.
///
/// # Errors
/// [`EnrolError`].
pub(crate) async fn enrol(
    http: &reqwest::Client,
    edge: &Url,
    key: &NodeKey,
    token: &Secret,
) -> Result<NodeId, EnrolError> {
    let request = EnrolRequest { public_key: key.signing_key().public_x().to_owned() };
    let url = endpoint(edge, ENROL_PATH);
    let response = http.post(url).bearer_auth(token.expose()).timeout(TIMEOUT).json(&request).send().await?;
    let status = response.status();
    if status.is_client_error() {
        let text = response.text().await.unwrap_or_default();
        let reason = text.chars().filter(|c| !c.is_control()).take(MAX_REASON_LEN).collect();
        return Err(EnrolError::Refused { status, reason });
    }
    let enrolled: EnrolResponse = response.error_for_status()?.json().await?;
    Ok(enrolled.node)
}
