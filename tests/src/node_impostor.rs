//! A node that enrols its own key and speaks the control protocol by hand: what an attacker with a node's rights, or
//! without them, could try at the edge.

use anyhow::{Context, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use serde::Serialize;
use shared::claims::{NODE_TTL_SECS, NodeClaims, PrivateJwk, SigningKey};
use shared::control::{
    CONTROL_VERSION, ENROL_PATH, EnrolRequest, EnrolResponse, FLEET_LINK_PATH, FleetToNode, NodeInfo, NodeLoad,
    NodeToFleet, ROOM_LINK_PATH, RoomToNode,
};
use shared::geo::Place;
use shared::ids::{NodeId, RegionName};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::http::header::AUTHORIZATION;
use tokio_tungstenite::tungstenite::{Message, http};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::signal::endpoint;
use crate::token::unix_now;

/// An open link, or the status and text it was refused with.
pub type Dialled = Result<Link, (u16, String)>;

/// A fresh Ed25519 key.
///
/// # Errors
/// The system has no randomness.
pub fn fresh_key(kid: &str) -> anyhow::Result<SigningKey> {
    let pair = Ed25519KeyPair::generate()?;
    let seed = aws_lc_rs::encoding::AsBigEndian::as_be_bytes(&pair.seed()?)?;
    let seed: &[u8; 32] = seed.as_ref().try_into()?;
    let jwk = PrivateJwk::new(kid.to_owned(), seed, pair.public_key().as_ref().try_into()?);
    Ok(SigningKey::try_from(&jwk)?)
}

/// Someone with a key that the fleet knows as a node's.
pub struct NodeImpostor {
    edge: String,
    /// Its key.
    pub key: SigningKey,
    /// The id the fleet gave it.
    pub id: NodeId,
}

impl NodeImpostor {
    /// Enrols a fresh key.
    ///
    /// # Errors
    /// The edge refuses, or cannot be reached.
    pub async fn enrol(edge: &str, enrolment_token: &str) -> anyhow::Result<Self> {
        let key = fresh_key("node")?;
        let (status, text) = enrol(edge, Some(enrolment_token), key.public_x()).await?;
        if status >= 300 {
            bail!("{status}: {text}");
        }
        let answer: EnrolResponse = serde_json::from_str(&text)?;
        Ok(Self { edge: edge.to_owned(), key, id: answer.node })
    }

    /// A node token for now.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn token(&self) -> anyhow::Result<String> {
        Ok(self.key.sign(&NodeClaims::new(self.id.clone(), unix_now() + NODE_TTL_SECS))?)
    }

    /// Opens the fleet link, and is a node that takes rooms from then on.
    ///
    /// # Errors
    /// The edge refuses.
    pub async fn serve(&self) -> anyhow::Result<Link> {
        let dialled = dial(&self.edge, FLEET_LINK_PATH, None, Some(&self.token()?)).await?;
        let mut link = dialled.ok().context("the fleet link was refused")?;
        let info = NodeInfo {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            control_version: CONTROL_VERSION,
            region: RegionName::try_from("local-a")?,
            place: Place { latitude: 0.0, longitude: 0.0 },
            max_sessions: 100,
            limits: shared::control::NodeLimits::default(),
            pipes: false,
        };
        link.send(&NodeToFleet::Hello(info)).await?;
        link.send(&NodeToFleet::Heartbeat(NodeLoad::default())).await?;
        Ok(link)
    }

    /// Dials a room with this ticket.
    ///
    /// # Errors
    /// The edge cannot be reached.
    pub async fn dial_room(&self, ticket: &str) -> anyhow::Result<Dialled> {
        dial(&self.edge, ROOM_LINK_PATH, Some(ticket), Some(&self.token()?)).await
    }
}

/// Posts a public key for enrolment; the status and text of the answer.
///
/// # Errors
/// The edge cannot be reached.
pub async fn enrol(edge: &str, token: Option<&str>, public_key: &str) -> anyhow::Result<(u16, String)> {
    post(edge, ENROL_PATH, token, &EnrolRequest { public_key: public_key.to_owned() }).await
}

/// Posts JSON; the status and text of the answer.
///
/// # Errors
/// The edge cannot be reached.
pub async fn post(edge: &str, path: &str, token: Option<&str>, body: &impl Serialize) -> anyhow::Result<(u16, String)> {
    let mut request = reqwest::Client::new().request(Method::POST, format!("{edge}{path}")).json(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    Ok((answer.status().as_u16(), answer.text().await?))
}

/// Opens a node's WebSocket.
///
/// # Errors
/// The edge cannot be reached.
pub async fn dial(edge: &str, path: &str, ticket: Option<&str>, token: Option<&str>) -> anyhow::Result<Dialled> {
    let mut url = endpoint(edge, path)?;
    if let Some(ticket) = ticket {
        url.query_pairs_mut().append_pair("ticket", ticket);
    }
    let mut request = url.as_str().into_client_request()?;
    if let Some(token) = token {
        request.headers_mut().insert(AUTHORIZATION, http::HeaderValue::from_str(&format!("Bearer {token}"))?);
    }
    match connect_async(request).await {
        Ok((socket, _)) => Ok(Ok(Link { socket })),
        Err(WsError::Http(response)) => {
            let text = response.body().as_deref().map(String::from_utf8_lossy).unwrap_or_default().into_owned();
            Ok(Err((response.status().as_u16(), text)))
        }
        Err(error) => Err(error.into()),
    }
}

/// A node's WebSocket: JSON text frames.
pub struct Link {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Link {
    /// Sends a message.
    ///
    /// # Errors
    /// The link broke.
    pub async fn send(&mut self, message: &impl Serialize) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::Text(serde_json::to_string(message)?.into())).await?)
    }

    /// The ticket of the next room the fleet sends this node to.
    ///
    /// # Errors
    /// The link ended.
    pub async fn attach_ticket(&mut self) -> anyhow::Result<String> {
        while let Some(frame) = self.socket.next().await {
            let Message::Text(text) = frame? else { continue };
            if let FleetToNode::Attach { ticket, .. } = serde_json::from_str(&text)? {
                return Ok(ticket);
            }
        }
        bail!("the fleet link ended")
    }

    /// The ticket a room gives this node for dialing in again.
    ///
    /// # Errors
    /// The link ended.
    pub async fn rejoin_ticket(&mut self) -> anyhow::Result<String> {
        while let Some(frame) = self.socket.next().await {
            let Message::Text(text) = frame? else { continue };
            if let RoomToNode::Welcome { rejoin_ticket, .. } = serde_json::from_str(&text)? {
                return Ok(rejoin_ticket);
            }
        }
        bail!("the room link ended")
    }

    /// The code the edge closes the link with; `None`: it gave none.
    pub async fn close_code(&mut self) -> Option<u16> {
        while let Some(Ok(frame)) = self.socket.next().await {
            if let Message::Close(frame) = frame {
                return frame.map(|frame| frame.code.into());
            }
        }
        None
    }
}
