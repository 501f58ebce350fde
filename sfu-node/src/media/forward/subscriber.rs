//! The send side of a subscription: one gap-free stream out of whatever layers the track has. **What goes out of a
//! source packet is a function of its numbers and the run they fall into: late or again, it is the same.**

mod wanted;

use std::hint::black_box;

use arrayvec::ArrayVec;
use bytes::Bytes;
use shared::control::{Delivery, TrackKind};

use crate::media::api::{ExtensionIds, PayloadType, Sender, TrackKey};
use crate::media::forward::Sink;
use crate::media::forward::allocation::Quality;
use crate::media::forward::cache::SourcePacket;
use crate::media::forward::clock::{Time, ntp_to_rtp, rtp_units, wrap16, wrap32};
use crate::media::forward::demand::Demand;
use crate::media::forward::dependency;
use crate::media::forward::egress::{Body, Egress, OSN_LEN};
use crate::media::forward::header::{self, Copied, Fixed, MAX_MID};
use crate::media::forward::health::{Loss, Reported};
use crate::media::forward::layering::{Frame, Selection, Target};
use crate::media::forward::numbers::{Numbers, Run, Shift};
use crate::media::forward::pacing::Held;
use crate::media::forward::picture::{PictureIds, PictureShift};
use crate::media::forward::publisher::{Route, Source};
use crate::media::forward::red;
use crate::media::forward::retransmission::Budget;
use crate::media::forward::rtcp::StreamReport;
use crate::media::forward::rtp::MAX_RTP_SENT_LEN;
use crate::media::forward::scalability::MAX_DESCRIPTOR;
use crate::media::relief::Relief;

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
    pub(crate) frame: Frame,
    pub(crate) pictures: PictureIds,
    pub(crate) packet: SourcePacket<'a>,
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
    playout_delay: [u8; 3],
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
    /// What of the layer going out is sent.
    selection: Selection,
    /// The most that its path carries; `None`: not even the least, it is paused.
    pub(crate) ceiling: Option<Quality>,
    /// Since when not even the least has fitted.
    starved: Option<Time>,
    pub(crate) demand: Demand,
    /// Into a pipe: this layer and no other, from any packet on.
    only: Option<u8>,
    /// What the shard leaves out.
    relief: Relief,
    numbers: Numbers,
    newest: Option<Newest>,
    /// What its path cannot take at once; `None`: nothing.
    pub(crate) held: Option<Box<Held>>,
    packets: u32,
    octets: u32,
    packets_reported: u32,
    rtx_sequence: u16,
    /// What the receiver last said of it.
    heard_of: Option<Reported>,
    pub(crate) budget: Budget,
}

impl Subscription {
    /// `random` gives the first sequence numbers (RFC 3550 section 5.1).
    pub(crate) fn new(transport: usize, track: usize, sender: Sender, random: u64, relief: Relief) -> Self {
        let mut subscription = Self {
            transport,
            track,
            source: sender.source,
            kind: sender.kind,
            ssrc: sender.ssrc,
            rtx_ssrc: None,
            payload_types: Vec::new(),
            ids: ExtensionIds::default(),
            playout_delay: [0; 3],
            mid: ArrayVec::new(),
            cname: Bytes::new(),
            ssrc_known: false,
            described: sender.described,
            keyframe_sent: None,
            routes: Vec::new(),
            current: None,
            selection: Selection::default(),
            ceiling: Some(Quality::BEST),
            starved: None,
            demand: Demand::new(sender.delivery),
            only: sender.only,
            relief,
            numbers: Numbers::new(random),
            newest: None,
            held: None,
            packets: 0,
            octets: 0,
            packets_reported: 0,
            rtx_sequence: wrap16(random >> 16) & 0x7fff,
            heard_of: None,
            budget: Budget::default(),
        };
        subscription.configure(sender);
        subscription
    }

    /// Takes what a later description may have changed.
    pub(crate) fn configure(&mut self, sender: Sender) {
        self.rtx_ssrc = sender.rtx_ssrc;
        self.payload_types = sender.payload_types;
        self.ids = sender.extensions;
        self.playout_delay = sender.playout_delay;
        self.mid = sender.mid.bytes().take(MAX_MID).collect();
        self.cname = Bytes::from(sender.cname.into_bytes());
    }

    /// What is to be sent of the track: as was asked for last, but for a burst of wishes.
    pub(crate) fn delivery(&self) -> Delivery {
        self.demand.taken()
    }

    /// Sets how the source's payload types go out.
    pub(crate) fn set_routes(&mut self, routes: Vec<Option<Route>>) {
        self.routes = routes;
    }

    /// Sends nothing until the next start; what was sent can still be retransmitted.
    pub(crate) fn pause(&mut self) {
        self.current = None;
        self.held = None;
    }

    /// Another source from now on: forgets where packets of the old one went.
    pub(crate) fn forget_source(&mut self) {
        self.pause();
        self.numbers.forget_source();
    }

    /// It goes to another node, which asks for keyframes itself.
    pub(crate) fn is_piped(&self) -> bool {
        self.only.is_some()
    }

    /// Layer going out.
    pub(crate) fn current(&self) -> Option<u8> {
        self.current
    }

    /// What goes out of the layer.
    #[cfg(test)]
    pub(crate) fn selected(&self) -> Target {
        self.selection.target()
    }

    /// What was lost since the receiver's last report.
    pub(crate) fn lost_since(&mut self, reported: Reported) -> Option<Loss> {
        reported.since(self.heard_of.replace(reported)?)
    }

    /// The receiver reports on our SSRC. True, once: it may have dropped the keyframe it needs, because it did not know
    /// the SSRC before `known`, and no keyframe went out since.
    pub(crate) fn reported(&mut self, known: Time) -> bool {
        let first = !std::mem::replace(&mut self.ssrc_known, true);
        let missed = self.keyframe_sent.is_some_and(|sent| sent < known);
        first && missed && !self.described && self.kind == TrackKind::Video
    }

    /// The packet's number was passed already: it fills a hole, or none is there for it.
    pub(crate) fn passed(&self, incoming: &Incoming<'_>) -> bool {
        self.place(incoming).is_some_and(|(_, place)| place < self.numbers.next())
    }

    /// Asks for the memory that sending needs.
    pub(crate) fn expect(&self) {
        let run = self.numbers.last().map(|run| run.start);
        black_box((self.routes.first(), self.current, self.ssrc, self.numbers.next(), run, self.newest, self.octets));
    }

    /// Sends a packet of the track, if it is one for this subscriber.
    pub(crate) fn forward<S: Sink>(&mut self, incoming: &Incoming<'_>, source: &Source, out: &mut Egress<'_, S>) {
        let Some(Some(route)) = self.routes.get(usize::from(incoming.packet.slot)).copied() else {
            return self.skip(incoming);
        };
        if !source.audible && !incoming.late {
            return self.skip(incoming);
        }
        if self.starts_with(incoming, source) {
            self.start(incoming, route, source, out.now);
        } else if incoming.frame.first && self.current == Some(incoming.layer) {
            self.select(incoming, source);
        }
        let Some((run, place)) = self.place(incoming) else { return };
        let new = place >= self.numbers.next();
        if new && !run.target.takes(&incoming.frame) {
            return self.leave_out(incoming, &run, place);
        }
        if new && incoming.packet.payload.is_empty() {
            return self.numbers.leave_out(place, None);
        }
        let Some(timestamp) = self.send(incoming, route, source, (&run, place), None, out) else {
            return self.skip(incoming);
        };
        let payload_len = incoming.packet.payload.len();
        self.budget.earn(payload_len);
        self.packets = self.packets.wrapping_add(1);
        self.octets = self.octets.wrapping_add(wrap32(payload_len as u64));
        if new {
            self.numbers.take(place);
            if incoming.keyframe {
                self.keyframe_sent = Some(out.now);
            }
            let ids = self.picture_shift(&run, place);
            self.newest = Some(Newest {
                at: out.now,
                timestamp,
                clock_rate: route.clock_rate,
                picture: incoming.pictures.picture().unwrap_or(0).wrapping_add(ids.picture),
                tl0: incoming.pictures.tl0().unwrap_or(0).wrapping_add(ids.tl0),
                frame: incoming.frame.number.wrapping_add(run.shift.frame),
            });
        }
    }

    /// The source packet that went out with this number: layer and extended source number.
    pub(crate) fn sent(&self, sequence: u16) -> Option<(u8, u64)> {
        let (run, place) = self.numbers.sent(sequence)?;
        Some((run.layer, run.source_start + (place - run.start)))
    }

    /// Sends again what went out with this number, on the RTX stream. **Without one it cannot**: the same SSRC and number
    /// would be the same SRTP nonce (RFC 7714 section 8.4), for a packet that differs in its extensions.
    pub(crate) fn resend<S: Sink>(
        &mut self,
        sequence: u16,
        incoming: &Incoming<'_>,
        source: &Source,
        out: &mut Egress<'_, S>,
    ) -> bool {
        let Some((run, place)) = self.numbers.sent(sequence) else { return false };
        let Some(Some(route)) = self.routes.get(usize::from(incoming.packet.slot)).copied() else { return false };
        let (Some(ssrc), Some(pt)) = (self.rtx_ssrc, route.rtx_pt) else { return false };
        self.send(incoming, route, source, (&run, place), Some((ssrc, pt)), out).is_some()
    }

    /// Sends a packet of padding alone on the RTX stream (RFC 4588); receivers count it and drop it. False: it cannot.
    pub(crate) fn pad<S: Sink>(&mut self, out: &mut Egress<'_, S>) -> bool {
        let rtx_pt = self.routes.iter().flatten().find_map(|route| route.rtx_pt);
        let (Some(ssrc), Some(payload_type), Some(newest)) = (self.rtx_ssrc, rtx_pt, self.newest) else { return false };
        let Some(number) = out.transport_cc(self.ids.transport_cc) else { return false };
        let sequence = self.rtx_sequence;
        self.rtx_sequence = sequence.wrapping_add(1);
        let fixed = Fixed { marker: false, payload_type, sequence, timestamp: newest.timestamp, ssrc };
        let own = header::Own {
            mid: &[],
            abs_send_time: out.abs_send_time,
            transport_cc: number,
            playout_delay: self.playout_delay,
            frame_delta: 0,
        };
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
            let run = self.numbers.last()?;
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
        if incoming.late || incoming.packet.payload.is_empty() {
            return false;
        }
        if let Some(only) = self.only {
            let is_allowed = || self.allowed().is_some_and(|allowed| only <= allowed.layer);
            return self.current.is_none() && only == incoming.layer && is_allowed();
        }
        if !incoming.keyframe {
            return false;
        }
        match (self.current, self.allowed()) {
            (_, None) => false,
            // Anything allowed is better than nothing.
            (None, Some(allowed)) => incoming.layer <= allowed.layer || self.target(source) == Some(incoming.layer),
            (Some(current), _) => current != incoming.layer && self.target(source) == Some(incoming.layer),
        }
    }

    /// Opens a run with this packet, its ids next to the newest ones sent.
    fn start(&mut self, incoming: &Incoming<'_>, route: Route, source: &Source, now: Time) {
        let shift = self.newest.map_or_else(Shift::default, |newest| {
            let next = |sent: u16, read: Option<u16>| read.map_or(0, |read| sent.wrapping_add(1).wrapping_sub(read));
            let tl0 = incoming.pictures.tl0().map_or(0, |read| newest.tl0.wrapping_add(1).wrapping_sub(read));
            let left_out = self.numbers.pictures_left_out(self.numbers.next());
            let picture = next(newest.picture, incoming.pictures.picture()).wrapping_add(left_out);
            let picture = PictureShift { picture, tl0 };
            let timestamp = self.next_timestamp(incoming, route, source, now, newest);
            Shift {
                timestamp: timestamp.wrapping_sub(incoming.packet.timestamp),
                picture,
                frame: next(newest.frame, Some(incoming.frame.number)),
            }
        });
        self.current = Some(incoming.layer);
        let (target, generation) = self
            .wanted_of(source, incoming.layer)
            .map_or((Target::WHOLE, 0), |(wanted, known)| (wanted, known.generation));
        self.selection.begin(target, generation, incoming.frame.number);
        self.selection.note(incoming.frame.number, true);
        self.numbers.push(Run {
            layer: incoming.layer,
            epoch: incoming.epoch,
            source_start: incoming.packet.sequence,
            start: self.numbers.next(),
            shift,
            target,
        });
    }

    /// A frame of the layer going out begins: takes what is wanted from here on, as far as a decoder can follow.
    fn select(&mut self, incoming: &Incoming<'_>, source: &Source) {
        let frame = &incoming.frame;
        let Some((wanted, known)) = self.wanted_of(source, incoming.layer) else { return };
        let generation = known.generation;
        // A frame that waited while a new structure came knows nothing of its targets.
        let speaks = !incoming.late && frame.generation == generation;
        if speaks && self.selection.turn(&known.targets, generation, frame, wanted) {
            let begun = self.place(incoming);
            let target = self.selection.target();
            if let Some((run, place)) = begun {
                self.numbers.push(Run { source_start: incoming.packet.sequence, start: place, target, ..run });
            }
        }
        self.selection.note(frame.number, self.selection.target().takes(frame));
    }

    /// The timestamp a new run begins with: by the layers' sender reports where they are believable, else by arrival;
    /// always after the newest sent.
    fn next_timestamp(&self, incoming: &Incoming<'_>, route: Route, source: &Source, now: Time, newest: Newest) -> u32 {
        let by_arrival = newest.timestamp.wrapping_add(wrap32(rtp_units(now.since(newest.at), route.clock_rate)));
        let error = |timestamp: u32| timestamp.wrapping_sub(by_arrival).cast_signed().unsigned_abs();
        let by_reports = || {
            let run = self.numbers.last()?;
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

    /// Run and place of a source packet.
    fn place(&self, incoming: &Incoming<'_>) -> Option<(Run, u64)> {
        let open = self.current == Some(incoming.layer);
        self.numbers.place(incoming.layer, incoming.packet.sequence, open)
    }

    /// A packet that is not sent leaves no gap, if it is the newest.
    fn skip(&mut self, incoming: &Incoming<'_>) {
        if let Some((_, place)) = self.place(incoming).filter(|(_, place)| *place >= self.numbers.next()) {
            self.numbers.leave_out(place, None);
        }
    }

    /// A packet is not wanted. Frames before it that are still to come keep their ids, too, not only their numbers.
    fn leave_out(&mut self, incoming: &Incoming<'_>, run: &Run, place: u64) {
        let shift = self.picture_shift(run, place);
        if let Some(newest) = self.newest.as_mut() {
            let raise = |known: &mut u16, other: u16, bits: u32| {
                let ahead = other.wrapping_sub(*known) << (16 - bits);
                if ahead.cast_signed() > 0 {
                    *known = other;
                }
            };
            if let Some(picture) = incoming.pictures.picture() {
                // It takes no id of its own: the next one gets the one it would have had.
                raise(&mut newest.picture, picture.wrapping_add(shift.picture).wrapping_sub(1), 15);
            }
            if let Some(tl0) = incoming.pictures.tl0().filter(|_| incoming.frame.temporal > 0) {
                let tl0 = tl0.wrapping_add(shift.tl0);
                if tl0.wrapping_sub(newest.tl0).cast_signed() > 0 {
                    newest.tl0 = tl0;
                }
            }
            raise(&mut newest.frame, incoming.frame.number.wrapping_add(run.shift.frame), 16);
        }
        self.numbers.leave_out(place, incoming.pictures.picture());
    }

    /// What is added to the picture ids of a packet: those of pictures left out before it do not count.
    fn picture_shift(&self, run: &Run, place: u64) -> PictureShift {
        let PictureShift { picture, tl0 } = run.shift.picture;
        PictureShift { picture: picture.wrapping_sub(self.numbers.pictures_left_out(place)), tl0 }
    }

    /// Writes the packet out, on the RTX stream (SSRC and payload type) if one is given: empty where it is not wanted and
    /// came so late that its number was kept for it. `None`: it has nothing for this subscriber, or is too long with what
    /// is added. Gives the timestamp written.
    fn send<S: Sink>(
        &mut self,
        incoming: &Incoming<'_>,
        route: Route,
        source: &Source,
        (run, place): (&Run, u64),
        rtx: Option<(u32, u8)>,
        out: &mut Egress<'_, S>,
    ) -> Option<u32> {
        let packet = &incoming.packet;
        let sequence = self.numbers.number(place)?;
        let wanted = run.target.takes(&incoming.frame);
        let payload = match route.primary {
            _ if !wanted => &[],
            None => packet.payload,
            Some(_) if packet.payload.is_empty() => packet.payload,
            Some(expected) => red::primary(packet.payload).filter(|(pt, _)| *pt == expected)?.1,
        };
        let timestamp = packet.timestamp.wrapping_add(run.shift.timestamp);
        let mut fixed = Fixed {
            marker: wanted && (packet.marker || run.target.ends_unit(&incoming.frame)),
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
            playout_delay: self.playout_delay,
            frame_delta: run.shift.frame,
        };
        let mut buf = [0; header::MAX_HEADER];
        let mut descriptor = [0; MAX_DESCRIPTOR];
        let begins = place == run.start;
        let copied = match run.target.whole || !wanted {
            _ if !wanted => Copied::default(),
            true => packet.copied,
            false => limited(packet.copied, run.target, incoming, source, begins, &mut descriptor),
        };
        let header = header::write(&mut buf, &fixed, &self.ids, &own, &copied);
        let osn_len = if original.is_some() { OSN_LEN } else { 0 };
        if header.len() + osn_len + payload.len() > MAX_RTP_SENT_LEN {
            return None;
        }
        let pictures = if wanted { incoming.pictures } else { PictureIds::default() };
        let body = Body { payload, original, pictures: &pictures, shift: self.picture_shift(run, place) };
        out.emit(header, &body, number.is_some());
        Some(timestamp)
    }
}

/// Extensions of a packet of a part of its stream: where the part begins and with each structure, the descriptor says
/// which targets are on, so that a receiver does not wait for what is not sent.
fn limited<'a>(
    copied: Copied<'a>,
    target: Target,
    incoming: &Incoming<'_>,
    source: &Source,
    begins: bool,
    room: &'a mut [u8; MAX_DESCRIPTOR],
) -> Copied<'a> {
    let descriptor = copied.dependency;
    let due = begins || incoming.keyframe;
    let known = source.layer(incoming.layer).and_then(|layer| layer.layering.known()).filter(|_| due);
    let Some((known, structure)) = known.and_then(|known| Some((known, known.structure()?))) else { return copied };
    let active = known.targets.decodable(target, known.active);
    let Some(len) = dependency::write_active(descriptor, structure, active, room) else { return copied };
    Copied { dependency: room.get(..len).unwrap_or(descriptor), ..copied }
}
