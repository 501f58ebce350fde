//! Pacing: what would burst over a subscriber's path, such as a large keyframe, goes out bit by bit. Only video is held;
//! audio and what is sent again counts, but never waits. Held packets are places in their layer's cache, and only who
//! holds something has a timer and memory for it.

use std::collections::VecDeque;
use std::time::Duration;

use shared::control::TrackKind;

use crate::media::forward::bandwidth::Bandwidth;
use crate::media::forward::clock::{Time, micros};
use crate::media::forward::egress::Egress;
use crate::media::forward::fanout::Pending;
use crate::media::forward::publisher::Source;
use crate::media::forward::subscriber::{Incoming, Subscription};
use crate::media::forward::timers::{Owner, Timers};
use crate::media::forward::transport::Transport;
use crate::media::forward::{Forwarder, Sink};

/// What goes out, as a multiple of the estimate (libwebrtc's pacing factor).
const FACTOR: f64 = 2.5;
/// Bytes that go out at once: twelve packets, which any router's queue takes; a frame of most videos.
const BURST: f64 = 12.0 * 1250.0;
/// Or 5 ms of the estimate: bytes for each bit per second.
const BURST_SHARE: f64 = 0.005 / 8.0;
/// Bytes a microsecond that go out for each bit per second of the estimate.
const PER_MICROSECOND: f64 = FACTOR / 8e6;
/// Time between two looks at what is held (libwebrtc's pacer).
const TICK: Duration = Duration::from_millis(5);
/// Nothing is held for longer.
const LONGEST: Duration = Duration::from_millis(250);
/// Packets that one subscription holds at most; then the oldest goes out. A quarter of what a layer's cache has.
const MAX_HELD: usize = 128;

/// What went out lately to a transport beyond its pace.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Bytes, at `at`.
    debt: f64,
    at: Time,
}

impl Pace {
    /// So many bytes went out; `estimate` is what the path carries, bits per second.
    pub(crate) fn sent(&mut self, now: Time, size: u16, estimate: f64) {
        if now != self.at {
            // What went out because it might wait no longer is not waited for afterwards.
            let most = burst(estimate) + PER_MICROSECOND * estimate * micros(LONGEST) as f64;
            self.debt = self.owed(now, estimate).min(most);
            self.at = now;
        }
        self.debt += f64::from(size);
    }

    /// More may go out now.
    pub(crate) fn allows(&self, now: Time, estimate: f64) -> bool {
        self.owed(now, estimate) < burst(estimate)
    }

    /// When to look again.
    pub(crate) fn next(&self, now: Time, estimate: f64) -> Time {
        let beyond = self.owed(now, estimate) - burst(estimate);
        let wait = Duration::from_secs_f64((beyond / (PER_MICROSECOND * estimate.max(1.0))).max(0.0) / 1e6);
        now.plus(wait.clamp(TICK, LONGEST))
    }

    fn owed(&self, now: Time, estimate: f64) -> f64 {
        (self.debt - now.since(self.at) as f64 * PER_MICROSECOND * estimate).max(0.0)
    }
}

fn burst(estimate: f64) -> f64 {
    BURST.max(BURST_SHARE * estimate)
}

/// What a subscription holds, in order.
#[derive(Debug)]
pub(crate) struct Held {
    packets: VecDeque<(Time, Pending)>,
    /// Layers of which packets are to wait, one bit each: the one going out, and those with a keyframe among what waits.
    layers: u8,
}

impl Held {
    /// Nothing yet, of a stream of which this layer goes out.
    fn new(current: Option<u8>) -> Self {
        let layers = current.map_or(0, |layer| 1 << layer.min(7));
        Self { packets: VecDeque::with_capacity(MAX_HELD), layers }
    }

    /// The packet has to wait behind the others.
    fn concerns(&self, incoming: &Incoming<'_>) -> bool {
        incoming.keyframe || self.layers >> incoming.layer.min(7) & 1 == 1
    }

    /// A keyframe of the layer is among what waits.
    pub(crate) fn begins(&self, layer: u8) -> bool {
        self.packets.iter().any(|(_, pending)| pending.begins(layer))
    }

    /// Lets a packet wait.
    fn push(&mut self, now: Time, incoming: &Incoming<'_>) {
        self.layers |= u8::from(incoming.keyframe) << incoming.layer.min(7);
        self.packets.push_back((now, Pending::of(incoming)));
    }

    /// When the oldest began to wait.
    fn since(&self) -> Option<Time> {
        self.packets.front().map(|(since, _)| *since)
    }

    /// The oldest.
    fn pop(&mut self) -> Option<Pending> {
        self.packets.pop_front().map(|(_, pending)| pending)
    }

    /// The oldest, if there is no room for more.
    fn overflow(&mut self) -> Option<Pending> {
        if self.packets.len() >= MAX_HELD { self.pop() } else { None }
    }
}

impl Subscription {
    /// The packet is to wait: it is too much at once, or others wait before it. What fills a hole among what went out does
    /// not wait.
    pub(crate) fn holds_back<S: Sink>(&self, incoming: &Incoming<'_>, out: &Egress<'_, S>) -> bool {
        if self.kind == TrackKind::Audio {
            return false;
        }
        let concerned = match &self.held {
            Some(held) => held.concerns(incoming),
            None => (self.current() == Some(incoming.layer) || incoming.keyframe) && !out.lets_out(),
        };
        concerned && !self.passed(incoming)
    }

    /// Lets a packet wait; the oldest goes out where there is no room for more.
    pub(crate) fn hold<S: Sink>(&mut self, incoming: &Incoming<'_>, source: &Source, out: &mut Egress<'_, S>) {
        let current = self.current();
        let held = self.held.get_or_insert_with(|| Box::new(Held::new(current)));
        let oldest = held.overflow();
        held.push(out.now, incoming);
        if let Some(oldest) = oldest {
            self.let_out(oldest, source, out);
        }
    }

    fn let_out<S: Sink>(&mut self, pending: Pending, source: &Source, out: &mut Egress<'_, S>) {
        if let Some(incoming) = pending.read(out.now, source).filter(|_| pending.is_of(source)) {
            self.forward(&incoming, source, out);
        }
    }

    /// When the oldest packet held began to wait.
    fn held_since(&self) -> Option<Time> {
        self.held.as_ref()?.since()
    }

    /// The oldest packet held.
    fn take_held(&mut self) -> Option<Pending> {
        let held = self.held.as_mut()?;
        let oldest = held.pop();
        if held.since().is_none() {
            self.held = None;
        }
        oldest
    }
}

impl Forwarder {
    /// Sends what a transport's videos hold, as far as its pace lets it; the oldest first.
    pub(super) fn release<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) {
        let Self { transports, tracks, subscriptions, stats, scratch, .. } = self;
        let Some(transport) = transports.get_mut(slot) else { return };
        transport.release_due = None;
        let mut done = Vec::new();
        loop {
            let held = |known: &usize| Some((subscriptions.get(*known)?.held_since()?, *known));
            let Some((since, oldest)) = transport.subscriptions.iter().filter_map(held).min() else { break };
            let waits = transport.bandwidth.as_ref().filter(|bandwidth| !bandwidth.lets_out(now));
            if let Some(bandwidth) = waits.filter(|_| now.since(since) < micros(LONGEST)) {
                transport.release_due = Some(bandwidth.lets_out_at(now));
                break;
            }
            let Some(subscription) = subscriptions.get_mut(oldest) else { break };
            let Some(pending) = subscription.take_held() else { break };
            if subscription.held.is_none() {
                done.push(subscription.track);
            }
            let source = tracks.get(subscription.track).and_then(|track| track.source.as_ref());
            let Some(source) = source.filter(|_| transport.connected) else { continue };
            let releasing = |bandwidth: &mut Option<Box<Bandwidth>>, so: bool| {
                bandwidth.iter_mut().for_each(|bandwidth| bandwidth.releasing = so);
            };
            releasing(&mut transport.bandwidth, true);
            let mut out = Egress::to(now, transport.key, &mut transport.bandwidth, scratch, stats, sink);
            subscription.let_out(pending, source, &mut out);
            releasing(&mut transport.bandwidth, false);
        }
        // A keyframe that was held may be kept no more, and was not asked for again.
        for track in done {
            self.request_keyframe(now, track, Some(slot));
            self.serve_track(now, track, sink);
        }
    }

    /// A transport's video holds something from now on: sees to its going out.
    pub(super) fn schedule_release(timers: &mut Timers, now: Time, slot: usize, transport: &mut Transport) {
        if transport.release_due.is_none() {
            let due = transport.bandwidth.as_ref().map_or(now, |bandwidth| bandwidth.lets_out_at(now));
            transport.release_due = Some(due);
            timers.arm(Owner::Transport(slot), due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_at_its_pace() {
        let mut pace = Pace::default();
        let (mut now, mut sent) = (Time(1_000_000), vec![]);
        while now.0 < 2_000_000 {
            while pace.allows(now, 1e6) {
                pace.sent(now, 1250, 1e6);
                sent.push(now.0);
            }
            now = pace.next(now, 1e6);
        }
        assert_eq!(sent.iter().filter(|at| **at == 1_000_000).count(), 12);
        let bits = (sent.len() - 12) as f64 * 1250.0 * 8.0;
        assert!((2.4e6..2.6e6).contains(&bits), "{bits} in the second after it");
        assert!(pace.allows(Time(2_100_000), 1e6));
    }

    #[test]
    fn a_wide_path_takes_more_at_once() {
        let mut pace = Pace::default();
        let count = |pace: &mut Pace| {
            let mut count = 0;
            while pace.allows(Time(5), 100e6) {
                pace.sent(Time(5), 1250, 100e6);
                count += 1;
            }
            count
        };
        assert_eq!(count(&mut pace), 50);
    }
}
