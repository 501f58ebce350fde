//! A LiveKit client for tests and load: signaling by [`crate::signal`], media by str0m, so that nothing it says about the
//! node comes from the node's own code. It runs as one task; tests look at what it [`Observed`].

mod driver;
mod janus;
mod light;
mod loss;
mod negotiation;
mod peer;
mod profile;
mod socket;
mod source;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use livekit_protocol::{
    DataPacket, JoinRequest, JoinResponse, LeaveRequest, ParticipantInfo, TrackInfo, UserPacket, data_packet,
    signal_request, signal_response,
};
use shared::geo::Place;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::signal::{ConnectError, Mode, join_request};

pub use janus::{JanusClient, Role};
pub use loss::{Carried, Loss};
pub use profile::SrtpOffer;
pub(crate) use socket::{Batch, MediaSocket};
pub use source::{Stamp, unix_nanos};

/// Packets of a kind that are enough to say that it flows.
const FLOWING: u64 = 50;
/// How long [`Client::until`] waits: far more than anything takes, so that only a fault runs into it.
pub const DEADLINE: Duration = Duration::from_secs(20);
/// Commands waiting for the client's task.
const COMMANDS: usize = 64;

/// How a client joins.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// Server URL, `http` or `ws`.
    pub server: String,
    /// Access token.
    pub token: String,
    /// One or two peer connections.
    pub mode: Mode,
    /// How its peer connections behave.
    pub media: MediaOptions,
    /// Tracks published from the first offer on.
    pub publish: Vec<Publish>,
    /// Where media sockets are bound.
    pub bind: SocketAddr,
    /// Asks for keyframes as a decoder does that cannot begin.
    pub asks_for_keyframes: bool,
    /// Applies each answer after the first only when it has dropped this many media packets that came before it.
    pub packets_before_answer: usize,
    /// Keeps the datagrams sent last, for [`Client::kept_datagrams`].
    pub keep_datagrams: bool,
    /// Where the platform says that it is.
    pub place: Option<Place>,
    /// The join request; its offer is filled in.
    pub request: JoinRequest,
}

impl ClientOptions {
    /// A single-connection client that subscribes to everything and publishes nothing yet.
    #[must_use]
    pub fn new(server: &str, token: &str) -> Self {
        Self {
            server: server.to_owned(),
            token: token.to_owned(),
            mode: Mode::Single,
            media: MediaOptions::default(),
            publish: Vec::new(),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            asks_for_keyframes: true,
            packets_before_answer: 0,
            keep_datagrams: false,
            place: None,
            request: join_request(),
        }
    }
}

/// How peer connections behave.
#[derive(Debug, Clone)]
pub struct MediaOptions {
    /// SRTP profiles offered.
    pub srtp: SrtpOffer,
    /// Offers and gives transport-wide feedback.
    pub transport_cc: bool,
    /// A client with a sink takes media the light way once it is connected: str0m sees none of it, so nothing is asked for
    /// again and no reports are sent. It needs an offer of one SRTP profile.
    pub light: bool,
    /// What arrives comes down this path.
    pub loss: Option<Arc<Loss>>,
}

impl Default for MediaOptions {
    fn default() -> Self {
        Self { srtp: SrtpOffer::Gcm, transport_cc: true, light: false, loss: None }
    }
}

/// A track to publish.
#[derive(Debug, Clone)]
pub enum Publish {
    /// Opus from a microphone.
    Audio {
        /// The client's id for it.
        cid: String,
        /// Between packets: longer than a packet's 20 ms where nobody speaks.
        interval: Duration,
    },
    /// VP8 from a camera.
    Video {
        /// The client's id for it.
        cid: String,
        /// Bits per second: one entry without simulcast, else lowest layer (`q`) first.
        layers: Vec<u32>,
        /// Frames per second.
        frames_per_second: u32,
    },
}

impl Publish {
    /// A microphone.
    #[must_use]
    pub fn microphone(cid: &str) -> Self {
        Self::Audio { cid: cid.to_owned(), interval: source::AUDIO_INTERVAL }
    }

    /// A microphone nobody speaks into: Opus's discontinuous transmission sends one packet every 400 ms.
    #[must_use]
    pub fn quiet_microphone(cid: &str) -> Self {
        Self::Audio { cid: cid.to_owned(), interval: Duration::from_millis(400) }
    }

    /// A microphone that is muted once it is published: it has sent one packet.
    #[must_use]
    pub fn muted_microphone(cid: &str) -> Self {
        Self::Audio { cid: cid.to_owned(), interval: Duration::from_secs(24 * 60 * 60) }
    }

    /// A camera of 1.5 Mb/s at 30 frames a second, one layer.
    #[must_use]
    pub fn camera(cid: &str) -> Self {
        Self::Video { cid: cid.to_owned(), layers: vec![1_500_000], frames_per_second: 30 }
    }

    /// The client's id for it.
    #[must_use]
    pub fn cid(&self) -> &str {
        match self {
            Self::Audio { cid, .. } | Self::Video { cid, .. } => cid,
        }
    }
}

/// What arrived of one subscribed track.
#[derive(Debug, Clone, Default)]
pub struct Flow {
    /// RTP packets, retransmissions included, duplicates not.
    pub packets: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// VP8 keyframes begun.
    pub keyframes: u64,
    /// The first packet begins a VP8 keyframe.
    pub began_with_keyframe: bool,
    /// Stamps seen more than once under different sequence numbers: what an SFU does that forwards replays.
    pub repeated_stamps: u64,
    /// Highest stamp so far.
    pub last_counter: Option<u32>,
    seen: std::collections::HashSet<u32>,
}

/// When the steps of a join were done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timeline {
    /// Before the TCP connection of the WebSocket.
    pub started: Option<Instant>,
    /// The upgrade was answered.
    pub upgraded: Option<Instant>,
    /// `JoinResponse`.
    pub joined: Option<Instant>,
    /// First answer (single) or server offer (dual).
    pub described: Option<Instant>,
    /// ICE and DTLS of the connection media comes on.
    pub connected: Option<Instant>,
    /// First RTP packet of any subscribed track.
    pub first_packet: Option<Instant>,
}

/// Everything a client has seen so far. One with a [`PacketSink`] keeps no messages, participants or media: a thousand of
/// them in a room would remember a million.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The first message.
    pub join: Option<Box<JoinResponse>>,
    /// Every message, in order.
    pub heard: Vec<signal_response::Message>,
    /// The others by identity, newest version of each; those who left are gone.
    pub participants: BTreeMap<String, ParticipantInfo>,
    /// Own tracks by cid, as answered by `track_published`.
    pub published: BTreeMap<String, TrackInfo>,
    /// Whether the connections it needs (publisher; in dual mode also subscriber) are up.
    pub connected: bool,
    /// Labels of data channels that are open.
    pub channels: Vec<String>,
    /// Arrived media by track sid.
    pub flows: BTreeMap<String, Flow>,
    /// Data packets with the label of their channel.
    pub data: Vec<(String, DataPacket)>,
    /// Keyframe requests (PLI, FIR) received for own tracks.
    pub keyframe_requests: u64,
    /// The server's leave.
    pub leave: Option<LeaveRequest>,
    /// The WebSocket is closed; the code, if there was a close frame.
    pub closed: Option<Option<u16>>,
    /// Where its media sockets are bound.
    pub sockets: Vec<SocketAddr>,
    /// What broke, if something did.
    pub failure: Option<String>,
    /// When things happened.
    pub timeline: Timeline,
}

impl Observed {
    /// The flow of the only track of `kind` letter (`A`, `V`) in track sids, if there is one.
    #[must_use]
    pub fn flow(&self, kind: char) -> Option<&Flow> {
        self.flows.iter().find(|(sid, _)| sid.strip_prefix("TR_").is_some_and(|s| s.starts_with(kind))).map(|(_, f)| f)
    }

    /// Who said what first on the data channel of this label.
    #[must_use]
    pub fn said(&self, label: &str) -> Option<(String, String)> {
        let (_, packet) = self.data.iter().find(|(l, _)| l == label)?;
        let data_packet::Value::User(user) = packet.value.as_ref()? else { return None };
        Some((packet.participant_identity.clone(), String::from_utf8_lossy(&user.payload).into_owned()))
    }
}

/// A user's data packet.
#[must_use]
pub fn text(payload: &str) -> DataPacket {
    let user = UserPacket { payload: payload.as_bytes().to_vec(), ..UserPacket::default() };
    DataPacket { value: Some(data_packet::Value::User(user)), ..DataPacket::default() }
}

/// Takes received packets instead of [`Observed`], where that would be too slow.
pub trait PacketSink: Send {
    /// One RTP packet: what ends with its payload, and when the kernel received it (nanoseconds of Unix time) if it says so.
    fn packet(&mut self, payload: &[u8], received: Option<u64>);
}

/// What the task is told.
pub(crate) enum Command {
    Publish(Publish),
    Unpublish(String),
    Mute(String, bool),
    Data { label: String, packet: Box<DataPacket> },
    Request(Box<signal_request::Message>),
    Frame(Frame),
    Datagram(SocketAddr, Vec<u8>),
    Kept(oneshot::Sender<Vec<(SocketAddr, Vec<u8>)>>),
    Sent(Range<u64>, oneshot::Sender<usize>),
    DropSocket,
}

/// A running client; dropping it ends it without a leave, as a killed process would.
pub struct Client {
    commands: mpsc::Sender<Command>,
    observed: watch::Receiver<Observed>,
    task: AbortHandle,
    name: String,
}

impl Client {
    /// Joins. The upgrade is done when this returns; wait for the rest with [`Client::until`].
    ///
    /// # Errors
    /// The upgrade was refused ([`ConnectError`] inside), or there is no socket for media.
    pub async fn join(options: ClientOptions) -> anyhow::Result<Self> {
        Self::join_with(options, None).await
    }

    /// Joins, with received packets going to `sink`.
    ///
    /// # Errors
    /// As [`Client::join`].
    pub async fn join_with(options: ClientOptions, sink: Option<Box<dyn PacketSink>>) -> anyhow::Result<Self> {
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (state, observed) = watch::channel(Observed::default());
        let driver = driver::Driver::start(options, sink, inbox, state).await?;
        let task = tokio::spawn(driver.run()).abort_handle();
        let mut client = Self { commands, observed, task, name: "client".to_owned() };
        let own = client.until("the join response", |o| o.join.as_ref().map(|j| j.participant.clone())).await?;
        client.name = own.map(|p| p.identity).unwrap_or_default();
        Ok(client)
    }

    /// Waits until more audio and video have come, of whomever.
    ///
    /// # Errors
    /// As [`Client::until`].
    pub async fn sees_and_hears_more(&mut self) -> anyhow::Result<()> {
        let packets = |observed: &Observed| {
            ["TR_A", "TR_V"].map(|kind| {
                let flows = observed.flows.iter().filter(|(track, _)| track.starts_with(kind));
                flows.map(|(_, flow)| flow.packets).sum::<u64>()
            })
        };
        let before = self.observe(packets);
        let flows = |observed: &Observed| {
            let more = packets(observed).into_iter().zip(before).all(|(now, before)| now >= before + FLOWING);
            more.then_some(())
        };
        self.until("more audio and video", flows).await
    }

    /// Waits until `look` finds what it looks for.
    ///
    /// # Errors
    /// [`DEADLINE`] passed, or the client's task ended.
    pub async fn until<T>(&mut self, what: &str, mut look: impl FnMut(&Observed) -> Option<T>) -> anyhow::Result<T> {
        let name = self.name.clone();
        let mut found = None;
        let wait = self.observed.wait_for(|observed| {
            found = look(observed);
            found.is_some()
        });
        let waited = tokio::time::timeout(DEADLINE, wait).await.map(|r| r.map(|_| ()));
        match waited {
            Ok(Ok(())) => found.ok_or_else(|| anyhow!("{name}: {what}: lost")),
            Ok(Err(_)) => Err(anyhow!("{name}: waiting for {what}: the client ended: {}", self.summary())),
            Err(_) => Err(anyhow!("{name}: no {what} within {DEADLINE:?}: {}", self.summary())),
        }
    }

    /// Looks at what there is now.
    pub fn observe<T>(&self, look: impl FnOnce(&Observed) -> T) -> T {
        look(&self.observed.borrow())
    }

    /// Waits until the peer connections are up.
    ///
    /// # Errors
    /// As [`Client::until`].
    pub async fn connected(&mut self) -> anyhow::Result<()> {
        self.until("media connection", |o| o.connected.then_some(())).await
    }

    /// Publishes a track.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn publish(&self, track: Publish) -> anyhow::Result<()> {
        self.tell(Command::Publish(track)).await
    }

    /// Stops a track and takes it out of the description.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn unpublish(&self, cid: &str) -> anyhow::Result<()> {
        self.tell(Command::Unpublish(cid.to_owned())).await
    }

    /// Mutes or unmutes an own track: the packets stop, and the server is told.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn mute(&self, cid: &str, muted: bool) -> anyhow::Result<()> {
        self.tell(Command::Mute(cid.to_owned(), muted)).await
    }

    /// Sends a data packet on the channel of this label.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn send_data(&self, label: &str, packet: DataPacket) -> anyhow::Result<()> {
        self.tell(Command::Data { label: label.to_owned(), packet: Box::new(packet) }).await
    }

    /// Sends any signal message.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn request(&self, message: signal_request::Message) -> anyhow::Result<()> {
        self.tell(Command::Request(Box::new(message))).await
    }

    /// Sends any WebSocket frame.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn send_frame(&self, frame: Frame) -> anyhow::Result<()> {
        self.tell(Command::Frame(frame)).await
    }

    /// Sends a datagram from the publisher connection's own socket.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn send_datagram(&self, to: SocketAddr, bytes: Vec<u8>) -> anyhow::Result<()> {
        self.tell(Command::Datagram(to, bytes)).await
    }

    /// The datagrams the publisher connection sent last, with their destination.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn kept_datagrams(&self) -> anyhow::Result<Vec<(SocketAddr, Vec<u8>)>> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Kept(answer)).await?;
        answered.await.context("the client ended")
    }

    /// How many media packets it sent in this time (nanoseconds of Unix time).
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn sent_within(&self, window: Range<u64>) -> anyhow::Result<usize> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Sent(window, answer)).await?;
        answered.await.context("the client ended")
    }

    /// Breaks the WebSocket without a close frame; media goes on.
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn drop_socket(&self) -> anyhow::Result<()> {
        self.tell(Command::DropSocket).await
    }

    /// A ping that the server has answered: it is alive and still knows this client.
    ///
    /// # Errors
    /// As [`Client::until`].
    pub async fn ping(&mut self) -> anyhow::Result<()> {
        let pongs =
            |o: &Observed| o.heard.iter().filter(|m| matches!(m, signal_response::Message::PongResp(_))).count();
        let before = self.observe(pongs);
        let ping = livekit_protocol::Ping { timestamp: 1, rtt: 0 };
        self.request(signal_request::Message::PingReq(ping)).await?;
        self.until("pong", |o| (pongs(o) > before).then_some(())).await
    }

    /// Leaves as a client does that closes its call, and waits for the server to close the connection.
    ///
    /// # Errors
    /// As [`Client::until`].
    pub async fn leave(mut self) -> anyhow::Result<()> {
        let leave = LeaveRequest {
            reason: livekit_protocol::DisconnectReason::ClientInitiated.into(),
            ..LeaveRequest::default()
        };
        self.request(signal_request::Message::Leave(leave)).await?;
        self.until("close after leave", |o| o.closed.map(|_| ())).await
    }

    /// The refusal inside an error of [`Client::join`].
    #[must_use]
    pub fn refusal(error: &anyhow::Error) -> Option<(u16, &str)> {
        match error.downcast_ref::<ConnectError>()? {
            ConnectError::Refused { status, body } => Some((*status, body)),
            _ => None,
        }
    }

    async fn tell(&self, command: Command) -> anyhow::Result<()> {
        self.commands.send(command).await.map_err(|_| anyhow!("{}: the client ended: {}", self.name, self.summary()))
    }

    fn summary(&self) -> String {
        let o = self.observed.borrow();
        let heard: Vec<String> =
            o.heard.iter().map(|m| format!("{m:?}").split('(').next().unwrap_or_default().to_owned()).collect();
        let flows: Vec<String> = o.flows.iter().map(|(sid, f)| format!("{sid}: {} packets", f.packets)).collect();
        format!(
            "connected {}, channels {:?}, flows {flows:?}, leave {:?}, closed {:?}, failure {:?}, heard {heard:?}",
            o.connected, o.channels, o.leave, o.closed, o.failure
        )
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.task.abort();
    }
}
