//! One of the probe's two participants: joins as a LiveKit client with one peer connection does, and says how long each
//! step took.

use std::time::{Duration, Instant};

use livekit_protocol::signal_request::Message as Asked;
use livekit_protocol::signal_response::Message as Heard;
use livekit_protocol::{
    AddTrackRequest, LeaveRequest, SessionDescription, TrackSource, TrackType, VideoLayer, VideoQuality,
};
use tokio::task::JoinSet;
use tokio::time::interval;

use super::media::{Clock, Incoming, Kind, Outgoing};
use super::peer::{Peer, PeerEvent};
use super::report::{Step, Steps};
use super::signal::{self, Signal};
use super::{ApiKey, ProbeError, ProbeOptions};

/// Between two pings of a client.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// What it does in the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Sends.
    Publisher,
    /// Receives.
    Subscriber,
}

/// A participant in the room. **Dropping it ends its tasks.**
pub(super) struct Participant {
    /// The node's region, as the edge says.
    pub(super) region: String,
    /// The node's id.
    pub(super) node: String,
    signal: Signal,
    peer: Peer,
    outgoing: [Outgoing; 2],
    incoming: [Incoming; 2],
    clock: Clock,
    /// Number of the offer on its way.
    pending: Option<u32>,
    last_offer: u32,
    /// Another offer is wanted.
    due: bool,
    path: Option<Instant>,
    connected: Option<Instant>,
    tasks: JoinSet<()>,
}

impl Participant {
    /// Joins; a publisher's media flows then, and a subscriber's has begun to come.
    ///
    /// # Errors
    /// The first step that fails; `steps` has those before it.
    pub(super) async fn join(
        role: Role,
        room: &str,
        options: &ProbeOptions,
        key: &ApiKey,
        clock: Clock,
        steps: &mut Steps,
    ) -> Result<Self, ProbeError> {
        let identity = match role {
            Role::Publisher => "publisher",
            Role::Subscriber => "subscriber",
        };
        let edge = &options.edge_url;
        steps.start();
        let token = signal::token(edge, key, room, identity, options.region.as_ref()).await?;
        steps.done(Step::Token, Instant::now());

        let media = |error: webrtc::error::Error| ProbeError::Media(error.to_string());
        let peer = Peer::new(edge).await.map_err(media)?;
        let (outgoing, mut senders) = (Kind::ALL.map(Outgoing::new), Vec::new());
        for (kind, track) in Kind::ALL.into_iter().zip(&outgoing) {
            match role {
                Role::Subscriber => peer.receive(kind).await.map_err(media)?,
                Role::Publisher => {
                    let local = peer.send(track).await.map_err(media)?;
                    senders.push(track.send(local, clock));
                }
            }
        }
        let offer = peer.offer().await.map_err(media)?;
        let tracks = outgoing.iter().filter(|_| role == Role::Publisher).map(announcement).collect();
        let signal = Signal::open(edge, &token, description(offer, 1), tracks).await?;
        steps.done(Step::Signaling, Instant::now());

        let mut participant = Self {
            region: String::new(),
            node: String::new(),
            signal,
            peer,
            outgoing,
            incoming: Default::default(),
            clock,
            pending: Some(1),
            last_offer: 1,
            due: false,
            path: None,
            connected: None,
            tasks: JoinSet::new(),
        };
        participant.follow(role, steps).await?;
        for sender in senders {
            participant.tasks.spawn(sender);
        }
        Ok(participant)
    }

    /// Takes what comes until each step is done.
    async fn follow(&mut self, role: Role, steps: &mut Steps) -> Result<(), ProbeError> {
        self.until(|participant| !participant.node.is_empty()).await?;
        steps.done(Step::Join, Instant::now());
        self.until(|participant| participant.pending != Some(1)).await?;
        steps.done(Step::Answer, Instant::now());
        self.until(|participant| participant.path.is_some()).await?;
        steps.done(Step::Ice, self.path.unwrap_or_else(Instant::now));
        self.until(|participant| participant.connected.is_some()).await?;
        steps.done(Step::Dtls, self.connected.unwrap_or_else(Instant::now));
        if role == Role::Subscriber {
            let incoming = self.incoming.clone();
            let [audio, video] = &incoming;
            let first = async {
                tokio::select! { at = audio.first() => at, at = video.first() => at }
            };
            let at = tokio::select! {
                at = first => at,
                error = self.attend() => return Err(error),
            };
            steps.done(Step::Media, at);
        }
        Ok(())
    }

    async fn until(&mut self, holds: impl Fn(&Self) -> bool) -> Result<(), ProbeError> {
        while !holds(self) {
            self.next().await?;
        }
        Ok(())
    }

    /// Stays in the room until something goes wrong. Cancel safe.
    pub(super) async fn attend(&mut self) -> ProbeError {
        let mut pings = interval(PING_INTERVAL);
        loop {
            tokio::select! {
                happened = self.next() => if let Err(error) = happened { return error },
                _ = pings.tick() => self.signal.say(Asked::PingReq(livekit_protocol::Ping::default())).await,
            }
        }
    }

    /// The next message or event.
    async fn next(&mut self) -> Result<(), ProbeError> {
        tokio::select! {
            message = self.signal.hear() => self.heard(message?).await?,
            event = self.peer.event() => self.happened(event)?,
        }
        if self.due && self.pending.is_none() {
            self.due = false;
            self.last_offer += 1;
            self.pending = Some(self.last_offer);
            let offer = self.peer.offer().await.map_err(|error| ProbeError::Media(error.to_string()))?;
            self.signal.say(Asked::Offer(description(offer, self.last_offer))).await;
        }
        Ok(())
    }

    async fn heard(&mut self, message: Heard) -> Result<(), ProbeError> {
        let media = |error: webrtc::error::Error| ProbeError::Media(error.to_string());
        match message {
            Heard::Join(join) => {
                let server = join.server_info.unwrap_or_default();
                self.region = server.region;
                self.node = server.node_id;
            }
            Heard::Answer(answer) if self.pending == Some(answer.id) => {
                self.peer.answer(answer.sdp).await.map_err(media)?;
                self.pending = None;
            }
            Heard::MediaSectionsRequirement(needed) => {
                for (kind, count) in Kind::ALL.into_iter().zip([needed.num_audios, needed.num_videos]) {
                    // Two tracks are all there is in this room.
                    for _ in 0..count.min(2) {
                        self.peer.receive(kind).await.map_err(media)?;
                    }
                }
                self.due = true;
            }
            Heard::Leave(leave) => {
                return Err(ProbeError::Signaling(format!("told to leave: {}", leave.reason().as_str_name())));
            }
            _ => {}
        }
        Ok(())
    }

    fn happened(&mut self, event: Option<PeerEvent>) -> Result<(), ProbeError> {
        match event {
            Some(PeerEvent::Path(at)) => self.path = self.path.or(Some(at)),
            Some(PeerEvent::Connected(at)) => self.connected = self.connected.or(Some(at)),
            Some(PeerEvent::Track(track)) => {
                let (incoming, clock) = (self.incoming.clone(), self.clock);
                self.tasks.spawn(async move {
                    let kind = Kind::ALL.into_iter().zip(incoming);
                    let is = track.kind().await;
                    if let Some((_, incoming)) = kind.into_iter().find(|(kind, _)| kind.rtp() == is) {
                        incoming.receive(track, clock).await;
                    }
                });
            }
            Some(PeerEvent::Broken(why)) => return Err(ProbeError::Media(why)),
            None => return Err(ProbeError::Media("it ended".to_owned())),
        }
        Ok(())
    }

    /// What it sends of this kind.
    pub(super) fn outgoing(&self, kind: Kind) -> Outgoing {
        let [audio, video] = &self.outgoing;
        match kind {
            Kind::Audio => audio.clone(),
            Kind::Video => video.clone(),
        }
    }

    /// What it receives of this kind.
    pub(super) fn incoming(&self, kind: Kind) -> Incoming {
        let [audio, video] = &self.incoming;
        match kind {
            Kind::Audio => audio.clone(),
            Kind::Video => video.clone(),
        }
    }

    /// Leaves the room.
    pub(super) async fn leave(mut self) {
        self.signal.say(Asked::Leave(LeaveRequest::default())).await;
        self.tasks.shutdown().await;
        self.peer.close().await;
        self.signal.close().await;
    }
}

fn description(sdp: String, id: u32) -> SessionDescription {
    SessionDescription { r#type: "offer".to_owned(), sdp, id, ..SessionDescription::default() }
}

fn announcement(track: &Outgoing) -> AddTrackRequest {
    let cid = track.cid().to_owned();
    match track.kind() {
        Kind::Audio => AddTrackRequest {
            name: cid.clone(),
            r#type: TrackType::Audio.into(),
            source: TrackSource::Microphone.into(),
            disable_red: true,
            cid,
            ..AddTrackRequest::default()
        },
        Kind::Video => {
            let layer =
                VideoLayer { quality: VideoQuality::High.into(), width: 640, height: 360, ..VideoLayer::default() };
            AddTrackRequest {
                name: cid.clone(),
                r#type: TrackType::Video.into(),
                source: TrackSource::Camera.into(),
                width: 640,
                height: 360,
                layers: vec![layer],
                cid,
                ..AddTrackRequest::default()
            }
        }
    }
}
