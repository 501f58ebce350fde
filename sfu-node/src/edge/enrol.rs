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

impl EnrolError {
    /// The edge does not know the address that a node without a token comes from. That may change any time.
    pub(crate) fn awaits_admission(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == reqwest::StatusCode::FORBIDDEN)
    }
}

/// Enrols the node's key, by the token or, without one, by the address it comes from. The same key always gets the same id.
///
/// # Errors
/// [`EnrolError`].
pub(crate) async fn enrol(
    http: &reqwest::Client,
    edge: &Url,
    key: &NodeKey,
    token: Option<&Secret>,
) -> Result<NodeId, EnrolError> {
    let request = EnrolRequest { public_key: key.signing_key().public_x().to_owned() };
    let url = endpoint(edge, ENROL_PATH);
    let post = http.post(url).timeout(TIMEOUT).json(&request);
    let post = match token {
        Some(token) => post.bearer_auth(token.expose()),
        None => post,
    };
    let response = post.send().await?;
    let status = response.status();
    if status.is_client_error() {
        let text = response.text().await.unwrap_or_default();
        let reason = text.chars().filter(|c| !c.is_control()).take(MAX_REASON_LEN).collect();
        return Err(EnrolError::Refused { status, reason });
    }
    let enrolled: EnrolResponse = response.error_for_status()?.json().await?;
    Ok(enrolled.node)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;
    use axum::{Json, Router};
    use tokio::net::TcpListener;

    use super::*;

    /// Enrols at an edge that answers with `status` and `body`, after it has checked what it was sent.
    async fn enrol_at(name: &str, status: StatusCode, body: String) -> Result<NodeId, EnrolError> {
        let directory = std::env::temp_dir().join(format!("meridian-enrol-{name}-{}", std::process::id()));
        let key = NodeKey::load_or_create(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let public_key = key.signing_key().public_x().to_owned();
        let answer = move |headers: HeaderMap, Json(request): Json<EnrolRequest>| async move {
            let known = headers["authorization"] == "Bearer enrol-me" && request.public_key == public_key;
            if known { (status, body) } else { (StatusCode::IM_A_TEAPOT, "not what a node sends".to_owned()) }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let edge = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().route(ENROL_PATH, post(answer));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let token = crate::config::secret("enrol-me").unwrap();
        let result = enrol(&reqwest::Client::new(), &edge, &key, Some(&token)).await;
        server.abort();
        result
    }

    #[tokio::test]
    async fn the_edge_names_the_node() {
        let body = serde_json::json!({ "node": "ND_new" }).to_string();
        assert_eq!(enrol_at("ok", StatusCode::OK, body).await.unwrap().as_str(), "ND_new");
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_bounds() {
        let reason = format!("token\u{7} expired{}", "!".repeat(1000));
        let refusal = enrol_at("refused", StatusCode::FORBIDDEN, reason).await.unwrap_err();
        let EnrolError::Refused { status, reason } = refusal else { panic!("{refusal}") };
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(reason.starts_with("token expired!") && reason.len() == MAX_REASON_LEN, "{reason}");
    }

    #[tokio::test]
    async fn a_node_without_a_token_shows_none_and_waits_to_be_admitted() {
        let answer = |headers: HeaderMap| async move {
            let status = if headers.contains_key("authorization") { StatusCode::OK } else { StatusCode::FORBIDDEN };
            (status, "not admitted")
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let edge = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let router = Router::new().route(ENROL_PATH, post(answer));
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let directory = std::env::temp_dir().join(format!("meridian-enrol-tokenless-{}", std::process::id()));
        let key = NodeKey::load_or_create(&directory).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let error = enrol(&reqwest::Client::new(), &edge, &key, None).await.unwrap_err();
        server.abort();
        assert!(error.awaits_admission(), "{error}");
    }

    #[tokio::test]
    async fn an_edge_that_is_broken_may_be_asked_again() {
        for (name, status, body) in [("down", StatusCode::BAD_GATEWAY, ""), ("odd", StatusCode::OK, "{\"node\":7}")] {
            let error = enrol_at(name, status, body.to_owned()).await.unwrap_err();
            assert!(matches!(error, EnrolError::Http(_)), "{error}");
        }
    }
}
