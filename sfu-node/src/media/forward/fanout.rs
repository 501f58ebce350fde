//! A track's packets on their way to its subscribers. Those that come one after the other go out subscriber by subscriber,
//! not packet by packet: what is known of a subscriber, its keys among it, is then fetched from memory once for all.

use arrayvec::ArrayVec;

use crate::media::forward::cache::SourcePacket;
use crate::media::forward::clock::Time;
use crate::media::forward::egress::Egress;
use crate::media::forward::layering::Frame;
use crate::media::forward::picture::PictureIds;
use crate::media::forward::publisher::Source;
use crate::media::forward::subscriber::Incoming;
use crate::media::forward::{Forwarder, Sink};

/// Packets that go out together at most: a video frame, and far fewer than a layer's cache holds.
const MAX_PENDING: usize = 16;
/// Subscribers whose memory is asked for together before they are served, so that the processor waits for it once: that of
/// a large room is in no cache by the next frame.
const EXPECTED: usize = 8;

/// A packet that waits; its bytes are in the layer's cache.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pending {
    layer: u8,
    epoch: u32,
    late: bool,
    keyframe: bool,
    frame: Frame,
    pictures: PictureIds,
    sequence: u64,
}

impl Pending {
    /// A packet that was kept.
    pub(crate) fn of(incoming: &Incoming<'_>) -> Self {
        let Incoming { layer, epoch, late, keyframe, frame, pictures, packet: SourcePacket { sequence, .. } } =
            *incoming;
        Self { layer, epoch, late, keyframe, frame, pictures, sequence }
    }

    /// Its layer has not begun anew since.
    pub(crate) fn is_of(&self, source: &Source) -> bool {
        source.layer(self.layer).is_some_and(|layer| layer.epoch == self.epoch)
    }

    /// The packet, if it is kept still.
    pub(crate) fn read<'s>(&self, now: Time, source: &'s Source) -> Option<Incoming<'s>> {
        let Self { layer, epoch, late, keyframe, frame, pictures, sequence } = *self;
        let packet = source.layer(layer)?.cache.as_ref()?.lookup(now, sequence)?;
        Some(Incoming { layer, epoch, late, keyframe, frame, pictures, packet })
    }
}

/// Packets of one track that wait.
#[derive(Debug, Default)]
pub(crate) struct Fanout {
    /// Slot of the track.
    track: usize,
    now: Time,
    packets: ArrayVec<Pending, MAX_PENDING>,
    /// Of the track's subscriptions, so many have got them.
    served: usize,
}

impl Fanout {
    /// The packet can wait with those that do: same track, and near enough that it is not kept in their place.
    pub(super) fn takes(&self, track: usize, packet: &Incoming<'_>) -> bool {
        let near = |pending: &Pending| pending.sequence.abs_diff(packet.packet.sequence) < MAX_PENDING as u64;
        let after = self.packets.iter().all(|pending| pending.layer != packet.layer || near(pending));
        let joins = self.served == 0 && self.track == track && after && !packet.keyframe && !self.packets.is_full();
        self.packets.is_empty() || joins
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.served = 0;
    }
}

impl Forwarder {
    /// Sends all that waits.
    pub fn flush<S: Sink>(&mut self, sink: &mut S) {
        while !self.fanout.packets.is_empty() {
            self.serve(sink, |_| false);
        }
    }

    /// Sends what waits until the sink is full. **To be called when no more packets are at hand**, again once the sink has
    /// room.
    pub fn flush_some<S: Sink>(&mut self, sink: &mut S) {
        if !self.fanout.packets.is_empty() {
            self.serve(sink, S::is_full);
        }
    }

    /// Sends what waits to one subscriber after the other.
    fn serve<S: Sink>(&mut self, sink: &mut S, is_enough: impl Fn(&S) -> bool) {
        let Self { transports, tracks, subscriptions, timers, stats, scratch, fanout, .. } = self;
        let now = fanout.now;
        let track = tracks.get(fanout.track);
        let Some((track, source)) = track.and_then(|track| Some((track, track.source.as_ref()?))) else {
            return fanout.clear();
        };
        let read = |pending: &Pending| pending.read(now, source);
        let begun = fanout.served;
        let packets: ArrayVec<Incoming<'_>, MAX_PENDING> = fanout.packets.iter().filter_map(read).collect();
        let abs_send_time = now.abs_send_time();
        for (place, slot) in track.subscriptions.iter().enumerate().skip(fanout.served) {
            if is_enough(sink) {
                return;
            }
            if (place - begun).is_multiple_of(EXPECTED) {
                for slot in track.subscriptions.iter().skip(place).take(EXPECTED) {
                    let Some(subscription) = subscriptions.get(*slot) else { continue };
                    subscription.expect();
                    if let Some(transport) = transports.get(subscription.transport) {
                        sink.expect_rtp(transport.key);
                    }
                }
            }
            fanout.served += 1;
            let Some(subscription) = subscriptions.get_mut(*slot) else { continue };
            let Some(transport) = transports.get_mut(subscription.transport).filter(|to| to.connected) else {
                continue;
            };
            Self::schedule_reports(timers, now, subscription.transport, transport);
            let (to, bandwidth) = (transport.key, &mut transport.bandwidth);
            let mut out = Egress { now, abs_send_time, to, bandwidth, scratch, stats, sink };
            let mut holds = false;
            for packet in &packets {
                if subscription.holds_back(packet, &out) {
                    holds = true;
                    subscription.hold(packet, source, &mut out);
                } else {
                    subscription.forward(packet, source, &mut out);
                }
            }
            if holds {
                Self::schedule_release(timers, now, subscription.transport, transport);
            }
        }
        fanout.clear();
    }

    /// Lets a packet that was kept go out with those before it.
    pub(super) fn fan_out(&mut self, now: Time, track: usize, incoming: &Incoming<'_>) {
        self.fanout.track = track;
        self.fanout.now = now;
        self.fanout.packets.push(Pending::of(incoming));
    }
}
