//! Publishes a simulcast camera and a microphone: answers NACKs on RTX streams and keyframe requests with keyframes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::control::TrackKind;

use super::peer::Peer;
use crate::media::api::{Codec, ExtensionIds, PayloadType, Receiver, SsrcPair, TrackKey};
use crate::media::forward::rtcp::{self, Said, StreamReport};

pub(super) const CAMERA: TrackKey = TrackKey(100);
pub(super) const MICROPHONE: TrackKey = TrackKey(101);
pub(super) const VP8: PayloadType =
    PayloadType { pt: 96, codec: Codec::Vp8, format: 0, clock_rate: 90_000, rtx_pt: Some(97), nack: true, pli: true };
pub(super) const OPUS: PayloadType =
    PayloadType { pt: 111, codec: Codec::Opus, format: 0, clock_rate: 48_000, rtx_pt: None, nack: false, pli: false };
pub(super) const RIDS: [&str; 3] = ["q", "h", "f"];
const VIDEO: Duration = Duration::from_micros(33_333);
const AUDIO: Duration = Duration::from_millis(20);
const REPORTS: Duration = Duration::from_secs(1);
/// How long packets can be asked for again.
const MEMORY: usize = 1000;
/// VP8 payload descriptor with picture id, TL0PICIDX and temporal layer; the codec's own header follows.
const DESCRIPTOR: usize = 6;

const IDS: ExtensionIds = ExtensionIds {
    mid: Some(1),
    rid: Some(2),
    repaired_rid: Some(3),
    transport_cc: Some(4),
    abs_send_time: None,
    audio_level: Some(6),
    dependency_descriptor: None,
    abs_capture_time: None,
    playout_delay: None,
};

/// What a viewer can read of a packet: written behind the VP8 header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Label {
    pub(super) layer: u8,
    /// Counts the publisher's starts.
    pub(super) start: u8,
    pub(super) keyframe: bool,
    /// First packet of its frame.
    pub(super) first: bool,
}

impl Label {
    pub(super) fn read(payload: &[u8]) -> Self {
        let first = payload[0] & 0x10 != 0;
        Self {
            keyframe: payload[DESCRIPTOR] & 1 == 0,
            layer: payload[DESCRIPTOR + 1],
            start: payload[DESCRIPTOR + 2],
            first,
        }
    }
}

struct Layer {
    ssrc: u32,
    sequence: u16,
    rtx_sequence: u16,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    keyframe: bool,
    packets: u32,
    /// RTP packets as they were, without transport-wide number, by sequence number.
    sent: BTreeMap<u16, (bool, u32, Vec<u8>)>,
    order: std::collections::VecDeque<u16>,
}

pub(super) struct Publisher {
    pub(super) peer: Peer,
    layers: Vec<Layer>,
    pub(super) active: [bool; 3],
    audio_sequence: u16,
    audio_timestamp: u32,
    audio_ssrc: u32,
    transport_cc: u16,
    pub(super) start: u8,
    began: Instant,
    next: [Instant; 3],
    random: StdRng,
    pub(super) keyframes: u32,
    pub(super) repaired: u32,
}

impl Publisher {
    pub(super) fn new(now: Instant, key: u64, start: u8, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let layers = (0..3).map(|_| Layer::new(&mut random)).collect();
        Self {
            peer: Peer::new(now, key),
            layers,
            active: [true; 3],
            audio_sequence: 65_535 - random.random_range(0..500),
            audio_timestamp: u32::MAX - random.random_range(0..480_000),
            audio_ssrc: random.random(),
            transport_cc: 65_000,
            start,
            began: now,
            next: [now, now, now + REPORTS],
            random,
            keyframes: 0,
            repaired: 0,
        }
    }

    /// All streams begin anew, with other SSRCs and numbers, as after a change of encoder.
    pub(super) fn restart(&mut self) {
        self.start += 1;
        for layer in &mut self.layers {
            *layer = Layer::new(&mut self.random);
        }
    }

    pub(super) fn receivers(&self) -> Vec<Receiver> {
        let camera = Receiver {
            track: CAMERA,
            kind: TrackKind::Video,
            mid: "v".into(),
            payload_types: vec![VP8],
            extensions: IDS,
            ssrcs: ArrayVec::new(),
            rids: RIDS.iter().map(ToString::to_string).collect(),
            muted: false,
        };
        let microphone = Receiver {
            track: MICROPHONE,
            kind: TrackKind::Audio,
            mid: "a".into(),
            payload_types: vec![OPUS],
            ssrcs: ArrayVec::from_iter([SsrcPair { ssrc: self.audio_ssrc, rtx: None }]),
            rids: ArrayVec::new(),
            ..camera.clone()
        };
        vec![camera, microphone]
    }

    pub(super) fn next(&self) -> Instant {
        self.next.into_iter().chain([self.peer.next_binding()]).min().unwrap()
    }

    /// Datagrams that are due.
    pub(super) fn act(&mut self, now: Instant) -> Vec<Vec<u8>> {
        let mut out: Vec<Vec<u8>> = self.peer.binding(now).into_iter().collect();
        if now >= self.next[0] {
            self.next[0] += VIDEO;
            (0..3).for_each(|layer| self.frame(layer, &mut out));
        }
        if now >= self.next[1] {
            self.next[1] += AUDIO;
            self.audio_sequence = self.audio_sequence.wrapping_add(1);
            self.audio_timestamp = self.audio_timestamp.wrapping_add(960);
            let payload = [&[self.start][..], &self.audio_timestamp.to_be_bytes(), &[7; 75]].concat();
            let head = Head {
                pt: OPUS.pt,
                marker: false,
                sequence: self.audio_sequence,
                timestamp: self.audio_timestamp,
                ssrc: self.audio_ssrc,
            };
            let packet = self.write(head, &[0x10, b'a', 0x60, 0x85], &payload);
            out.push(packet);
        }
        if now >= self.next[2] {
            self.next[2] += REPORTS;
            let ntp = (1 << 40) + u64::try_from((now - self.began).as_micros()).unwrap() * 4_294;
            for layer in &self.layers {
                let report =
                    StreamReport { ssrc: layer.ssrc, ntp, rtp: layer.timestamp, packets: layer.packets, octets: 0 };
                out.push(self.peer.protect_rtcp(&rtcp::sender_report(&report, &Bytes::from_static(b"ada"))));
            }
        }
        out
    }

    /// Takes the node's feedback; datagrams in answer.
    pub(super) fn receive(&mut self, compound: &[u8]) -> Vec<Vec<u8>> {
        let mut asked = Vec::new();
        rtcp::read(compound, |said| match said {
            Said::KeyframeNeeded { ssrc } => {
                self.layers.iter_mut().filter(|layer| layer.ssrc == ssrc).for_each(|layer| layer.keyframe = true);
            }
            Said::Nack { ssrc, first, following } => {
                let bits = (0..16).filter(|bit| following >> bit & 1 == 1);
                asked.extend(
                    std::iter::once(first).chain(bits.map(|bit| first.wrapping_add(bit + 1))).map(|n| (ssrc, n)),
                );
            }
            _ => {}
        })
        .unwrap();
        asked.into_iter().filter_map(|(ssrc, sequence)| self.repair(ssrc, sequence)).collect()
    }

    fn frame(&mut self, place: usize, out: &mut Vec<Vec<u8>>) {
        let active = self.active[place];
        let layer = &mut self.layers[place];
        layer.timestamp = layer.timestamp.wrapping_add(3000);
        if !active {
            layer.keyframe = true;
            return;
        }
        let keyframe = std::mem::take(&mut layer.keyframe);
        self.keyframes += u32::from(keyframe);
        layer.picture = layer.picture.wrapping_add(1) & 0x7fff;
        layer.tl0 = layer.tl0.wrapping_add(1);
        let count = [1, 3, 6][place] * if keyframe { 2 } else { 1 };
        let [high, low] = (layer.picture | 0x8000).to_be_bytes();
        let place_byte = u8::try_from(place).unwrap();
        for index in 0..count {
            let layer = &mut self.layers[place];
            let begin = if index == 0 { 0x90 } else { 0x80 };
            let mut payload = vec![begin, 0xe0, high, low, layer.tl0, 0, u8::from(!keyframe), place_byte, self.start];
            payload.resize(200 + 250 * place + self.random.random_range(0..100), u8::try_from(index).unwrap());
            layer.sequence = layer.sequence.wrapping_add(1);
            layer.packets += 1;
            let (sequence, timestamp, ssrc) = (layer.sequence, layer.timestamp, layer.ssrc);
            let marker = index + 1 == count;
            layer.remember(sequence, (marker, timestamp, payload.clone()));
            let head = Head { pt: VP8.pt, marker, sequence, timestamp, ssrc };
            out.push(self.write(head, &[0x10, b'v', 0x20, RIDS[place].as_bytes()[0]], &payload));
        }
    }

    fn repair(&mut self, ssrc: u32, lost: u16) -> Option<Vec<u8>> {
        let place = self.layers.iter().position(|layer| layer.ssrc == ssrc)?;
        let layer = &mut self.layers[place];
        let (marker, timestamp, payload) = layer.sent.get(&lost)?.clone();
        layer.rtx_sequence = layer.rtx_sequence.wrapping_add(1);
        self.repaired += 1;
        let head = Head { pt: 97, marker, sequence: layer.rtx_sequence, timestamp, ssrc: ssrc ^ 1 };
        let payload = [&lost.to_be_bytes()[..], &payload].concat();
        Some(self.write(head, &[0x10, b'v', 0x30, RIDS[place].as_bytes()[0]], &payload))
    }

    fn write(&mut self, head: Head, elements: &[u8], payload: &[u8]) -> Vec<u8> {
        self.transport_cc = self.transport_cc.wrapping_add(1);
        let mut extensions = vec![0x41];
        extensions.extend_from_slice(&self.transport_cc.to_be_bytes());
        extensions.extend_from_slice(elements);
        extensions.resize(extensions.len().next_multiple_of(4), 0);
        let mut packet = vec![0x90, head.pt | if head.marker { 0x80 } else { 0 }];
        packet.extend_from_slice(&head.sequence.to_be_bytes());
        packet.extend_from_slice(&head.timestamp.to_be_bytes());
        packet.extend_from_slice(&head.ssrc.to_be_bytes());
        packet.extend_from_slice(&[0xbe, 0xde, 0, u8::try_from(extensions.len() / 4).unwrap()]);
        packet.extend_from_slice(&extensions);
        let header_len = packet.len();
        packet.extend_from_slice(payload);
        self.peer.protect_rtp(header_len, packet)
    }
}

struct Head {
    pt: u8,
    marker: bool,
    sequence: u16,
    timestamp: u32,
    ssrc: u32,
}

impl Layer {
    /// Numbers soon wrap: sequence within seconds, timestamp and picture id a little later.
    fn new(random: &mut StdRng) -> Self {
        Self {
            ssrc: random.random::<u32>() & !1,
            sequence: 65_535 - random.random_range(0..600),
            rtx_sequence: random.random(),
            timestamp: u32::MAX - random.random_range(0..1_800_000),
            picture: 0x7fff - random.random_range(0..600),
            tl0: random.random(),
            keyframe: true,
            packets: 0,
            sent: BTreeMap::new(),
            order: std::collections::VecDeque::new(),
        }
    }

    fn remember(&mut self, sequence: u16, packet: (bool, u32, Vec<u8>)) {
        self.sent.insert(sequence, packet);
        self.order.push_back(sequence);
        if self.order.len() > MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.sent.remove(&oldest);
        }
    }
}
