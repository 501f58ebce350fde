//! This node's ends of pipes to other nodes that serve the same rooms. **Into a pipe goes only what a session here sends.**

use std::collections::{BTreeMap, HashSet};

use arrayvec::ArrayVec;
use shared::control::{
    Delivery, MAX_PIPE_ADDRESSES, MediaState, NodeToRoom, PipeEnd, PipeKey, PipedLayer, PipedPayloadType, PipedStream,
    PipedTrack, TrackKind,
};
use shared::ids::{Identity, ParticipantSid, RoomName, TrackSid};

use super::{Conference, Room, track_key};
use crate::media::api::{
    CertificateTurn, Command, DataRole, Event, ExtensionIds, HandshakeRole, IceCredentials, MAX_LAYERS, PayloadType,
    PipeConfig, PipeNumber, PipePeer, Receiver, Sender, ShardIndex, Speaker, SpeakerKey, SsrcPair, TrackKey,
    TransportConfig, TransportKey,
};
use crate::session::allocator::Allocator;
use crate::session::codec::{codec_of_mime, mime};
use crate::session::{Endpoint, Session};

/// Most tracks that go into a pipe, and most that come out.
const MAX_PIPED: usize = 1000;
/// Keys of tracks that a room may have too many of.
const FEW: usize = 64;
/// Header extensions in a pipe: what subscribers get of the publisher's. Both ends are of one program, so these are fixed.
const EXTENSIONS: ExtensionIds = ExtensionIds {
    mid: None,
    rid: None,
    repaired_rid: None,
    transport_cc: None,
    abs_send_time: None,
    audio_level: Some(1),
    dependency_descriptor: Some(2),
    abs_capture_time: Some(3),
    playout_delay: None,
};
/// Dynamic payload types (RFC 3551 section 6) that retransmissions get, where the publisher does not have them.
const DYNAMIC: std::ops::RangeInclusive<u8> = 96..=127;

/// One end of a pipe.
#[derive(Debug)]
pub(super) struct Pipe {
    transport: TransportKey,
    shard: ShardIndex,
    number: PipeNumber,
    credentials: IceCredentials,
    /// The other end is known.
    is_connected: bool,
    state: Option<MediaState>,
    /// What is to go in.
    wanted: Vec<PipedTrack>,
    outgoing: Vec<Outgoing>,
    /// What the shard has.
    senders: Vec<Sender>,
    /// What the room was told goes in; `None`: it may have missed it.
    told: Option<Vec<PipedStream>>,
    /// What comes out, as the node at the other end has said.
    drawn: Vec<PipedStream>,
    /// What of it the shard is to receive.
    receivers: Vec<Receiver>,
}

/// A track, in one of its codecs, on its way into a pipe.
#[derive(Debug)]
struct Outgoing {
    key: TrackKey,
    stream: PipedStream,
}

impl Pipe {
    fn end(&self, endpoint: &Endpoint) -> PipeEnd {
        PipeEnd {
            addresses: endpoint.candidates.iter().copied().take(MAX_PIPE_ADDRESSES).collect(),
            number: self.number.number(),
            ufrag: self.credentials.ufrag.clone(),
            password: self.credentials.password.clone(),
            fingerprint: CertificateTurn::First.of(&endpoint.fingerprints).to_string(),
        }
    }

    /// Works out what goes in, now that the node receives `arriving` of each track.
    fn fill<'a>(&mut self, arriving: impl Fn(&PipedTrack) -> Vec<&'a Receiver>, allocator: &mut Allocator) {
        let (mut outgoing, mut senders) = (Vec::new(), Vec::new());
        for track in &self.wanted {
            for receiver in arriving(track) {
                let known = self.outgoing.iter().position(|known| known.key == receiver.track);
                let known = known.map(|place| self.outgoing.swap_remove(place));
                let ours = Outgoing::of(track, receiver, known, allocator);
                senders.extend(ours.senders(receiver, track.max_layer));
                outgoing.push(ours);
            }
        }
        std::mem::replace(&mut self.outgoing, outgoing).into_iter().for_each(|gone| gone.release(allocator));
        self.senders = senders;
    }

    fn streams(&self) -> Vec<PipedStream> {
        self.outgoing.iter().map(|outgoing| outgoing.stream.clone()).collect()
    }
}

impl Outgoing {
    /// Goes on in the streams that it has, as far as they fit. **An SSRC that went out of use is not used again here**: its
    /// numbers would begin anew, under the same keys.
    fn of(track: &PipedTrack, receiver: &Receiver, known: Option<Self>, allocator: &mut Allocator) -> Self {
        let count = receiver.rids.len().max(receiver.ssrcs.len()).clamp(1, MAX_LAYERS);
        let mut layers = known.map(|known| known.stream.layers).unwrap_or_default();
        layers.drain(count.min(layers.len())..).for_each(|layer| release(&layer, allocator));
        while layers.len() < count {
            layers.push(PipedLayer { rid: String::new(), ssrc: allocator.ssrc(), rtx_ssrc: allocator.ssrc() });
        }
        for (place, layer) in layers.iter_mut().enumerate() {
            layer.rid = receiver.rids.get(place).cloned().unwrap_or_default();
        }
        let stream = PipedStream {
            track: track.track.clone(),
            kind: receiver.kind,
            backup: receiver.track != receiver.track.primary(),
            payload_types: piped_payload_types(&receiver.payload_types),
            layers,
        };
        Self { key: receiver.track, stream }
    }

    fn release(self, allocator: &mut Allocator) {
        self.stream.layers.iter().for_each(|layer| release(layer, allocator));
    }

    /// One sender for each layer. Layers that nobody wants are paused: they go on at once when somebody does.
    fn senders(&self, receiver: &Receiver, max_layer: Option<u8>) -> impl Iterator<Item = Sender> {
        let payload_types: Vec<PayloadType> =
            self.stream.payload_types.iter().filter_map(|pt| payload_type(receiver.kind, pt)).collect();
        let sender = move |(layer, piped): (u8, &PipedLayer)| Sender {
            source: receiver.track,
            kind: receiver.kind,
            mid: String::new(),
            ssrc: piped.ssrc,
            rtx_ssrc: Some(piped.rtx_ssrc),
            described: false,
            payload_types: payload_types.clone(),
            extensions: EXTENSIONS,
            playout_delay: [0; 3],
            cname: self.stream.track.to_string(),
            // Many may be served by it.
            delivery: Delivery {
                paused: max_layer.is_some_and(|most| layer > most),
                priority: 1,
                ..Delivery::default()
            },
            only: Some(layer),
        };
        (0..).zip(&self.stream.layers).map(sender)
    }
}

impl Conference {
    /// Opens an end of a pipe and tells the room what it is like.
    pub(super) fn open_pipe(&mut self, name: &RoomName, key: PipeKey, dials: bool, data: DataRole) {
        let Some(room) = self.rooms.get_mut(name).filter(|room| !room.pipes.contains_key(&key)) else {
            return self.say(name, NodeToRoom::PipeState { pipe: key, state: MediaState::Failed });
        };
        let shard = self.placement.place(&room.present());
        let Some(endpoint) = self.endpoints.get(shard.place()) else { return };
        let pipe = Pipe {
            transport: TransportKey(self.allocator.key()),
            shard,
            number: PipeNumber::wrapping(self.allocator.key()),
            credentials: self.allocator.ice_credentials(),
            is_connected: false,
            state: None,
            wanted: Vec::new(),
            outgoing: Vec::new(),
            senders: Vec::new(),
            told: None,
            drawn: Vec::new(),
            receivers: Vec::new(),
        };
        let Some(speaker) = nobody(SpeakerKey(self.allocator.key())) else { return };
        let config = TransportConfig {
            key: pipe.transport,
            room: room.key,
            speaker,
            local: pipe.credentials.clone(),
            fingerprint: None,
            certificate: CertificateTurn::First,
            handshake: HandshakeRole::of_pipe(dials),
            data,
            pipe: Some(PipeConfig { number: pipe.number, dials }),
        };
        let opened = NodeToRoom::PipeOpened { pipe: key, end: pipe.end(endpoint) };
        self.effects.commands.push((shard, Command::Open(Box::new(config))));
        self.placement.opened(shard);
        self.pipes.insert(pipe.transport, (name.clone(), key));
        room.pipes.insert(key, pipe);
        self.say(name, opened);
    }

    /// The room says what the other end is like.
    pub(super) fn connect_pipe(&mut self, name: &RoomName, key: PipeKey, end: &PipeEnd) {
        let Some(pipe) = pipe_at(&mut self.rooms, name, key).filter(|pipe| !pipe.is_connected) else { return };
        let (Some(number), Some(fingerprint)) = (PipeNumber::new(end.number), end.fingerprint.parse().ok()) else {
            tracing::warn!(room = %name, pipe = key.0, "the other end of a pipe makes no sense");
            self.close_pipe(name, key);
            return self.say(name, NodeToRoom::PipeState { pipe: key, state: MediaState::Failed });
        };
        pipe.is_connected = true;
        let addresses: ArrayVec<_, MAX_PIPE_ADDRESSES> =
            end.addresses.iter().copied().take(MAX_PIPE_ADDRESSES).collect();
        let ice = IceCredentials { ufrag: end.ufrag.clone(), password: end.password.clone() };
        let peer = Box::new(PipePeer { number, addresses, ice, fingerprint });
        self.effects.commands.push((pipe.shard, Command::ConnectPipe(pipe.transport, peer)));
    }

    /// The room says what is to go in.
    pub(super) fn fill_pipe(&mut self, name: &RoomName, key: PipeKey, mut tracks: Vec<PipedTrack>) {
        let Some(pipe) = pipe_at(&mut self.rooms, name, key) else { return };
        tracks.truncate(MAX_PIPED);
        pipe.wanted = tracks;
        pipe.told = None;
        self.unfilled.insert(name.clone());
    }

    /// The room says what comes out.
    pub(super) fn draw_pipe(&mut self, name: &RoomName, key: PipeKey, mut streams: Vec<PipedStream>) {
        let Some(pipe) = pipe_at(&mut self.rooms, name, key) else { return };
        streams.truncate(MAX_PIPED);
        pipe.drawn = streams;
        self.unfilled.insert(name.clone());
    }

    /// Closes an end of a pipe.
    pub(super) fn close_pipe(&mut self, name: &RoomName, key: PipeKey) {
        let Some(pipe) = self.rooms.get_mut(name).and_then(|room| room.pipes.remove(&key)) else { return };
        self.pipes.remove(&pipe.transport);
        self.placement.closed(pipe.shard);
        self.effects.commands.push((pipe.shard, Command::Close(pipe.transport)));
        pipe.outgoing.into_iter().for_each(|gone| gone.release(&mut self.allocator));
        self.forget_unused_tracks(name);
        self.forget_unused_room(name);
    }

    /// What a shard says of a pipe. False: it is about something else.
    pub(super) fn pipe_event(&mut self, event: &Event) -> bool {
        let (transport, state) = match *event {
            Event::Connected { transport, .. } | Event::Reconnected(transport) => (transport, MediaState::Connected),
            Event::Disconnected(transport) => (transport, MediaState::Disconnected),
            Event::Failed { transport, .. } => (transport, MediaState::Failed),
            _ => return false,
        };
        let Some((name, key)) = self.pipes.get(&transport).cloned() else { return false };
        tracing::info!(room = %name, pipe = key.0, ?state, "pipe to another node");
        if state == MediaState::Failed {
            self.close_pipe(&name, key);
        } else if let Some(pipe) = pipe_at(&mut self.rooms, &name, key) {
            pipe.state = Some(state);
        }
        self.say(&name, NodeToRoom::PipeState { pipe: key, state });
        true
    }

    /// Pipes of a room.
    pub(crate) fn pipes_of(&self, name: &RoomName) -> Vec<PipeKey> {
        self.rooms.get(name).into_iter().flat_map(|room| room.pipes.keys().copied()).collect()
    }

    /// Of those, the ones that are up: the other end is reached.
    #[cfg(feature = "sim")]
    pub(crate) fn pipes_up(&self, name: &RoomName) -> Vec<PipeKey> {
        let pipes = self.rooms.get(name).into_iter().flat_map(|room| &room.pipes);
        pipes.filter(|(_, pipe)| pipe.state == Some(MediaState::Connected)).map(|(key, _)| *key).collect()
    }

    /// A room may have missed what it was told last.
    pub(super) fn repeat_pipes(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let mut messages = Vec::new();
        for (key, pipe) in &mut room.pipes {
            // That this end knows the other one does not say that the other one knows this.
            if let Some(endpoint) = self.endpoints.get(pipe.shard.place()) {
                messages.push(NodeToRoom::PipeOpened { pipe: *key, end: pipe.end(endpoint) });
            }
            messages.extend(pipe.state.map(|state| NodeToRoom::PipeState { pipe: *key, state }));
            pipe.told = None;
        }
        self.effects.messages.extend(messages.into_iter().map(|message| (name.clone(), message)));
        self.unfilled.insert(name.clone());
    }

    /// Puts into the pipes of rooms in which something changed what is to go there, and tells the rooms how; takes out what
    /// comes from there. **What a session here sends itself is not taken from elsewhere.**
    pub(super) fn fill_pipes(&mut self) {
        for name in std::mem::take(&mut self.unfilled) {
            let Some(Room { sessions, pipes, tracks, .. }) = self.rooms.get_mut(&name) else { continue };
            let mut has_drawn = false;
            for (key, pipe) in pipes {
                let before = pipe.senders.clone();
                let arriving = |track: &PipedTrack| {
                    let session = sessions.get(&track.publisher);
                    session.map(|session| session.receivers_of(&track.track).collect()).unwrap_or_default()
                };
                pipe.fill(arriving, &mut self.allocator);
                if pipe.senders != before {
                    let senders = pipe.senders.clone();
                    self.effects.commands.push((pipe.shard, Command::SetSenders(pipe.transport, senders)));
                }
                let streams = pipe.streams();
                if pipe.told.as_ref() != Some(&streams) {
                    pipe.told = Some(streams.clone());
                    let filled = NodeToRoom::PipeFilled { pipe: *key, streams };
                    self.effects.messages.push((name.clone(), filled));
                }
                let is_ours = |stream: &PipedStream, track: TrackKey| {
                    let session = self.publishers.get(&track).and_then(|(_, owner)| sessions.get(owner));
                    session.is_some_and(|session| session.receivers_of(&stream.track).next().is_some())
                };
                let mut receivers = Vec::with_capacity(pipe.drawn.len());
                for stream in &pipe.drawn {
                    let track = track_key(tracks, &stream.track, &mut self.allocator);
                    if !is_ours(stream, track) {
                        receivers.push(receiver(stream, track));
                    }
                }
                if receivers != pipe.receivers {
                    pipe.receivers.clone_from(&receivers);
                    self.effects.commands.push((pipe.shard, Command::SetReceivers(pipe.transport, receivers)));
                    has_drawn = true;
                }
            }
            if has_drawn {
                self.forget_unused_tracks(&name);
            }
        }
    }

    /// Forgets the keys of tracks that no session here sends or is to be served, and that come out of no pipe.
    pub(super) fn forget_unused_tracks(&mut self, name: &RoomName) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        room.loose = 0;
        let come = room.pipes.values().flat_map(|pipe| &pipe.receivers).map(|receiver| receiver.track.primary());
        let used: HashSet<TrackKey> = room.sessions.values().flat_map(Session::sources).chain(come).collect();
        room.tracks.retain(|_, key| self.publishers.contains_key(key) || used.contains(key));
    }

    /// A session is served these no more. Of its own tracks a node hears the end; those of others are looked for, but not
    /// each time.
    pub(super) fn note_unsubscribed(&mut self, name: &RoomName, tracks: &[TrackSid]) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let is_loose =
            |track: &&TrackSid| room.tracks.get(*track).is_some_and(|key| !self.publishers.contains_key(key));
        room.loose += tracks.iter().filter(is_loose).count();
        if room.loose > room.sessions.len() + FEW {
            self.forget_unused_tracks(name);
        }
    }

    fn say(&mut self, name: &RoomName, message: NodeToRoom) {
        self.effects.messages.push((name.clone(), message));
    }
}

fn pipe_at<'a>(rooms: &'a mut BTreeMap<RoomName, Room>, name: &RoomName, key: PipeKey) -> Option<&'a mut Pipe> {
    rooms.get_mut(name)?.pipes.get_mut(&key)
}

fn release(layer: &PipedLayer, allocator: &mut Allocator) {
    allocator.release_ssrc(layer.ssrc);
    allocator.release_ssrc(layer.rtx_ssrc);
}

/// The other node speaks for its participants, never for itself.
fn nobody(key: SpeakerKey) -> Option<Speaker> {
    Some(Speaker {
        key,
        participant: ParticipantSid::try_from("PA_pipe").ok()?,
        identity: Identity::try_from("pipe").ok()?,
        can_publish_data: false,
        hidden: true,
        agent: false,
    })
}

/// The publisher's payload types, each with one for its retransmission: what is lost between nodes is sent again, audio too.
fn piped_payload_types(of: &[PayloadType]) -> Vec<PipedPayloadType> {
    let taken = |pt: u8| of.iter().any(|known| known.pt == pt || known.rtx_pt == Some(pt));
    let mut free = DYNAMIC.rev().filter(|pt| !taken(*pt));
    let piped = |known: &PayloadType| PipedPayloadType {
        pt: known.pt,
        mime: mime(known.codec).to_owned(),
        format: known.format,
        clock_rate: known.clock_rate,
        rtx_pt: known.rtx_pt.or_else(|| free.next()),
    };
    of.iter().map(piped).collect()
}

fn payload_type(kind: TrackKind, piped: &PipedPayloadType) -> Option<PayloadType> {
    Some(PayloadType {
        pt: piped.pt,
        codec: codec_of_mime(&piped.mime)?,
        format: piped.format,
        clock_rate: piped.clock_rate,
        rtx_pt: piped.rtx_pt,
        nack: true,
        pli: kind == TrackKind::Video,
    })
}

/// What comes out of a pipe is received as a publisher's is.
fn receiver(stream: &PipedStream, track: TrackKey) -> Receiver {
    let layers = || stream.layers.iter().take(MAX_LAYERS);
    let pair = |layer: &PipedLayer| SsrcPair { ssrc: layer.ssrc, rtx: Some(layer.rtx_ssrc) };
    let is_simulcast = layers().any(|layer| !layer.rid.is_empty());
    Receiver {
        track: if stream.backup { track.backup() } else { track },
        kind: stream.kind,
        mid: String::new(),
        payload_types: stream.payload_types.iter().filter_map(|pt| payload_type(stream.kind, pt)).collect(),
        extensions: EXTENSIONS,
        ssrcs: layers().map(pair).collect(),
        rids: layers().filter(|_| is_simulcast).map(|layer| layer.rid.clone()).collect(),
        // Its node knows when it is, and sends nothing then.
        muted: false,
    }
}
