//! Fits what a subscriber gets to what its path carries: layers by the estimate, probes where more would be of use.

use std::time::{Duration, Instant};

use shared::control::{Delivery, TrackKind};
use slab::Slab;

use crate::media::api::Event;
use crate::media::forward::allocation::{Candidate, Quality, allocate};
use crate::media::forward::clock::Time;
use crate::media::forward::egress::Egress;
use crate::media::forward::health::ALL_LAYERS;
use crate::media::forward::subscriber::Subscription;
use crate::media::forward::timers::Owner;
use crate::media::forward::{Forwarder, Sink};
use crate::media::relief::Relief;

/// How often a transport's videos are looked at anew; at once when the estimate falls.
const ALLOCATION_INTERVAL: Duration = Duration::from_millis(250);
/// Of what the least of all takes, per cent: with less, nobody waits for better.
const HOPELESS_PERCENT: u64 = 33;
/// Most packets of padding sent at once.
const MAX_PADDING: usize = 32;

impl Forwarder {
    /// A peer's transport-wide feedback on what it was sent.
    pub(super) fn hear_arrivals<S: Sink>(&mut self, now: Time, slot: usize, body: &[u8], sink: &mut S) {
        let Some(transport) = self.transports.get_mut(slot) else { return };
        let Some(bandwidth) = transport.bandwidth.as_mut() else { return };
        let before = bandwidth.estimate();
        if bandwidth.heard(now, body).is_err() {
            self.stats.dropped_malformed += 1;
            return;
        }
        let fell = bandwidth.estimate() < before;
        if fell || transport.allocation_due.is_none() {
            self.allocate(now, slot, sink);
            self.arm_transport(now, slot);
        }
    }

    /// A peer says how much it takes at most, bits per second.
    pub(super) fn hear_limit(&mut self, now: Time, slot: usize, bits_per_second: u64) {
        let Some(transport) = self.transports.get_mut(slot) else { return };
        let Some(bandwidth) = transport.bandwidth.as_mut() else { return };
        bandwidth.told_limit(bits_per_second);
        transport.allocation_due.get_or_insert(now);
        self.arm_transport(now, slot);
    }

    /// Gives each video of a transport the layer that fits; asks for keyframes where that is another.
    pub(super) fn allocate<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) {
        let Self { transports, tracks, subscriptions, .. } = self;
        let Some(transport) = transports.get_mut(slot) else { return };
        transport.allocation_due = None;
        let Some(bandwidth) = transport.bandwidth.as_mut().filter(|bandwidth| bandwidth.is_known()) else { return };
        let (mut audio, mut candidates, mut flowing) = (0_u64, Vec::new(), false);
        for slot in &transport.subscriptions {
            let Some(subscription) = subscriptions.get(*slot) else { continue };
            let source = tracks.get(subscription.track).and_then(|track| track.source.as_ref());
            let Some(source) = source else { continue };
            if subscription.kind == TrackKind::Audio && !source.audible {
                continue;
            }
            if subscription.kind == TrackKind::Audio {
                audio += source.live_rates(now).map(|(_, rate)| rate).sum::<u64>();
                continue;
            }
            let Delivery { paused: false, max_layer, max_frame_rate, priority } = subscription.delivery() else {
                continue;
            };
            flowing |= source.flows(now);
            let layer = max_layer.unwrap_or(u8::MAX);
            let limit = Quality { layer, temporal: source.temporal_for(max_frame_rate) };
            let steps = source.steps(now);
            candidates.push(Candidate { slot: *slot, priority, steps, limit, given: subscription.ceiling });
        }
        if candidates.is_empty() {
            return transport.lacks(now, 0);
        }
        transport.allocation_due = (transport.connected && flowing).then(|| now.plus(ALLOCATION_INTERVAL));
        let shortfall = allocate(bandwidth.estimate().saturating_sub(audio), &mut candidates);
        if let Some(wanted) = shortfall.wanted {
            bandwidth.probe_for(now, wanted + audio);
        }
        bear(now, bandwidth.estimate(), audio, &mut candidates, subscriptions);
        let lacking = if shortfall.wanted.is_none() { 0 } else { candidates.iter().map(lacking).max().unwrap_or(0) };
        transport.lacks(now, lacking);
        let to = transport.key;
        let mut changed = Vec::new();
        for candidate in candidates.iter().filter(|candidate| !candidate.steps.is_empty()) {
            let Some(subscription) = subscriptions.get_mut(candidate.slot) else { continue };
            // With room for all there is no reason to keep a layer back that comes up only now.
            let ceiling = if shortfall.wanted.is_none() { Some(Quality::BEST) } else { candidate.given };
            let was_paused = subscription.is_paused();
            let before = std::mem::replace(&mut subscription.ceiling, ceiling);
            if before == ceiling {
                continue;
            }
            if before.is_none() || ceiling.is_none() {
                subscription.pause();
            }
            let paused = subscription.is_paused();
            if paused != was_paused {
                sink.event(Event::Paused { transport: to, source: subscription.source, paused });
            }
            changed.push(subscription.track);
        }
        for track in changed {
            self.request_keyframe(now, track, Some(slot));
            self.serve_track(now, track, sink);
        }
    }

    /// The shard cannot keep up, or has room again: leaves out of each video what `relief` says.
    pub(crate) fn relieve<S: Sink>(&mut self, now: Instant, relief: Relief, sink: &mut S) {
        self.flush(sink);
        let now = self.clock.time(now);
        self.relief = relief;
        let mut changed = Vec::new();
        for (_, subscription) in &mut self.subscriptions {
            let was_paused = subscription.is_paused();
            if !subscription.relieve(relief) {
                continue;
            }
            let paused = subscription.is_paused();
            let transport = self.transports.get(subscription.transport).filter(|_| paused != was_paused);
            if let Some(transport) = transport {
                sink.event(Event::Paused { transport: transport.key, source: subscription.source, paused });
            }
            changed.push(subscription.track);
        }
        changed.sort_unstable();
        changed.dedup();
        for track in changed {
            self.request_keyframe(now, track, None);
            self.serve_track(now, track, sink);
        }
    }

    /// Sends the padding that a probe is due.
    pub(super) fn pad<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) {
        let Self { transports, subscriptions, stats, scratch, .. } = self;
        let Some(transport) = transports.get_mut(slot).filter(|transport| transport.connected) else { return };
        let due = |transport: &super::Transport| transport.bandwidth.as_ref().is_some_and(|b| b.padding_due(now) > 0);
        for _ in 0..MAX_PADDING {
            if !due(transport) {
                return;
            }
            let mut out = Egress::to(now, transport.key, &mut transport.bandwidth, scratch, stats, sink);
            let padded = transport
                .subscriptions
                .iter()
                .any(|known| subscriptions.get_mut(*known).is_some_and(|subscription| subscription.pad(&mut out)));
            if !padded {
                return;
            }
        }
    }

    fn arm_transport(&mut self, now: Time, slot: usize) {
        let Some(transport) = self.transports.get_mut(slot) else { return };
        let probe_due = transport.bandwidth.as_mut().and_then(|bandwidth| bandwidth.next_due(now));
        if let Some(next) = [transport.allocation_due, probe_due].into_iter().flatten().min() {
            self.timers.arm(Owner::Transport(slot), next);
        }
    }
}

/// Layers of a video that are wanted and there, and do not fit.
fn lacking(candidate: &Candidate) -> u8 {
    let live = candidate.steps.iter().map(|(quality, _)| quality.layer);
    let Some(best) = live.filter(|layer| *layer <= candidate.limit.layer).max() else { return 0 };
    candidate.given.map_or(ALL_LAYERS, |given| best.saturating_sub(given.layer))
}

/// Lets the least of each video that goes out already go on for a moment where it does not fit, unless far too little does:
/// a receiver that is late for once looks like a queue, and pausing all it sees is no answer to that.
fn bear(now: Time, estimate: u64, audio: u64, candidates: &mut [Candidate], subscriptions: &mut Slab<Subscription>) {
    let goes_out = |candidate: &&Candidate| {
        subscriptions.get(candidate.slot).is_some_and(|subscription| subscription.current().is_some())
    };
    let least: u64 = candidates.iter().filter(goes_out).filter_map(|candidate| Some(candidate.least()?.1)).sum();
    let hopeless = estimate < (audio + least) * HOPELESS_PERCENT / 100;
    for candidate in candidates {
        let Some(subscription) = subscriptions.get_mut(candidate.slot) else { continue };
        if subscription.bears(now, candidate.given.is_some()) && !hopeless {
            candidate.given = candidate.least().map(|(quality, _)| quality);
        }
    }
}
