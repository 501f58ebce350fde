//! An edge that lies: it enrols any node, takes its links, and sends it whatever session tokens a test makes.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Query, State};
use axum::response::Response;
use axum::routing::{any, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use shared::claims::{JwkSet, SESSION_TTL_SECS, SessionClaims, SigningKey};
use shared::control::{
    ClientTraits, ENROL_PATH, EnrolResponse, FLEET_LINK_PATH, FleetToNode, MediaGrants, NodeToRoom, OpenSession,
    PeerConnections, ROOM_LINK_PATH, RoomToNode,
};
use shared::ids::{Generation, Identity, NodeId, ParticipantSid, RoomName, RoomSid};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio::task::AbortHandle;

use crate::node_impostor::fresh_key;
use crate::token::unix_now;

/// Messages waiting on a link.
const QUEUE: usize = 64;

/// A lying edge on a free port, for one node and one room.
pub struct EdgeImpostor {
    /// Signs its tokens; the public half is in its key set.
    pub key: Arc<SigningKey>,
    /// The id it gives the node.
    pub node: NodeId,
    /// The room it sends the node to.
    pub room: RoomName,
    address: SocketAddr,
    to_node: mpsc::Sender<RoomToNode>,
    from_node: mpsc::Receiver<NodeToRoom>,
    server: AbortHandle,
}

struct Shared {
    key: Arc<SigningKey>,
    node: NodeId,
    room: RoomName,
    /// What to say on the room link, and where to put what is heard there.
    room_link: Mutex<Option<(mpsc::Receiver<RoomToNode>, mpsc::Sender<NodeToRoom>)>>,
}

impl EdgeImpostor {
    /// Starts it.
    ///
    /// # Errors
    /// There is no free port, or no randomness.
    pub async fn start() -> anyhow::Result<Self> {
        let key = Arc::new(fresh_key("edge-1")?);
        let node = NodeId::try_from("ND_honest000001")?;
        let room = RoomName::try_from("den")?;
        let (to_node, outbox) = mpsc::channel(QUEUE);
        let (inbox, from_node) = mpsc::channel(QUEUE);
        let shared = Shared {
            key: Arc::clone(&key),
            node: node.clone(),
            room: room.clone(),
            room_link: Mutex::new(Some((outbox, inbox))),
        };
        let router = Router::new()
            .route("/.well-known/jwks.json", get(keys))
            .route(ENROL_PATH, post(enrol))
            .route(FLEET_LINK_PATH, any(fleet_link))
            .route(ROOM_LINK_PATH, any(room_link))
            .with_state(Arc::new(shared));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let server = tokio::spawn(async move { axum::serve(listener, router).await }).abort_handle();
        Ok(Self { key, node, room, address, to_node, from_node, server })
    }

    /// Where it is: `http://…`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Claims of a session token that this node should accept.
    ///
    /// # Errors
    /// `who` is no sid suffix.
    pub fn claims(&self, who: &str) -> anyhow::Result<SessionClaims> {
        Ok(SessionClaims {
            aud: self.node.clone(),
            room: self.room.clone(),
            sub: ParticipantSid::try_from(format!("PA_{who}"))?,
            identity: Identity::try_from(who)?,
            generation: Generation(1),
            grants: MediaGrants::all(),
            jti: format!("jti-{who}"),
            exp: unix_now() + SESSION_TTL_SECS,
        })
    }

    /// Sends the node a session with this token.
    ///
    /// # Errors
    /// The room link is not there any more.
    pub async fn open_session(&self, token: String) -> anyhow::Result<()> {
        let open = OpenSession {
            token,
            peer_connections: PeerConnections::DualSubscriberPrimary,
            client: ClientTraits::default(),
            offer: None,
            tracks: Vec::new(),
            subscriptions: Vec::new(),
            established: None,
            playout_delay: None,
        };
        self.to_node.send(RoomToNode::OpenSession(Box::new(open))).await.context("the room link ended")
    }

    /// The next message of the node on the room link.
    ///
    /// # Errors
    /// The room link ended.
    pub async fn hear(&mut self) -> anyhow::Result<NodeToRoom> {
        self.from_node.recv().await.context("the room link ended")
    }
}

impl Drop for EdgeImpostor {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn keys(State(shared): State<Arc<Shared>>) -> Json<JwkSet> {
    Json(JwkSet { keys: vec![shared.key.public_jwk()] })
}

async fn enrol(State(shared): State<Arc<Shared>>) -> Json<EnrolResponse> {
    Json(EnrolResponse { node: shared.node.clone() })
}

async fn fleet_link(State(shared): State<Arc<Shared>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade.on_upgrade(async move |mut socket| {
        let attach = FleetToNode::Attach { room: shared.room.clone(), ticket: "a-ticket".to_owned(), first: None };
        for message in [FleetToNode::Welcome { node: shared.node.clone(), draining: false }, attach] {
            if send(&mut socket, &message).await.is_none() {
                return;
            }
        }
        while let Some(Ok(_)) = socket.recv().await {}
    })
}

#[derive(Deserialize)]
struct RoomQuery {
    ticket: String,
}

async fn room_link(
    State(shared): State<Arc<Shared>>,
    Query(query): Query<RoomQuery>,
    upgrade: WebSocketUpgrade,
) -> Response {
    debug_assert_eq!(query.ticket, "a-ticket");
    upgrade.on_upgrade(async move |mut socket| {
        let Some((mut outbox, inbox)) = shared.room_link.lock().await.take() else { return };
        let Ok(room_sid) = RoomSid::try_from("RM_impostor") else { return };
        let welcome = RoomToNode::Welcome { room_sid, rejoin_ticket: "again".to_owned(), sessions: Vec::new() };
        if send(&mut socket, &welcome).await.is_none() {
            return;
        }
        loop {
            tokio::select! {
                message = outbox.recv() => match message {
                    Some(message) if send(&mut socket, &message).await.is_some() => {}
                    _ => return,
                },
                frame = socket.recv() => match frame {
                    Some(Ok(Message::Text(text))) => {
                        let Ok(message) = serde_json::from_str(&text) else { return };
                        if inbox.send(message).await.is_err() {
                            return;
                        }
                    }
                    Some(Ok(_)) => {}
                    _ => return,
                },
            }
        }
    })
}

async fn send(socket: &mut WebSocket, message: &impl serde::Serialize) -> Option<()> {
    let text = serde_json::to_string(message).ok()?;
    socket.send(Message::Text(text.into())).await.ok()
}
