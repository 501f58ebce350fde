//! One WebSocket to the edge, speaking JSON text frames. Notices when nobody is at the other end any more.

use std::sync::OnceLock;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_tungstenite::tungstenite::{Error as WsError, Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// Time between two pings.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// Links ping at the same moments, so far apart: a node with many wakes once for all, and not for each.
const PING_GRID: Duration = Duration::from_secs(1);
/// Silence after which the other end is taken for dead, pongs counted.
const SILENCE_LIMIT: Duration = Duration::from_secs(25);
/// Longest a frame may wait for the network to take it.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a link broke.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    /// The edge closed it.
    #[error("closed by the edge ({code} {reason})")]
    Closed {
        /// Close code (RFC 6455 section 7.4), 1005 if none.
        code: u16,
        /// Its reason.
        reason: String,
    },
    /// Not even pongs came.
    #[error("nothing heard for {} s", SILENCE_LIMIT.as_secs())]
    Silent,
    /// The network does not take frames.
    #[error("could not send for {} s", SEND_TIMEOUT.as_secs())]
    Stuck,
    /// Network or protocol failure.
    #[error(transparent)]
    WebSocket(Box<WsError>),
}

/// What came.
#[derive(Debug)]
pub(crate) enum Incoming<T> {
    /// A message.
    Message(T),
    /// A frame that does not parse.
    Garbage,
}

/// A link's socket.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pings: Interval,
    heard: Instant,
}

impl Socket {
    /// Around an open connection.
    pub(crate) fn new(stream: WebSocketStream<MaybeTlsStream<TcpStream>>) -> Self {
        static ORIGIN: OnceLock<Instant> = OnceLock::new();
        let now = Instant::now();
        let mut pings = interval_at(next_on_grid(*ORIGIN.get_or_init(|| now), now), PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self { stream, pings, heard: Instant::now() }
    }

    /// Sends a message.
    pub(crate) async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), LinkError> {
        let text = serde_json::to_string(message).unwrap_or_default();
        self.send_frame(Message::Text(Utf8Bytes::from(text))).await
    }

    /// The next message. Cancel safe: nothing is lost when the future is dropped.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> Result<Incoming<T>, LinkError> {
        loop {
            let frame = tokio::select! {
                frame = self.stream.next() => frame,
                _ = self.pings.tick() => {
                    if self.heard.elapsed() > SILENCE_LIMIT {
                        return Err(LinkError::Silent);
                    }
                    self.send_frame(Message::Ping(bytes::Bytes::new())).await?;
                    continue;
                }
            };
            self.heard = Instant::now();
            match frame {
                None => return Err(LinkError::Closed { code: 1006, reason: String::new() }),
                Some(Err(error)) => return Err(LinkError::WebSocket(Box::new(error))),
                Some(Ok(Message::Text(text))) => {
                    let parsed = serde_json::from_str(&text);
                    return Ok(parsed.map_or(Incoming::Garbage, Incoming::Message));
                }
                Some(Ok(Message::Close(frame))) => {
                    let (code, reason) =
                        frame.map_or((1005, String::new()), |frame| (frame.code.into(), frame.reason.to_string()));
                    return Err(LinkError::Closed { code, reason });
                }
                Some(Ok(Message::Binary(_))) => return Ok(Incoming::Garbage),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            }
        }
    }

    /// Says goodbye; whether it arrives does not matter.
    pub(crate) async fn close(mut self) {
        let _ = tokio::time::timeout(SEND_TIMEOUT, self.stream.close(None)).await;
    }

    async fn send_frame(&mut self, frame: Message) -> Result<(), LinkError> {
        match tokio::time::timeout(SEND_TIMEOUT, self.stream.send(frame)).await {
            Err(_) => Err(LinkError::Stuck),
            Ok(result) => result.map_err(|error| LinkError::WebSocket(Box::new(error))),
        }
    }
}

/// The first moment after `now` that is a multiple of [`PING_GRID`] from `origin`.
fn next_on_grid(origin: Instant, now: Instant) -> Instant {
    let since = now.saturating_duration_since(origin);
    now + PING_GRID.saturating_sub(Duration::from_nanos(since.subsec_nanos().into()))
}

#[cfg(test)]
mod tests {
    use shared::control::RoomToNode;
    use tokio::net::TcpListener;
    use tokio_tungstenite::{accept_async, connect_async};

    use super::*;

    #[test]
    fn links_ping_at_the_same_moments() {
        let origin = Instant::now();
        let at = |millis| origin + Duration::from_millis(millis);
        let next: Vec<_> =
            [0, 1, 999, 1000, 73_500].into_iter().map(|millis| next_on_grid(origin, at(millis))).collect();
        assert_eq!(next, [at(1000), at(1000), at(1000), at(2000), at(74_000)]);
        assert_eq!(next_on_grid(at(5), origin), origin + PING_GRID, "never at once");
    }

    #[tokio::test]
    async fn an_edge_that_is_gone_without_a_word_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let accept = async { accept_async(listener.accept().await.unwrap().0).await.unwrap() };
        let (dialed, _silent) = tokio::join!(connect_async(url), accept);
        let mut socket = Socket::new(dialed.unwrap().0);
        // From here on time passes at once whenever nothing else happens; the other end stays open and never reads.
        tokio::time::pause();
        let since = Instant::now();
        assert!(matches!(socket.next::<RoomToNode>().await, Err(LinkError::Silent)));
        assert!(since.elapsed() <= SILENCE_LIMIT + 2 * PING_INTERVAL);
    }
}
