//! Janus's API over WebSocket: one session with one handle of the VideoRoom plugin.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message as Frame;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::super::DEADLINE;

/// Between keepalives; Janus ends a session it has not heard of for 60 s.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(25);
/// WebSocket subprotocol of the API.
const PROTOCOL: &str = "janus-protocol";
const PLUGIN: &str = "janus.plugin.videoroom";

/// An attached handle.
pub(super) struct Api {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    session: Value,
    handle: Value,
    transactions: u64,
}

/// What the plugin answers.
pub(super) struct Reply {
    /// Its own words.
    pub(super) data: Value,
    /// The description that came with them, SDP.
    pub(super) sdp: Option<String>,
}

impl Api {
    /// Opens a session and attaches a handle.
    ///
    /// # Errors
    /// There is no Janus, or it refuses.
    pub(super) async fn attach(url: &str) -> Result<Self> {
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(PROTOCOL));
        let (socket, _) = connect_async(request).await.context("Janus's WebSocket")?;
        let mut api = Self { socket, session: Value::Null, handle: Value::Null, transactions: 0 };
        api.session = field(&api.ask(json!({ "janus": "create" })).await?, "/data/id");
        api.handle = field(&api.ask(json!({ "janus": "attach", "plugin": PLUGIN })).await?, "/data/id");
        Ok(api)
    }

    /// Asks the plugin, with a description or without.
    ///
    /// # Errors
    /// It refuses, or says nothing within [`DEADLINE`].
    pub(super) async fn message(&mut self, body: Value, description: Option<(&str, String)>) -> Result<Reply> {
        let mut message = json!({ "janus": "message", "body": body });
        if let Some((kind, sdp)) = description {
            set(&mut message, "jsep", json!({ "type": kind, "sdp": sdp }));
        }
        let answer = self.ask(message).await?;
        let data = field(&answer, "/plugindata/data");
        if let Some(error) = data.get("error") {
            bail!("Janus's VideoRoom: {error}");
        }
        Ok(Reply { data, sdp: field(&answer, "/jsep/sdp").as_str().map(ToOwned::to_owned) })
    }

    /// All candidates are in the description already.
    ///
    /// # Errors
    /// As [`Api::message`].
    pub(super) async fn complete_candidates(&mut self) -> Result<()> {
        self.send(json!({ "janus": "trickle", "candidate": { "completed": true } })).await.map(drop)
    }

    /// Keeps the session.
    ///
    /// # Errors
    /// The WebSocket is broken.
    pub(super) async fn keep_alive(&mut self) -> Result<()> {
        self.send(json!({ "janus": "keepalive" })).await.map(drop)
    }

    /// Ends the session and everything in it.
    ///
    /// # Errors
    /// As [`Api::message`].
    pub(super) async fn destroy(&mut self) -> Result<()> {
        self.ask(json!({ "janus": "destroy" })).await.map(drop)
    }

    /// Takes in what nobody asked for. Cancel safe.
    ///
    /// # Errors
    /// Janus hung up, or the WebSocket is broken.
    pub(super) async fn hear(&mut self) -> Result<Value> {
        loop {
            let frame = self.socket.next().await.context("Janus closed the WebSocket")??;
            let Frame::Text(text) = frame else { continue };
            let message: Value = serde_json::from_str(&text)?;
            match message.get("janus").and_then(Value::as_str) {
                Some("hangup" | "timeout" | "detached") => bail!("Janus hung up: {message}"),
                _ => return Ok(message),
            }
        }
    }

    /// Asks and waits for what is more than an acknowledgement.
    async fn ask(&mut self, message: Value) -> Result<Value> {
        let transaction = self.send(message).await?;
        let answered = async {
            loop {
                let heard = self.hear().await?;
                if field(&heard, "/transaction") != transaction.as_str() || field(&heard, "/janus") == "ack" {
                    continue;
                }
                if field(&heard, "/janus") == "error" {
                    return Err(anyhow!("Janus: {}", field(&heard, "/error")));
                }
                return Ok(heard);
            }
        };
        timeout(DEADLINE, answered).await.context("Janus does not answer")?
    }

    /// Sends with a transaction of its own; gives that.
    async fn send(&mut self, mut message: Value) -> Result<String> {
        self.transactions += 1;
        let transaction = self.transactions.to_string();
        set(&mut message, "transaction", transaction.as_str().into());
        // A session is no business of its handle.
        let of_session = matches!(field(&message, "/janus").as_str(), Some("keepalive" | "destroy"));
        if !self.session.is_null() {
            set(&mut message, "session_id", self.session.clone());
        }
        if !self.handle.is_null() && !of_session {
            set(&mut message, "handle_id", self.handle.clone());
        }
        self.socket.send(Frame::text(message.to_string())).await?;
        Ok(transaction)
    }
}

/// What is there (a JSON pointer, RFC 6901), or null.
fn field(message: &Value, pointer: &str) -> Value {
    message.pointer(pointer).cloned().unwrap_or_default()
}

/// Sets a field of an object.
fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(fields) = object.as_object_mut() {
        fields.insert(name.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_tungstenite::accept_hdr_async;
    use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

    use super::*;

    /// Speaks Janus's API to one client: opens a session and a handle, then answers each message with what `say` says,
    /// under the message's transaction. Gives what it heard.
    async fn janus(listener: TcpListener, say: fn(&Value) -> Vec<Value>) -> Vec<Value> {
        let (stream, _) = listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "tungstenite's callback")]
        let agree = |_: &Request, mut response: Response| {
            response.headers_mut().insert("Sec-WebSocket-Protocol", HeaderValue::from_static(PROTOCOL));
            Ok(response)
        };
        let mut socket = accept_hdr_async(stream, agree).await.unwrap();
        let mut heard = Vec::new();
        while let Some(Ok(frame)) = socket.next().await {
            let Frame::Text(text) = frame else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            let answers = match message["janus"].as_str().unwrap() {
                "create" => vec![json!({ "janus": "success", "data": { "id": 11 } })],
                "attach" => vec![json!({ "janus": "success", "data": { "id": 22 } })],
                _ => say(&message),
            };
            for mut answer in answers {
                set(&mut answer, "transaction", message["transaction"].clone());
                socket.send(Frame::text(answer.to_string())).await.unwrap();
            }
            heard.push(message);
        }
        heard
    }

    /// Asks the plugin once; what came of it, and what Janus heard.
    async fn ask(say: fn(&Value) -> Vec<Value>) -> (Result<Reply>, Vec<Value>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(janus(listener, say));
        let mut api = Api::attach(&url).await.unwrap();
        let reply = api.message(json!({ "request": "join" }), Some(("offer", "v=0".to_owned()))).await;
        drop(api);
        (reply, server.await.unwrap())
    }

    #[tokio::test]
    async fn an_acknowledgement_is_no_answer() {
        let (reply, heard) = ask(|_| {
            vec![
                json!({ "janus": "ack" }),
                json!({ "janus": "event", "plugindata": { "data": { "videoroom": "joined" } }, "jsep": { "sdp": "v=1" } }),
            ]
        })
        .await;
        let reply = reply.unwrap();
        assert_eq!((reply.data["videoroom"].as_str(), reply.sdp.as_deref()), (Some("joined"), Some("v=1")));
        let asked = heard.last().unwrap();
        assert_eq!((&asked["session_id"], &asked["handle_id"]), (&json!(11), &json!(22)));
        assert_eq!(asked["jsep"], json!({ "type": "offer", "sdp": "v=0" }));
    }

    #[tokio::test]
    async fn refusals_of_janus_and_of_its_plugin_are_errors() {
        let (reply, _) = ask(|_| vec![json!({ "janus": "error", "error": { "code": 458 } })]).await;
        assert!(reply.err().unwrap().to_string().contains("458"));
        let (reply, _) = ask(|_| {
            vec![json!({ "janus": "event", "plugindata": { "data": { "error_code": 426, "error": "No such room" } } })]
        })
        .await;
        assert!(reply.err().unwrap().to_string().contains("No such room"));
    }

    #[tokio::test]
    async fn a_hangup_ends_the_wait() {
        let (reply, _) = ask(|_| vec![json!({ "janus": "hangup", "reason": "DTLS alert" })]).await;
        assert!(reply.err().unwrap().to_string().contains("DTLS alert"));
    }
}
