//! What happens by time: NACK and keyframe requests of a track, transport-wide feedback and reports of a transport.

use std::time::{Duration, Instant};

use rtc::rtcp::packet::Packet;

use crate::media::api::{Event, TransportKey};
use crate::media::forward::clock::{Time, wrap16};
use crate::media::forward::crossing::Crossing;
use crate::media::forward::rtcp::{self, MAX_REPORTS};
use crate::media::forward::subscriber::Subscription;
use crate::media::forward::timers::{Owner, Timers};
use crate::media::forward::transport::Transport;
use crate::media::forward::{Forwarder, Sink};

/// Time between the reports of a transport.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// How often a simulcast track is looked at for layers that stopped: by all shards at once.
const LAYER_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// Sender reports that go into one compound packet: with names of the longest they stay under 1,200 bytes.
const REPORTS_A_PACKET: usize = 3;

impl Forwarder {
    /// Does what is due.
    pub fn on_timeout<S: Sink>(&mut self, now: Instant, sink: &mut S) {
        self.flush(sink);
        let now = self.clock.time(now);
        while let Some((at, owner)) = self.timers.take_due(now) {
            match owner {
                Owner::Track(slot) => {
                    if at.is_multiple(LAYER_CHECK_INTERVAL) {
                        self.check_layers(now, slot);
                    }
                    if let Some(news) = self.judge_speech(now, slot) {
                        sink.event(news);
                    }
                    self.serve_track(now, slot, sink);
                }
                Owner::Transport(slot) => self.serve_transport(now, slot, sink),
            }
        }
    }

    /// Asks for a keyframe of each layer that a subscriber of the track waits for; with `only`, what that transport
    /// waits for.
    pub(super) fn request_keyframe(&mut self, now: Time, track: usize, only: Option<usize>) {
        let Some(track) = self.tracks.get_mut(track) else { return };
        let Some(source) = track.source.as_mut() else { return };
        for slot in &track.subscriptions {
            let subscription = self.subscriptions.get(*slot);
            let concerned =
                |known: &&Subscription| !known.is_piped() && only.is_none_or(|only| known.transport == only);
            let Some(subscription) = subscription.filter(concerned) else { continue };
            let connected = self.transports.get(subscription.transport).is_some_and(|to| to.connected);
            let awaited = subscription.awaits(source).filter(|_| connected);
            if let Some(layer) = awaited.and_then(|layer| source.layer_mut(layer)) {
                layer.keyframe.want(now);
            }
        }
    }

    /// A client is connected: asks for keyframes of a track of which nothing has come yet, but whose streams are known. One
    /// that another node served before sends no keyframe by itself.
    pub(super) fn request_first_keyframe(&mut self, now: Time, track: usize) {
        let Some(track) = self.tracks.get_mut(track) else { return };
        let Some(source) = track.source.as_mut() else { return };
        let publisher = self.transports.get(source.transport);
        let is_there = publisher.is_some_and(|from| from.connected && from.relayed_from.is_none());
        let is_awaited = |slot: &usize| {
            let subscription = self.subscriptions.get(*slot).filter(|known| known.awaits_anything());
            subscription.and_then(|known| self.transports.get(known.transport)).is_some_and(|to| to.connected)
        };
        let is_to_come = source.layers.iter().all(|layer| layer.last.is_none());
        if is_there && is_to_come && track.subscriptions.iter().any(is_awaited) {
            source.layers.iter_mut().filter(|layer| layer.ssrc.is_some()).for_each(|layer| layer.keyframe.want(now));
        }
    }

    /// Sends the requests that are due to a track's publisher, and arms its timer.
    pub(super) fn serve_track<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) {
        let Some(track) = self.tracks.get_mut(slot) else { return };
        let Some(source) = track.source.as_mut() else { return };
        let Some(publisher) = self.transports.get(source.transport) else { return };
        let check = (source.layers.len() > 1 && source.flows(now)).then(|| now.next_multiple(LAYER_CHECK_INTERVAL));
        let mut next = [check, source.speech.due()].into_iter().flatten().min();
        for index in (0..).take(source.layers.len()) {
            let asks = source.takes_requests(index);
            let Some(layer) = source.layer_mut(index) else { continue };
            if !asks {
                layer.keyframe.settle();
            }
            if let Some(from) = publisher.relayed_from {
                // Who receives the track throttles and repeats.
                if layer.keyframe.take_wanted() {
                    let wanted = Crossing::KeyframeWanted { track: track.key, layer: index };
                    wanted.write(|record| sink.cross(from, record));
                }
                continue;
            }
            let Some(ssrc) = layer.ssrc else { continue };
            if layer.keyframe.take_due(now) {
                self.stats.plis_sent += 1;
                send(publisher.key, &[Box::new(rtcp::pli(publisher.ssrc, ssrc))], sink);
                if layer.last.is_none() {
                    // It may never come.
                    layer.keyframe.settle();
                }
            }
            let due = layer.missing.take_due(now);
            if !due.is_empty() {
                self.stats.nacks_sent += 1;
                let sequences: Vec<u16> = due.iter().map(|sequence| wrap16(*sequence)).collect();
                send(publisher.key, &[Box::new(rtcp::nack(publisher.ssrc, ssrc, &sequences))], sink);
            }
            next = [next, layer.keyframe.next_due(), layer.missing.next_due()].into_iter().flatten().min();
        }
        if let Some(next) = next {
            self.timers.arm(Owner::Track(slot), next);
        }
    }

    /// Starts a transport's reports; done with the first packet either way and after each silence.
    pub(super) fn schedule_reports(timers: &mut Timers, now: Time, slot: usize, transport: &mut Transport) {
        if transport.report_due.is_none() {
            let due = now.plus(REPORT_INTERVAL);
            transport.report_due = Some(due);
            timers.arm(Owner::Transport(slot), due);
        }
    }

    fn check_layers(&mut self, now: Time, slot: usize) {
        let source = self.tracks.get_mut(slot).and_then(|track| track.source.as_mut());
        if source.is_some_and(|source| source.layers.len() > 1 && source.choose_layer()) {
            self.request_keyframe(now, slot, None);
        }
    }

    fn serve_transport<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) {
        let Some(transport) = self.transports.get_mut(slot) else { return };
        if transport.feedback_due.is_some_and(|due| due <= now) {
            transport.feedback_due = None;
            let (to, ssrc, media) = (transport.key, transport.ssrc, transport.feedback_ssrc);
            while let Some(report) = transport.recorder.as_mut().and_then(|recorder| recorder.report(ssrc, media)) {
                send(to, &[Box::new(report)], sink);
            }
        }
        if transport.report_due.is_some_and(|due| due <= now) {
            transport.report_due = None;
            if transport.connected {
                let received = self.report_reception(now, slot, sink);
                let sent = self.report_sending(now, slot, sink);
                // Without packets there is nothing to report; the next one starts it again.
                if let Some(transport) = self.transports.get_mut(slot) {
                    transport.report_due = (received || sent).then(|| now.plus(REPORT_INTERVAL));
                    // Packets came: a video that was paused may fit now.
                    transport.allocation_due.get_or_insert(now);
                    if let Some(score) = transport.take_score(now, received || sent) {
                        sink.event(Event::Score { transport: transport.key, score });
                    }
                }
            }
        }
        if self.transports.get(slot).is_some_and(|transport| transport.allocation_due.is_some_and(|due| due <= now)) {
            self.allocate(now, slot, sink);
        }
        if self.transports.get(slot).is_some_and(|transport| transport.demand_due.is_some_and(|due| due <= now)) {
            self.take_demand(now, slot, sink);
        }
        if self.transports.get(slot).is_some_and(|transport| transport.release_due.is_some_and(|due| due <= now)) {
            self.release(now, slot, sink);
        }
        self.pad(now, slot, sink);
        let Some(transport) = self.transports.get_mut(slot) else { return };
        let probe_due = transport.bandwidth.as_mut().and_then(|bandwidth| bandwidth.next_due(now));
        let own = [transport.feedback_due, transport.report_due, transport.allocation_due, transport.demand_due];
        if let Some(next) = own.into_iter().chain([probe_due, transport.release_due]).flatten().min() {
            self.timers.arm(Owner::Transport(slot), next);
        }
    }

    /// Receiver reports on all streams that had packets since the last; false: on none.
    fn report_reception<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) -> bool {
        let Some(transport) = self.transports.get(slot) else { return false };
        let (mut reports, mut losses) = (Vec::new(), Vec::new());
        for track in &transport.tracks {
            let Some(source) = self.tracks.get_mut(*track).and_then(|track| track.source.as_mut()) else { continue };
            for layer in &mut source.layers {
                let Some(ssrc) = layer.ssrc else { continue };
                let report = layer.reception.report(now, ssrc, layer.window.reported(), layer.clocks);
                losses.extend(report.is_some().then_some((source.receiver.kind, layer.reception.interval)));
                reports.extend(report);
            }
        }
        for reports in reports.chunks(MAX_REPORTS) {
            send(transport.key, &[Box::new(rtcp::receiver_report(transport.ssrc, reports.to_vec()))], sink);
        }
        self.stats.received_lost += losses.iter().map(|(_, loss)| loss.lost).sum::<u64>();
        if let Some(transport) = self.transports.get_mut(slot) {
            losses.into_iter().for_each(|(kind, loss)| transport.health(now).received(kind, loss));
        }
        !reports.is_empty()
    }

    /// Sender reports on all streams that had packets since the last; false: on none.
    fn report_sending<S: Sink>(&mut self, now: Time, slot: usize, sink: &mut S) -> bool {
        let Some(transport) = self.transports.get(slot) else { return false };
        let mut packets = Vec::new();
        for subscription in &transport.subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(*subscription) else { continue };
            let source = self.tracks.get(subscription.track).and_then(|track| track.source.as_ref());
            let publisher = source.and_then(|source| self.transports.get(source.transport));
            let offset = publisher.and_then(|publisher| publisher.ntp_offset);
            if let Some(report) = subscription.report(now, source, offset) {
                packets.extend(rtcp::sender_report(&report, subscription.cname()));
            }
        }
        for packets in packets.chunks(2 * REPORTS_A_PACKET) {
            send(transport.key, packets, sink);
        }
        !packets.is_empty()
    }
}

fn send<S: Sink>(to: TransportKey, packets: &[Box<dyn Packet>], sink: &mut S) {
    if let Some(compound) = rtcp::compound(packets) {
        sink.rtcp(to, &compound);
    }
}
