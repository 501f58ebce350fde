//! A client of Janus's VideoRoom with the media stack of [`super::Client`], so that only the servers differ.

mod api;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::ops::Range;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use serde_json::{Value, json};
use str0m::Event;
use str0m::change::{SdpAnswer, SdpOffer};
use str0m::media::{Direction, MediaKind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::{interval, sleep_until, timeout};

use self::api::{Api, KEEPALIVE};
use super::driver::media::Outgoing;
use super::peer::{Peer, PeerEvent};
use super::{DEADLINE, MediaOptions, PacketSink, Publish};

/// Most publishers of a room made here.
const MOST_PUBLISHERS: usize = 1000;
/// Commands waiting for the client's task.
const COMMANDS: usize = 4;

/// What a client does in a room; Janus has a connection for each direction.
pub enum Role {
    /// Publishes under this id.
    Publisher {
        /// Told by us.
        id: u64,
        /// Its tracks.
        tracks: Vec<Publish>,
    },
    /// Receives everything of these publishers, who are there already.
    Subscriber {
        /// Their ids.
        publishers: Vec<u64>,
        /// Takes their packets.
        sink: Box<dyn PacketSink>,
    },
}

enum Command {
    Sent(Range<u64>, oneshot::Sender<usize>),
    Leave(oneshot::Sender<Result<()>>),
}

/// A running client; dropping it ends it.
pub struct JanusClient {
    commands: mpsc::Sender<Command>,
    /// Whether media can flow; closed when the task has ended.
    connected: watch::Receiver<bool>,
    task: AbortHandle,
    socket: SocketAddr,
}

impl JanusClient {
    /// Makes a room for others to join. It stays until Janus ends.
    ///
    /// # Errors
    /// Janus refuses.
    pub async fn make_room(url: &str, room: u64) -> Result<()> {
        let mut api = Api::attach(url).await?;
        // No cap on the bitrate: Janus must not ask the publisher for less.
        let body = json!({
            "request": "create", "room": room, "publishers": MOST_PUBLISHERS, "bitrate": 0,
            "audiocodec": "opus", "videocodec": "vp8",
        });
        api.message(body, None).await?;
        api.destroy().await
    }

    /// Joins; its media socket is on [`own_address`], as Janus's are.
    ///
    /// # Errors
    /// Janus refuses, or there is no socket for media.
    pub async fn join(url: &str, room: u64, media: &MediaOptions, role: Role) -> Result<Self> {
        let mut peer = Peer::new(own_address()?, media, false).await?;
        let mut api = Api::attach(url).await?;
        let (outgoing, sink) = match role {
            Role::Publisher { id, tracks } => (publish(&mut api, &mut peer, room, id, &tracks).await?, None),
            Role::Subscriber { publishers, sink } => {
                subscribe(&mut api, &mut peer, room, &publishers).await?;
                (Vec::new(), Some(sink))
            }
        };
        api.complete_candidates().await?;
        let (commands, inbox) = mpsc::channel(COMMANDS);
        let (up, connected) = watch::channel(false);
        let socket = peer.socket.local();
        let task = Task {
            api,
            peer,
            outgoing,
            sink,
            light: media.light,
            sent: Vec::new(),
            established: false,
            connected: false,
            up,
            inbox,
        };
        Ok(Self { commands, connected, task: tokio::spawn(task.run()).abort_handle(), socket })
    }

    /// Waits until media can flow.
    ///
    /// # Errors
    /// [`DEADLINE`] passed, or the client's task ended.
    pub async fn connected(&mut self) -> Result<()> {
        let connected = timeout(DEADLINE, self.connected.wait_for(|up| *up)).await;
        connected.context("no media connection to Janus")?.map(drop).context("the client of Janus ended")
    }

    /// Where its media socket is bound.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        self.socket
    }

    /// How many media packets it sent in this time (nanoseconds of Unix time).
    ///
    /// # Errors
    /// The client's task ended.
    pub async fn sent_within(&self, window: Range<u64>) -> Result<usize> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Sent(window, answer)).await?;
        answered.await.context("the client of Janus ended")
    }

    /// Ends its session.
    ///
    /// # Errors
    /// Janus does not answer, or the client's task ended.
    pub async fn leave(self) -> Result<()> {
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Leave(answer)).await?;
        answered.await.context("the client of Janus ended")?
    }

    async fn tell(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.map_err(|_| anyhow!("the client of Janus ended"))
    }
}

impl Drop for JanusClient {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The machine's address towards others, with any port: Janus's media is there, it does not use loopback interfaces.
/// What the machine sends to itself stays on loopback all the same.
fn own_address() -> Result<SocketAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // Nothing is sent; the kernel chooses the address (TEST-NET-2, RFC 5737).
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9)).context("Janus needs another network than loopback")?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), 0))
}

/// Joins as a publisher: offers its tracks.
async fn publish(api: &mut Api, peer: &mut Peer, room: u64, id: u64, tracks: &[Publish]) -> Result<Vec<Outgoing>> {
    let mut changes = peer.rtc.sdp_api();
    let mut outgoing = Vec::new();
    for track in tracks {
        let kind = match track {
            Publish::Audio { .. } => MediaKind::Audio,
            Publish::Video { .. } => MediaKind::Video,
        };
        let mut sends = Outgoing::new(track);
        sends.set_section(changes.add_media(kind, Direction::SendOnly, None, Some(track.cid().to_owned()), None));
        outgoing.push(sends);
    }
    let (offer, pending) = changes.apply().context("nothing to publish")?;
    peer.drain(None)?;
    let body = json!({ "request": "joinandconfigure", "ptype": "publisher", "room": room, "id": id });
    // The one who begins the DTLS handshake offers the profiles: us.
    let offer = offer.to_sdp_string().replace("a=setup:actpass", "a=setup:active");
    let reply = api.message(body, Some(("offer", offer))).await?;
    let answer = reply.sdp.with_context(|| format!("Janus answers nothing: {}", reply.data))?;
    peer.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&answer)?)?;
    peer.drain(None)?;
    for track in &mut outgoing {
        track.negotiated(peer);
    }
    Ok(outgoing)
}

/// Joins as a subscriber: answers Janus's offer.
async fn subscribe(api: &mut Api, peer: &mut Peer, room: u64, publishers: &[u64]) -> Result<()> {
    let streams: Vec<_> = publishers.iter().map(|id| json!({ "feed": id })).collect();
    let body = json!({ "request": "join", "ptype": "subscriber", "room": room, "streams": streams });
    let reply = api.message(body, None).await?;
    let offer = reply.sdp.with_context(|| format!("Janus offers nothing: {}", reply.data))?;
    // Clients answer `active`; str0m would answer `passive`.
    let offer = offer.replace("a=setup:actpass", "a=setup:passive");
    let answer = peer.rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(&offer)?)?;
    peer.drain(None)?;
    api.message(json!({ "request": "start" }), Some(("answer", answer.to_sdp_string()))).await?;
    Ok(())
}

/// What woke the loop.
enum Wake {
    Command(Option<Command>),
    KeepAlive,
    Readable,
    Heard(Value),
    Due,
}

struct Task {
    api: Api,
    peer: Peer,
    outgoing: Vec<Outgoing>,
    sink: Option<Box<dyn PacketSink>>,
    /// Hands `sink` to the connection once that is up.
    light: bool,
    /// When each media packet was sent, nanoseconds of Unix time.
    sent: Vec<u64>,
    /// Janus says that its side of the media connection is up: only then others can subscribe to it.
    established: bool,
    /// So is ours.
    connected: bool,
    up: watch::Sender<bool>,
    inbox: mpsc::Receiver<Command>,
}

impl Task {
    async fn run(mut self) {
        if let Err(error) = self.run_until_left().await {
            eprintln!("a client of Janus ended: {error:#}");
        }
    }

    async fn run_until_left(&mut self) -> Result<()> {
        let mut keepalive = interval(KEEPALIVE);
        loop {
            let due = self.outgoing.iter().filter_map(Outgoing::due).min();
            let deadline = due.map_or(self.peer.deadline(), |due| due.min(self.peer.deadline()));
            let wake = tokio::select! {
                heard = self.api.hear() => Wake::Heard(heard?),
                command = self.inbox.recv() => Wake::Command(command),
                _ = self.peer.readable() => Wake::Readable,
                () = sleep_until(deadline.into()) => Wake::Due,
                _ = keepalive.tick() => Wake::KeepAlive,
            };
            match wake {
                Wake::Command(None) => return Ok(()),
                Wake::Command(Some(Command::Leave(answer))) => {
                    // Who asked may be gone.
                    let _ = answer.send(self.api.destroy().await);
                    return Ok(());
                }
                Wake::Command(Some(Command::Sent(window, answer))) => {
                    let _ = answer.send(self.sent.iter().filter(|at| window.contains(at)).count());
                }
                Wake::KeepAlive => self.api.keep_alive().await?,
                Wake::Readable => {
                    self.peer.receive()?;
                }
                Wake::Heard(message) => self.established |= is_up(&message),
                Wake::Due => {}
            }
            self.tick()?;
        }
    }

    /// Everything that depends on the time or on what just came.
    fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        if self.peer.deadline() <= now {
            self.peer.tick()?;
        }
        while let Some(PeerEvent { event, received }) = self.peer.event() {
            match event {
                Event::RtpPacket(packet) => {
                    if let Some(sink) = &mut self.sink {
                        sink.packet(&packet.payload, received);
                    }
                }
                Event::Connected => {
                    self.connected = true;
                    if self.light
                        && let Some(sink) = self.sink.take()
                    {
                        self.peer.lighten(sink)?;
                    }
                }
                Event::KeyframeRequest(request) => {
                    for track in self.outgoing.iter_mut().filter(|t| t.section() == Some(request.mid)) {
                        track.request_keyframe(request.rid);
                    }
                }
                _ => {}
            }
        }
        if self.established && self.connected {
            self.up.send_if_modified(|up| !std::mem::replace(up, true));
            for track in &mut self.outgoing {
                track.send_due(now, &mut self.peer, &mut self.sent)?;
            }
        }
        Ok(())
    }
}

/// Whether this is Janus's event that a media connection is up.
fn is_up(message: &Value) -> bool {
    message.get("janus").and_then(Value::as_str) == Some("webrtcup")
}
