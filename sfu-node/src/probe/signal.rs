//! The probe's signaling: an access token from the edge, then LiveKit's signal protocol on one WebSocket.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message as Heard;
use livekit_protocol::{
    AddTrackRequest, ClientInfo, ConnectionSettings, JoinRequest, SessionDescription, SignalRequest, SignalResponse,
    WrappedJoinRequest, client_info,
};
use prost::Message;
use serde_json::{Value, json};
use shared::claims::REGION_ATTRIBUTE;
use shared::ids::RegionName;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Error as WsError, Message as Frame};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};
use url::Url;

use super::{ApiKey, ProbeError};
use crate::edge::endpoint;

/// Where the edge mints access tokens.
const TOKEN_PATH: &str = "/token";
/// Where a client with one peer connection joins.
const JOIN_PATH: &str = "/rtc/v1";
/// LiveKit's signal protocol, as livekit-client 2.23 speaks it.
const PROTOCOL: i32 = 17;
/// Life of the token asked for, seconds: a probe takes an hour at most, and its token is looked at once.
const TOKEN_TTL_SECS: u32 = 60;
/// Longest answer of the edge that is shown, characters.
const MAX_REASON_LEN: usize = 200;

/// Asks the edge for an access token.
///
/// # Errors
/// It gives none.
pub(super) async fn token(
    edge: &Url,
    key: &ApiKey,
    room: &str,
    identity: &str,
    region: Option<&RegionName>,
) -> Result<String, ProbeError> {
    let mut request = json!({ "room_name": room, "participant_identity": identity, "ttl": TOKEN_TTL_SECS });
    if let (Some(region), Some(fields)) = (region, request.as_object_mut()) {
        fields.insert("participant_attributes".to_owned(), json!({ REGION_ATTRIBUTE: region }));
    }
    let failed = |error: reqwest::Error| ProbeError::Token(error.without_url().to_string());
    let http = reqwest::Client::builder().user_agent(concat!("sfu-node-probe/", env!("CARGO_PKG_VERSION"))).build();
    let basic = STANDARD.encode(format!("{}:{}", key.key, key.secret.expose()));
    let mut basic = HeaderValue::try_from(format!("Basic {basic}"))
        .map_err(|_| ProbeError::Token("the API key is not fit for a header".to_owned()))?;
    basic.set_sensitive(true);
    let post = http.map_err(failed)?.post(endpoint(edge, TOKEN_PATH)).header(AUTHORIZATION, basic);
    let answer = post.json(&request).send().await.map_err(failed)?;
    let status = answer.status();
    let body = answer.text().await.map_err(failed)?;
    if !status.is_success() {
        return Err(ProbeError::Token(format!("{status}: {}", shown(&body))));
    }
    let token = serde_json::from_str::<Value>(&body).ok();
    let token = token.and_then(|body| body.get("participant_token")?.as_str().map(str::to_owned));
    token.ok_or_else(|| ProbeError::Token("the edge's answer holds none".to_owned()))
}

/// An open signal connection.
pub(super) struct Signal {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Signal {
    /// Joins: the first offer and the tracks to publish go along.
    ///
    /// # Errors
    /// The edge refuses, or cannot be reached.
    pub(super) async fn open(
        edge: &Url,
        token: &str,
        offer: SessionDescription,
        tracks: Vec<AddTrackRequest>,
    ) -> Result<Self, ProbeError> {
        let request = JoinRequest {
            client_info: Some(ClientInfo {
                sdk: client_info::Sdk::Rust.into(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                protocol: PROTOCOL,
                os: "linux".to_owned(),
                ..ClientInfo::default()
            }),
            connection_settings: Some(ConnectionSettings { auto_subscribe: true, ..ConnectionSettings::default() }),
            publisher_offer: Some(offer),
            add_track_requests: tracks,
            ..JoinRequest::default()
        };
        let wrapped = WrappedJoinRequest { join_request: request.encode_to_vec(), ..WrappedJoinRequest::default() };
        let mut url = endpoint(edge, JOIN_PATH);
        let unfit = || ProbeError::Signaling("the edge's address is not fit for a WebSocket".to_owned());
        url.set_scheme(if url.scheme() == "https" { "wss" } else { "ws" }).map_err(|()| unfit())?;
        url.query_pairs_mut().append_pair("join_request", &URL_SAFE.encode(wrapped.encode_to_vec()));
        let mut request = url.as_str().into_client_request().map_err(|_| unfit())?;
        // In a header and not in the query, which may end up in somebody's log.
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| unfit())?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        match connect_async_with_config(request, None, true).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(WsError::Http(response)) => {
                let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default();
                Err(ProbeError::Refused { status: response.status().as_u16(), reason: shown(&body) })
            }
            Err(error) => Err(ProbeError::Signaling(error.to_string())),
        }
    }

    /// Sends a message; a broken connection shows in [`Signal::hear`].
    pub(super) async fn say(&mut self, message: Asked) {
        let bytes = SignalRequest { message: Some(message) }.encode_to_vec();
        // What broke is told by the reading side.
        let _ = self.socket.send(Frame::Binary(bytes.into())).await;
    }

    /// The next message. Cancel safe.
    ///
    /// # Errors
    /// The connection ended.
    pub(super) async fn hear(&mut self) -> Result<Heard, ProbeError> {
        loop {
            match self.socket.next().await {
                Some(Ok(Frame::Binary(bytes))) => {
                    if let Some(message) = SignalResponse::decode(bytes).ok().and_then(|response| response.message) {
                        return Ok(message);
                    }
                }
                Some(Ok(Frame::Close(reason))) => {
                    let code = reason.map_or_else(|| "without a code".to_owned(), |r| u16::from(r.code).to_string());
                    return Err(ProbeError::Signaling(format!("closed by the edge, {code}")));
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(ProbeError::Signaling(error.to_string())),
                None => return Err(ProbeError::Signaling("the connection broke".to_owned())),
            }
        }
    }

    /// Closes the connection, and waits for the edge to do the same.
    pub(super) async fn close(mut self) {
        /// Longest the edge may take.
        const LIMIT: Duration = Duration::from_secs(2);
        let goodbye = async {
            if self.socket.close(None).await.is_ok() {
                while let Some(Ok(_)) = self.socket.next().await {}
            }
        };
        // An edge that does not answer is left.
        let _ = tokio::time::timeout(LIMIT, goodbye).await;
    }
}

/// An answer of the edge, fit for a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON_LEN).collect()
}
