//! One session's negotiation: descriptions, tracks and subscriptions in; messages for the room and commands for the shard out.
//! **Pure: no I/O, no clock; randomness comes from [`Allocator`].** What a batch of messages changed goes out in [`Session::flush`].

pub(crate) mod allocator;
mod answerer;
mod asking;
pub(crate) mod codec;
mod description;
mod extension;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod loudness;
mod offerer;
mod params;
mod publications;
mod quality;
mod subscriptions;
mod writer;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use shared::control::{
    AnnouncedTrack, DataStream, Description, DescriptionKind, Established, MediaGrants, MediaState, NodeToRoom,
    PeerConnections, SessionQuality, Speaking, Subscription,
};
use shared::ids::{SessionKey, TrackSid};

use self::allocator::Allocator;
use self::answerer::{Answerer, TransportChange};
use self::asking::{Ask, MAX_FRUITLESS_ASKS};
use self::loudness::Loudness;
use self::offerer::Offerer;
pub(crate) use self::params::SessionParams;
use self::publications::Publications;
use self::quality::Quality;
use self::subscriptions::Subscriptions;
pub(crate) use self::writer::Endpoint;
use crate::media::api::{
    Codec, Command, DataRole, Fingerprint, HandshakeRole, IceCredentials, Receiver, Sender, ShardIndex, Speaker,
    SpeakerKey, SrtpProfile, TrackKey, TransportConfig, TransportKey,
};
use crate::media::datachannel::{ChannelStreams, Label, own_streams};

/// What negotiation wants done, in order.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// For the room.
    pub(crate) messages: Vec<NodeToRoom>,
    /// For the shard.
    pub(crate) commands: Vec<Command>,
}

/// A session's negotiation state.
#[derive(Debug)]
pub(crate) struct Session {
    params: SessionParams,
    speaker: SpeakerKey,
    publisher: Answerer,
    subscriber: Option<Offerer>,
    publications: Publications,
    loudness: Loudness,
    quality: Quality,
    subscriptions: Subscriptions,
    connected: Vec<TransportKey>,
    state: Option<MediaState>,
    /// What media is protected with here.
    srtp: Option<SrtpProfile>,
    ask: Option<Ask>,
    asks_left: u8,
    /// What the shard has.
    receivers: Vec<Receiver>,
    senders: Vec<Sender>,
    /// What the client has from another node, until the transport opens.
    channels: ChannelStreams,
    /// What it has opened here.
    opened: ChannelStreams,
}

impl Session {
    /// A new session; its transports open with the first descriptions.
    pub(crate) fn open(params: SessionParams, allocator: &mut Allocator, out: &mut Output) -> Self {
        let transport = TransportKey(allocator.key());
        let mut session = Self {
            speaker: SpeakerKey(allocator.key()),
            publisher: Answerer::new(
                transport,
                params.key.generation.into(),
                params.handshake(),
                params.playout_delay.is_some(),
                allocator,
            ),
            subscriber: None,
            publications: Publications::default(),
            loudness: Loudness::default(),
            quality: Quality::default(),
            subscriptions: Subscriptions::default(),
            connected: Vec::new(),
            state: None,
            srtp: None,
            ask: None,
            asks_left: MAX_FRUITLESS_ASKS,
            receivers: Vec::new(),
            senders: Vec::new(),
            channels: ChannelStreams::new(),
            opened: ChannelStreams::new(),
            params,
        };
        if session.params.peer_connections == PeerConnections::DualSubscriberPrimary {
            session.open_subscriber(allocator, out);
        }
        session
    }

    /// Goes on with what the client has from another node. Comes before its offer.
    pub(crate) fn go_on(&mut self, established: Established, allocator: &mut Allocator, out: &mut Output) {
        established.subscribed.iter().for_each(|known| self.subscriptions.place_again(known, allocator));
        self.publisher.carried_before(established.carried);
        self.publications.expect(established.published);
        let known = |channel: &DataStream| Some((Label::from_text(&channel.label)?, channel.stream));
        self.channels = established.channels.iter().filter_map(known).take(ChannelStreams::new().capacity()).collect();
        let Some(offer) = established.offered.filter(|_| self.params.peer_connections != PeerConnections::Single)
        else {
            return;
        };
        if self.subscriber.is_none() {
            self.open_subscriber(allocator, out);
        }
        let Some(subscriber) = &mut self.subscriber else { return };
        match subscriber.go_on(&offer, established.subscribed) {
            Ok(()) => out.commands.push(Command::TakeOverChannels(subscriber.transport, own_streams())),
            Err(error) => self.reject(offer.id, &error, out),
        }
    }

    /// Whose session.
    pub(crate) fn key(&self) -> &SessionKey {
        &self.params.key
    }

    /// Where its transports are.
    pub(crate) fn shard(&self) -> ShardIndex {
        self.params.shard
    }

    /// Whose data it sends.
    pub(crate) fn speaker_key(&self) -> SpeakerKey {
        self.speaker
    }

    /// Its transports, the primary one first.
    pub(crate) fn transports(&self) -> Vec<TransportKey> {
        let subscriber = self.subscriber.as_ref().map(|subscriber| subscriber.transport);
        let mut all: Vec<_> = std::iter::once(self.publisher.transport).chain(subscriber).collect();
        all.sort_by_key(|transport| *transport != self.primary());
        all
    }

    /// The client's offer for the publisher (or only) connection.
    pub(crate) fn offer(
        &mut self,
        offer: &Description,
        endpoint: &Endpoint,
        allocator: &mut Allocator,
        out: &mut Output,
    ) {
        let known = self.publisher.remote().map(|remote| remote.ice.clone());
        let change = match self.publisher.follow_offer(&offer.sdp, &mut self.publications, allocator) {
            Ok(change) => change,
            Err(error) => return self.reject(offer.id, &error, out),
        };
        let transport = self.publisher.transport;
        let opened = matches!(change, TransportChange::Opened(_));
        match change {
            TransportChange::None => {}
            TransportChange::Opened(fingerprint) => {
                let role = match self.params.peer_connections {
                    PeerConnections::Single | PeerConnections::DualPublisherPrimary => DataRole::Both,
                    PeerConnections::DualSubscriberPrimary => DataRole::Upstream,
                };
                let (local, handshake) = (self.publisher.credentials.clone(), self.params.handshake());
                let config = self.transport_config(transport, local, Some(fingerprint), handshake, role);
                out.commands.push(Command::Open(Box::new(config)));
                let channels = std::mem::take(&mut self.channels);
                if !channels.is_empty() {
                    out.commands.push(Command::TakeOverChannels(transport, channels));
                }
            }
            TransportChange::Restarted => {
                // It is back on another socket: what it was asked on the one before, and has not offered, it never heard.
                (self.ask, self.asks_left) = (None, MAX_FRUITLESS_ASKS);
                out.commands.push(Command::RestartIce(transport, self.publisher.credentials.clone()));
            }
            TransportChange::NewFingerprint(fingerprint) => {
                out.commands.push(Command::SetFingerprint(transport, fingerprint));
            }
        }
        let remote = self.publisher.remote().map(|remote| remote.ice.clone()).filter(|ice| known.as_ref() != Some(ice));
        out.commands.extend(remote.map(|ice| Command::SetRemoteIce(transport, ice)));
        let is_single = self.params.peer_connections == PeerConnections::Single;
        if is_single {
            let waited = self.waiting();
            self.publisher.place(&self.params.client, &mut self.subscriptions, allocator);
            if self.waiting() < waited {
                self.asks_left = MAX_FRUITLESS_ASKS;
            }
            if opened {
                // There is no connection without this answer.
                self.subscriptions.mark_received();
            }
        }
        let sdp = self.publisher.answer(endpoint, &self.params.client, &self.publications, &self.subscriptions);
        if is_single {
            self.subscriptions.mark_placed();
            self.settle_ask();
        }
        out.messages.push(NodeToRoom::Answer {
            session: self.params.key.clone(),
            description: Description { kind: DescriptionKind::Answer, id: offer.id, sdp },
            mid_to_track: if is_single { self.subscriptions.mid_to_track() } else { Vec::new() },
        });
    }

    /// The client's answer for the subscriber connection.
    pub(crate) fn answer(&mut self, answer: &Description, out: &mut Output) {
        let Some(subscriber) = &mut self.subscriber else {
            return self.reject(answer.id, &description::DescriptionError::NoOffer, out);
        };
        let transport = subscriber.transport;
        match subscriber.follow_answer(answer.id, &answer.sdp, &self.params.client, &self.subscriptions) {
            Ok(news) => {
                self.subscriptions.mark_received();
                out.commands.extend(news.ice.map(|ice| Command::SetRemoteIce(transport, ice)));
                out.commands
                    .extend(news.fingerprint.map(|fingerprint| Command::SetFingerprint(transport, fingerprint)));
            }
            Err(error) => self.reject(answer.id, &error, out),
        }
    }

    /// The client is back on a new signal connection: the subscriber connection is offered anew, with an ICE restart.
    /// DTLS and what runs over it go on.
    pub(crate) fn restart_ice(&mut self, allocator: &mut Allocator, out: &mut Output) {
        let Some(subscriber) = &mut self.subscriber else { return };
        subscriber.restart(allocator);
        out.commands.push(Command::RestartIce(subscriber.transport, subscriber.credentials.clone()));
    }

    /// The client has another address under one of its connections. Under the one that it publishes on means under the
    /// other one too, where it may say nothing for seconds: a restart has it show itself, after an offer that it has yet to
    /// answer.
    pub(crate) fn readdressed(&mut self, transport: TransportKey) {
        if let Some(subscriber) = &mut self.subscriber {
            subscriber.has_moved = transport == self.publisher.transport;
        }
    }

    /// A track was announced. False: too many.
    pub(crate) fn announce(&mut self, track: AnnouncedTrack, key: TrackKey) -> bool {
        let taken = self.publications.announce(track, key);
        if let Some(remote) = self.publisher.remote() {
            self.publications.match_by_cid(remote);
        }
        taken
    }

    /// The room ended a publication.
    pub(crate) fn retract(&mut self, track: &TrackSid) -> bool {
        self.publications.retract(track, self.publisher.remote())
    }

    /// A track was muted or unmuted by its owner.
    pub(crate) fn mute(&mut self, track: &TrackSid, muted: bool, out: &mut Output) {
        let Some(key) = self.publications.mute(track, muted) else { return };
        for receiver in self.receivers.iter_mut().filter(|receiver| receiver.track.primary() == key) {
            receiver.muted = muted;
            out.commands.push(Command::SetMuted(receiver.track, muted));
        }
    }

    /// What the shard receives of a track, in each of its codecs.
    pub(crate) fn receivers_of(&self, track: &TrackSid) -> impl Iterator<Item = &Receiver> {
        let key = self.publications.key_of(track);
        self.receivers.iter().filter(move |receiver| Some(receiver.track.primary()) == key)
    }

    /// It is to be served a track.
    pub(crate) fn is_subscribed_to(&self, source: TrackKey) -> bool {
        self.subscriptions.has(source)
    }

    /// All tracks it is to be served.
    pub(crate) fn sources(&self) -> impl Iterator<Item = TrackKey> {
        self.subscriptions.sources()
    }

    /// Serves a track from now on. False: too many.
    pub(crate) fn subscribe(
        &mut self,
        subscription: Subscription,
        source: TrackKey,
        allocator: &mut Allocator,
        out: &mut Output,
    ) -> bool {
        self.asks_left = MAX_FRUITLESS_ASKS;
        if self.params.peer_connections != PeerConnections::Single && self.subscriber.is_none() {
            self.open_subscriber(allocator, out);
        }
        self.subscriptions.add(subscription, source)
    }

    /// Serves a track no longer.
    pub(crate) fn unsubscribe(&mut self, track: &TrackSid, allocator: &mut Allocator) {
        self.subscriptions.remove(track, allocator);
    }

    /// The participant's permission changed.
    pub(crate) fn update_grants(&mut self, grants: MediaGrants, out: &mut Output) {
        self.params.grants = grants;
        out.commands.push(Command::SetSpeaker(self.speaker()));
    }

    /// A microphone is at this step of loudness.
    pub(crate) fn loud(&mut self, track: TrackKey, step: u8) {
        self.loudness.set(track, step);
    }

    /// How loud the participant is, if the room was told otherwise.
    pub(crate) fn take_loudness(&mut self) -> Option<u8> {
        self.loudness.take_news()
    }

    /// How loud the participant is, as the room was told; `None`: silent.
    pub(crate) fn speaking(&self) -> Option<Speaking> {
        let step = self.loudness.told();
        (step > 0).then(|| Speaking { session: self.params.key.clone(), step })
    }

    /// A transport carries media so well.
    pub(crate) fn scored(&mut self, transport: TransportKey, score: u8) {
        self.quality.set(transport, score);
    }

    /// How well its media gets through, and whether that is news; `None`: there is none yet.
    pub(crate) fn assess(&mut self) -> Option<(SessionQuality, bool)> {
        let lost = self.state? != MediaState::Connected;
        let is_news = !self.quality.settle(lost);
        Some((SessionQuality { session: self.params.key.clone(), score: self.quality.score(lost) }, is_news))
    }

    /// True, once: new tracks reach it, or all do.
    pub(crate) fn take_newcomer(&mut self) -> bool {
        std::mem::take(&mut self.quality.newcomer)
    }

    /// It sends something.
    pub(crate) fn publishes(&self) -> bool {
        !self.receivers.is_empty()
    }

    /// A transport is up (again).
    pub(crate) fn connected(&mut self, transport: TransportKey, srtp: Option<SrtpProfile>, out: &mut Output) {
        self.srtp = srtp.or(self.srtp);
        if !self.connected.contains(&transport) {
            self.connected.push(transport);
        }
        self.set_state(transport, MediaState::Connected, out);
    }

    /// The client opened data channels. Those that the node opens are always the same.
    pub(crate) fn channels_opened(&mut self, transport: TransportKey, channels: &ChannelStreams, out: &mut Output) {
        if transport == self.publisher.transport {
            self.opened.clone_from(channels);
            self.tell_channels(out);
        }
    }

    fn tell_channels(&self, out: &mut Output) {
        let channels =
            self.opened.iter().map(|(label, stream)| DataStream { label: label.text().into(), stream: *stream });
        let (session, channels) = (self.params.key.clone(), channels.collect());
        out.messages.push(NodeToRoom::DataChannels { session, channels });
    }

    /// The link to the room broke, and what went into it last may be lost: the room is told again all that holds, and what
    /// ended. Of a lost answer it says so itself.
    pub(crate) fn repeat(&mut self, out: &mut Output) {
        let session = &self.params.key;
        out.messages.extend(self.state.map(|state| NodeToRoom::MediaState {
            session: session.clone(),
            state,
            srtp: self.srtp,
        }));
        let ended = self.publications.past().cloned();
        out.messages.extend(ended.map(|track| NodeToRoom::TrackEnded { session: session.clone(), track }));
        if let Some((offer, shown)) = self.subscriber.as_ref().and_then(Offerer::outstanding) {
            let (description, mid_to_track) = (offer.clone(), shown.to_vec());
            out.messages.push(NodeToRoom::Offer { session: session.clone(), description, mid_to_track });
        }
        if !self.opened.is_empty() {
            self.tell_channels(out);
        }
        self.publications.doubt();
        self.subscriptions.doubt();
        (self.ask, self.asks_left) = (None, MAX_FRUITLESS_ASKS);
    }

    /// It has published this track, and does so no longer.
    pub(crate) fn has_ended(&self, track: &TrackSid) -> bool {
        self.publications.past().any(|ended| ended == track)
    }

    /// The client answers a call of the server.
    pub(crate) fn answered_call(&self, packet: &[u8], out: &mut Output) {
        let (session, packet) = (self.params.key.clone(), STANDARD.encode(packet));
        out.messages.push(NodeToRoom::CallAnswer { session, packet });
    }

    /// A transport's consent lapsed.
    pub(crate) fn disconnected(&mut self, transport: TransportKey, out: &mut Output) {
        self.set_state(transport, MediaState::Disconnected, out);
    }

    /// Media of a layer arrived.
    pub(crate) fn layer_seen(&mut self, track: TrackKey, layer: u8, codec: Codec, ssrc: u32, repair_ssrc: u32) {
        self.publications.layer_seen(track, layer, codec, ssrc, repair_ssrc);
    }

    /// Sends what the batch changed. Returns the tracks that ended.
    pub(crate) fn flush(&mut self, endpoint: &Endpoint, allocator: &mut Allocator, out: &mut Output) -> Vec<TrackSid> {
        let ended = self.publications.take_ended();
        let session = &self.params.key;
        out.messages.extend(
            ended.iter().map(|track| NodeToRoom::TrackEnded { session: session.clone(), track: track.clone() }),
        );
        self.flush_publications(out);
        self.flush_subscriptions(endpoint, allocator, out);
        ended
    }

    /// Ends the session's transports; quietly, when its client goes on elsewhere.
    pub(crate) fn close(&mut self, quietly: bool, allocator: &mut Allocator, out: &mut Output) {
        self.subscriptions.close(allocator);
        let end = if quietly { Command::Forget } else { Command::Close };
        out.commands.extend(self.transports().into_iter().map(end));
    }

    fn flush_publications(&mut self, out: &mut Output) {
        let Some(remote) = self.publisher.remote() else { return };
        let local = self.publisher.media_sections();
        let receivers =
            if self.params.grants.can_publish { self.publications.receivers(remote, &local) } else { Vec::new() };
        if receivers != self.receivers {
            out.commands.push(Command::SetReceivers(self.publisher.transport, receivers.clone()));
            self.receivers = receivers;
        }
        for (track, media) in self.publications.take_news(&local) {
            out.messages.push(NodeToRoom::TrackReceived { session: self.params.key.clone(), track, media });
        }
    }

    fn flush_subscriptions(&mut self, endpoint: &Endpoint, allocator: &mut Allocator, out: &mut Output) {
        if self.subscriber.as_ref().is_some_and(Offerer::should_restart) {
            self.restart_ice(allocator, out);
        }
        let session = &self.params.key;
        if let Some(subscriber) = &mut self.subscriber {
            let next = subscriber.next_offer(endpoint, &self.params.client, &mut self.subscriptions, allocator);
            if let Some(description) = next {
                let mid_to_track = self.subscriptions.mid_to_track();
                out.messages.push(NodeToRoom::Offer { session: session.clone(), description, mid_to_track });
            }
        }
        let (transport, negotiated) = match (&self.subscriber, self.params.peer_connections) {
            (Some(subscriber), _) => (subscriber.transport, subscriber.media_sections()),
            (None, PeerConnections::Single) => (self.publisher.transport, self.publisher.media_sections()),
            (None, _) => return,
        };
        let delay = self.params.playout_delay;
        let senders =
            if self.params.grants.can_subscribe { self.subscriptions.senders(&negotiated, delay) } else { Vec::new() };
        if senders != self.senders {
            out.commands.push(Command::SetSenders(transport, senders.clone()));
            self.senders = senders;
        }
        let codecs = self.subscriptions.take_codecs(&negotiated).into_iter();
        out.messages.extend(codecs.map(|(track, codec)| NodeToRoom::CodecNeeded {
            session: session.clone(),
            track,
            codec,
        }));
        if self.connected.contains(&transport) {
            let bound = self.subscriptions.take_bound(&negotiated);
            self.quality.newcomer |= !bound.is_empty();
            out.messages
                .extend(bound.into_iter().map(|track| NodeToRoom::TrackBound { session: session.clone(), track }));
        }
        if self.params.peer_connections == PeerConnections::Single {
            self.ask_for_sections(out);
        }
    }

    fn open_subscriber(&mut self, allocator: &mut Allocator, out: &mut Output) {
        let (certificate, delays) = (self.params.key.generation.into(), self.params.playout_delay.is_some());
        let subscriber = Offerer::new(TransportKey(allocator.key()), certificate, delays, allocator);
        let credentials = subscriber.credentials.clone();
        // Data comes down the primary connection, and only there.
        let data = match self.params.peer_connections {
            PeerConnections::DualPublisherPrimary => DataRole::Upstream,
            PeerConnections::Single | PeerConnections::DualSubscriberPrimary => DataRole::Downstream,
        };
        // An offer may not change who begins.
        let handshake = HandshakeRole::Server;
        let config = self.transport_config(subscriber.transport, credentials, None, handshake, data);
        out.commands.push(Command::Open(Box::new(config)));
        self.subscriber = Some(subscriber);
    }

    fn transport_config(
        &self,
        key: TransportKey,
        local: IceCredentials,
        fingerprint: Option<Fingerprint>,
        handshake: HandshakeRole,
        data: DataRole,
    ) -> TransportConfig {
        let certificate = self.params.key.generation.into();
        let (room, speaker) = (self.params.room, self.speaker());
        TransportConfig { key, room, speaker, local, fingerprint, certificate, handshake, data, pipe: None }
    }

    fn speaker(&self) -> Speaker {
        let grants = &self.params.grants;
        Speaker {
            key: self.speaker,
            participant: self.params.key.participant.clone(),
            identity: self.params.identity.clone(),
            can_publish_data: grants.can_publish_data,
            hidden: grants.hidden,
            agent: grants.agent,
        }
    }

    /// The transport whose state is the participant's, and that data for the client goes to.
    pub(crate) fn primary(&self) -> TransportKey {
        match (&self.subscriber, self.params.peer_connections) {
            (Some(subscriber), PeerConnections::DualSubscriberPrimary) => subscriber.transport,
            _ => self.publisher.transport,
        }
    }

    fn set_state(&mut self, transport: TransportKey, state: MediaState, out: &mut Output) {
        if transport == self.primary() && self.state != Some(state) {
            self.state = Some(state);
            out.messages.push(NodeToRoom::MediaState { session: self.params.key.clone(), state, srtp: self.srtp });
        }
    }

    fn reject(&self, id: u32, error: &description::DescriptionError, out: &mut Output) {
        let session = self.params.key.clone();
        out.messages.push(NodeToRoom::DescriptionRejected { session, id, detail: error.to_string() });
    }
}

#[cfg(test)]
mod tests;
