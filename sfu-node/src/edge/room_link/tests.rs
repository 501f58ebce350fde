//! Room links against a WebSocket server that plays the room's object.

use std::net::SocketAddr;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::{Json, Router, routing::get};
use futures_util::{SinkExt, StreamExt};
use shared::claims::{JwkSet, PrivateJwk, SESSION_TTL_SECS, SessionClaims, SigningKey, verify_node};
use shared::control::{ClientTraits, Description, DescriptionKind, MediaGrants, PeerConnections, ROOM_LINK_PATH};
use shared::ids::{Generation, Identity, NodeId, ParticipantSid, RoomSid, SessionKey};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request as Upgrade, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async};

use super::*;
use crate::auth::unix_seconds;
use crate::conference::Conference;
use crate::conference::placement::Fullness;
use crate::control::{self, ControlTask, Report};
use crate::edge::identity::NodeKey;
use crate::media::api::{Command, Fingerprint, ShardIndex};
use crate::session::Endpoint;
use crate::session::allocator::Allocator;

const JOIN: &str = include_str!("../../../tests/fixtures/js_single_join_offer.sdp");
/// Longest anything may take here.
pub(in crate::edge) const LIMIT: Duration = Duration::from_secs(20);

/// The edge, a node's control task, and a link under test between them.
pub(in crate::edge) struct Story {
    edge: SigningKey,
    listener: TcpListener,
    pub(in crate::edge) context: RoomContext,
    node_key: Arc<NodeKey>,
    attaches: mpsc::Sender<Attach>,
    commands: mpsc::UnboundedReceiver<Command>,
    tasks: JoinSet<()>,
    _leaving: watch::Sender<Leaving>,
    _control: ControlTask,
    _events: mpsc::Sender<(ShardIndex, Report)>,
}

/// The edge's end of a link.
pub(in crate::edge) struct RoomSide(pub(in crate::edge) WebSocketStream<TcpStream>);

impl Story {
    pub(in crate::edge) async fn begin(name: &str) -> Self {
        let edge = signing_key(7);
        let mut tasks = JoinSet::new();
        let jwks = serve_keys(&edge, &mut tasks).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let directory = std::env::temp_dir().join(format!("meridian-room-link-{name}-{}", std::process::id()));
        let node_key = Arc::new(NodeKey::load_or_create(&directory).unwrap());
        std::fs::remove_dir_all(&directory).unwrap();
        let (command_sender, commands) = mpsc::unbounded_channel();
        let (events, shard_events) = mpsc::channel(8);
        let metrics = Arc::new(Metrics::new());
        let endpoint =
            Endpoint { candidates: vec!["127.0.0.1:7900".parse().unwrap()], fingerprints: [Fingerprint([1; 32]); 2] };
        let full = Fullness { sessions: 10, packets_per_second: 1000 };
        let conference = Conference::new(vec![endpoint], full, Allocator::new([1; 32]), 10);
        let send = move |_, command| drop(command_sender.send(command));
        let (control, control_task, _) = control::start(conference, send, 1, shard_events, metrics.clone());
        let leaving = watch::Sender::new(Leaving::default());
        let context = RoomContext {
            dialer: Dialer::new(url, node(), node_key.clone()),
            verifier: Arc::new(Verifier::new(node(), jwks, reqwest::Client::new())),
            control,
            metrics,
            pipes: true,
            place: Place { latitude: 52.5, longitude: 13.4 },
            leaving: leaving.subscribe(),
            exit: Exit::new(),
            shed_limit: Duration::from_millis(200),
        };
        let (attaches, received) = mpsc::channel(4);
        let task = run(hall(), context.clone(), received, Arc::default());
        tasks.spawn(async move { drop(task.await) });
        Self {
            edge,
            listener,
            context,
            node_key,
            attaches,
            commands,
            tasks,
            _control: control_task,
            _events: events,
            _leaving: leaving,
        }
    }

    pub(in crate::edge) fn open(&self, who: &str, room: &str, jti: &str) -> OpenSession {
        let claims = SessionClaims {
            aud: node(),
            room: RoomName::try_from(room).unwrap(),
            sub: key(who).participant,
            identity: Identity::try_from(who).unwrap(),
            generation: key(who).generation,
            grants: MediaGrants::all(),
            jti: jti.to_owned(),
            exp: unix_seconds() + SESSION_TTL_SECS,
        };
        OpenSession {
            token: self.edge.sign(&claims).unwrap(),
            peer_connections: PeerConnections::Single,
            client: ClientTraits::default(),
            offer: Some(Description { kind: DescriptionKind::Offer, id: 1, sdp: JOIN.to_owned() }),
            tracks: Vec::new(),
            subscriptions: Vec::new(),
            established: None,
            playout_delay: None,
        }
    }

    /// Ada's session comes with the link, Bob's over it; the next ticket is T2.
    async fn welcome_two(&self) -> RoomSide {
        self.attach("T1", Some(self.open("ada", "hall", "1"))).await;
        let mut room = self.accept("T1").await;
        room.hello().await;
        room.welcome("T2", vec![key("ada")]).await;
        // The answer shows that the node has handled what came before it.
        room.say(&RoomToNode::OpenSession(Box::new(self.open("bob", "hall", "2")))).await;
        while !matches!(room.next().await, NodeToRoom::Answer { session, .. } if session == key("bob")) {}
        room
    }

    async fn attach(&self, ticket: &str, first: Option<OpenSession>) {
        self.attaches.send(Attach { ticket: ticket.to_owned(), first: first.map(Box::new) }).await.unwrap();
    }

    /// Takes the node's dial, which must show `ticket` and a token of the node's own key.
    pub(in crate::edge) async fn accept(&self, ticket: &str) -> RoomSide {
        self.accept_at(&format!("{ROOM_LINK_PATH}?ticket={ticket}")).await
    }

    #[allow(clippy::result_large_err, reason = "tungstenite's callback")]
    pub(in crate::edge) async fn accept_at(&self, path: &str) -> RoomSide {
        let (stream, _) = timeout(LIMIT, self.listener.accept()).await.expect("the node dials").unwrap();
        let check = |request: &Upgrade, response: Response| {
            assert_eq!(request.uri().to_string(), path);
            let bearer = request.headers()["authorization"].to_str().unwrap().strip_prefix("Bearer ").unwrap();
            assert_eq!(verify_node(bearer, self.node_key.signing_key().public_x()).unwrap().sub, node());
            Ok::<_, ErrorResponse>(response)
        };
        RoomSide(accept_hdr_async(stream, check).await.unwrap())
    }

    #[allow(clippy::result_large_err, reason = "tungstenite's callback")]
    pub(in crate::edge) async fn refuse(&self) {
        let (stream, _) = timeout(LIMIT, self.listener.accept()).await.expect("the node dials").unwrap();
        let refuse = |_: &Upgrade, _: Response| {
            let mut response = ErrorResponse::new(Some("ticket used".to_owned()));
            *response.status_mut() = StatusCode::FORBIDDEN;
            Err::<Response, _>(response)
        };
        assert!(accept_hdr_async(stream, refuse).await.is_err());
    }

    /// Waits until the shard is told to close a transport.
    async fn closed(&mut self) {
        let closes = async {
            loop {
                if let Command::Close(_) = self.commands.recv().await.expect("control lives") {
                    return;
                }
            }
        };
        timeout(LIMIT, closes).await.expect("a transport is closed");
    }

    async fn ended(&mut self) {
        while timeout(LIMIT, self.tasks.join_next()).await.expect("the room task ends").is_some() {
            // The key server is the other task; it never ends by itself.
            if self.tasks.len() == 1 {
                return;
            }
        }
    }
}

impl RoomSide {
    pub(in crate::edge) async fn next<T: serde::de::DeserializeOwned>(&mut self) -> T {
        loop {
            let frame = timeout(LIMIT, self.0.next()).await.expect("the node speaks").expect("open").unwrap();
            if let Message::Text(text) = frame {
                return serde_json::from_str(&text).unwrap();
            }
        }
    }

    pub(in crate::edge) async fn hello(&mut self) -> Vec<SessionKey> {
        match self.next().await {
            NodeToRoom::Hello { control_version, sessions, .. } => {
                assert_eq!(control_version, CONTROL_VERSION);
                sessions
            }
            other => panic!("not a hello: {other:?}"),
        }
    }

    pub(in crate::edge) async fn say<T: serde::Serialize>(&mut self, message: &T) {
        self.0.send(Message::text(serde_json::to_string(message).unwrap())).await.unwrap();
    }

    async fn welcome(&mut self, rejoin_ticket: &str, sessions: Vec<SessionKey>) {
        let room_sid = RoomSid::try_from("RM_hall").unwrap();
        self.say(&RoomToNode::Welcome { room_sid, rejoin_ticket: rejoin_ticket.to_owned(), sessions }).await;
    }
}

pub(in crate::edge) fn hall() -> RoomName {
    RoomName::try_from("hall").unwrap()
}

pub(in crate::edge) fn node() -> NodeId {
    NodeId::try_from("ND_me").unwrap()
}

fn key(who: &str) -> SessionKey {
    SessionKey { participant: ParticipantSid::try_from(format!("PA_{who}")).unwrap(), generation: Generation(1) }
}

fn signing_key(seed: u8) -> SigningKey {
    let seed = [seed; 32];
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
    let public = pair.public_key().as_ref().try_into().unwrap();
    SigningKey::try_from(&PrivateJwk::new("edge".to_owned(), &seed, public)).unwrap()
}

async fn serve_keys(edge: &SigningKey, tasks: &mut JoinSet<()>) -> url::Url {
    let set = JwkSet { keys: vec![edge.public_jwk()] };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let router = Router::new().route("/jwks.json", get(move || async move { Json(set) }));
    tasks.spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/jwks.json").parse().unwrap()
}

#[tokio::test]
async fn the_first_session_is_open_when_the_link_comes_up() {
    let story = Story::begin("first").await;
    story.attach("T1", Some(story.open("ada", "hall", "1"))).await;
    let mut room = story.accept("T1").await;
    assert_eq!(room.hello().await, [key("ada")]);
    assert!(matches!(room.next().await, NodeToRoom::Answer { session, .. } if session == key("ada")));
    room.welcome("T2", vec![key("ada")]).await;
    room.say(&RoomToNode::OpenSession(Box::new(story.open("bob", "hall", "2")))).await;
    assert!(matches!(room.next().await, NodeToRoom::Answer { session, .. } if session == key("bob")));
}

#[tokio::test]
async fn sessions_outlive_a_broken_link_and_the_room_has_the_last_word() {
    let mut story = Story::begin("rejoin").await;
    drop(story.welcome_two().await);
    let mut room = story.accept("T2").await;
    let mut sessions = room.hello().await;
    sessions.sort();
    assert_eq!(sessions, [key("ada"), key("bob")]);
    room.welcome("T3", vec![key("ada")]).await;
    story.closed().await;
    assert_eq!(story.context.control.sessions(hall()).await.unwrap(), [key("ada")]);
}

#[tokio::test]
async fn a_refused_ticket_ends_the_room_here() {
    let mut story = Story::begin("refused").await;
    story.attach("T1", Some(story.open("ada", "hall", "1"))).await;
    story.refuse().await;
    story.closed().await;
    story.ended().await;
}

#[tokio::test]
async fn a_link_that_closes_without_sessions_is_not_dialed_again() {
    let mut story = Story::begin("idle").await;
    story.attach("T1", None).await;
    let mut room = story.accept("T1").await;
    assert!(room.hello().await.is_empty());
    drop(room);
    story.ended().await;
}

#[tokio::test]
async fn a_new_attach_replaces_the_link() {
    let story = Story::begin("replace").await;
    story.attach("T1", None).await;
    let mut room = story.accept("T1").await;
    room.hello().await;
    story.attach("T2", Some(story.open("ada", "hall", "1"))).await;
    let mut again = story.accept("T2").await;
    assert_eq!(again.hello().await, [key("ada")]);
}

#[tokio::test]
async fn bad_session_tokens_are_refused_and_counted() {
    let story = Story::begin("tokens").await;
    story.attach("T1", Some(story.open("ada", "hall", "1"))).await;
    let mut room = story.accept("T1").await;
    room.hello().await;
    let tampered = OpenSession { token: story.open("eve", "hall", "3").token + "x", ..story.open("eve", "hall", "3") };
    for (who, open) in [
        ("bob", story.open("bob", "cellar", "2")),
        ("bob", story.open("bob", "hall", "1")),
        ("eve", tampered),
        ("ada", story.open("ada", "hall", "4")),
    ] {
        room.say(&RoomToNode::OpenSession(Box::new(open))).await;
        loop {
            if let NodeToRoom::SessionRefused { session, reason, .. } = room.next().await {
                assert_eq!(reason, RefusalReason::BadToken);
                assert!(session.is_none_or(|session| session == key(who)));
                break;
            }
        }
    }
    let metrics = story.context.metrics.encode().unwrap();
    for reason in ["wrong_room", "reused", "stale_generation"] {
        assert!(metrics.contains(&format!("sessions_refused_total{{reason=\"{reason}\"}} 1")), "{metrics}");
    }
}

#[tokio::test]
async fn a_room_that_could_not_be_told_everything_hears_that_its_sessions_are_gone() {
    let mut story = Story::begin("outbox").await;
    drop(story.welcome_two().await);
    // The node's next dial hangs, while each of these has an answer.
    let (hanging, _) = timeout(LIMIT, story.listener.accept()).await.expect("the node dials").unwrap();
    for id in 0..=u32::try_from(OUTBOX).unwrap() {
        let description = Description { kind: DescriptionKind::Offer, id, sdp: "nothing".to_owned() };
        let message = RoomToNode::Offer { session: key("ada"), description };
        story.context.control.send(Request::Message { room: hall(), message }).await.unwrap();
    }
    story.closed().await;
    drop(hanging);
    assert!(story.accept("T2").await.hello().await.is_empty());
}
