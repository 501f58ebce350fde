//! A track's packets on their way to its subscribers. Those that come one after the other go out subscriber by subscriber,
//! not packet by packet: what is known of a subscriber, its keys among it, is then fetched from memory once for all.

use std::collections::VecDeque;

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
/// Tracks whose packets wait at a time.
const MAX_TRACKS: usize = 8;
/// Subscribers served together. Their memory is asked for at once, so that the processor waits for it once: that of a large
/// room is in no cache by the next frame. And they get what waits of one track after the other, so that it can leave
/// together.
const SHARE: usize = 8;

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

    /// A keyframe of the layer.
    pub(crate) fn begins(&self, layer: u8) -> bool {
        self.keyframe && self.layer == layer
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
struct Group {
    /// Slot of the track.
    track: usize,
    packets: Vec<Pending>,
    /// Of the track's subscriptions, so many have got them.
    served: usize,
}

/// What waits, track by track: the microphone's packet that comes amid a frame does not part it.
#[derive(Debug)]
pub(crate) struct Fanout {
    now: Time,
    /// The first `used` wait, the one that began first in front; the others wait for use.
    groups: VecDeque<Group>,
    used: usize,
}

impl Default for Fanout {
    fn default() -> Self {
        let group = || Group { packets: Vec::with_capacity(MAX_PENDING), ..Group::default() };
        let groups = std::iter::repeat_with(group).take(MAX_TRACKS).collect();
        Self { now: Time::default(), groups, used: 0 }
    }
}

/// What becomes of a packet that comes while others wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It waits with them.
    Beside,
    /// The group that began first makes room for its track.
    InPlaceOfFirst,
    /// All that waits goes out before it.
    Behind,
}

impl Group {
    /// The packet can wait with those that do: near enough that none of them is not kept any more by then. Where a video
    /// begins anew nothing waits: all was flushed on its way in.
    fn takes(&self, packet: &Incoming<'_>) -> bool {
        let near = |pending: &Pending| pending.sequence.abs_diff(packet.packet.sequence) < MAX_PENDING as u64;
        let after = self.packets.iter().all(|pending| pending.layer != packet.layer || near(pending));
        self.served == 0 && after && self.packets.len() < MAX_PENDING
    }
}

impl Fanout {
    fn waiting(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().take(self.used)
    }

    /// Where the packet belongs.
    fn place(&self, track: usize, packet: &Incoming<'_>) -> Place {
        match self.waiting().find(|group| group.track == track) {
            Some(group) if group.takes(packet) => Place::Beside,
            Some(_) => Place::Behind,
            None if self.used < MAX_TRACKS => Place::Beside,
            None => Place::InPlaceOfFirst,
        }
    }

    fn add(&mut self, now: Time, track: usize, packet: Pending) {
        self.now = now;
        let known = self.waiting().position(|group| group.track == track);
        let place = known.unwrap_or(self.used);
        self.used = self.used.max(place + 1);
        if let Some(group) = self.groups.get_mut(place) {
            group.track = track;
            group.packets.push(packet);
        }
    }

    /// The group whose turn it is: all keep step, as the tracks of a publisher mostly have the same subscribers.
    fn behind(&self) -> usize {
        let served = self.waiting().map(|group| group.served).enumerate();
        served.min_by_key(|(_, served)| *served).map_or(0, |(place, _)| place)
    }

    /// A group is done with.
    fn end(&mut self, place: usize) {
        if let Some(mut group) = self.groups.remove(place) {
            group.packets.clear();
            group.served = 0;
            self.groups.push_back(group);
            self.used = self.used.saturating_sub(1);
        }
    }
}

impl Forwarder {
    /// Sends all that waits.
    pub fn flush<S: Sink>(&mut self, sink: &mut S) {
        while self.fanout.used > 0 {
            self.serve_some(self.fanout.behind(), sink);
        }
    }

    /// Sends what waits until the sink is full. **To be called when no more packets are at hand**, again once the sink has
    /// room.
    pub fn flush_some<S: Sink>(&mut self, sink: &mut S) {
        while self.fanout.used > 0 && !sink.is_full() {
            self.serve_some(self.fanout.behind(), sink);
        }
    }

    /// Packets that what waits makes, over all subscribers.
    pub(crate) fn waiting(&self) -> usize {
        let packets = |group: &Group| {
            let subscriptions = self.tracks.get(group.track).map_or(0, |track| track.subscriptions.len());
            group.packets.len() * subscriptions.saturating_sub(group.served)
        };
        self.fanout.waiting().map(packets).sum()
    }

    /// Sends what waits in the group at `at` to the next of its subscribers, to one after the other.
    fn serve_some<S: Sink>(&mut self, at: usize, sink: &mut S) {
        let Self { transports, tracks, subscriptions, timers, stats, scratch, fanout, .. } = self;
        let now = fanout.now;
        let Some(group) = fanout.groups.get_mut(at) else { return };
        let track = tracks.get(group.track);
        let Some((track, source)) = track.and_then(|track| Some((track, track.source.as_ref()?))) else {
            return fanout.end(at);
        };
        let read = |pending: &Pending| pending.read(now, source);
        let packets: ArrayVec<Incoming<'_>, MAX_PENDING> = group.packets.iter().filter_map(read).collect();
        let abs_send_time = now.abs_send_time();
        let share = track.subscriptions.iter().skip(group.served).take(SHARE);
        for slot in share.clone() {
            let Some(subscription) = subscriptions.get(*slot) else { continue };
            subscription.expect();
            if let Some(transport) = transports.get(subscription.transport) {
                sink.expect_rtp(transport.key);
            }
        }
        for slot in share {
            group.served += 1;
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
        if group.served >= track.subscriptions.len() {
            fanout.end(at);
        }
    }

    /// Makes room for a packet among those that wait; nothing to do for most.
    pub(super) fn make_room<S: Sink>(&mut self, track: usize, packet: &Incoming<'_>, sink: &mut S) {
        match self.fanout.place(track, packet) {
            Place::Beside => {}
            Place::InPlaceOfFirst => {
                let before = self.fanout.used;
                while self.fanout.used == before {
                    self.serve_some(0, sink);
                }
            }
            Place::Behind => self.flush(sink),
        }
    }

    /// Lets a packet that was kept go out with those before it.
    pub(super) fn fan_out(&mut self, now: Time, track: usize, incoming: &Incoming<'_>) {
        self.fanout.add(now, track, Pending::of(incoming));
    }
}
