//! LiveKit's signal protocol from the client's side: one WebSocket of protobuf frames on `/rtc/v1` or `/rtc`.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{SinkExt, StreamExt};
use livekit_protocol::wrapped_join_request::Compression as Wrapping;
use livekit_protocol::{
    ClientInfo, ConnectionSettings, JoinRequest, SignalRequest, SignalResponse, WrappedJoinRequest, client_info,
    signal_request, signal_response,
};
use prost::Message;
use shared::geo::Place;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use url::Url;
use xtask::edge::CF_HEADER;

use crate::front::cf;

/// Signal protocol this client speaks: that of livekit-client 2.23.
pub const PROTOCOL: i32 = 17;

/// One or two peer connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `/rtc/v1`: the client offers, tracks flow both ways.
    Single,
    /// `/rtc`: the client offers the publisher connection, the server the subscriber connection.
    Dual,
}

/// Why a signal connection did not open.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered the upgrade with a status.
    #[error("refused with {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it said.
        body: String,
    },
    /// The URL is none.
    #[error("not a URL: {0}")]
    Url(#[from] url::ParseError),
    /// Anything else: no server, not a WebSocket server.
    #[error("no signal connection: {0}")]
    Transport(Box<WsError>),
}

/// What came from the server.
#[derive(Debug, Clone)]
pub enum Heard {
    /// A message.
    Message(Box<signal_response::Message>),
    /// The WebSocket closed; `None`: without a close frame.
    Closed(Option<u16>),
}

/// An open signal connection.
#[derive(Debug)]
pub struct Signal {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Signal {
    /// Joins with `token`. In [`Mode::Single`] the request goes along as `join_request`, in [`Mode::Dual`] its settings
    /// become query parameters.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn join(server: &str, token: &str, mode: Mode, request: &JoinRequest) -> Result<Self, ConnectError> {
        Self::join_from(None, server, token, mode, request).await
    }

    /// As [`Signal::join`], where the platform says that the client is there.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn join_from(
        place: Option<Place>,
        server: &str,
        token: &str,
        mode: Mode,
        request: &JoinRequest,
    ) -> Result<Self, ConnectError> {
        let mut url = match mode {
            Mode::Single => endpoint(server, "/rtc/v1")?,
            Mode::Dual => endpoint(server, "/rtc")?,
        };
        url.query_pairs_mut().append_pair("access_token", token);
        match mode {
            Mode::Single => {
                url.query_pairs_mut().append_pair("join_request", &wrap(request));
            }
            Mode::Dual => {
                let auto = request.connection_settings.as_ref().is_none_or(|s| s.auto_subscribe);
                url.query_pairs_mut()
                    .append_pair("auto_subscribe", if auto { "1" } else { "0" })
                    .append_pair("protocol", &PROTOCOL.to_string())
                    .append_pair("sdk", "rust")
                    .append_pair("version", env!("CARGO_PKG_VERSION"));
            }
        }
        Self::open_from(place, &url).await
    }

    /// Opens a WebSocket on exactly this URL.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn open(url: &Url) -> Result<Self, ConnectError> {
        Self::open_from(None, url).await
    }

    async fn open_from(place: Option<Place>, url: &Url) -> Result<Self, ConnectError> {
        let mut request = url.as_str().into_client_request().map_err(|e| ConnectError::Transport(Box::new(e)))?;
        if let Some(place) = place {
            let cf = HeaderValue::try_from(cf(place));
            let cf = cf.map_err(|error| ConnectError::Transport(Box::new(WsError::from(error))))?;
            request.headers_mut().insert(CF_HEADER, cf);
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self { socket }),
            Err(WsError::Http(response)) => {
                let body = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
                Err(ConnectError::Refused { status: response.status().as_u16(), body })
            }
            Err(error) => Err(ConnectError::Transport(Box::new(error))),
        }
    }

    /// Sends a message; a closed socket shows in [`Signal::hear`].
    pub async fn send(&mut self, message: signal_request::Message) {
        let bytes = SignalRequest { message: Some(message) }.encode_to_vec();
        self.send_frame(Frame::Binary(bytes.into())).await;
    }

    /// Sends any frame at all.
    pub async fn send_frame(&mut self, frame: Frame) {
        // What broke is told by the reading side, with the close code.
        let _ = self.socket.send(frame).await;
    }

    /// The next message, or how the connection ended. Frames that hold no message are skipped. Cancel safe.
    pub async fn hear(&mut self) -> Heard {
        loop {
            let frame = match self.socket.next().await {
                Some(Ok(frame)) => frame,
                Some(Err(_)) | None => return Heard::Closed(None),
            };
            match frame {
                Frame::Binary(bytes) => {
                    if let Some(message) = SignalResponse::decode(bytes).ok().and_then(|r| r.message) {
                        return Heard::Message(Box::new(message));
                    }
                }
                Frame::Close(reason) => return Heard::Closed(reason.map(|r| r.code.into())),
                _ => {}
            }
        }
    }

    /// Drops the TCP connection without a close frame or a leave.
    pub fn abort(self) {
        drop(self.socket);
    }
}

/// A join request as livekit-client makes it: everything subscribed.
#[must_use]
pub fn join_request() -> JoinRequest {
    JoinRequest {
        client_info: Some(ClientInfo {
            sdk: client_info::Sdk::Rust.into(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            protocol: PROTOCOL,
            os: "linux".to_owned(),
            ..ClientInfo::default()
        }),
        connection_settings: Some(ConnectionSettings { auto_subscribe: true, ..ConnectionSettings::default() }),
        ..JoinRequest::default()
    }
}

/// The `join_request` parameter: gzip, protobuf, URL-safe base64 with padding.
#[must_use]
pub fn wrap(request: &JoinRequest) -> String {
    wrap_gzip(&gzip(&request.encode_to_vec()))
}

/// The `join_request` parameter around bytes that claim to be gzip.
#[must_use]
pub fn wrap_gzip(compressed: &[u8]) -> String {
    let wrapped = WrappedJoinRequest { compression: Wrapping::Gzip.into(), join_request: compressed.to_vec() };
    URL_SAFE.encode(wrapped.encode_to_vec())
}

/// Compresses in memory.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    // Writing into a Vec cannot fail; an empty result would be refused by the server and fail the test.
    let _ = encoder.write_all(bytes);
    encoder.finish().unwrap_or_default()
}

/// `path` under the server's URL, with the WebSocket scheme.
///
/// # Errors
/// [`ConnectError::Url`].
pub fn endpoint(server: &str, path: &str) -> Result<Url, ConnectError> {
    let server = server.replacen("http", "ws", 1);
    Ok(Url::parse(&format!("{}{path}", server.trim_end_matches('/')))?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_wrapped_join_request_unwraps_to_itself() {
        let request = join_request();
        let wrapped = WrappedJoinRequest::decode(URL_SAFE.decode(wrap(&request)).unwrap().as_slice()).unwrap();
        let mut inflated = Vec::new();
        flate2::read::GzDecoder::new(wrapped.join_request.as_slice()).read_to_end(&mut inflated).unwrap();
        assert_eq!(JoinRequest::decode(inflated.as_slice()).unwrap(), request);
    }

    #[test]
    fn endpoints_keep_a_path_prefix() {
        assert_eq!(endpoint("https://sfu.example/live/", "/rtc").unwrap().as_str(), "wss://sfu.example/live/rtc");
    }
}
