//! A packet's way through: whose it is, whether it is new, and out to each subscriber. This is the hot path.

use std::time::{Duration, Instant};

use shared::control::TrackKind;

use crate::media::api::{Codec, Receiver, TransportKey};
use crate::media::forward::cache::SourcePacket;
use crate::media::forward::clock::{Time, micros};
use crate::media::forward::dependency;
use crate::media::forward::header::Copied;
use crate::media::forward::keyframe::starts_keyframe;
use crate::media::forward::picture::PictureIds;
use crate::media::forward::publisher::{Layer, Source};
use crate::media::forward::rtp::RtpPacket;
use crate::media::forward::sequence::Arrival;
use crate::media::forward::subscriber::Incoming;
use crate::media::forward::timers::Owner;
use crate::media::forward::transport::StreamRef;
use crate::media::forward::twcc::{ArrivalRecorder, FEEDBACK_INTERVAL};
use crate::media::forward::{Forwarder, Sink};

/// A layer takes another SSRC at most this often: a client that changes it with each packet costs nobody else.
const MIN_REBIND_INTERVAL: Duration = Duration::from_secs(1);

/// A packet that is new to its layer.
struct Numbered<'p> {
    codec: Codec,
    late: bool,
    first: bool,
    packet: SourcePacket<'p>,
}

impl Forwarder {
    /// Takes a plain RTP packet. What it causes to be sent may wait for [`Forwarder::flush`].
    pub fn on_rtp<S: Sink>(&mut self, now: Instant, from: TransportKey, packet: &[u8], sink: &mut S) {
        let now = self.clock.time(now);
        let Some(slot) = self.transport_slots.get(&from).copied() else { return };
        self.stats.packets_received += 1;
        self.stats.bytes_received += packet.len() as u64;
        if self.receive(now, slot, packet, sink).is_none() {
            self.stats.dropped_malformed += 1;
        }
    }

    /// `None`: malformed, or of no known section.
    fn receive<S: Sink>(&mut self, now: Time, slot: usize, packet: &[u8], sink: &mut S) -> Option<()> {
        let rtp = RtpPacket::parse(packet).ok()?;
        let transport = self.transports.get(slot)?;
        let stream = match transport.stream(rtp.ssrc) {
            Some(stream) => stream,
            None => self.bind(now, slot, &rtp, sink)?,
        };
        self.record_arrival(now, slot, stream, &rtp);
        if let Some(transport) = self.transports.get_mut(slot) {
            Self::schedule_reports(&mut self.timers, now, slot, transport);
        }
        let numbers = self.take_numbers(now, stream, &rtp);
        let Some(Numbered { codec, late, first, packet }) = numbers? else { return Some(()) };
        if self.drops_muted(stream, sink)? {
            return Some(());
        }
        if brings_layers(codec, &packet) {
            self.flush(sink);
        }
        let source = self.tracks.get_mut(stream.track)?.source.as_mut()?;
        let incoming = describe(now, codec, stream.layer, source.layer_mut(stream.layer)?, late, packet);
        self.relay(stream, &incoming, first, sink);
        self.deliver(now, stream.track, &incoming, first, sink);
        Some(())
    }

    /// A packet of a track that is muted: it says no more than that the track is there.
    fn drops_muted<S: Sink>(&mut self, stream: StreamRef, sink: &mut S) -> Option<bool> {
        let entry = self.tracks.get_mut(stream.track)?;
        let source = entry.source.as_mut()?;
        if source.receiver.muted
            && let Some(news) = source.announce(entry.key, stream.layer)
        {
            sink.event(news);
        }
        Some(source.receiver.muted)
    }

    /// Reads what the packet is of its layer. `None`: malformed. `Some(None)`: of no use (a duplicate, padding).
    fn take_numbers<'p>(&mut self, now: Time, stream: StreamRef, rtp: &RtpPacket<'p>) -> Option<Option<Numbered<'p>>> {
        let source = self.tracks.get_mut(stream.track)?.source.as_mut()?;
        let (slot, sequence, payload) = if stream.repair {
            let slot = source.repaired_slot(rtp.payload_type)?;
            // Probes on an RTX stream are padding alone.
            let Some(([high, low], payload)) = rtp.payload.split_first_chunk::<2>() else { return Some(None) };
            (slot, u16::from_be_bytes([*high, *low]), payload)
        } else {
            (source.media_slot(rtp.payload_type)?, rtp.sequence, rtp.payload)
        };
        let pt = *source.payload_type(slot)?;
        let ids = source.receiver.extensions;
        let layer = source.layer_mut(stream.layer)?;
        let arrival = if stream.repair { layer.window.recover(sequence) } else { layer.window.observe(sequence) };
        let (sequence, late, first) = match arrival {
            Arrival::Newest { sequence, first, .. } => (sequence, false, first),
            Arrival::Late { sequence } => (sequence, true, false),
            Arrival::Unusable => return Some(None),
        };
        if first {
            layer.begin_epoch();
        }
        if !stream.repair {
            layer.last = Some(now);
            layer.slot = slot;
            layer.meter.count(now, rtp.payload.len());
            layer.reception.count(now, rtp.timestamp, pt.clock_rate, layer.window.reported());
        }
        match arrival {
            Arrival::Newest { skipped: 1.., .. } if !pt.nack => {}
            Arrival::Newest { skipped: skipped @ 1.., .. } => {
                let followed = layer.missing.open(now, sequence, skipped);
                if !followed && pt.pli {
                    layer.keyframe.want(now);
                }
            }
            Arrival::Late { .. } => layer.missing.fill(sequence),
            _ => {}
        }
        let copied = Copied::read(&rtp.extensions, &ids);
        let packet = SourcePacket { sequence, timestamp: rtp.timestamp, marker: rtp.marker, slot, copied, payload };
        Some(Some(Numbered { codec: pt.codec, late, first, packet }))
    }

    /// Keeps the packet for the track's subscribers; it goes out at the next [`Forwarder::flush`] or before.
    pub(super) fn deliver<S: Sink>(
        &mut self,
        now: Time,
        track: usize,
        incoming: &Incoming<'_>,
        first: bool,
        sink: &mut S,
    ) {
        if first {
            self.flush(sink);
        }
        self.make_room(track, incoming, sink);
        if let [level] = *incoming.packet.copied.audio_level {
            self.hear_level(now, track, level);
        }
        let Self { transports, tracks, subscriptions, timers, .. } = self;
        let Some(entry) = tracks.get_mut(track) else { return };
        let Some(source) = entry.source.as_mut() else { return };
        let kind = source.receiver.kind;
        let Some(layer) = source.layer_mut(incoming.layer) else { return };
        let wanted = !entry.subscriptions.is_empty();
        if wanted {
            layer.keep(now, kind, &incoming.packet);
        }
        if incoming.keyframe && !incoming.late {
            layer.keyframe.settle();
        }
        let disturbed = layer.missing.next_due().is_some() || layer.keyframe.next_due().is_some();
        let rearranged = layer.layering.take_change();
        let risen = (!source.lives(incoming.layer) && source.choose_layer()) || rearranged;
        let unwatched = source.layers.len() > 1 && !timers.is_armed(Owner::Track(track));
        if first {
            for slot in &entry.subscriptions {
                let subscription = subscriptions.get_mut(*slot);
                if let Some(subscription) = subscription.filter(|known| known.current() == Some(incoming.layer)) {
                    subscription.pause();
                }
            }
        }
        let is_ours = transports.get(source.transport).is_some_and(|publisher| publisher.relayed_from.is_none());
        if let Some(news) = is_ours.then(|| source.announce(entry.key, incoming.layer)).flatten() {
            sink.event(news);
        }
        if wanted {
            self.fan_out(now, track, incoming);
        }
        if first || risen {
            self.flush(sink);
            self.request_keyframe(now, track, None);
        }
        if first || risen || disturbed || unwatched {
            self.serve_track(now, track, sink);
        }
    }

    /// Transport-wide arrivals count whatever the packet is.
    fn record_arrival(&mut self, now: Time, slot: usize, stream: StreamRef, rtp: &RtpPacket<'_>) {
        let source = self.tracks.get(stream.track).and_then(|track| track.source.as_ref());
        let Some(source) = source else { return };
        let Some([high, low]) = rtp.extensions.element(source.receiver.extensions.transport_cc) else { return };
        let Some(transport) = self.transports.get_mut(slot) else { return };
        let sequence = u16::from_be_bytes([*high, *low]);
        transport.recorder.get_or_insert_with(ArrivalRecorder::new).record(now, sequence);
        if !stream.repair {
            transport.feedback_ssrc = rtp.ssrc;
        }
        if transport.feedback_due.is_none() {
            let due = now.plus(FEEDBACK_INTERVAL);
            transport.feedback_due = Some(due);
            self.timers.arm(Owner::Transport(slot), due);
        }
    }

    /// Finds out where an unknown SSRC belongs: by mid and rid, else by a payload type that only one section has.
    fn bind<S: Sink>(&mut self, now: Time, slot: usize, rtp: &RtpPacket<'_>, sink: &mut S) -> Option<StreamRef> {
        self.flush(sink);
        let transport = self.transports.get_mut(slot).filter(|transport| !transport.is_pipe)?;
        let sources =
            || transport.tracks.iter().filter_map(|track| Some((*track, self.tracks.get(*track)?.source.as_ref()?)));
        let mid = sources().find_map(|(_, source)| rtp.extensions.element(source.receiver.extensions.mid));
        let carries = |source: &Source| {
            source.media_slot(rtp.payload_type).is_some() || source.repaired_slot(rtp.payload_type).is_some()
        };
        let mut fitting = sources().filter(|(_, source)| match mid {
            Some(mid) => source.receiver.mid.as_bytes() == mid && carries(source),
            None => carries(source),
        });
        let (track, source) = fitting.next()?;
        if fitting.next().is_some() {
            return None;
        }
        let repair = source.media_slot(rtp.payload_type).is_none();
        let layer = layer_of(&source.receiver, repair, rtp)?;
        let stream = StreamRef { track, layer, repair };
        let entry = self.tracks.get_mut(track)?;
        let known = entry.source.as_mut()?.layer_mut(layer)?;
        let bound = if repair { &mut known.repair_bound } else { &mut known.bound };
        if bound.is_some_and(|bound| now.since(bound) < micros(MIN_REBIND_INTERVAL)) {
            return None;
        }
        *bound = Some(now);
        if repair {
            known.repair_ssrc = Some(rtp.ssrc);
        } else {
            known.rebind(rtp.ssrc);
        }
        transport.bind(rtp.ssrc, stream);
        let news = entry.source.as_mut().and_then(|source| source.announce(entry.key, layer));
        if let Some(news) = news {
            sink.event(news);
        }
        Some(stream)
    }
}

/// The packet may say that its stream has other layers from now on: what waits before it is judged by those it was of.
pub(super) fn brings_layers(codec: Codec, packet: &SourcePacket<'_>) -> bool {
    codec.kind() == TrackKind::Video
        && (dependency::brings_layers(packet.copied.dependency) || starts_keyframe(codec, packet.payload))
}

/// What is the same for all subscribers of a packet, whichever shard they are on.
pub(super) fn describe<'p>(
    now: Time,
    codec: Codec,
    place: u8,
    layer: &mut Layer,
    late: bool,
    packet: SourcePacket<'p>,
) -> Incoming<'p> {
    let keyframe = starts_keyframe(codec, packet.payload);
    let pictures = PictureIds::read(codec, packet.payload);
    let frame = layer.layering.read(now, codec, &packet, late);
    Incoming { layer: place, epoch: layer.epoch, late, keyframe, frame, pictures, packet }
}

/// The layer a packet names by its rid (RFC 8852); the only one without simulcast.
fn layer_of(receiver: &Receiver, repair: bool, rtp: &RtpPacket<'_>) -> Option<u8> {
    if receiver.rids.is_empty() || receiver.kind == TrackKind::Audio {
        return Some(0);
    }
    let id = if repair { receiver.extensions.repaired_rid } else { receiver.extensions.rid };
    let rid = rtp.extensions.element(id)?;
    receiver.rids.iter().position(|known| known.as_bytes() == rid).and_then(|layer| u8::try_from(layer).ok())
}
