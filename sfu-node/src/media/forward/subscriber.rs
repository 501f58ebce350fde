//! The send side of a subscription: one gap-free stream out of whatever layers the track has. **Numbers sent are a
//! function of the source's numbers and the run they fall into, so a packet that comes late finds its own place.**

use arrayvec::ArrayVec;
use bytes::Bytes;
use shared::control::{Delivery, TrackKind};

use crate::media::api::{ExtensionIds, PayloadType, Sender, TrackKey};
use crate::media::forward::Sink;
use crate::media::forward::cache::SourcePacket;
use crate::media::forward::clock::{Time, ntp_to_rtp, rtp_units, wrap16, wrap32};
use crate::media::forward::egress::{Body, Egress, OSN_LEN};
use crate::media::forward::header::{self, Copied, Fixed, MAX_MID};
use crate::media::forward::picture::{PictureIds, PictureShift};
use crate::media::forward::publisher::{Route, Source};
use crate::media::forward::red;
use crate::media::forward::retransmission::Budget;
use crate::media::forward::rtcp::StreamReport;
use crate::media::forward::rtp::MAX_RTP_SENT_LEN;

/// Runs remembered: packets of older ones are neither placed nor retransmitted.
const MAX_RUNS: usize = 32;
/// First extended number sent lies above this, so that nothing wraps below zero.
const FIRST_SEQUENCE: u64 = 0x1_0000;
/// Sender reports of two layers that disagree with their arrival by more, seconds, are not believed.
const MAX_REPORT_ERROR: u32 = 1;

/// The P bit (RFC 3550 section 5.1).
const PADDING_FLAG: u8 = 0x20;

/// A source packet with what is the same for all its subscribers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming<'a> {
    pub(crate) layer: u8,
    pub(crate) epoch: u32,
    /// Fills a hole: by reordering or RTX.
    pub(crate) late: bool,
    /// A decoder can begin here.
    pub(crate) keyframe: bool,
    pub(crate) pictures: PictureIds,
    pub(crate) packet: SourcePacket<'a>,
}

/// A stretch of a source's numbers that goes out at one offset.
#[derive(Debug, Clone, Copy)]
struct Run {
    layer: u8,
    epoch: u32,
    source_start: u64,
    out_start: u64,
    shift: Shift,
}

/// What is added to a source packet's ids.
#[derive(Debug, Clone, Copy, Default)]
struct Shift {
    timestamp: u32,
    picture: PictureShift,
    frame: u16,
}

/// The newest packet sent.
#[derive(Debug, Clone, Copy)]
struct Newest {
    at: Time,
    timestamp: u32,
    clock_rate: u32,
    picture: u16,
    tl0: u8,
    frame: u16,
}

/// A track going out on a section.
#[derive(Debug)]
pub(crate) struct Subscription {
    /// Slot of the transport.
    pub(crate) transport: usize,
    /// Slot of the track.
    pub(crate) track: usize,
    pub(crate) source: TrackKey,
    pub(crate) kind: TrackKind,
    pub(crate) ssrc: u32,
    pub(crate) rtx_ssrc: Option<u32>,
    pub(crate) payload_types: Vec<PayloadType>,
    ids: ExtensionIds,
    mid: ArrayVec<u8, MAX_MID>,
    cname: Bytes,
    /// The receiver knows our SSRC: it spoke of it.
    pub(crate) ssrc_known: bool,
    /// Packets cannot come before the description that names the SSRC.
    described: bool,
    /// When a keyframe last began to go out.
    keyframe_sent: Option<Time>,
    /// By place of the source's payload type.
    routes: Vec<Option<Route>>,
    /// Layer going out; `None`: waits for a start.
    current: Option<u8>,
    /// Highest layer its path carries; `None`: not even the lowest, it is paused.
    pub(crate) ceiling: Option<u8>,
    pub(crate) delivery: Delivery,
    runs: ArrayVec<Run, MAX_RUNS>,
    next_out: u64,
    newest: Option<Newest>,
    packets: u32,
    octets: u32,
    packets_reported: u32,
    rtx_sequence: u16,
    pub(crate) budget: Budget,
}

impl Subscription {
    /// `random` gives the first sequence numbers (RFC 3550 section 5.1).
    pub(crate) fn new(transport: usize, track: usize, sender: Sender, random: u64) -> Self {
        let mut subscription = Self {
            transport,
            track,
            source: sender.source,
            kind: sender.kind,
            ssrc: sender.ssrc,
            rtx_ssrc: None,
            payload_types: Vec::new(),
            ids: ExtensionIds::default(),
            mid: ArrayVec::new(),
            cname: Bytes::new(),
            ssrc_known: false,
            described: sender.described,
            keyframe_sent: None,
            routes: Vec::new(),
            current: None,
            ceiling: Some(u8::MAX),
            delivery: sender.delivery,
            runs: ArrayVec::new(),
            // Below the middle: a receiver that misses the first packets cannot take them for a wrap.
            next_out: FIRST_SEQUENCE + (random & 0x7fff),
            newest: None,
            packets: 0,
            octets: 0,
            packets_reported: 0,
            rtx_sequence: wrap16(random >> 16) & 0x7fff,
            budget: Budget::default(),
        };
        subscription.configure(sender);
        subscription
    }

    /// Takes what a later description may have changed.
    pub(crate) fn configure(&mut self, sender: Sender) {
        self.delivery = sender.delivery;
        if self.delivery.paused {
            self.pause();
        }
        self.rtx_ssrc = sender.rtx_ssrc;
        self.payload_types = sender.payload_types;
        self.ids = sender.extensions;
        self.mid = sender.mid.bytes().take(MAX_MID).collect();
        self.cname = Bytes::from(sender.cname.into_bytes());
    }

    /// Sets how the source's payload types go out.
    pub(crate) fn set_routes(&mut self, routes: Vec<Option<Route>>) {
        self.routes = routes;
    }

    /// Sends nothing until the next start; what was sent can still be retransmitted.
    pub(crate) fn pause(&mut self) {
        self.current = None;
    }

    /// Another source from now on: forgets where packets of the old one went.
    pub(crate) fn forget_source(&mut self) {
        self.current = None;
        self.runs.clear();
    }

    /// Layer going out.
    pub(crate) fn current(&self) -> Option<u8> {
        self.current
    }

    /// The layer that is to go out, when it waits for a keyframe of it.
    pub(crate) fn awaits(&self, source: &Source) -> Option<u8> {
        let target = self.target(source)?;
        let waits = self.kind == TrackKind::Video && self.current != Some(target);
        (waits && self.routes.iter().any(Option::is_some)).then_some(target)
    }

    /// The layer that is to go out: the highest live one that is allowed.
    fn target(&self, source: &Source) -> Option<u8> {
        source.live_up_to(self.allowed()?)
    }

    /// Highest layer that its path carries and that is wanted; `None`: nothing.
    fn allowed(&self) -> Option<u8> {
        let ceiling = self.ceiling.filter(|_| !self.delivery.paused)?;
        Some(self.delivery.max_layer.map_or(ceiling, |wanted| wanted.min(ceiling)))
    }

    /// The receiver reports on our SSRC. True, once: it may have dropped the keyframe it needs, because it did not know
    /// the SSRC before `known`, and no keyframe went out since.
    pub(crate) fn reported(&mut self, known: Time) -> bool {
        let first = !std::mem::replace(&mut self.ssrc_known, true);
        let missed = self.keyframe_sent.is_some_and(|sent| sent < known);
        first && missed && !self.described && self.kind == TrackKind::Video
    }

    /// Sends a packet of the track, if it is one for this subscriber.
    pub(crate) fn forward<S: Sink>(&mut self, incoming: &Incoming<'_>, source: &Source, out: &mut Egress<'_, S>) {
        let Some(Some(route)) = self.routes.get(usize::from(incoming.packet.slot)).copied() else {
            return self.skip(incoming);
        };
        if self.starts_with(incoming, source) {
            self.start(incoming, route, source, out.now);
        }
        let Some((run, sequence)) = self.place(incoming.layer, incoming.packet.sequence) else { return };
        if incoming.packet.payload.is_empty() && sequence >= self.next_out {
            return self.skip(incoming);
        }
        let Some(timestamp) = self.send(incoming, route, &run, sequence, None, out) else {
            return self.skip(incoming);
        };
        let payload_len = incoming.packet.payload.len();
        self.budget.earn(payload_len);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(wrap32(payload_len as u64));
        if sequence >= self.next_out {
            self.next_out = sequence + 1;
            if incoming.keyframe {
                self.keyframe_sent = Some(out.now);
            }
            let shift = run.shift;
            self.newest = Some(Newest {
                at: out.now,
                timestamp,
                clock_rate: route.clock_rate,
                picture: incoming.pictures.picture().unwrap_or(0).wrapping_add(shift.picture.picture),
                tl0: incoming.pictures.tl0().unwrap_or(0).wrapping_add(shift.picture.tl0),
                frame: frame_number(incoming).wrapping_add(shift.frame),
            });
        }
    }

    /// The source packet that went out with this number: layer and extended source number.
    pub(crate) fn sent(&self, sequence: u16) -> Option<(u8, u64)> {
        let (run, sequence) = self.run_sent(sequence)?;
        Some((run.layer, run.source_start + (sequence - run.out_start)))
    }

    /// Sends again what went out with this number, on the RTX stream. **Without one it cannot**: the same SSRC and number
    /// would be the same SRTP nonce (RFC 7714 section 8.4), for a packet that differs in its extensions.
    pub(crate) fn resend<S: Sink>(&mut self, sequence: u16, incoming: &Incoming<'_>, out: &mut Egress<'_, S>) -> bool {
        let Some((run, sequence)) = self.run_sent(sequence) else { return false };
        let Some(Some(route)) = self.routes.get(usize::from(incoming.packet.slot)).copied() else { return false };
        let (Some(ssrc), Some(pt)) = (self.rtx_ssrc, route.rtx_pt) else { return false };
        self.send(incoming, route, &run, sequence, Some((ssrc, pt)), out).is_some()
    }

    /// Sends a packet of padding alone on the RTX stream (RFC 4588); receivers count it and drop it. False: it cannot.
    pub(crate) fn pad<S: Sink>(&mut self, out: &mut Egress<'_, S>) -> bool {
        let rtx_pt = self.routes.iter().flatten().find_map(|route| route.rtx_pt);
        let (Some(ssrc), Some(payload_type), Some(newest)) = (self.rtx_ssrc, rtx_pt, self.newest) else { return false };
        let Some(number) = out.transport_cc(self.ids.transport_cc) else { return false };
        let sequence = self.rtx_sequence;
        self.rtx_sequence = sequence.wrapping_add(1);
        let fixed = Fixed { marker: false, payload_type, sequence, timestamp: newest.timestamp, ssrc };
        let own = header::Own { mid: &[], abs_send_time: out.abs_send_time, transport_cc: number, frame_delta: 0 };
        let mut buf = [0; header::MAX_HEADER];
        let header_len = header::write(&mut buf, &fixed, &self.ids, &own, &Copied::default()).len();
        if let Some(first) = buf.first_mut() {
            *first |= PADDING_FLAG;
        }
        out.pad(buf.get(..header_len).unwrap_or_default());
        true
    }

    /// A sender report, when packets went out since the last: which RTP time it is at `now`.
    pub(crate) fn report(&mut self, now: Time, source: Option<&Source>, offset: Option<u64>) -> Option<StreamReport> {
        let newest = self.newest.filter(|_| self.packets != self.packets_reported)?;
        self.packets_reported = self.packets;
        let ntp = now.ntp();
        let by_arrival = || newest.timestamp.wrapping_add(wrap32(rtp_units(now.since(newest.at), newest.clock_rate)));
        let by_report = || {
            let run = self.runs.last()?;
            let layer = source?.layer(run.layer).filter(|layer| layer.epoch == run.epoch)?;
            let clocks = layer.clocks?;
            let elapsed = ntp.wrapping_sub(clocks.ntp.wrapping_add(offset?));
            let units = ntp_to_rtp(elapsed, newest.clock_rate);
            Some(clocks.rtp.wrapping_add(units).wrapping_add(run.shift.timestamp))
        };
        let rtp = by_report().unwrap_or_else(by_arrival);
        Some(StreamReport { ssrc: self.ssrc, ntp, rtp, packets: self.packets, octets: self.octets })
    }

    pub(crate) fn cname(&self) -> &Bytes {
        &self.cname
    }

    fn starts_with(&self, incoming: &Incoming<'_>, source: &Source) -> bool {
        if incoming.late || !incoming.keyframe || incoming.packet.payload.is_empty() {
            return false;
        }
        match (self.current, self.allowed()) {
            (_, None) => false,
            // Anything allowed is better than nothing.
            (None, Some(allowed)) => incoming.layer <= allowed || self.target(source) == Some(incoming.layer),
            (Some(current), _) => current != incoming.layer && self.target(source) == Some(incoming.layer),
        }
    }

    /// Opens a run with this packet, its ids next to the newest ones sent.
    fn start(&mut self, incoming: &Incoming<'_>, route: Route, source: &Source, now: Time) {
        let shift = self.newest.map_or_else(Shift::default, |newest| {
            let next = |sent: u16, read: Option<u16>| read.map_or(0, |read| sent.wrapping_add(1).wrapping_sub(read));
            let tl0 = incoming.pictures.tl0().map_or(0, |read| newest.tl0.wrapping_add(1).wrapping_sub(read));
            let picture = PictureShift { picture: next(newest.picture, incoming.pictures.picture()), tl0 };
            let timestamp = self.next_timestamp(incoming, route, source, now, newest);
            Shift {
                timestamp: timestamp.wrapping_sub(incoming.packet.timestamp),
                picture,
                frame: next(newest.frame, Some(frame_number(incoming))),
            }
        });
        self.current = Some(incoming.layer);
        self.push_run(Run {
            layer: incoming.layer,
            epoch: incoming.epoch,
            source_start: incoming.packet.sequence,
            out_start: self.next_out,
            shift,
        });
    }

    /// The timestamp a new run begins with: by the layers' sender reports where they are believable, else by arrival;
    /// always after the newest sent.
    fn next_timestamp(&self, incoming: &Incoming<'_>, route: Route, source: &Source, now: Time, newest: Newest) -> u32 {
        let by_arrival = newest.timestamp.wrapping_add(wrap32(rtp_units(now.since(newest.at), route.clock_rate)));
        let error = |timestamp: u32| timestamp.wrapping_sub(by_arrival).cast_signed().unsigned_abs();
        let by_reports = || {
            let run = self.runs.last()?;
            let before = source.layer(run.layer).filter(|layer| layer.epoch == run.epoch)?;
            let shift = run.shift.timestamp;
            if (run.layer, run.epoch) == (incoming.layer, incoming.epoch) {
                return Some(incoming.packet.timestamp.wrapping_add(shift));
            }
            let (before, after) = (before.clocks?, source.layer(incoming.layer)?.clocks?);
            // Both layers' clocks at the instant of the new layer's report.
            let at_report = before.rtp.wrapping_add(ntp_to_rtp(after.ntp.wrapping_sub(before.ntp), route.clock_rate));
            let since_report = incoming.packet.timestamp.wrapping_sub(after.rtp);
            Some(at_report.wrapping_add(since_report).wrapping_add(shift))
        };
        let believable = |timestamp: &u32| error(*timestamp) <= MAX_REPORT_ERROR * route.clock_rate;
        let timestamp = by_reports().filter(believable).unwrap_or(by_arrival);
        let ahead = timestamp.wrapping_sub(newest.timestamp).cast_signed();
        if ahead > 0 { timestamp } else { newest.timestamp.wrapping_add(1) }
    }

    /// Where a source packet goes: its run and extended number out.
    fn place(&self, layer: u8, source: u64) -> Option<(Run, u64)> {
        let mut limit = if self.current == Some(layer) { u64::MAX } else { self.next_out };
        for run in self.runs.iter().rev() {
            if run.layer == layer && source >= run.source_start {
                let out = run.out_start + (source - run.source_start);
                return (out < limit).then_some((*run, out));
            }
            limit = run.out_start;
        }
        None
    }

    /// The run a number was sent in, and the number extended.
    fn run_sent(&self, sequence: u16) -> Option<(Run, u64)> {
        let newest = self.next_out.checked_sub(1)?;
        let back = wrap16(newest).wrapping_sub(sequence);
        let extended = newest.checked_sub(u64::from(back))?;
        let run = self.runs.iter().rev().find(|run| run.out_start <= extended)?;
        Some((*run, extended))
    }

    /// A packet that is not sent leaves no gap, if it is the newest.
    fn skip(&mut self, incoming: &Incoming<'_>) {
        let Some((run, out)) = self.place(incoming.layer, incoming.packet.sequence) else { return };
        if out < self.next_out || self.current != Some(incoming.layer) {
            return;
        }
        let next = Run { source_start: incoming.packet.sequence + 1, out_start: out, ..run };
        match self.runs.last_mut() {
            // Nothing was placed in the last run: it moves.
            Some(last) if last.out_start == out => *last = next,
            _ => self.push_run(next),
        }
    }

    fn push_run(&mut self, run: Run) {
        if self.runs.is_full() {
            self.runs.remove(0);
        }
        self.runs.push(run);
    }

    /// Writes the packet out, on the RTX stream (SSRC and payload type) if one is given. `None`: it has nothing for this
    /// subscriber, or is too long with what is added. Gives the timestamp written.
    fn send<S: Sink>(
        &mut self,
        incoming: &Incoming<'_>,
        route: Route,
        run: &Run,
        sequence: u64,
        rtx: Option<(u32, u8)>,
        out: &mut Egress<'_, S>,
    ) -> Option<u32> {
        let packet = &incoming.packet;
        let payload = match route.primary {
            None => packet.payload,
            Some(_) if packet.payload.is_empty() => packet.payload,
            Some(expected) => red::primary(packet.payload).filter(|(pt, _)| *pt == expected)?.1,
        };
        let timestamp = packet.timestamp.wrapping_add(run.shift.timestamp);
        let mut fixed = Fixed {
            marker: packet.marker,
            payload_type: route.pt,
            sequence: wrap16(sequence),
            timestamp,
            ssrc: self.ssrc,
        };
        let mut original = None;
        if let Some((ssrc, pt)) = rtx {
            original = Some(fixed.sequence);
            (fixed.ssrc, fixed.payload_type, fixed.sequence) = (ssrc, pt, self.rtx_sequence);
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
        }
        let number = out.transport_cc(self.ids.transport_cc);
        let own = header::Own {
            mid: if self.ssrc_known { &[] } else { &self.mid },
            abs_send_time: out.abs_send_time,
            transport_cc: number.unwrap_or(0),
            frame_delta: run.shift.frame,
        };
        let mut buf = [0; header::MAX_HEADER];
        let header = header::write(&mut buf, &fixed, &self.ids, &own, &packet.copied);
        let osn_len = if original.is_some() { OSN_LEN } else { 0 };
        if header.len() + osn_len + payload.len() > MAX_RTP_SENT_LEN {
            return None;
        }
        let body = Body { payload, original, pictures: &incoming.pictures, shift: run.shift.picture };
        out.emit(header, &body, number.is_some());
        Some(timestamp)
    }
}

/// The frame number of a dependency descriptor; 0 without one.
fn frame_number(incoming: &Incoming<'_>) -> u16 {
    match incoming.packet.copied.dependency {
        [_, high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    }
}
