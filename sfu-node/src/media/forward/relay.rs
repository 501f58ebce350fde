//! A track that several shards forward: the one that receives it hands its packets over; the others take them in place of
//! the network's, and ask it for keyframes.

use std::time::Instant;

use crate::media::api::{Receiver, RoomKey, ShardIndex, ShardSet, TrackKey, TransportKey};
use crate::media::forward::clock::Time;
use crate::media::forward::crossing::{Crossing, Handed, Standing};
use crate::media::forward::receive::{brings_layers, describe};
use crate::media::forward::reception::SenderClocks;
use crate::media::forward::scalability::Learnt;
use crate::media::forward::subscriber::Incoming;
use crate::media::forward::transport::StreamRef;
use crate::media::forward::{Forwarder, Sink};

impl Forwarder {
    /// Sets all tracks of a transport of shard `from` that are forwarded here too; those missing end, those known go on.
    pub fn set_relayed<S: Sink>(
        &mut self,
        now: Instant,
        transport: TransportKey,
        room: RoomKey,
        from: ShardIndex,
        receivers: Vec<Receiver>,
        sink: &mut S,
    ) {
        self.open(transport, room);
        let slot = self.transport_slots.get(&transport).copied();
        if let Some(entry) = slot.and_then(|slot| self.transports.get_mut(slot)) {
            entry.relayed_from = Some(from);
        }
        let over = receivers.is_empty();
        self.set_receivers(now, transport, receivers, sink);
        if over {
            self.close(now, transport, sink);
        }
    }

    /// Takes a record of another shard's forwarder, head and payload together.
    pub fn on_crossing<S: Sink>(&mut self, now: Instant, from: ShardIndex, record: &[u8], sink: &mut S) {
        let now = self.clock.time(now);
        let crossing = Crossing::read(record);
        if !matches!(crossing, Some(Crossing::Packet(_))) {
            self.flush(sink);
        }
        match crossing {
            Some(Crossing::Follow(track)) => self.add_follower(track, from, sink),
            Some(Crossing::Unfollow(track)) => self.remove_follower(track, from),
            Some(Crossing::KeyframeWanted { track, layer }) => self.want_keyframe(now, track, layer, sink),
            Some(Crossing::Standing { track, ntp_offset, layers }) => {
                self.take_standing(now, from, track, ntp_offset, &layers, sink);
            }
            Some(Crossing::Layers { track, layer, slot, learnt }) => {
                self.take_learnt(from, track, (layer, slot), *learnt);
            }
            Some(Crossing::Clocks { track, layer, clocks, ntp_offset }) => {
                self.take_clocks(from, track, layer, clocks, ntp_offset);
            }
            // What comes before the track is known here, or after it ended, is for nobody.
            Some(Crossing::Packet(handed)) => drop(self.take_packet(now, from, &handed, sink)),
            None => self.stats.dropped_malformed += 1,
        }
    }

    /// Hands a packet to the shards that forward its track too.
    pub(super) fn relay<S: Sink>(&self, stream: StreamRef, incoming: &Incoming<'_>, first: bool, sink: &mut S) {
        let Some(track) = self.tracks.get(stream.track).filter(|track| !track.followers.is_empty()) else { return };
        let Incoming { layer, epoch, late, packet, .. } = *incoming;
        let handed = Handed { track: track.key, layer, epoch, first, late, repaired: stream.repair, packet };
        hand_over(&Crossing::Packet(handed), track.followers, sink);
    }

    /// A transport relays a track from now on.
    pub(super) fn follow<S: Sink>(&self, transport: usize, track: usize, sink: &mut S) {
        if let Some((from, track)) = self.relayed(transport, track) {
            Crossing::Follow(track).write(|record| sink.cross(from, record));
        }
    }

    /// A transport relays a track no more. Where it is relayed by another transport of the same shard, that goes on.
    pub(super) fn unfollow<S: Sink>(&self, transport: usize, track: usize, sink: &mut S) {
        let Some((from, key)) = self.relayed(transport, track) else { return };
        let source = self.tracks.get(track).and_then(|track| track.source.as_ref());
        let now_by = source
            .filter(|source| source.transport != transport)
            .and_then(|source| self.transports.get(source.transport)?.relayed_from);
        if now_by != Some(from) {
            Crossing::Unfollow(key).write(|record| sink.cross(from, record));
        }
    }

    fn relayed(&self, transport: usize, track: usize) -> Option<(ShardIndex, TrackKey)> {
        Some((self.transports.get(transport)?.relayed_from?, self.tracks.get(track)?.key))
    }

    fn add_follower<S: Sink>(&mut self, key: TrackKey, follower: ShardIndex, sink: &mut S) {
        let slot = self.track_slot(key);
        let Some(track) = self.tracks.get_mut(slot) else { return };
        track.followers.insert(follower);
        if let Some(source) = &track.source {
            let ntp_offset = self.transports.get(source.transport).and_then(|publisher| publisher.ntp_offset);
            for (layer, known) in (0..).zip(&source.layers) {
                let Some(learnt) = known.layering.learnt().map(Box::new) else { continue };
                let layers = Crossing::Layers { track: key, layer, slot: known.slot, learnt };
                layers.write(|record| sink.cross(follower, record));
            }
            let standing = Crossing::Standing { track: key, ntp_offset, layers: source.standing() };
            standing.write(|record| sink.cross(follower, record));
        }
    }

    fn remove_follower(&mut self, key: TrackKey, follower: ShardIndex) {
        let Some(slot) = self.track_slots.get(&key).copied() else { return };
        if let Some(track) = self.tracks.get_mut(slot) {
            track.followers.remove(follower);
        }
        self.drop_unused(slot);
    }

    fn want_keyframe<S: Sink>(&mut self, now: Time, key: TrackKey, layer: u8, sink: &mut S) {
        let Some(slot) = self.track_slots.get(&key).copied() else { return };
        let source = self.tracks.get_mut(slot).and_then(|track| track.source.as_mut());
        if let Some(layer) = source.and_then(|source| source.layer_mut(layer)) {
            layer.keyframe.want(now);
        }
        self.serve_track(now, slot, sink);
    }

    /// The slot of a track that `from` relays to us.
    fn slot_relayed_by(&self, from: ShardIndex, key: TrackKey) -> Option<usize> {
        let slot = *self.track_slots.get(&key)?;
        let source = self.tracks.get(slot)?.source.as_ref()?;
        let relayed_from = self.transports.get(source.transport)?.relayed_from;
        (relayed_from == Some(from)).then_some(slot)
    }

    fn take_standing<S: Sink>(
        &mut self,
        now: Time,
        from: ShardIndex,
        key: TrackKey,
        ntp_offset: Option<u64>,
        layers: &[Standing],
        sink: &mut S,
    ) {
        let Some(slot) = self.slot_relayed_by(from, key) else { return };
        if let Some(source) = self.tracks.get_mut(slot).and_then(|track| track.source.as_mut()) {
            source.take_standing(layers);
            if let Some(publisher) = self.transports.get_mut(source.transport) {
                publisher.ntp_offset = ntp_offset.or(publisher.ntp_offset);
            }
        }
        self.request_keyframe(now, slot, None);
        self.serve_track(now, slot, sink);
    }

    fn take_learnt(&mut self, from: ShardIndex, key: TrackKey, (layer, payload_type): (u8, u8), learnt: Learnt) {
        let Some(slot) = self.slot_relayed_by(from, key) else { return };
        let Some(source) = self.tracks.get_mut(slot).and_then(|track| track.source.as_mut()) else { return };
        let Some(codec) = source.payload_type(payload_type).map(|pt| pt.codec) else { return };
        if let Some(layer) = source.layer_mut(layer) {
            layer.layering.take_learnt(codec, learnt);
        }
    }

    fn take_clocks(&mut self, from: ShardIndex, key: TrackKey, layer: u8, clocks: SenderClocks, ntp_offset: u64) {
        let Some(slot) = self.slot_relayed_by(from, key) else { return };
        let Some(source) = self.tracks.get_mut(slot).and_then(|track| track.source.as_mut()) else { return };
        if let Some(transport) = self.transports.get_mut(source.transport) {
            transport.ntp_offset = Some(ntp_offset);
        }
        if let Some(layer) = source.layer_mut(layer) {
            layer.clocks = Some(clocks);
        }
    }

    fn take_packet<S: Sink>(&mut self, now: Time, from: ShardIndex, handed: &Handed<'_>, sink: &mut S) -> Option<()> {
        let slot = self.slot_relayed_by(from, handed.track)?;
        let source = self.tracks.get_mut(slot)?.source.as_mut()?;
        let packet = handed.packet;
        let codec = source.payload_type(packet.slot)?.codec;
        if brings_layers(codec, &packet) {
            self.flush(sink);
        }
        let source = self.tracks.get_mut(slot)?.source.as_mut()?;
        let layer = source.layer_mut(handed.layer)?;
        if layer.epoch != handed.epoch {
            (layer.epoch, layer.clocks) = (handed.epoch, None);
            layer.layering.restart();
        }
        if !handed.repaired {
            (layer.last, layer.slot) = (Some(now), packet.slot);
            layer.meter.count(now, packet.payload.len());
        }
        let incoming = describe(now, codec, handed.layer, layer, handed.late, packet);
        self.deliver(now, slot, &incoming, handed.first, sink);
        Some(())
    }
}

/// Hands a record to each of the shards.
pub(super) fn hand_over<S: Sink>(crossing: &Crossing<'_>, to: ShardSet, sink: &mut S) {
    if !to.is_empty() {
        crossing.write(|record| to.iter().for_each(|shard| sink.cross(shard, record)));
    }
}
