//! The task of a client: signaling, peer connections and media sources in one loop.

pub(super) mod media;

use std::future::pending;
use std::time::{Duration, Instant};

use anyhow::Context;
use livekit_protocol::signal_request::Message as Request;
use livekit_protocol::signal_response::Message as Response;
use livekit_protocol::{
    AddTrackRequest, DataPacket, JoinResponse, MuteTrackRequest, SessionDescription, SignalTarget, SimulcastCodec,
    TrackSource, TrackType, VideoLayer, VideoQuality, participant_info,
};
use prost::Message as _;
use str0m::change::SdpOffer;
use str0m::channel::ChannelId;
use str0m::media::{KeyframeRequestKind, MediaKind};
use str0m::rtp::{RtpPacket, Ssrc};
use str0m::{Event, IceConnectionState};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep_until;

use self::media::Outgoing;
use super::negotiation::{Negotiation, NewSection, RIDS};
use super::peer::{Peer, PeerEvent};
use super::source::{Stamp, begins_vp8_keyframe};
use super::{ClientOptions, Command, Observed, PacketSink, Publish};
use crate::signal::{Heard, Mode, Signal};

/// How long a decoder waits for a keyframe before it asks again.
const KEYFRAME_PATIENCE: Duration = Duration::from_millis(200);

/// Which connection of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Publisher,
    Subscriber,
}

/// What woke the loop.
enum Wake {
    Heard(Heard),
    Command(Option<Command>),
    Readable(Which),
    Deadline,
}

/// A client's task.
pub(crate) struct Driver {
    signal: Option<Signal>,
    publisher: Peer,
    subscriber: Option<Peer>,
    negotiation: Negotiation,
    outgoing: Vec<Outgoing>,
    /// Section of the receiving connection to track sid.
    sections: std::collections::HashMap<String, String>,
    /// Which connections are up: publisher, subscriber.
    up: (bool, bool),
    labels: Vec<(Which, ChannelId, String)>,
    /// When each media packet was sent, nanoseconds of Unix time.
    sent: Vec<u64>,
    /// When a keyframe was last asked for.
    asked: Option<Instant>,
    asks_for_keyframes: bool,
    packets_before_answer: usize,
    /// An answer that is not applied yet.
    held: Option<SessionDescription>,
    inbox: mpsc::Receiver<Command>,
    state: watch::Sender<Observed>,
    sink: Option<Box<dyn PacketSink>>,
    /// Keeps what it heard.
    remembers: bool,
    /// Hands `sink` to the connection media comes on, once that is up.
    light: bool,
}

impl Driver {
    /// Binds, makes the first offer and opens the WebSocket.
    pub(crate) async fn start(
        options: ClientOptions,
        sink: Option<Box<dyn PacketSink>>,
        inbox: mpsc::Receiver<Command>,
        state: watch::Sender<Observed>,
    ) -> anyhow::Result<Self> {
        let mut publisher = Peer::new(options.bind, &options.media, options.keep_datagrams).await?;
        let single = options.mode == Mode::Single;
        let subscriber = if single { None } else { Some(Peer::new(options.bind, &options.media, false).await?) };
        let mut negotiation = Negotiation::new(single);
        negotiation.active = options.media.srtp.is_exclusive();
        let mut request = options.request;
        if single && let Some(offer) = negotiation.offer(&mut publisher)? {
            request.publisher_offer = Some(offer.description);
        }
        let sockets = [Some(publisher.socket.local()), subscriber.as_ref().map(|s| s.socket.local())];
        state.send_modify(|o| o.sockets = sockets.into_iter().flatten().collect());
        state.send_modify(|o| o.timeline.started = Some(Instant::now()));
        let signal = Signal::join_from(options.place, &options.server, &options.token, options.mode, &request).await?;
        state.send_modify(|o| o.timeline.upgraded = Some(Instant::now()));
        let mut driver = Self {
            signal: Some(signal),
            publisher,
            subscriber,
            negotiation,
            outgoing: Vec::new(),
            sections: std::collections::HashMap::new(),
            up: (false, false),
            labels: Vec::new(),
            sent: Vec::new(),
            asked: None,
            asks_for_keyframes: options.asks_for_keyframes,
            packets_before_answer: options.packets_before_answer,
            held: None,
            inbox,
            state,
            remembers: sink.is_none(),
            light: options.media.light,
            sink,
        };
        for track in options.publish {
            driver.publish(track).await;
        }
        Ok(driver)
    }

    /// Runs until the handle is dropped or something breaks.
    pub(crate) async fn run(mut self) {
        if let Err(error) = self.step_until_end().await {
            self.state.send_modify(|o| o.failure = Some(format!("{error:#}")));
        }
    }

    async fn step_until_end(&mut self) -> anyhow::Result<()> {
        loop {
            match self.wake().await {
                Wake::Heard(Heard::Message(message)) => self.hear(*message).await?,
                Wake::Heard(Heard::Closed(code)) => {
                    self.signal = None;
                    self.state.send_modify(|o| o.closed = Some(code));
                }
                Wake::Command(None) => return Ok(()),
                Wake::Command(Some(command)) => self.obey(command).await?,
                Wake::Readable(which) => {
                    self.peer(which).map_or(Ok(0), Peer::receive)?;
                }
                Wake::Deadline => {}
            }
            self.tick().await?;
        }
    }

    async fn wake(&mut self) -> Wake {
        let due = [
            Some(self.publisher.deadline()),
            self.subscriber.as_ref().map(Peer::deadline),
            self.outgoing.iter().filter_map(Outgoing::due).min(),
        ];
        let deadline = due.into_iter().flatten().min().unwrap_or_else(Instant::now);
        let Self { signal, publisher, subscriber, inbox, .. } = self;
        let heard = async {
            match signal {
                Some(signal) => signal.hear().await,
                None => pending().await,
            }
        };
        let subscriber_readable = async {
            match subscriber {
                Some(peer) => peer.readable().await,
                None => pending().await,
            }
        };
        tokio::select! {
            heard = heard => Wake::Heard(heard),
            command = inbox.recv() => Wake::Command(command),
            _ = publisher.readable() => Wake::Readable(Which::Publisher),
            _ = subscriber_readable => Wake::Readable(Which::Subscriber),
            () = sleep_until(deadline.into()) => Wake::Deadline,
        }
    }

    /// Everything that depends on the time or on what just changed.
    async fn tick(&mut self) -> anyhow::Result<()> {
        let now = Instant::now();
        if self.publisher.unbound.is_some_and(|dropped| dropped >= self.packets_before_answer) {
            self.publisher.unbound = None;
            if let Some(answer) = self.held.take() {
                self.answered(&answer)?;
            }
        }
        for which in [Which::Publisher, Which::Subscriber] {
            if let Some(peer) = self.peer(which)
                && peer.deadline() <= now
            {
                peer.tick()?;
            }
            while let Some(event) = self.peer(which).and_then(Peer::event) {
                self.happened(which, event)?;
            }
        }
        if self.up.0 {
            for track in &mut self.outgoing {
                track.send_due(now, &mut self.publisher, &mut self.sent)?;
            }
        }
        if self.state.borrow().join.is_some()
            && let Some(offer) = self.negotiation.offer(&mut self.publisher)?
        {
            for (cid, mid) in offer.sections {
                if let Some(track) = self.outgoing.iter_mut().find(|t| t.cid() == cid) {
                    track.set_section(mid);
                }
            }
            self.request(Request::Offer(offer.description)).await;
        }
        Ok(())
    }

    fn peer(&mut self, which: Which) -> Option<&mut Peer> {
        match which {
            Which::Publisher => Some(&mut self.publisher),
            Which::Subscriber => self.subscriber.as_mut(),
        }
    }

    async fn request(&mut self, message: Request) {
        if let Some(signal) = &mut self.signal {
            signal.send(message).await;
        }
    }

    async fn hear(&mut self, message: Response) -> anyhow::Result<()> {
        match &message {
            Response::Answer(answer) if self.up.0 && self.packets_before_answer > 0 => {
                self.publisher.unbound.get_or_insert(0);
                self.held = Some(answer.clone());
            }
            Response::Answer(answer) => self.answered(answer)?,
            Response::Offer(offer) => {
                if let Some(answer) = self.answer(offer)? {
                    self.request(Request::Answer(answer)).await;
                }
                self.described();
            }
            Response::Trickle(trickle) => {
                let which = match trickle.target() {
                    SignalTarget::Publisher => Which::Publisher,
                    SignalTarget::Subscriber => Which::Subscriber,
                };
                if let Some(peer) = self.peer(which) {
                    peer.candidate(&trickle.candidate_init)?;
                }
            }
            Response::MediaSectionsRequirement(needed) => {
                self.negotiation.require(usize::try_from(needed.num_audios)?, usize::try_from(needed.num_videos)?);
            }
            Response::TrackPublished(published) => {
                if let Some(track) = self.outgoing.iter_mut().find(|t| t.cid() == published.cid) {
                    track.set_sid(published.track.as_ref().map(|t| t.sid.clone()).unwrap_or_default());
                }
            }
            _ => {}
        }
        if self.remembers {
            self.state.send_modify(|o| note(o, message));
        } else if matches!(message, Response::Join(_) | Response::Leave(_)) {
            self.state.send_modify(|o| note_of_load(o, message));
        }
        Ok(())
    }

    fn answered(&mut self, answer: &SessionDescription) -> anyhow::Result<()> {
        if self.negotiation.answered(&mut self.publisher, answer)? {
            if self.subscriber.is_none() {
                self.sections = answer.mid_to_track_id.clone();
                self.described();
            }
            for track in &mut self.outgoing {
                track.negotiated(&self.publisher);
            }
        }
        Ok(())
    }

    fn described(&self) {
        self.state.send_modify(|o| {
            o.timeline.described.get_or_insert_with(Instant::now);
        });
    }

    /// Answers the server's offer for the subscriber connection.
    fn answer(&mut self, offer: &SessionDescription) -> anyhow::Result<Option<SessionDescription>> {
        let Some(peer) = &mut self.subscriber else { return Ok(None) };
        // Clients answer `active`; str0m would answer `passive`.
        let sdp = offer.sdp.replace("a=setup:actpass", "a=setup:passive");
        let answer = peer.rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(&sdp)?)?;
        peer.drain(None)?;
        self.sections = offer.mid_to_track_id.clone();
        Ok(Some(SessionDescription {
            r#type: "answer".to_owned(),
            sdp: answer.to_sdp_string(),
            id: offer.id,
            ..SessionDescription::default()
        }))
    }

    async fn obey(&mut self, command: Command) -> anyhow::Result<()> {
        match command {
            Command::Publish(track) => self.publish(track).await,
            Command::Unpublish(cid) => {
                if let Some(at) = self.outgoing.iter().position(|t| t.cid() == cid)
                    && let Some(mid) = self.outgoing.remove(at).section()
                {
                    self.negotiation.stop(mid);
                }
            }
            Command::Mute(cid, muted) => {
                let Some(track) = self.outgoing.iter_mut().find(|t| t.cid() == cid) else { return Ok(()) };
                track.set_muted(muted);
                let sid = track.sid().to_owned();
                self.request(Request::Mute(MuteTrackRequest { sid, muted })).await;
            }
            Command::Data { label, packet } => {
                if let Some(id) = self.negotiation.channel(&label)
                    && let Some(mut channel) = self.publisher.rtc.channel(id)
                {
                    channel.write(true, &packet.encode_to_vec())?;
                    self.publisher.drain(None)?;
                }
            }
            Command::Request(message) => self.request(*message).await,
            Command::Frame(frame) => {
                if let Some(signal) = &mut self.signal {
                    signal.send_frame(frame).await;
                }
            }
            Command::Datagram(to, bytes) => self.publisher.socket.send(to, &bytes),
            Command::Kept(answer) => {
                // Who asked may be gone.
                let _ = answer.send(self.publisher.kept());
            }
            Command::Sent(window, answer) => {
                let _ = answer.send(self.sent.iter().filter(|at| window.contains(at)).count());
            }
            Command::DropSocket => {
                if let Some(signal) = self.signal.take() {
                    signal.abort();
                }
            }
        }
        Ok(())
    }

    async fn publish(&mut self, track: Publish) {
        self.request(Request::AddTrack(announcement(&track))).await;
        let (kind, layers) = match &track {
            Publish::Audio { .. } => (MediaKind::Audio, 1),
            Publish::Video { layers, .. } => (MediaKind::Video, layers.len()),
        };
        self.negotiation.add(NewSection { cid: track.cid().to_owned(), kind, layers });
        self.outgoing.push(Outgoing::new(&track));
    }

    fn happened(&mut self, which: Which, PeerEvent { event, received }: PeerEvent) -> anyhow::Result<()> {
        match event {
            Event::RtpPacket(packet) => self.arrived(which, &packet, received),
            Event::Connected => {
                self.connection(which, true);
                if self.light
                    && which == self.receiving()
                    && let Some(sink) = self.sink.take()
                {
                    self.peer(which).context("no connection")?.lighten(sink)?;
                }
            }
            Event::IceConnectionStateChange(IceConnectionState::Disconnected) | Event::Closed => {
                self.connection(which, false);
            }
            Event::KeyframeRequest(request) => {
                for track in self.outgoing.iter_mut().filter(|t| t.section() == Some(request.mid)) {
                    track.request_keyframe(request.rid);
                }
                self.state.send_modify(|o| o.keyframe_requests += 1);
            }
            Event::ChannelOpen(id, label) => {
                self.labels.push((which, id, label.clone()));
                self.state.send_modify(|o| o.channels.push(label));
            }
            Event::ChannelData(data) => {
                let Ok(packet) = DataPacket::decode(data.data.as_slice()) else { return Ok(()) };
                let label = self.labels.iter().find(|(w, id, _)| *w == which && *id == data.id);
                let label = label.map(|(_, _, label)| label.clone()).unwrap_or_default();
                self.state.send_modify(|o| o.data.push((label, packet)));
            }
            _ => {}
        }
        Ok(())
    }

    /// The connection media comes on.
    fn receiving(&self) -> Which {
        if self.subscriber.is_some() { Which::Subscriber } else { Which::Publisher }
    }

    fn connection(&mut self, which: Which, up: bool) {
        match which {
            Which::Publisher => self.up.0 = up,
            Which::Subscriber => self.up.1 = up,
        }
        let receiving = self.receiving();
        let all = self.up.0 && (self.up.1 || self.subscriber.is_none());
        self.state.send_modify(|o| {
            o.connected = all;
            if which == receiving && up {
                o.timeline.connected.get_or_insert_with(Instant::now);
            }
        });
    }

    fn arrived(&mut self, which: Which, packet: &RtpPacket, received: Option<u64>) {
        if let Some(sink) = &mut self.sink {
            sink.packet(&packet.payload, received);
        }
        if !self.remembers {
            return;
        }
        let Some(peer) = self.peer(which) else { return };
        let Some(mid) = peer.rtc.direct_api().stream_rx(&packet.header.ssrc).map(|s| s.mid()) else { return };
        let video = peer.rtc.media(mid).is_some_and(|m| m.kind() == MediaKind::Video);
        let Some(sid) = self.sections.get(&*mid).cloned() else { return };
        let mut undecodable = false;
        self.state.send_modify(|o| {
            o.timeline.first_packet.get_or_insert_with(Instant::now);
            let flow = o.flows.entry(sid).or_default();
            flow.packets += 1;
            flow.bytes += u64::try_from(packet.payload.len()).unwrap_or(u64::MAX);
            let keyframe = video && begins_vp8_keyframe(&packet.payload);
            flow.began_with_keyframe |= keyframe && flow.packets == 1;
            flow.keyframes += u64::from(keyframe);
            undecodable = video && flow.keyframes == 0 && self.asks_for_keyframes;
            if let Some(stamp) = Stamp::read(&packet.payload) {
                flow.repeated_stamps += u64::from(!flow.seen.insert(stamp.counter));
                flow.last_counter = flow.last_counter.max(Some(stamp.counter));
            }
        });
        if undecodable {
            self.ask_for_keyframe(which, packet.header.ssrc);
        }
    }

    /// As a decoder does that cannot begin: media may be here before the answer that says what it is.
    fn ask_for_keyframe(&mut self, which: Which, ssrc: Ssrc) {
        let now = Instant::now();
        if self.asked.is_some_and(|at| now < at + KEYFRAME_PATIENCE) {
            return;
        }
        self.asked = Some(now);
        let Some(peer) = self.peer(which) else { return };
        if let Some(stream) = peer.rtc.direct_api().stream_rx(&ssrc) {
            stream.request_keyframe(KeyframeRequestKind::Pli);
        }
    }
}

/// Keeps what a message says.
fn note(o: &mut Observed, message: Response) {
    match &message {
        Response::Join(join) => {
            o.timeline.joined.get_or_insert_with(Instant::now);
            for other in &join.other_participants {
                o.participants.insert(other.identity.clone(), other.clone());
            }
            o.join = Some(Box::new(join.clone()));
        }
        Response::Update(update) => {
            for participant in &update.participants {
                let known = o.participants.get(&participant.identity);
                let stale = known.is_some_and(|k| k.sid == participant.sid && k.version > participant.version);
                if participant.state() == participant_info::State::Disconnected {
                    if known.is_some_and(|k| k.sid == participant.sid) {
                        o.participants.remove(&participant.identity);
                    }
                } else if !stale {
                    o.participants.insert(participant.identity.clone(), participant.clone());
                }
            }
        }
        Response::TrackPublished(published) => {
            if let Some(track) = &published.track {
                o.published.insert(published.cid.clone(), track.clone());
            }
        }
        Response::Leave(leave) => o.leave = Some(leave.clone()),
        _ => {}
    }
    o.heard.push(message);
}

/// Keeps what even a load client has to know.
fn note_of_load(o: &mut Observed, message: Response) {
    match message {
        Response::Join(join) => {
            o.timeline.joined.get_or_insert_with(Instant::now);
            o.join = Some(Box::new(JoinResponse { other_participants: Vec::new(), ..join }));
        }
        Response::Leave(leave) => o.leave = Some(leave),
        _ => {}
    }
}

fn announcement(track: &Publish) -> AddTrackRequest {
    let cid = track.cid().to_owned();
    match track {
        Publish::Audio { .. } => AddTrackRequest {
            name: cid.clone(),
            r#type: TrackType::Audio.into(),
            source: TrackSource::Microphone.into(),
            disable_red: true,
            cid,
            ..AddTrackRequest::default()
        },
        Publish::Video { layers, .. } => {
            let simulcast = layers.len() > 1;
            let ladder = [VideoQuality::Low, VideoQuality::Medium, VideoQuality::High];
            let qualities = ladder.into_iter().skip(if simulcast { 0 } else { 2 });
            let layers: Vec<VideoLayer> = qualities
                .zip(layers)
                .zip(RIDS)
                .map(|((quality, bitrate), rid)| VideoLayer {
                    quality: quality.into(),
                    width: 640,
                    height: 360,
                    bitrate: *bitrate,
                    rid: if simulcast { rid.to_owned() } else { String::new() },
                    ..VideoLayer::default()
                })
                .collect();
            let codec = SimulcastCodec {
                codec: "vp8".to_owned(),
                cid: cid.clone(),
                layers: layers.clone(),
                ..SimulcastCodec::default()
            };
            AddTrackRequest {
                name: cid.clone(),
                r#type: TrackType::Video.into(),
                source: TrackSource::Camera.into(),
                width: 640,
                height: 360,
                simulcast_codecs: vec![codec],
                layers,
                cid,
                ..AddTrackRequest::default()
            }
        }
    }
}
