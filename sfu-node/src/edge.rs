//! The node's side of the edge: who the node is, and how it dials. **Nodes dial; the edge never does.**

pub(crate) mod address;
pub(crate) mod departure;
pub(crate) mod enrol;
pub(crate) mod fleet_link;
pub(crate) mod identity;
mod relief;
pub(crate) mod room_link;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use shared::claims::{NODE_TTL_SECS, NodeClaims, TokenError};
use shared::control::{FLEET_LINK_PATH, ROOM_LINK_PATH};
use shared::ids::NodeId;
use tokio_tungstenite::connect_async_with_config;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error as WsError};
use url::Url;

use self::identity::NodeKey;
use self::socket::Socket;
use crate::auth::unix_seconds;

/// Longest message of a link, bytes: an `OpenSession` with the longest description, and room for its JSON escapes.
const MAX_MESSAGE_LEN: usize = 4 * shared::control::MAX_SDP_LEN;
/// Longest a dial may take.
const DIAL_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest reason of a refusal taken from the edge, characters.
const MAX_REASON_LEN: usize = 200;

/// Why calls are to leave this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Leaving {
    /// Its process is to end.
    pub(crate) stops: bool,
    /// An operator drains it.
    pub(crate) drained: bool,
}

impl Leaving {
    /// Whether they are to.
    pub(crate) fn is_set(self) -> bool {
        self.stops || self.drained
    }
}

/// Why a link could not be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// The edge answered with another status than 101.
    #[error("the edge refused with {status}: {reason}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its reason.
        reason: String,
    },
    /// Nothing answered in time.
    #[error("no answer in {} s", DIAL_TIMEOUT.as_secs())]
    Timeout,
    /// Network, TLS or WebSocket failure.
    #[error(transparent)]
    WebSocket(Box<WsError>),
    /// The node's own key cannot sign.
    #[error("cannot sign a node token: {0}")]
    Token(#[from] TokenError),
    /// The address or token is not fit for a request.
    #[error("cannot make the request")]
    Request,
}

impl DialError {
    /// The edge knows the node or the ticket and says no: trying again with the same does not help.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if matches!(status.as_u16(), 401 | 403 | 404))
    }
}

/// Opens links to the edge in the node's name.
#[derive(Debug, Clone)]
pub(crate) struct Dialer {
    edge: Url,
    node: NodeId,
    key: Arc<NodeKey>,
}

impl Dialer {
    /// For an enrolled node.
    pub(crate) fn new(edge: Url, node: NodeId, key: Arc<NodeKey>) -> Self {
        Self { edge, node, key }
    }

    /// Whose name.
    pub(crate) fn node(&self) -> &NodeId {
        &self.node
    }

    /// Opens the fleet link.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn fleet(&self) -> Result<Socket, DialError> {
        self.dial(endpoint(&self.edge, FLEET_LINK_PATH)).await
    }

    /// Opens a room link.
    ///
    /// # Errors
    /// [`DialError`].
    pub(crate) async fn room(&self, ticket: &str) -> Result<Socket, DialError> {
        let mut url = endpoint(&self.edge, ROOM_LINK_PATH);
        url.query_pairs_mut().append_pair("ticket", ticket);
        self.dial(url).await
    }

    async fn dial(&self, mut url: Url) -> Result<Socket, DialError> {
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme).map_err(|()| DialError::Request)?;
        let claims = NodeClaims::new(self.node.clone(), unix_seconds() + NODE_TTL_SECS);
        let token = self.key.signing_key().sign(&claims)?;
        let mut request = url.as_str().into_client_request().map_err(|_| DialError::Request)?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| DialError::Request)?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        let config =
            WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_LEN)).max_frame_size(Some(MAX_MESSAGE_LEN));
        // Messages are small and answers are waited for: no Nagle delay.
        let dial = connect_async_with_config(request, Some(config), true);
        match tokio::time::timeout(DIAL_TIMEOUT, dial).await {
            Err(_) => Err(DialError::Timeout),
            Ok(Ok((stream, _))) => Ok(Socket::new(stream)),
            Ok(Err(WsError::Http(response))) => Err(refused(&response)),
            Ok(Err(error)) => Err(DialError::WebSocket(Box::new(error))),
        }
    }
}

/// An address of the edge.
pub(crate) fn endpoint(edge: &Url, path: &str) -> Url {
    let mut url = edge.clone();
    url.set_path(&format!("{}{path}", edge.path().trim_end_matches('/')));
    url.set_query(None);
    url
}

/// Waits between dials: short at first, then up to 5 s, with jitter, for ever.
pub(crate) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(5))
        .with_jitter()
        .without_max_times()
        .build()
}

fn refused(response: &tungstenite::http::Response<Option<Vec<u8>>>) -> DialError {
    let body = response.body().as_deref().unwrap_or_default();
    let reason = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(MAX_REASON_LEN).collect();
    DialError::Refused { status: response.status(), reason }
}
