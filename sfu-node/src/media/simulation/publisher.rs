//! Publishes a simulcast camera with temporal layers, a screen as a scalable stream and a microphone: answers NACKs on RTX
//! streams and keyframe requests with keyframes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use shared::control::TrackKind;

use super::label::{DESCRIPTOR, Label};
use super::peer::Peer;
use crate::media::api::{Codec, ExtensionIds, PayloadType, Receiver, SsrcPair, TrackKey};
use crate::media::forward::rtcp::{self, Said, StreamReport};
use crate::media::forward::tests::encoder3::{Coded, Encoder3};

pub(super) const CAMERA: TrackKey = TrackKey(100);
pub(super) const MICROPHONE: TrackKey = TrackKey(101);
pub(super) const SCREEN: TrackKey = TrackKey(102);
pub(super) const VP8: PayloadType =
    PayloadType { pt: 96, codec: Codec::Vp8, format: 0, clock_rate: 90_000, rtx_pt: Some(97), nack: true, pli: true };
pub(super) const VP9: PayloadType = PayloadType { pt: 98, codec: Codec::Vp9, rtx_pt: Some(99), ..VP8 };
pub(super) const OPUS: PayloadType =
    PayloadType { pt: 111, codec: Codec::Opus, format: 0, clock_rate: 48_000, rtx_pt: None, nack: false, pli: false };
pub(super) const RIDS: [&str; 3] = ["q", "h", "f"];
const DEPENDENCY: u8 = 7;
const VIDEO: Duration = Duration::from_micros(33_333);
const AUDIO: Duration = Duration::from_millis(20);
const REPORTS: Duration = Duration::from_secs(1);
/// How long packets can be asked for again.
const MEMORY: usize = 1000;
const IDS: ExtensionIds = ExtensionIds {
    mid: Some(1),
    rid: Some(2),
    repaired_rid: Some(3),
    transport_cc: Some(4),
    abs_send_time: None,
    audio_level: Some(6),
    dependency_descriptor: Some(DEPENDENCY),
    abs_capture_time: None,
    playout_delay: None,
};

/// Packets of a frame and bytes of a packet, lowest layer first.
pub(super) type Shape = [(u8, usize); 3];
/// 60, 330 and 1,100 kbit/s.
pub(super) const SMALL: Shape = [(1, 200), (3, 450), (6, 700)];

/// Elements of a header extension: id and data.
type Elements = Vec<(u8, Vec<u8>)>;

#[derive(Clone)]
struct Sent {
    marker: bool,
    timestamp: u32,
    dependency: Vec<u8>,
    payload: Vec<u8>,
}

/// A video stream: one of the camera's, or the screen's.
struct Layer {
    ssrc: u32,
    sequence: u16,
    rtx_sequence: u16,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    keyframe: bool,
    /// Frames since the keyframe.
    place: usize,
    /// Counts frames.
    number: u16,
    packets: u32,
    /// What was sent lately, by sequence number.
    sent: BTreeMap<u16, Sent>,
    order: std::collections::VecDeque<u16>,
}

pub(super) struct Publisher {
    pub(super) peer: Peer,
    /// The camera's, lowest first.
    layers: Vec<Layer>,
    screen: Layer,
    encoder: Encoder3,
    pub(super) shape: Shape,
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
        let screen = Layer::new(&mut random);
        let mut encoder = Encoder3::new(start.is_multiple_of(2));
        (encoder.sequence, encoder.timestamp, encoder.size) = (screen.sequence, screen.timestamp, 200);
        Self {
            peer: Peer::new(now, key),
            layers,
            screen,
            encoder,
            shape: SMALL,
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

    /// The camera's streams begin anew, with other SSRCs and numbers, as after a change of encoder.
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
        let screen = Receiver {
            track: SCREEN,
            mid: "s".into(),
            payload_types: vec![VP9],
            ssrcs: ArrayVec::from_iter([SsrcPair { ssrc: self.screen.ssrc, rtx: Some(self.screen.ssrc ^ 1) }]),
            rids: ArrayVec::new(),
            ..camera.clone()
        };
        vec![camera, microphone, screen]
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
            self.screen_unit(&mut out);
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
            let packet = self.write(head, vec![(1, vec![b'a']), (6, vec![0x85])], &payload);
            out.push(packet);
        }
        if now >= self.next[2] {
            self.next[2] += REPORTS;
            let ntp = (1 << 40) + u64::try_from((now - self.began).as_micros()).unwrap() * 4_294;
            for layer in self.layers.iter().chain([&self.screen]) {
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
                let videos = self.layers.iter_mut().chain([&mut self.screen]);
                videos.filter(|layer| layer.ssrc == ssrc).for_each(|layer| layer.keyframe = true);
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
        let keyframe = layer.begin_frame();
        self.keyframes += u32::from(keyframe);
        let (temporal, sync, needs) = Label::pattern(layer.place);
        layer.picture = layer.picture.wrapping_add(1) & 0x7fff;
        layer.tl0 = layer.tl0.wrapping_add(u8::from(temporal == 0));
        let (packets, size) = self.shape[place];
        let count = packets * if keyframe { 2 } else { 1 };
        let [high, low] = (layer.picture | 0x8000).to_be_bytes();
        let (tl0, number) = (layer.tl0, layer.number);
        for index in 0..count {
            let begin = if index == 0 { 0x90 } else { 0x80 };
            let mut payload = vec![begin, 0xe0, high, low, tl0, temporal << 6 | u8::from(sync) << 5];
            debug_assert_eq!(payload.len(), DESCRIPTOR);
            let layer = u8::try_from(place).unwrap();
            let label =
                Label { layer, start: self.start, keyframe, first: index == 0, temporal, number, needs: needs.clone() };
            label.write(&mut payload);
            payload.resize(size + self.random.random_range(0..100), index);
            let layer = &mut self.layers[place];
            layer.sequence = layer.sequence.wrapping_add(1);
            layer.packets += 1;
            let marker = index + 1 == count;
            let (sequence, timestamp, ssrc) = (layer.sequence, layer.timestamp, layer.ssrc);
            layer.remember(sequence, Sent { marker, timestamp, dependency: Vec::new(), payload: payload.clone() });
            let head = Head { pt: VP8.pt, marker, sequence, timestamp, ssrc };
            out.push(self.write(head, vec![(1, vec![b'v']), (2, RIDS[place].into())], &payload));
        }
    }

    fn screen_unit(&mut self, out: &mut Vec<Vec<u8>>) {
        let keyframe = self.screen.begin_frame();
        self.keyframes += u32::from(keyframe);
        for coded in self.encoder.unit(keyframe) {
            let Coded { marker, sequence, timestamp, descriptor, payload } = coded;
            self.screen.packets += 1;
            self.screen.timestamp = timestamp;
            let sent = Sent { marker, timestamp, dependency: descriptor.clone(), payload: payload.clone() };
            self.screen.remember(sequence, sent);
            let head = Head { pt: VP9.pt, marker, sequence, timestamp, ssrc: self.screen.ssrc };
            out.push(self.write(head, vec![(DEPENDENCY, descriptor)], &payload));
        }
    }

    fn repair(&mut self, ssrc: u32, lost: u16) -> Option<Vec<u8>> {
        let place = self.layers.iter().position(|layer| layer.ssrc == ssrc);
        let layer = match place {
            Some(place) => &mut self.layers[place],
            None if self.screen.ssrc == ssrc => &mut self.screen,
            None => return None,
        };
        let Sent { marker, timestamp, dependency, payload } = layer.sent.get(&lost)?.clone();
        layer.rtx_sequence = layer.rtx_sequence.wrapping_add(1);
        self.repaired += 1;
        let (pt, elements) = match place {
            Some(place) => (97, vec![(1, vec![b'v']), (3, RIDS[place].into())]),
            None => (99, vec![(DEPENDENCY, dependency)]),
        };
        let head = Head { pt, marker, sequence: layer.rtx_sequence, timestamp, ssrc: ssrc ^ 1 };
        let payload = [&lost.to_be_bytes()[..], &payload].concat();
        Some(self.write(head, elements, &payload))
    }

    /// Header extensions of one byte where that is enough, else of two (RFC 8285).
    fn write(&mut self, head: Head, mut elements: Elements, payload: &[u8]) -> Vec<u8> {
        self.transport_cc = self.transport_cc.wrapping_add(1);
        elements.insert(0, (4, self.transport_cc.to_be_bytes().to_vec()));
        let short = elements.iter().all(|(_, data)| (1..=16).contains(&data.len()));
        let mut extensions = Vec::new();
        for (id, data) in elements {
            let len = u8::try_from(data.len()).unwrap();
            if short {
                extensions.push(id << 4 | (len - 1));
            } else {
                extensions.extend([id, len]);
            }
            extensions.extend(data);
        }
        extensions.resize(extensions.len().next_multiple_of(4), 0);
        let mut packet = vec![0x90, head.pt | if head.marker { 0x80 } else { 0 }];
        packet.extend_from_slice(&head.sequence.to_be_bytes());
        packet.extend_from_slice(&head.timestamp.to_be_bytes());
        packet.extend_from_slice(&head.ssrc.to_be_bytes());
        packet.extend_from_slice(if short { &[0xbe, 0xde] } else { &[0x10, 0] });
        packet.extend_from_slice(&u16::try_from(extensions.len() / 4).unwrap().to_be_bytes());
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
            place: 0,
            number: random.random(),
            packets: 0,
            sent: BTreeMap::new(),
            order: std::collections::VecDeque::new(),
        }
    }

    /// True: it is to be a keyframe.
    fn begin_frame(&mut self) -> bool {
        let keyframe = std::mem::take(&mut self.keyframe);
        self.place = if keyframe { 0 } else { self.place + 1 };
        self.number = self.number.wrapping_add(1);
        keyframe
    }

    fn remember(&mut self, sequence: u16, packet: Sent) {
        self.sent.insert(sequence, packet);
        self.order.push_back(sequence);
        if self.order.len() > MEMORY
            && let Some(oldest) = self.order.pop_front()
        {
            self.sent.remove(&oldest);
        }
    }
}
