//! Forwarding: plain RTP and RTCP in, plain RTP and RTCP out. **A pure machine: no sockets, crypto, clock or randomness
//! of its own. A packet received allocates nothing in the steady state.**

mod adapt;
mod allocation;
pub(crate) mod bandwidth;
mod cache;
pub(crate) mod clock;
mod crossing;
mod demand;
pub(crate) mod dependency;
mod descriptor;
mod egress;
mod fanout;
mod feedback;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod header;
mod health;
mod keyframe;
mod keyframe_request;
mod layering;
mod loudest;
mod meter;
mod missing;
mod numbers;
mod pacing;
mod picture;
mod publisher;
mod receive;
mod reception;
mod red;
mod relay;
mod retransmission;
pub(crate) mod rtcp;
pub(crate) mod rtp;
mod scalability;
mod schedule;
mod sequence;
mod speech;
mod subscriber;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod transport;
pub(crate) mod twcc;

use std::collections::HashMap;
use std::time::Instant;

use rustc_hash::FxBuildHasher;
use slab::Slab;

use self::clock::{Clock, Time, wrap32};
pub use self::crossing::Record;
use self::demand::Demand;
use self::egress::Scratch;
use self::fanout::Fanout;
use self::loudest::Loudest;
use self::publisher::{Route, Source, Track};
use self::rtp::MAX_RTP_LEN;
use self::subscriber::Subscription;
use self::timers::{Owner, Timers};
use self::transport::{StreamRef, Transport};
use crate::media::api::{Event, Receiver, RoomKey, Sender, ShardIndex, ShardStats, TrackKey, TransportKey};
use crate::media::relief::Relief;

/// Where the forwarder's packets and news go.
pub trait Sink {
    /// Sends an RTP packet, given in two parts. Both may be reused when this returns.
    fn rtp(&mut self, to: TransportKey, header: &[u8], payload: &[u8]);
    /// Sends an RTCP packet, compound or reduced-size (RFC 5506).
    fn rtcp(&mut self, to: TransportKey, compound: &[u8]);
    /// Tells the control thread.
    fn event(&mut self, event: Event);
    /// Hands a record to another shard's forwarder.
    fn cross(&mut self, to: ShardIndex, record: Record<'_>);
    /// Packets for it come soon: asks for the memory they need.
    fn expect_rtp(&self, _to: TransportKey) {}
    /// What was handed out had best be sent before more is.
    fn is_full(&self) -> bool {
        false
    }
}

/// All transports, tracks and subscriptions of a shard.
pub struct Forwarder {
    transports: Slab<Transport>,
    transport_slots: HashMap<TransportKey, usize>,
    tracks: Slab<Track>,
    track_slots: HashMap<TrackKey, usize>,
    subscriptions: Slab<Subscription>,
    clock: Clock,
    timers: Timers,
    relief: Relief,
    /// How many microphones of a room are heard.
    audible: usize,
    rooms: HashMap<RoomKey, Loudest, FxBuildHasher>,
    seed: u64,
    stats: ShardStats,
    scratch: Box<Scratch>,
    fanout: Fanout,
}

impl Forwarder {
    /// `seed` gives SSRCs and first sequence numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            transports: Slab::new(),
            transport_slots: HashMap::new(),
            tracks: Slab::new(),
            track_slots: HashMap::new(),
            subscriptions: Slab::new(),
            clock: Clock::default(),
            timers: Timers::new(),
            relief: Relief::NONE,
            audible: usize::MAX,
            rooms: HashMap::default(),
            seed,
            stats: ShardStats::default(),
            scratch: Box::new([0; MAX_RTP_LEN + 2]),
            fanout: Fanout::default(),
        }
    }

    /// Counts time from `origin`, as all shards of a node must: clocks cross between them.
    #[must_use]
    pub fn counting_from(mut self, origin: Instant) -> Self {
        self.clock = Clock::from(origin);
        self
    }

    /// Lets so many microphones of a room be heard, the loudest; all, if it is not called.
    #[must_use]
    pub fn hearing(mut self, most: usize) -> Self {
        self.audible = most;
        self
    }

    /// Opens a transport. Nothing is sent to it until it is connected.
    pub fn open(&mut self, transport: TransportKey, room: RoomKey) {
        if self.transport_slots.contains_key(&transport) {
            return;
        }
        let ssrc = wrap32(self.random(transport.0)).max(1);
        let slot = self.transports.insert(Transport::new(transport, room, ssrc));
        self.transport_slots.insert(transport, slot);
    }

    /// A transport that was just opened leads to another node: its streams are those that its receivers name by SSRC.
    pub fn set_pipe(&mut self, transport: TransportKey) {
        let slot = self.transport_slots.get(&transport).copied();
        if let Some(entry) = slot.and_then(|slot| self.transports.get_mut(slot)) {
            entry.is_pipe = true;
        }
    }

    /// Ends a transport, its receivers and senders.
    pub fn close<S: Sink>(&mut self, now: Instant, transport: TransportKey, sink: &mut S) {
        self.set_receivers(now, transport, Vec::new(), sink);
        self.set_senders(now, transport, Vec::new(), sink);
        if let Some(slot) = self.transport_slots.remove(&transport) {
            self.transports.remove(slot);
            self.timers.disarm(Owner::Transport(slot));
        }
    }

    /// The transport can be sent to from now on, or not. Video starts with a keyframe each time, whichever way it goes.
    pub fn connected<S: Sink>(&mut self, now: Instant, transport: TransportKey, connected: bool, sink: &mut S) {
        self.flush(sink);
        let now = self.clock.time(now);
        let Some(slot) = self.transport_slots.get(&transport).copied() else { return };
        let Some(entry) = self.transports.get_mut(slot).filter(|entry| entry.connected != connected) else { return };
        entry.connected = connected;
        let published = entry.tracks.clone();
        let mut waiting = Vec::new();
        for subscription in &entry.subscriptions {
            if let Some(subscription) = self.subscriptions.get_mut(*subscription) {
                subscription.pause();
                waiting.push(subscription.track);
            }
        }
        for track in waiting {
            self.request_first_keyframe(now, track);
            self.request_keyframe(now, track, Some(slot));
            self.serve_track(now, track, sink);
        }
        for track in published {
            self.request_first_keyframe(now, track);
            self.serve_track(now, track, sink);
        }
    }

    /// A transport's packets go to another address of its peer from now on.
    pub fn path_changed<S: Sink>(&mut self, now: Instant, transport: TransportKey, sink: &mut S) {
        self.flush(sink);
        let now = self.clock.time(now);
        let slot = self.transport_slots.get(&transport);
        let entry = slot.and_then(|slot| self.transports.get_mut(*slot));
        if let Some(bandwidth) = entry.and_then(|entry| entry.bandwidth.as_mut()) {
            bandwidth.path_changed(now);
        }
    }

    /// Sets all tracks this transport sends us; those missing end, those known go on.
    pub fn set_receivers<S: Sink>(
        &mut self,
        now: Instant,
        transport: TransportKey,
        receivers: Vec<Receiver>,
        sink: &mut S,
    ) {
        self.flush(sink);
        let now = self.clock.time(now);
        let Some(slot) = self.transport_slots.get(&transport).copied() else { return };
        let before = self.transports.get(slot).map(|entry| entry.tracks.clone()).unwrap_or_default();
        let mut tracks = Vec::with_capacity(receivers.len());
        for receiver in receivers {
            let track = self.track_slot(receiver.track);
            if !tracks.contains(&track) {
                if self.receive_track(now, slot, track, receiver) {
                    self.follow(slot, track, sink);
                }
                tracks.push(track);
            }
        }
        for track in before.iter().filter(|track| !tracks.contains(track)) {
            self.end_track(now, slot, *track, sink);
        }
        if let Some(entry) = self.transports.get_mut(slot) {
            entry.tracks.clone_from(&tracks);
        }
        for track in tracks {
            self.request_keyframe(now, track, None);
            self.serve_track(now, track, sink);
        }
    }

    /// Sets all tracks sent to this transport; those missing end. One with a known SSRC goes on in its numbers.
    pub fn set_senders<S: Sink>(&mut self, now: Instant, transport: TransportKey, senders: Vec<Sender>, sink: &mut S) {
        self.flush(sink);
        let now = self.clock.time(now);
        let Some(slot) = self.transport_slots.get(&transport).copied() else { return };
        let before = self.transports.get(slot).map(|entry| entry.subscriptions.clone()).unwrap_or_default();
        let mut after = Vec::with_capacity(senders.len());
        for sender in senders {
            let by_ssrc = |known: &usize| self.subscriptions.get(*known).is_some_and(|s| s.ssrc == sender.ssrc);
            let known = before.iter().copied().find(by_ssrc);
            let track = self.track_slot(sender.source);
            let subscription = match known {
                Some(known) => self.change_subscription(now, known, track, sender),
                None => {
                    let random = self.random(sender.ssrc.into());
                    let subscription = Subscription::new(slot, track, sender, random, self.relief);
                    if subscription.is_paused() {
                        sink.event(Event::Paused { transport, source: subscription.source, paused: true });
                    }
                    let added = self.subscriptions.insert(subscription);
                    self.join_track(added, track);
                    added
                }
            };
            if !after.contains(&subscription) {
                after.push(subscription);
            }
        }
        for gone in before.iter().filter(|known| !after.contains(known)) {
            if let Some(subscription) = self.subscriptions.try_remove(*gone) {
                self.leave_track(*gone, subscription.track);
            }
        }
        let tracks: Vec<usize> =
            after.iter().filter_map(|known| self.subscriptions.get(*known)).map(|known| known.track).collect();
        if let Some(entry) = self.transports.get_mut(slot) {
            entry.subscriptions = after;
        }
        self.schedule_demand(slot);
        for track in tracks {
            self.set_routes(track);
            self.request_keyframe(now, track, Some(slot));
            self.serve_track(now, track, sink);
        }
    }

    /// Mutes or unmutes a received track: a muted one goes nowhere, whatever its client sends, is not heard, and is not
    /// asked for keyframes.
    pub fn set_muted<S: Sink>(&mut self, now: Instant, track: TrackKey, muted: bool, sink: &mut S) {
        self.flush(sink);
        let now = self.clock.time(now);
        let Some(slot) = self.track_slots.get(&track).copied() else { return };
        let Some(entry) = self.tracks.get_mut(slot) else { return };
        let Some(source) = entry.source.as_mut() else { return };
        let changed = std::mem::replace(&mut source.receiver.muted, muted) != muted;
        if changed && muted {
            let room = source.room;
            if source.speech.stop() {
                sink.event(speech::loudness(track, 0));
            }
            for subscription in &entry.subscriptions {
                if let Some(subscription) = self.subscriptions.get_mut(*subscription) {
                    subscription.pause();
                }
            }
            self.forget_level(now, slot, Some(room));
        }
        self.request_keyframe(now, slot, None);
        self.serve_track(now, slot, sink);
    }

    /// When [`Forwarder::on_timeout`] wants to be called.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.clock.instant(self.timers.next()?)
    }

    /// Counters: receivers, senders, packets and bytes of plain RTP each way, malformed, NACK, PLI, retransmissions.
    #[must_use]
    pub fn stats(&self) -> ShardStats {
        let transports = self.transports.iter().filter(|(_, transport)| transport.relayed_from.is_none());
        let receivers = transports.map(|(_, transport)| transport.tracks.len() as u64).sum();
        ShardStats { receivers, senders: self.subscriptions.len() as u64, ..self.stats }
    }

    /// A number that only the seed and `about` decide: whatever happened before, and on whichever shard.
    fn random(&self, about: u64) -> u64 {
        SplitMix(self.seed ^ about).next()
    }

    /// The slot of a track, made when either side names it first.
    fn track_slot(&mut self, key: TrackKey) -> usize {
        let tracks = &mut self.tracks;
        *self.track_slots.entry(key).or_insert_with(|| tracks.insert(Track::new(key)))
    }

    /// True: it was not received from this transport before, not so.
    fn receive_track(&mut self, now: Time, transport: usize, track: usize, receiver: Receiver) -> bool {
        let Some(entry) = self.transports.get_mut(transport) else { return false };
        let Some(known) = self.tracks.get_mut(track) else { return false };
        let ssrcs = receiver.ssrcs.clone();
        let before = known.source.as_mut();
        let is_new = match before.filter(|source| source.transport == transport && source.fits(&receiver)) {
            Some(source) => {
                source.receiver = receiver;
                false
            }
            None => {
                entry.unbind(track);
                let mut source = Source::new(transport, entry.room, receiver);
                // The windows go on, so that who was heard before and is not any more is told.
                let before = known.source.as_ref().filter(|_| entry.relayed_from.is_none());
                source.speech = before.map(|before| before.speech).unwrap_or_default();
                let before = known.source.replace(source);
                self.forget_level(now, track, before.map(|before| before.room));
                true
            }
        };
        let Some(entry) = self.transports.get_mut(transport) else { return false };
        let Some(known) = self.tracks.get_mut(track) else { return false };
        for (layer, pair) in (0..).zip(&ssrcs).filter(|(_, pair)| pair.ssrc != 0) {
            let stream = StreamRef { track, layer, repair: false };
            let Some(known) = known.source.as_mut().and_then(|source| source.layer_mut(layer)) else { continue };
            if known.ssrc != Some(pair.ssrc) {
                known.rebind(pair.ssrc);
                entry.bind(pair.ssrc, stream);
            }
            if let Some(rtx) = pair.rtx.filter(|rtx| known.repair_ssrc != Some(*rtx)) {
                known.repair_ssrc = Some(rtx);
                entry.bind(rtx, StreamRef { repair: true, ..stream });
            }
        }
        self.set_routes(track);
        is_new
    }

    /// The transport does not send the track any more.
    fn end_track<S: Sink>(&mut self, now: Time, transport: usize, track: usize, sink: &mut S) {
        self.unfollow(transport, track, sink);
        if let Some(entry) = self.transports.get_mut(transport) {
            entry.unbind(track);
        }
        let Some(known) = self.tracks.get_mut(track) else { return };
        if known.source.as_ref().is_some_and(|source| source.transport == transport) {
            let (key, before) = (known.key, known.source.take());
            let room = before.as_ref().map(|source| source.room);
            if before.is_some_and(|mut source| source.speech.stop()) {
                sink.event(speech::loudness(key, 0));
            }
            self.forget_level(now, track, room);
            self.set_routes(track);
        }
        self.drop_unused(track);
    }

    fn change_subscription(&mut self, now: Time, known: usize, track: usize, sender: Sender) -> usize {
        let Some(subscription) = self.subscriptions.get_mut(known) else { return known };
        let old = subscription.track;
        if old != track {
            subscription.track = track;
            subscription.source = sender.source;
            subscription.kind = sender.kind;
            subscription.forget_source();
            subscription.demand = Demand::new(sender.delivery);
        }
        subscription.demand.ask(now, sender.delivery);
        if subscription.delivery().paused {
            subscription.pause();
        }
        subscription.configure(sender);
        if old != track {
            self.leave_track(known, old);
            self.join_track(known, track);
        }
        known
    }

    fn join_track(&mut self, subscription: usize, track: usize) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.subscriptions.push(subscription);
        }
    }

    fn leave_track(&mut self, subscription: usize, track: usize) {
        if let Some(track) = self.tracks.get_mut(track) {
            track.subscriptions.retain(|known| *known != subscription);
        }
        self.drop_unused(track);
    }

    fn drop_unused(&mut self, track: usize) {
        if self.tracks.get(track).is_some_and(Track::unused) {
            let removed = self.tracks.remove(track);
            self.track_slots.remove(&removed.key);
            self.timers.disarm(Owner::Track(track));
        }
    }

    /// Works out how a track's payload types go out to each of its subscribers; not at all into another room.
    fn set_routes(&mut self, track: usize) {
        let Some(track) = self.tracks.get(track) else { return };
        for subscription in &track.subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(*subscription) else { continue };
            let room = self.transports.get(subscription.transport).map(|transport| transport.room);
            let source = track.source.as_ref().filter(|source| Some(source.room) == room);
            if source.is_none() {
                subscription.forget_source();
            }
            let offered = source.map(|source| source.receiver.payload_types.as_slice()).unwrap_or_default();
            subscription.set_routes(Route::all(offered, &subscription.payload_types));
        }
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): numbers that need not be secret, from a seed given.
#[derive(Debug)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
