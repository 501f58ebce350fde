//! Data channels of one transport: SCTP over DTLS (RFC 8831), DCEP (RFC 8832), LiveKit's three labels. Bytes in,
//! messages out. **Goes by label, never by stream id; what a peer does not read is bounded and dropped.**

pub(crate) mod calls;
mod forward_tsn;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod handshake;
pub mod packet;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use bytes::Bytes;
use rtc::datachannel::data_channel::{DataChannel, DataChannelConfig, DataChannelMessage};
use rtc::datachannel::message::message_channel_open::ChannelType;
use rtc::sansio::Protocol;
use rtc::sctp::{
    Association, AssociationHandle, ClientConfig, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier, ReliabilityType, ServerConfig, StreamEvent, StreamId, TransportConfig,
};
use rtc::shared::TransportProtocol;

use self::forward_tsn::Acknowledged;
use super::api::DataRole;

/// Longest message taken or sent, bytes: what livekit-client sends at most, plus the stamp.
pub const MAX_MESSAGE_LEN: usize = 64 * 1024;
/// Bytes a peer may have outstanding towards us.
const RECEIVE_BUFFER: u32 = 512 * 1024;
/// SCTP streams a peer may use each way; SDKs use ids below 103.
const MAX_STREAMS: u16 = 1024;
/// Associations a client may have beside one that is up: repeats of its INIT make one each.
const MAX_HALF_OPEN: usize = 4;
/// Associations a client may start in all, its repeats counted: the library remembers each.
const MAX_ASSOCIATIONS: usize = 256;
/// Bytes queued on a reliable channel before messages to it are dropped.
const MAX_RELIABLE_QUEUED: usize = 4 * 1024 * 1024;
/// Bytes queued on a lossy channel before messages to it are dropped: old data is worth nothing there.
const MAX_LOSSY_QUEUED: usize = 128 * 1024;
/// Bytes kept for a receiver whose reliable channel is not open yet.
const MAX_EARLY: usize = 256 * 1024;
/// Time they are kept. LiveKit keeps 2 s of a room; a slow join takes longer than that.
const KEEP_EARLY: Duration = Duration::from_secs(5);
/// One association each; the library tells peers apart by address.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// Channels by label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Label {
    /// `_reliable`: ordered, reliable.
    Reliable,
    /// `_lossy`: unordered, no retransmission.
    Lossy,
    /// `_data_track`: as `_lossy`.
    DataTrack,
}

impl Label {
    const ALL: [Self; 3] = [Self::Reliable, Self::Lossy, Self::DataTrack];

    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Reliable => "_reliable",
            Self::Lossy => "_lossy",
            Self::DataTrack => "_data_track",
        }
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|label| label.text() == text)
    }

    pub(super) fn channel_type(self) -> ChannelType {
        match self {
            Self::Reliable => ChannelType::Reliable,
            Self::Lossy | Self::DataTrack => ChannelType::PartialReliableRexmitUnordered,
        }
    }

    /// Stream id of the channel if we open it: odd for a DTLS server (RFC 8832 section 6).
    fn own_stream(self) -> StreamId {
        match self {
            Self::Reliable => 1,
            Self::Lossy => 3,
            Self::DataTrack => 5,
        }
    }

    fn max_queued(self) -> usize {
        match self {
            Self::Reliable => MAX_RELIABLE_QUEUED,
            Self::Lossy | Self::DataTrack => MAX_LOSSY_QUEUED,
        }
    }
}

/// Channels of a client and their SCTP streams.
pub type ChannelStreams = ArrayVec<(Label, StreamId), { Label::ALL.len() }>;

/// The channels that a node opens.
#[must_use]
pub fn own_streams() -> ChannelStreams {
    Label::ALL.into_iter().map(|label| (label, label.own_stream())).collect()
}

/// A message that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// On which channel.
    pub label: Label,
    /// The whole message.
    pub data: Bytes,
}

/// A message was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the receiver's queue is full, or it has no such channel")]
pub struct Dropped;

struct Channel {
    label: Label,
    stream: StreamId,
    channel: DataChannel,
}

/// SCTP association and channels of one transport.
pub struct DataChannels {
    role: DataRole,
    endpoint: Endpoint,
    associations: Vec<(AssociationHandle, Association)>,
    /// How many the client has started.
    started: usize,
    established: bool,
    channels: Vec<Channel>,
    early: VecDeque<(Instant, Bytes)>,
    early_len: usize,
    outgoing: VecDeque<Bytes>,
    acknowledged: Acknowledged,
    /// Channels that the client has from another node: they are open as soon as the association is.
    taken_over: ChannelStreams,
    /// The association that was started from here.
    own: Option<AssociationHandle>,
    /// The client's tag in the association that is up, or comes up with the cookie that is on its way back.
    agreed: Option<u32>,
    /// The client has opened channels since they were last asked for.
    opened: bool,
    /// The library gave up on what the peer sent.
    broken: bool,
    /// It did, and nobody has counted it yet.
    uncounted: bool,
}

impl DataChannels {
    /// Awaits the client's INIT; clients always start the association.
    #[must_use]
    pub fn new(role: DataRole) -> Self {
        let server = Arc::new(ServerConfig::new(transport_config()));
        let taken_over = if role == DataRole::Pipe { own_streams() } else { ChannelStreams::new() };
        Self {
            role,
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), Some(server)),
            associations: Vec::new(),
            started: 0,
            established: false,
            channels: Vec::new(),
            early: VecDeque::new(),
            early_len: 0,
            outgoing: VecDeque::new(),
            acknowledged: Acknowledged::default(),
            taken_over,
            own: None,
            agreed: None,
            opened: false,
            broken: false,
            uncounted: false,
        }
    }

    /// Whether messages for the participant go to this transport.
    #[must_use]
    pub fn is_downstream(&self) -> bool {
        !matches!(self.role, DataRole::Upstream | DataRole::None)
    }

    /// The client has these channels from another node and does not know that this is a new association.
    pub fn take_over(&mut self, channels: ChannelStreams) {
        self.taken_over = channels;
    }

    /// DTLS is up. Clients start the association, but not all do once more when they were moved here: they are asked to
    /// start over (RFC 9260 section 5.2.2). Of two nodes the one that `dials` starts it.
    pub fn start(&mut self, now: Instant, dials: bool) {
        let waits = self.role == DataRole::Pipe && !dials;
        if waits || self.taken_over.is_empty() || !self.associations.is_empty() {
            return;
        }
        if let Ok(started) = self.endpoint.connect(now, ClientConfig::new(transport_config()), PEER) {
            self.own = Some(started.0);
            self.associations.push(started);
        }
    }

    /// Every channel the client has opened, if it has opened one since the last call.
    pub fn take_opened(&mut self) -> Option<ChannelStreams> {
        let streams = || self.channels.iter().map(|channel| (channel.label, channel.stream)).collect();
        std::mem::take(&mut self.opened).then(streams)
    }

    /// Takes an SCTP packet.
    pub fn handle_packet(&mut self, now: Instant, packet: Bytes, received: &mut Vec<Message>) {
        if self.role == DataRole::None {
            return;
        }
        self.contained(|channels| channels.take_packet(now, packet, received));
    }

    /// Runs the library. **A panic in it ends this peer's channels, and nothing else**: it slices what a peer sent by the
    /// lengths written there.
    fn contained<T>(&mut self, act: impl FnOnce(&mut Self) -> T) -> Option<T> {
        if self.broken {
            return None;
        }
        let done = catch_unwind(AssertUnwindSafe(|| act(self))).ok();
        if done.is_none() {
            tracing::warn!("data channels of a peer end: its SCTP packets make no sense");
            // What is left of them may be in any state.
            self.broken = true;
            self.uncounted = true;
            self.associations.clear();
            self.channels.clear();
            self.early.clear();
            self.outgoing.clear();
        }
        done
    }

    /// True once, after a panic was contained.
    pub fn take_panic(&mut self) -> bool {
        std::mem::take(&mut self.uncounted)
    }

    fn take_packet(&mut self, now: Instant, packet: Bytes, received: &mut Vec<Message>) {
        // An INIT with this tag was late, or both have started the one association, and the cookie that is under way brings
        // it up at the client (RFC 9260 section 5.2.1). With another tag, the client starts over.
        let is_late = self.agreed.is_some() && handshake::initiate_tag(&packet) == self.agreed;
        if let Some(tag) = handshake::initiate_tag(&packet) {
            tracing::debug!(tag, is_late, established = self.established, "a client starts data channels");
        }
        if is_late || !self.acknowledged.lets_in(&packet) {
            return;
        }
        match self.endpoint.handle(now, PEER, None, packet) {
            Some((handle, DatagramEvent::AssociationEvent(event))) => {
                if let Some((_, association)) = self.associations.iter_mut().find(|(h, _)| *h == handle) {
                    association.handle_event(event);
                }
            }
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                // It starts over by itself: the library would make two of what is one (RFC 9260 section 5.2.1).
                if let Some(own) = self.own.take().filter(|_| !self.established) {
                    self.associations.retain(|(handle, _)| *handle != own);
                }
                self.associations.push((handle, association));
                self.started += 1;
                if self.started >= MAX_ASSOCIATIONS {
                    self.endpoint.reject_new_associations();
                }
                let first = usize::from(self.established);
                if self.associations.len() > first + MAX_HALF_OPEN {
                    self.associations.remove(first);
                }
            }
            _ => {}
        }
        self.process(now, received);
    }

    /// Sends a message; keeps it for a while if it is reliable and the channel is still to open.
    ///
    /// # Errors
    /// [`Dropped`] if the receiver does not keep up or has no such channel.
    pub fn send(&mut self, now: Instant, label: Label, data: &Bytes) -> Result<(), Dropped> {
        if self.is_open(label) {
            return self.contained(|channels| channels.write(now, label, data)).unwrap_or(Err(Dropped));
        }
        if self.broken || label != Label::Reliable || self.early_len + data.len() > MAX_EARLY {
            return Err(Dropped);
        }
        self.early_len += data.len();
        self.early.push_back((now, data.clone()));
        Ok(())
    }

    /// The next SCTP packet for the peer.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        self.contained(|channels| channels.next_packet(now)).flatten()
    }

    fn next_packet(&mut self, now: Instant) -> Option<Bytes> {
        if self.outgoing.is_empty() {
            for (_, association) in &mut self.associations {
                while let Some(transmit) = association.poll_transmit(now) {
                    if let Payload::RawEncode(packets) = transmit.message {
                        self.outgoing.extend(packets);
                    }
                }
            }
        }
        let packet = self.outgoing.pop_front()?;
        self.acknowledged.note(&packet);
        self.agreed = handshake::agreed_with(&packet).or(self.agreed);
        Some(packet)
    }

    /// When to call [`DataChannels::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.associations.iter().filter_map(|(_, association)| association.poll_timeout()).min()
    }

    /// Lets timers fire.
    pub fn handle_timeout(&mut self, now: Instant, received: &mut Vec<Message>) {
        self.contained(|channels| {
            for (_, association) in &mut channels.associations {
                association.handle_timeout(now);
            }
            channels.process(now, received);
        });
    }

    fn process(&mut self, now: Instant, received: &mut Vec<Message>) {
        for at in 0..self.associations.len() {
            while let Some(event) = self.associations.get_mut(at).and_then(|(_, a)| a.poll()) {
                match event {
                    Event::Connected => return self.establish(now, at, received),
                    Event::Stream(StreamEvent::Readable { id }) => self.read(now, at, id, received),
                    _ => {}
                }
            }
        }
    }

    /// What came up last is the association; the others were repeats of its INIT, or the client has started over with the
    /// channels that it has (RFC 9260 section 5.2.2).
    fn establish(&mut self, now: Instant, at: usize, received: &mut Vec<Message>) {
        tracing::debug!(tag = self.agreed, again = self.established, "data channels are up");
        self.associations.swap(0, at);
        self.associations.truncate(1);
        self.acknowledged = Acknowledged::default();
        let mut known = std::mem::take(&mut self.taken_over);
        if std::mem::replace(&mut self.established, true) {
            known = self.channels.drain(..).map(|channel| (channel.label, channel.stream)).collect();
        }
        if self.role == DataRole::Downstream {
            for own @ (label, stream) in own_streams() {
                if !known.contains(&own) {
                    self.open(now, label, stream, false);
                }
            }
        }
        for (label, stream) in known {
            self.open(now, label, stream, true);
        }
        self.flush_early(now);
        self.process(now, received);
    }

    /// Opens a channel; with DCEP unless the client knows of it.
    fn open(&mut self, now: Instant, label: Label, stream: StreamId, known: bool) {
        let Some((handle, association)) = self.associations.first_mut() else { return };
        let config = DataChannelConfig {
            channel_type: label.channel_type(),
            label: label.text().to_owned(),
            negotiated: known,
            ..DataChannelConfig::default()
        };
        // What came together with the client's cookie has opened it.
        let opened = association.stream(stream).is_ok()
            || association.open_stream(stream, PayloadProtocolIdentifier::Binary).is_ok();
        if let (true, Ok(mut channel)) = (opened, DataChannel::dial(config, handle.0, stream)) {
            flush_dcep(now, association, stream, &mut channel);
            self.channels.push(Channel { label, stream, channel });
        }
    }

    fn read(&mut self, now: Instant, at: usize, id: StreamId, received: &mut Vec<Message>) {
        loop {
            let association = self.associations.get_mut(at).map(|(_, a)| a);
            let Some(chunks) = association.and_then(|a| a.stream(id).ok()?.read_sctp().ok()?) else { return };
            // Longer than anything we told the peer to send: it is not read, and only it suffers.
            let Ok(data) = chunks.to_payload(MAX_MESSAGE_LEN) else { continue };
            match chunks.ppi {
                PayloadProtocolIdentifier::Dcep => self.handle_dcep(now, id, &data),
                PayloadProtocolIdentifier::Binary if self.role != DataRole::Downstream => {
                    let label = self.channels.iter().find(|c| c.stream == id).map(|c| c.label);
                    received.extend(label.map(|label| Message { label, data: data.freeze() }));
                }
                _ => {}
            }
        }
    }

    fn handle_dcep(&mut self, now: Instant, id: StreamId, data: &[u8]) {
        let Some((handle, association)) = self.associations.first_mut() else { return };
        if let Some(known) = self.channels.iter_mut().find(|c| c.stream == id) {
            let message = DataChannelMessage {
                ppi: PayloadProtocolIdentifier::Dcep,
                payload: data.into(),
                ..DataChannelMessage::default()
            };
            if known.channel.handle_read(message).is_ok() {
                flush_dcep(now, association, id, &mut known.channel);
            }
        } else if self.role != DataRole::Downstream {
            let ppi = PayloadProtocolIdentifier::Dcep;
            let accepted = DataChannel::accept(DataChannelConfig::default(), handle.0, id, ppi, data);
            let Ok(mut channel) = accepted else { return };
            flush_dcep(now, association, id, &mut channel);
            // Other labels are acknowledged and then ignored; a label opened anew replaces the channel that had it.
            if let Some(label) = Label::from_text(&channel.config().label) {
                self.channels.retain(|c| c.label != label);
                self.channels.push(Channel { label, stream: id, channel });
                self.opened = true;
            }
        }
        self.flush_early(now);
    }

    fn flush_early(&mut self, now: Instant) {
        if !self.is_open(Label::Reliable) {
            return;
        }
        self.early_len = 0;
        for (since, data) in std::mem::take(&mut self.early) {
            if now.saturating_duration_since(since) <= KEEP_EARLY {
                let _ = self.write(now, Label::Reliable, &data);
            }
        }
    }

    fn is_open(&self, label: Label) -> bool {
        self.is_downstream() && self.channels.iter().any(|c| c.label == label && c.channel.is_handshake_complete())
    }

    fn write(&mut self, now: Instant, label: Label, data: &Bytes) -> Result<(), Dropped> {
        let stream = self.channels.iter().find(|c| c.label == label).map(|c| c.stream).ok_or(Dropped)?;
        let (_, association) = self.associations.first_mut().ok_or(Dropped)?;
        let mut stream = association.stream(stream).map_err(|_| Dropped)?;
        let queued = stream.buffered_amount().map_err(|_| Dropped)?;
        if queued + data.len() > label.max_queued() {
            return Err(Dropped);
        }
        stream.write_sctp(now, data, PayloadProtocolIdentifier::Binary).map(|_| ()).map_err(|_| Dropped)
    }
}

fn transport_config() -> TransportConfig {
    TransportConfig::default()
        .with_max_receive_buffer_size(RECEIVE_BUFFER)
        .with_max_message_size(u32::try_from(MAX_MESSAGE_LEN).unwrap_or(u32::MAX))
        .with_max_num_inbound_streams(MAX_STREAMS)
        .with_max_num_outbound_streams(MAX_STREAMS)
}

/// Sends what `channel` has to say in DCEP, then lets its reliability apply.
pub(super) fn flush_dcep(now: Instant, association: &mut Association, id: StreamId, channel: &mut DataChannel) {
    let Ok(mut stream) = association.stream(id) else { return };
    // RFC 8832 section 6: DCEP messages go ordered and reliably. The stream exists, so these calls do not fail.
    let _ = stream.set_reliability_params(false, ReliabilityType::Reliable, 0);
    while let Some(message) = channel.poll_write().filter(|message| !message.negotiated) {
        let _ = stream.write_sctp(now, &message.payload.freeze(), message.ppi);
    }
    let config = channel.config();
    let (unordered, reliability) = DataChannel::get_reliability_params(config.channel_type);
    let _ = stream.set_reliability_params(unordered, reliability, config.reliability_parameter);
}

#[cfg(test)]
pub(crate) mod tests;
