//! A subscriber: puts its stream together, asks again for what is missing, tells what arrived, wants now this layer and
//! now that; and judges what it got.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtc::rtcp::packet::Packet;
use rtc::rtcp::reception_report::ReceptionReport;
use shared::control::{Delivery, TrackKind};

use super::peer::{Datagram, Peer};
use super::publisher::{CAMERA, Label, MICROPHONE, OPUS, VP8};
use crate::media::api::{ExtensionIds, PayloadType, Sender, ShardIndex};
use crate::media::forward::clock::Time;
use crate::media::forward::rtcp::{self, Said};
use crate::media::forward::rtp::RtpPacket;
use crate::media::forward::twcc::ArrivalRecorder;

const IDS: ExtensionIds = ExtensionIds {
    mid: Some(9),
    rid: None,
    repaired_rid: None,
    transport_cc: Some(8),
    abs_send_time: Some(7),
    audio_level: Some(5),
    dependency_descriptor: None,
    abs_capture_time: None,
    playout_delay: None,
};
/// Time between two looks at what is missing.
const LOOK: Duration = Duration::from_millis(20);
/// Time between two requests for one packet.
const RETRY: Duration = Duration::from_millis(120);
/// A packet this late is of no use.
pub(super) const PATIENCE: Duration = Duration::from_millis(1500);
const FEEDBACK: Duration = Duration::from_millis(100);
const REPORTS: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    marker: bool,
    timestamp: u32,
    payload: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Hole {
    since: Instant,
    asked: Option<Instant>,
    requests: u32,
}

/// A received stream.
#[derive(Debug, Default)]
struct Stream {
    packets: BTreeMap<u64, Got>,
    highest: Option<u64>,
    holes: BTreeMap<u64, Hole>,
    /// Given up, and how often they were asked for.
    lost: BTreeMap<u64, u32>,
    last_report: u32,
}

/// What a viewer makes of what it got.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    pub(super) packets: usize,
    pub(super) lost: usize,
    pub(super) switches: usize,
    pub(super) layers: [usize; 3],
    pub(super) audio: usize,
}

pub(super) struct Viewer {
    pub(super) peer: Peer,
    pub(super) at: ShardIndex,
    /// Its SSRCs: video, its RTX, audio.
    ssrcs: [u32; 3],
    video: Stream,
    audio: Stream,
    arrivals: ArrivalRecorder,
    origin: Instant,
    next: [Instant; 4],
    needs_keyframe: bool,
    asked_keyframe: Option<Instant>,
    random: StdRng,
    pub(super) delivery: Delivery,
}

impl Viewer {
    pub(super) fn new(now: Instant, origin: Instant, key: u64, at: ShardIndex, seed: u64) -> Self {
        let ssrc = 1_000_000 + 10 * u32::try_from(key).unwrap();
        Self {
            peer: Peer::new(now, key),
            at,
            ssrcs: [ssrc, ssrc + 1, ssrc + 2],
            video: Stream::default(),
            audio: Stream::default(),
            arrivals: ArrivalRecorder::new(),
            origin,
            next: [now + LOOK, now + FEEDBACK, now + REPORTS, now + Duration::from_secs(3)],
            needs_keyframe: false,
            asked_keyframe: None,
            random: StdRng::seed_from_u64(seed),
            delivery: Delivery::default(),
        }
    }

    pub(super) fn senders(&self) -> Vec<Sender> {
        let video = Sender {
            source: CAMERA,
            kind: TrackKind::Video,
            mid: "7".into(),
            ssrc: self.ssrcs[0],
            rtx_ssrc: Some(self.ssrcs[1]),
            described: true,
            payload_types: vec![PayloadType { pt: 120, rtx_pt: Some(121), ..VP8 }],
            extensions: IDS,
            cname: "PA_ada".into(),
            delivery: self.delivery,
        };
        let audio = Sender {
            source: MICROPHONE,
            kind: TrackKind::Audio,
            mid: "8".into(),
            ssrc: self.ssrcs[2],
            rtx_ssrc: None,
            payload_types: vec![PayloadType { pt: 109, ..OPUS }],
            delivery: Delivery::default(),
            ..video.clone()
        };
        vec![video, audio]
    }

    pub(super) fn next(&self) -> Instant {
        self.next.into_iter().chain([self.peer.next_binding()]).min().unwrap()
    }

    /// Datagrams that are due. True: it wants something else from now on.
    pub(super) fn act(&mut self, now: Instant) -> (Vec<Vec<u8>>, bool) {
        let mut out: Vec<Vec<u8>> = self.peer.binding(now).into_iter().collect();
        if now >= self.next[0] {
            self.next[0] += LOOK;
            self.ask(now, &mut out);
        }
        if now >= self.next[1] {
            self.next[1] += FEEDBACK;
            while let Some(report) = self.arrivals.report(1, self.ssrcs[0]) {
                out.push(self.peer.protect_rtcp(&[Box::new(report)]));
            }
        }
        if now >= self.next[2] {
            self.next[2] += REPORTS;
            // No delay: sender reports are answered at once where there was one.
            let video = ReceptionReport {
                ssrc: self.ssrcs[0],
                last_sender_report: self.video.last_report,
                ..Default::default()
            };
            self.video.last_report = 0;
            out.push(self.peer.protect_rtcp(&[Box::new(rtcp::receiver_report(1, vec![video]))]));
        }
        let changes = now >= self.next[3];
        if changes {
            self.next[3] += Duration::from_millis(self.random.random_range(800..4000));
            let max_layer = [None, Some(0), Some(1), Some(2)][self.random.random_range(0..4)];
            let paused = self.random.random_range(0..8) == 0;
            self.delivery = Delivery { paused, max_layer, ..Delivery::default() };
        }
        (out, changes)
    }

    pub(super) fn receive(&mut self, now: Instant, datagram: Vec<u8>) {
        match self.peer.open(datagram) {
            Datagram::Rtp(packet) => self.hear(now, &packet),
            Datagram::Rtcp(compound) => {
                let (stream, ssrc) = (&mut self.video, self.ssrcs[0]);
                rtcp::read(&compound, |said| match said {
                    Said::Clocks { ssrc: of, ntp, .. } if of == ssrc => {
                        stream.last_report = u32::try_from(ntp >> 16 & 0xffff_ffff).unwrap();
                    }
                    _ => {}
                })
                .unwrap();
            }
            Datagram::Other => {}
        }
    }

    fn hear(&mut self, now: Instant, packet: &[u8]) {
        let rtp = RtpPacket::parse(packet).unwrap();
        if let Some([high, low]) = rtp.extensions.element(IDS.transport_cc) {
            let time = Time(u64::try_from((now - self.origin).as_micros()).unwrap());
            self.arrivals.record(time, u16::from_be_bytes([*high, *low]));
        }
        let got = |payload: &[u8]| Got { marker: rtp.marker, timestamp: rtp.timestamp, payload: payload.to_vec() };
        if rtp.ssrc == self.ssrcs[1] {
            // Padding alone only probes.
            let Some(([high, low], payload)) = rtp.payload.split_first_chunk::<2>() else { return };
            self.video.take(now, u16::from_be_bytes([*high, *low]), got(payload), true);
        } else if rtp.ssrc == self.ssrcs[0] {
            self.needs_keyframe |= self.video.highest.is_none() && !Label::read(rtp.payload).keyframe;
            self.video.take(now, rtp.sequence, got(rtp.payload), false);
        } else {
            assert_eq!(rtp.ssrc, self.ssrcs[2]);
            self.audio.take(now, rtp.sequence, got(rtp.payload), false);
        }
    }

    /// Asks again for what is missing, and for a keyframe where something stays missing.
    fn ask(&mut self, now: Instant, out: &mut Vec<Vec<u8>>) {
        let missing = self.video.due(now);
        if !missing.is_empty() {
            let nack: Box<dyn Packet> = Box::new(rtcp::nack(1, self.ssrcs[0], &missing));
            out.push(self.peer.protect_rtcp(&[nack]));
        }
        self.needs_keyframe |= self.video.give_up(now);
        self.audio.give_up(now);
        if self.needs_keyframe && self.asked_keyframe.is_none_or(|asked| now - asked >= Duration::from_millis(700)) {
            self.asked_keyframe = Some(now);
            self.needs_keyframe = false;
            out.push(self.peer.protect_rtcp(&[Box::new(rtcp::pli(1, self.ssrcs[0]))]));
        }
    }

    /// Whether a decoder would have taken all of it. Panics where not.
    pub(super) fn judge(&mut self, now: Instant) -> Judgement {
        self.video.cut(now);
        self.audio.cut(now);
        let mut judgement = Judgement {
            packets: self.video.packets.len(),
            lost: self.video.lost.len(),
            audio: self.audio.packets.len(),
            ..Judgement::default()
        };
        self.video.assert_whole();
        for (sequence, requests) in &self.video.lost {
            assert!(*requests >= 5, "{sequence} was given up after {requests} requests");
        }
        // All of the first keyframe may have been lost: another one comes when that is told.
        let before = |(_, got): &(&u64, &Got)| !Label::read(&got.payload).keyframe;
        let useless = self.video.packets.iter().take_while(before).count();
        assert!(useless < 100, "{useless} packets before a keyframe");
        let packets: Vec<(&u64, &Got)> = self.video.packets.iter().skip(useless).collect();
        for pair in packets.windows(2) {
            let [(before_number, before), (number, after)] = pair else { unreachable!() };
            let (was, is) = (Label::read(&before.payload), Label::read(&after.payload));
            judgement.layers[usize::from(is.layer)] += 1;
            let gap = **number != **before_number + 1;
            let same_frame = picture(before) == picture(after);
            assert_eq!(same_frame, before.timestamp == after.timestamp, "one timestamp a frame, at {number}");
            if same_frame {
                continue;
            }
            let step = picture(after).wrapping_sub(picture(before)) & 0x7fff;
            assert!(step == 1 || gap && step < 0x4000, "picture ids go up: {step} at {number}");
            assert!(after.timestamp.wrapping_sub(before.timestamp).cast_signed() > 0, "time goes on, at {number}");
            if (was.layer, was.start) != (is.layer, is.start) {
                judgement.switches += 1;
                assert!(
                    is.keyframe && (is.first || gap),
                    "a switch begins with a keyframe, at {number}: {was:?} {is:?}"
                );
            }
            if !gap {
                assert_eq!(after.payload[4], before.payload[4].wrapping_add(1), "TL0PICIDX goes on, at {number}");
                assert!(is.first, "frames begin at their beginning, at {number}");
                assert!(
                    before.marker || is.keyframe,
                    "a frame that was cut off is followed by a keyframe, at {number}"
                );
            }
        }
        self.audio.assert_in_step();
        judgement
    }
}

fn picture(got: &Got) -> u16 {
    u16::from_be_bytes([got.payload[2] & 0x7f, got.payload[3]])
}

impl Stream {
    fn take(&mut self, now: Instant, sequence: u16, got: Got, again: bool) {
        let highest = self.highest.unwrap_or(0x1_0000 + u64::from(sequence));
        let delta = sequence.wrapping_sub(u16::try_from(highest & 0xffff).unwrap()).cast_signed();
        let number = highest.checked_add_signed(delta.into()).unwrap();
        assert!(!again || number <= highest, "sent again before it was sent");
        if self.highest.is_some() {
            let hole = Hole { since: now, asked: None, requests: 0 };
            self.holes.extend((highest + 1..number).map(|number| (number, hole)));
        }
        let first = self.packets.first_key_value().map(|(first, _)| *first);
        if let Some(first) = first.filter(|first| number < *first) {
            // The very first ones came in another order.
            let hole = Hole { since: now, asked: None, requests: 0 };
            self.holes.extend((number + 1..first).map(|number| (number, hole)));
        }
        self.highest = Some(highest.max(number));
        self.holes.remove(&number);
        self.lost.remove(&number);
        if let Some(before) = self.packets.insert(number, got.clone()) {
            assert_eq!(before, got, "the second copy of {number} is another packet");
        }
    }

    fn due(&mut self, now: Instant) -> Vec<u16> {
        let due = |hole: &Hole| hole.asked.is_none_or(|asked| now - asked >= RETRY);
        let mut missing = Vec::new();
        for (number, hole) in self.holes.iter_mut().filter(|(_, hole)| due(hole)) {
            hole.asked = Some(now);
            hole.requests += 1;
            missing.push(u16::try_from(number & 0xffff).unwrap());
        }
        missing
    }

    /// True: something is given up.
    fn give_up(&mut self, now: Instant) -> bool {
        let before = self.lost.len();
        self.holes.retain(|number, hole| {
            let waits = now - hole.since < PATIENCE;
            if !waits {
                self.lost.insert(*number, hole.requests);
            }
            waits
        });
        self.lost.len() > before
    }

    /// Leaves out what is so new that it may still be asked for.
    fn cut(&mut self, now: Instant) {
        self.give_up(now);
        if let Some((oldest, _)) = self.holes.first_key_value() {
            let oldest = *oldest;
            self.packets.split_off(&oldest);
            self.holes.clear();
            self.highest = self.packets.last_key_value().map(|(number, _)| *number);
        }
    }

    /// Every number is there or was given up.
    fn assert_whole(&self) {
        let (Some((first, _)), Some(last)) = (self.packets.first_key_value(), self.highest) else { return };
        let missing: Vec<u64> = (*first..=last).filter(|number| !self.packets.contains_key(number)).collect();
        assert!(missing.iter().all(|number| self.lost.contains_key(number)), "{missing:?}");
    }

    /// Times go up with numbers; nothing comes twice.
    fn assert_in_step(&self) {
        let packets: Vec<&Got> = self.packets.values().collect();
        for pair in packets.windows(2) {
            assert!(pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed() > 0);
            assert_ne!(pair[0].payload, pair[1].payload);
        }
    }
}
