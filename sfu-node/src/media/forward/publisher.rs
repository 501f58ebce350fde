//! The receive side of a track: its layers, each with its window, holes, cache, statistics and keyframe request.

use std::time::Duration;

use arrayvec::ArrayVec;
use shared::control::TrackKind;

use crate::media::api::{Codec, Event, MAX_LAYERS, PayloadType, Receiver, RoomKey, ShardSet, TrackKey};
use crate::media::forward::allocation::{MAX_STEPS, Quality, Step};
use crate::media::forward::cache::{CacheSize, PacketCache, SourcePacket};
use crate::media::forward::clock::{Time, micros};
use crate::media::forward::crossing::Standing;
use crate::media::forward::keyframe_request::KeyframeRequest;
use crate::media::forward::meter::Meter;
use crate::media::forward::missing::Missing;
use crate::media::forward::reception::{Reception, SenderClocks};
use crate::media::forward::scalability::Layering;
use crate::media::forward::sequence::Window;
use crate::media::forward::speech::Speech;

/// Spatial layers of one stream told apart.
const MAX_SPATIAL: u8 = 3;
/// A frame rate that costs less more than the one below is none of its own, per cent.
const NEXT_STEP_PERCENT: u64 = 105;
/// Frame rates that are of use of a layer above the lowest: before a lower one, the layer below looks better.
const UPPER_STEPS: usize = 2;
/// A layer this far behind the liveliest one has stopped.
const LAYER_STALL: Duration = Duration::from_millis(700);

/// A track somebody publishes, subscribes to, or both.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) key: TrackKey,
    /// `None`: not received, or not yet.
    pub(crate) source: Option<Source>,
    /// Slots of its subscriptions.
    pub(crate) subscriptions: Vec<usize>,
    /// Shards that forward it too and are handed its packets.
    pub(crate) followers: ShardSet,
}

/// Who publishes it.
#[derive(Debug)]
pub(crate) struct Source {
    /// Slot of the transport.
    pub(crate) transport: usize,
    pub(crate) room: RoomKey,
    pub(crate) receiver: Receiver,
    pub(crate) layers: ArrayVec<Layer, MAX_LAYERS>,
    /// Highest layer that is live.
    pub(crate) best: Option<u8>,
    /// It is among the loudest of its room, or nobody has to choose; video always is.
    pub(crate) audible: bool,
    pub(crate) speech: Speech,
    /// Live layers, one bit each.
    live: u8,
}

/// One received stream.
#[derive(Debug)]
pub(crate) struct Layer {
    /// `None`: no packet yet.
    pub(crate) ssrc: Option<u32>,
    pub(crate) repair_ssrc: Option<u32>,
    /// When a packet bound the media SSRC; `None`: a description did.
    pub(crate) bound: Option<Time>,
    /// When a packet bound the RTX SSRC.
    pub(crate) repair_bound: Option<Time>,
    /// Counts new SSRCs and sequence restarts: numbers of two epochs have nothing to do with each other.
    pub(crate) epoch: u32,
    pub(crate) window: Window,
    pub(crate) missing: Missing,
    pub(crate) cache: Option<PacketCache>,
    pub(crate) reception: Reception,
    pub(crate) meter: Meter,
    pub(crate) layering: Layering,
    pub(crate) clocks: Option<SenderClocks>,
    pub(crate) keyframe: KeyframeRequest,
    /// Last packet.
    pub(crate) last: Option<Time>,
    /// Place of the last payload type.
    pub(crate) slot: u8,
    announced: Option<(u32, Option<u32>)>,
}

impl Track {
    pub(crate) fn new(key: TrackKey) -> Self {
        Self { key, source: None, subscriptions: Vec::new(), followers: ShardSet::default() }
    }

    /// Nobody needs it any more.
    pub(crate) fn unused(&self) -> bool {
        self.source.is_none() && self.subscriptions.is_empty() && self.followers.is_empty()
    }
}

impl Source {
    pub(crate) fn new(transport: usize, room: RoomKey, receiver: Receiver) -> Self {
        let count = receiver.rids.len().max(receiver.ssrcs.len()).max(1);
        let layers = (0..count).map(|_| Layer::new()).take(MAX_LAYERS).collect();
        Self { transport, room, receiver, layers, best: None, audible: true, speech: Speech::default(), live: 0 }
    }

    /// The receiver is this one still, perhaps with other payload types or extensions.
    pub(crate) fn fits(&self, receiver: &Receiver) -> bool {
        self.receiver.kind == receiver.kind
            && self.receiver.rids == receiver.rids
            && receiver.ssrcs.len() <= self.layers.len()
    }

    pub(crate) fn layer(&self, layer: u8) -> Option<&Layer> {
        self.layers.get(usize::from(layer))
    }

    pub(crate) fn layer_mut(&mut self, layer: u8) -> Option<&mut Layer> {
        self.layers.get_mut(usize::from(layer))
    }

    pub(crate) fn payload_type(&self, slot: u8) -> Option<&PayloadType> {
        self.receiver.payload_types.get(usize::from(slot))
    }

    /// Place of a media payload type.
    pub(crate) fn media_slot(&self, pt: u8) -> Option<u8> {
        self.slot(|known| known.pt == pt)
    }

    /// Place of the media payload type this one retransmits.
    pub(crate) fn repaired_slot(&self, pt: u8) -> Option<u8> {
        self.slot(|known| known.rtx_pt == Some(pt))
    }

    fn slot(&self, fits: impl Fn(&PayloadType) -> bool) -> Option<u8> {
        self.receiver.payload_types.iter().position(fits).and_then(|slot| u8::try_from(slot).ok())
    }

    /// A keyframe can be asked for on this layer.
    pub(crate) fn takes_requests(&self, layer: u8) -> bool {
        let negotiated = || self.payload_type(self.layer(layer)?.slot).map(|pt| pt.pli);
        self.receiver.kind == TrackKind::Video && !self.receiver.muted && negotiated() == Some(true)
    }

    /// The layer is live, as far as was looked.
    pub(crate) fn lives(&self, layer: u8) -> bool {
        self.live >> layer & 1 == 1
    }

    /// The highest live layer up to `ceiling`; the lowest live one when all are above it.
    pub(crate) fn live_up_to(&self, ceiling: u8) -> Option<u8> {
        let mut live = (0..8).filter(|layer| self.lives(*layer));
        live.clone().rev().find(|layer| *layer <= ceiling).or_else(|| live.next())
    }

    /// Bits per second of each live layer, lowest first.
    pub(crate) fn live_rates(&self, now: Time) -> impl Iterator<Item = (u8, u64)> + '_ {
        let live = (0..).zip(&self.layers).filter(|(place, _)| self.lives(*place));
        live.map(move |(place, layer)| (place, layer.meter.rate(now)))
    }

    /// The temporal layer that is enough for a frame rate.
    pub(crate) fn temporal_for(&self, frames_per_second: Option<u16>) -> u8 {
        let known = || self.layers.iter().find_map(|layer| layer.layering.known());
        frames_per_second.and_then(|wanted| Some(known()?.temporal_for(wanted.into()))).unwrap_or(u8::MAX)
    }

    /// What of it is live, the least first, each with its bits per second.
    pub(crate) fn steps(&self, now: Time) -> ArrayVec<Step, MAX_STEPS> {
        let mut steps = ArrayVec::new();
        for (layer, rate) in self.live_rates(now) {
            let known = self.layer(layer).and_then(|known| known.layering.known());
            match known.filter(|known| known.targets.len() > 0) {
                Some(known) if known.is_spatial() => {
                    (0..MAX_SPATIAL).for_each(|spatial| push_steps(&mut steps, spatial, known.rates(now, spatial)));
                }
                Some(known) => push_steps(&mut steps, layer, known.rates(now, 0)),
                None => drop(steps.try_push((Quality { layer, temporal: u8::MAX }, rate))),
            }
        }
        steps
    }

    /// Packets came lately.
    pub(crate) fn flows(&self, now: Time) -> bool {
        self.layers.iter().filter_map(|layer| layer.last).any(|last| now.since(last) <= micros(LAYER_STALL))
    }

    /// Finds the layers that are not far behind the liveliest. True when they are others than before.
    pub(crate) fn choose_layer(&mut self) -> bool {
        let liveliest = self.layers.iter().filter_map(|layer| layer.last).max();
        let live = |layer: &Layer| match (liveliest, layer.last) {
            (Some(newest), Some(last)) => newest.since(last) <= micros(LAYER_STALL),
            _ => false,
        };
        let set = (0..).zip(&self.layers).filter(|(_, layer)| live(layer)).fold(0, |set, (n, _)| set | 1 << n);
        let changed = set != self.live;
        self.live = set;
        self.best = self.live_up_to(u8::MAX);
        changed
    }

    /// Its layers that had packets, for another shard.
    pub(crate) fn standing(&self) -> ArrayVec<Standing, MAX_LAYERS> {
        let standing = |(place, layer): (u8, &Layer)| {
            let Layer { epoch, slot, meter, clocks, .. } = *layer;
            Some(Standing { layer: place, epoch, slot, live: self.lives(place), last: layer.last?, meter, clocks })
        };
        (0..).zip(&self.layers).filter_map(standing).collect()
    }

    /// Takes over how another shard's layers stand.
    pub(crate) fn take_standing(&mut self, standing: &[Standing]) {
        for known in standing {
            let Some(layer) = self.layer_mut(known.layer) else { continue };
            (layer.epoch, layer.slot, layer.last) = (known.epoch, known.slot, Some(known.last));
            (layer.meter, layer.clocks) = (known.meter, known.clocks);
            self.live |= u8::from(known.live) << known.layer;
        }
        self.best = self.live_up_to(u8::MAX);
    }

    /// The news about a layer's streams, once each.
    pub(crate) fn announce(&mut self, track: TrackKey, layer: u8) -> Option<Event> {
        let codec = self.payload_type(self.layer(layer)?.slot)?.codec;
        let entry = self.layer_mut(layer)?;
        let streams = (entry.ssrc?, entry.repair_ssrc);
        if entry.announced == Some(streams) || entry.last.is_none() {
            return None;
        }
        entry.announced = Some(streams);
        Some(Event::LayerSeen { track, layer, codec, ssrc: streams.0, repair_ssrc: streams.1.unwrap_or(0) })
    }
}

impl Layer {
    fn new() -> Self {
        Self {
            ssrc: None,
            repair_ssrc: None,
            bound: None,
            repair_bound: None,
            epoch: 0,
            window: Window::new(),
            missing: Missing::default(),
            cache: None,
            reception: Reception::default(),
            meter: Meter::default(),
            layering: Layering::default(),
            clocks: None,
            keyframe: KeyframeRequest::default(),
            last: None,
            slot: 0,
            announced: None,
        }
    }

    /// The stream has another SSRC: nothing of the old one holds.
    pub(crate) fn rebind(&mut self, ssrc: u32) {
        if self.ssrc.replace(ssrc).is_some() {
            self.window.restart();
            self.forget_run();
        }
    }

    /// The packet with these numbers is the first of a run.
    pub(crate) fn begin_epoch(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.forget_run();
    }

    /// What was counted and missed of a run means nothing in the next.
    fn forget_run(&mut self) {
        self.missing.clear();
        self.reception = Reception::default();
        self.clocks = None;
        self.layering.restart();
    }

    /// Keeps a packet for retransmission; allocates on the layer's first.
    pub(crate) fn keep(&mut self, now: Time, kind: TrackKind, packet: &SourcePacket<'_>) {
        let size = if kind == TrackKind::Video { CacheSize::VIDEO } else { CacheSize::AUDIO };
        self.cache.get_or_insert_with(|| PacketCache::new(size)).insert(now, packet);
    }
}

/// The frame rates of a layer as steps, the least first: of a layer above the lowest only the upper two.
fn push_steps(steps: &mut ArrayVec<Step, MAX_STEPS>, layer: u8, rates: impl Iterator<Item = (u8, u64)>) {
    let mut ladder: ArrayVec<Step, MAX_STEPS> = ArrayVec::new();
    for (temporal, rate) in rates {
        let below = ladder.last().map_or(0, |(_, rate)| *rate);
        if ladder.is_empty() || rate * 100 > below * NEXT_STEP_PERCENT {
            let _full = ladder.try_push((Quality { layer, temporal }, rate));
        }
    }
    if let Some((full, _)) = ladder.last_mut() {
        full.temporal = u8::MAX;
    }
    let kept = if steps.is_empty() { ladder.len() } else { UPPER_STEPS };
    for step in ladder.iter().skip(ladder.len().saturating_sub(kept)) {
        let _full = steps.try_push(*step);
    }
}

/// How a source's payload type goes out to a subscriber.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) pt: u8,
    pub(crate) rtx_pt: Option<u8>,
    /// Only the primary block of redundant audio goes out; it must have this payload type.
    pub(crate) primary: Option<u8>,
    pub(crate) codec: Codec,
    pub(crate) clock_rate: u32,
}

impl Route {
    /// Routes for each of the source's payload types, in their order.
    pub(crate) fn all(source: &[PayloadType], wanted: &[PayloadType]) -> Vec<Option<Self>> {
        let route = |from: &PayloadType| {
            let same = |to: &&PayloadType| (to.codec, to.format) == (from.codec, from.format);
            let opus = |pt: &&PayloadType| pt.codec == Codec::Opus;
            let (to, primary) = match wanted.iter().find(same) {
                Some(to) => (to, None),
                None if from.codec == Codec::Red => (wanted.iter().find(opus)?, Some(source.iter().find(opus)?.pt)),
                None => return None,
            };
            Some(Self { pt: to.pt, rtx_pt: to.rtx_pt, primary, codec: from.codec, clock_rate: from.clock_rate })
        };
        source.iter().map(route).collect()
    }
}
