//! What peers say by RTCP: publishers' clocks, subscribers' losses and keyframe requests.

use std::time::Instant;

use crate::media::api::TransportKey;
use crate::media::forward::clock::{Time, middle_to_micros, ntp_middle};
use crate::media::forward::crossing::Crossing;
use crate::media::forward::egress::Egress;
use crate::media::forward::health::Reported;
use crate::media::forward::keyframe::starts_keyframe;
use crate::media::forward::picture::PictureIds;
use crate::media::forward::reception::SenderClocks;
use crate::media::forward::relay::hand_over;
use crate::media::forward::rtcp::{self, Said};
use crate::media::forward::subscriber::Incoming;
use crate::media::forward::{Forwarder, Sink};

/// Transport-wide feedback messages read of one datagram; libwebrtc sends one or two. The others would cost time.
const MAX_FEEDBACKS: usize = 8;

impl Forwarder {
    /// Takes a plain RTCP packet.
    pub fn on_rtcp<S: Sink>(&mut self, now: Instant, from: TransportKey, compound: &[u8], sink: &mut S) {
        let now = self.clock.time(now);
        let Some(slot) = self.transport_slots.get(&from).copied() else { return };
        let mut feedbacks = 0;
        let read = rtcp::read(compound, |said| {
            feedbacks += usize::from(matches!(said, Said::Arrivals(_)));
            if feedbacks <= MAX_FEEDBACKS || !matches!(said, Said::Arrivals(_)) {
                self.hear(now, slot, said, sink);
            }
        });
        if read.is_err() {
            self.stats.dropped_malformed += 1;
        }
    }

    fn hear<S: Sink>(&mut self, now: Time, slot: usize, said: Said<'_>, sink: &mut S) {
        match said {
            Said::Clocks { ssrc, ntp, rtp } => self.set_clocks(slot, ssrc, SenderClocks { ntp, rtp, at: now }, sink),
            Said::Reception { ssrc, lost, highest, last_sender_report, delay } => {
                let Some(sending) = self.sending(slot, ssrc) else { return };
                let Some(subscription) = self.subscriptions.get_mut(sending) else { return };
                let Some(transport) = self.transports.get_mut(slot) else { return };
                if let Some(loss) = subscription.lost_since(Reported { highest, lost }) {
                    self.stats.sent_lost += loss.lost;
                    transport.health(now).sent(subscription.kind, loss);
                }
                let since_report = ntp_middle(now.ntp()).wrapping_sub(last_sender_report);
                let round_trip = since_report.wrapping_sub(delay);
                if last_sender_report != 0 && round_trip.cast_signed() > 0 {
                    let round_trip = middle_to_micros(round_trip);
                    self.stats.round_trips.take(round_trip);
                    subscription.budget.measured(round_trip);
                    transport.health(now).measured(round_trip);
                    if let Some(bandwidth) = transport.bandwidth.as_mut() {
                        bandwidth.measured(round_trip);
                    }
                }
                // A sender report is dropped as well where its SSRC is not known.
                let known = if last_sender_report == 0 { now } else { now.minus(middle_to_micros(since_report)) };
                if subscription.reported(known) {
                    self.relay_keyframe_request(now, sending, sink);
                }
            }
            Said::Nack { ssrc, first, following } => {
                let Some(subscription) = self.sending(slot, ssrc) else { return };
                self.stats.nacks_received += 1;
                self.retransmit(now, subscription, first, sink);
                for bit in (0..16).filter(|bit| following >> bit & 1 == 1) {
                    self.retransmit(now, subscription, first.wrapping_add(bit + 1), sink);
                }
            }
            Said::Arrivals(body) => self.hear_arrivals(now, slot, body, sink),
            Said::Limit(bits_per_second) => self.hear_limit(now, slot, bits_per_second),
            Said::KeyframeNeeded { ssrc } => {
                let Some(subscription) = self.sending(slot, ssrc) else { return };
                if let Some(subscription) = self.subscriptions.get_mut(subscription) {
                    subscription.ssrc_known = true;
                }
                self.stats.plis_received += 1;
                self.relay_keyframe_request(now, subscription, sink);
            }
        }
    }

    /// The subscription that goes out with this SSRC.
    fn sending(&self, slot: usize, ssrc: u32) -> Option<usize> {
        let subscriptions = &self.transports.get(slot)?.subscriptions;
        subscriptions.iter().copied().find(|known| self.subscriptions.get(*known).is_some_and(|s| s.ssrc == ssrc))
    }

    fn set_clocks<S: Sink>(&mut self, slot: usize, ssrc: u32, clocks: SenderClocks, sink: &mut S) {
        let Some(transport) = self.transports.get_mut(slot) else { return };
        let Some(stream) = transport.stream(ssrc).filter(|stream| !stream.repair) else { return };
        let ntp_offset = *transport.ntp_offset.get_or_insert(clocks.at.ntp().wrapping_sub(clocks.ntp));
        let Some(track) = self.tracks.get_mut(stream.track) else { return };
        if let Some(layer) = track.source.as_mut().and_then(|source| source.layer_mut(stream.layer)) {
            layer.clocks = Some(clocks);
        }
        let crossing = Crossing::Clocks { track: track.key, layer: stream.layer, clocks, ntp_offset };
        hand_over(&crossing, track.followers, sink);
    }

    fn relay_keyframe_request<S: Sink>(&mut self, now: Time, subscription: usize, sink: &mut S) {
        let Some(subscription) = self.subscriptions.get(subscription) else { return };
        let track = subscription.track;
        let Some(source) = self.tracks.get_mut(track).and_then(|track| track.source.as_mut()) else { return };
        // What it waits for replaces what it cannot decode.
        let layer = subscription.awaits(source).or(subscription.current());
        if let Some(layer) = layer.and_then(|layer| source.layer_mut(layer)) {
            layer.keyframe.want(now);
        }
        self.serve_track(now, track, sink);
    }

    /// Sends a packet again, from the layer's cache, as far as the subscriber's budget goes.
    fn retransmit<S: Sink>(&mut self, now: Time, slot: usize, sequence: u16, sink: &mut S) {
        let Self { transports, tracks, subscriptions, stats, scratch, .. } = self;
        let Some(subscription) = subscriptions.get_mut(slot) else { return };
        let Some((layer, number)) = subscription.sent(sequence) else { return };
        let Some(source) = tracks.get(subscription.track).and_then(|track| track.source.as_ref()) else { return };
        let Some(entry) = source.layer(layer) else { return };
        let Some(packet) = entry.cache.as_ref().and_then(|cache| cache.lookup(now, number)) else { return };
        let Some(transport) = transports.get_mut(subscription.transport).filter(|to| to.connected) else { return };
        let Some(codec) = source.payload_type(packet.slot).map(|pt| pt.codec) else { return };
        if !subscription.budget.spend(now, sequence, packet.payload.len()) {
            return;
        }
        let pictures = PictureIds::read(codec, packet.payload);
        let frame = entry.layering.frame(codec, &packet);
        let keyframe = starts_keyframe(codec, packet.payload);
        let incoming = Incoming { layer, epoch: entry.epoch, late: true, keyframe, frame, pictures, packet };
        let mut out = Egress::to(now, transport.key, &mut transport.bandwidth, scratch, stats, sink);
        if subscription.resend(sequence, &incoming, source, &mut out) {
            stats.retransmissions_sent += 1;
        }
    }
}
