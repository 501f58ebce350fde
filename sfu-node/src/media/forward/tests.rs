//! The forwarder in a small virtual network: a world with a clock of its own, cameras, microphones and viewers.

mod adapting;
mod audio;
mod cost;
pub(crate) mod encoder3;
mod floods;
mod forwarding;
mod health;
mod idle;
mod layers;
mod losses;
mod loudest;
mod pacing;
mod pipe;
mod relay;
mod relief;
mod reports;
mod robustness;
mod scalable;
mod speaking;
mod temporal;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use shared::control::TrackKind;

use super::rtcp::{self, Said};
use super::rtp::RtpPacket;
use super::{Forwarder, Record, Sink, SplitMix};
use crate::media::api::{
    Codec, Event, ExtensionIds, PayloadType, Receiver, RoomKey, Sender, ShardIndex, SsrcPair, TrackKey, TransportKey,
};

const NONE: [u32; 0] = [];
const ROOM: RoomKey = RoomKey(1);
const ADA: TransportKey = TransportKey(10);
const BOB: TransportKey = TransportKey(20);
const CAMERA: TrackKey = TrackKey(100);
const MICROPHONE: TrackKey = TrackKey(101);

const UP: ExtensionIds = super::fuzzing::IDS;
const DOWN: ExtensionIds = ExtensionIds {
    mid: Some(9),
    rid: None,
    repaired_rid: None,
    transport_cc: Some(8),
    abs_send_time: Some(7),
    audio_level: Some(5),
    dependency_descriptor: Some(4),
    abs_capture_time: Some(3),
    playout_delay: Some(2),
};

const PLAYOUT_DELAY: [u8; 3] = [4, 5, 6];

const OPUS: PayloadType =
    PayloadType { pt: 111, codec: Codec::Opus, format: 0, clock_rate: 48_000, rtx_pt: None, nack: true, pli: false };
const RED: PayloadType = PayloadType { pt: 63, codec: Codec::Red, nack: false, ..OPUS };
const VP8: PayloadType =
    PayloadType { pt: 96, codec: Codec::Vp8, format: 0, clock_rate: 90_000, rtx_pt: Some(97), nack: true, pli: true };
const VP8_DOWN: PayloadType = PayloadType { pt: 120, rtx_pt: Some(121), ..VP8 };
const OPUS_DOWN: PayloadType = PayloadType { pt: 109, ..OPUS };

/// What came out.
#[derive(Default)]
struct Outbox {
    rtp: Vec<(TransportKey, Vec<u8>)>,
    rtcp: Vec<(TransportKey, Vec<u8>)>,
    events: Vec<Event>,
    crossings: Vec<(ShardIndex, Vec<u8>)>,
    /// RTP packets it wants to hold at most; 0: any number.
    room: usize,
}

impl Sink for Outbox {
    fn rtp(&mut self, to: TransportKey, header: &[u8], payload: &[u8]) {
        self.rtp.push((to, [header, payload].concat()));
    }
    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        self.rtcp.push((to, compound.to_vec()));
    }
    fn event(&mut self, event: Event) {
        self.events.push(event);
    }
    fn cross(&mut self, to: ShardIndex, record: Record<'_>) {
        self.crossings.push((to, [record.head, record.payload].concat()));
    }
    fn is_full(&self) -> bool {
        self.room > 0 && self.rtp.len() >= self.room
    }
}

struct World {
    forwarder: Forwarder,
    now: Instant,
    out: Outbox,
}

impl World {
    /// A world in which Ada is connected.
    fn new() -> Self {
        let mut world = Self { forwarder: Forwarder::new(7), now: Instant::now(), out: Outbox::default() };
        world.join(ADA);
        world
    }

    fn join(&mut self, transport: TransportKey) {
        self.forwarder.open(transport, ROOM);
        self.forwarder.connected(self.now, transport, true, &mut self.out);
    }

    fn publish(&mut self, receivers: Vec<Receiver>) {
        self.forwarder.set_receivers(self.now, ADA, receivers, &mut self.out);
    }

    /// A connected transport subscribed to the tracks.
    fn viewer(&mut self, key: u64, senders: Vec<Sender>) -> Viewer {
        let transport = TransportKey(key);
        let first = senders.first().cloned();
        self.join(transport);
        self.forwarder.set_senders(self.now, transport, senders, &mut self.out);
        let first = first.unwrap();
        Viewer { transport, ssrc: first.ssrc, rtx: first.rtx_ssrc, packets: BTreeMap::new(), highest: None }
    }

    fn rtp(&mut self, from: TransportKey, packet: &[u8]) {
        self.forwarder.on_rtp(self.now, from, packet, &mut self.out);
        self.forwarder.flush(&mut self.out);
    }

    fn rtcp(&mut self, from: TransportKey, packets: &[Box<dyn rtc::rtcp::packet::Packet>]) {
        let compound = rtcp::compound(packets).unwrap();
        self.forwarder.on_rtcp(self.now, from, &compound, &mut self.out);
    }

    /// Time passes; what is due happens at its time.
    fn pass(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(due) = self.forwarder.next_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.forwarder.on_timeout(self.now, &mut self.out);
        }
        self.now = end;
    }

    /// RTP packets sent to a transport since the last call for any.
    fn take_rtp(&mut self, to: TransportKey) -> Vec<Vec<u8>> {
        take(&mut self.out.rtp, to)
    }

    /// What was said by RTCP to a transport since the last call.
    fn take_said(&mut self, to: TransportKey) -> Vec<Said<'static>> {
        let mut heard = vec![];
        for compound in take(&mut self.out.rtcp, to) {
            rtcp::read(compound.leak(), |said| heard.push(said)).unwrap();
        }
        heard
    }

    /// Keyframe requests to Ada since the last look at what was said to her, by SSRC.
    fn take_plis(&mut self) -> Vec<u32> {
        let keyframe = |said| if let Said::KeyframeNeeded { ssrc } = said { Some(ssrc) } else { None };
        self.take_said(ADA).into_iter().filter_map(keyframe).collect()
    }
}

fn take(queue: &mut Vec<(TransportKey, Vec<u8>)>, to: TransportKey) -> Vec<Vec<u8>> {
    let (ours, others) = std::mem::take(queue).into_iter().partition(|(key, _)| *key == to);
    *queue = others;
    ours.into_iter().map(|(_, packet): (_, Vec<u8>)| packet).collect()
}

fn camera(rids: &[&str], ssrcs: &[(u32, u32)]) -> Receiver {
    Receiver {
        track: CAMERA,
        kind: TrackKind::Video,
        mid: "v".into(),
        payload_types: vec![VP8],
        extensions: UP,
        ssrcs: ssrcs.iter().map(|(ssrc, rtx)| SsrcPair { ssrc: *ssrc, rtx: Some(*rtx) }).collect(),
        rids: rids.iter().map(ToString::to_string).collect(),
        muted: false,
    }
}

fn microphone(payload_types: Vec<PayloadType>) -> Receiver {
    let ssrcs = ArrayVec::from_iter([SsrcPair { ssrc: 2000, rtx: None }]);
    let rids = ArrayVec::new();
    Receiver {
        track: MICROPHONE,
        kind: TrackKind::Audio,
        mid: "a".into(),
        payload_types,
        ssrcs,
        rids,
        ..camera(&[], &[])
    }
}

fn sender(source: TrackKey, ssrc: u32, payload_types: Vec<PayloadType>) -> Sender {
    let audio = payload_types.iter().any(|pt| matches!(pt.codec, Codec::Opus | Codec::Red));
    Sender {
        source,
        kind: if audio { TrackKind::Audio } else { TrackKind::Video },
        mid: "7".into(),
        ssrc,
        rtx_ssrc: (!audio).then_some(ssrc + 1),
        described: false,
        payload_types,
        extensions: DOWN,
        playout_delay: PLAYOUT_DELAY,
        cname: "PA_ada".into(),
        delivery: shared::control::Delivery::default(),
        only: None,
    }
}

impl SplitMix {
    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }
}

fn watch(ssrc: u32) -> Sender {
    sender(CAMERA, ssrc, vec![VP8_DOWN])
}

/// A received stream's sequence, timestamp and picture ids.
struct Encoder {
    ssrc: u32,
    rid: Option<&'static str>,
    sequence: u16,
    timestamp: u32,
    picture: u16,
    tl0: u8,
    transport_cc: u16,
    sent: Vec<Vec<u8>>,
}

impl Encoder {
    fn new(ssrc: u32, rid: Option<&'static str>) -> Self {
        let start = SplitMix(ssrc.into()).next();
        Self {
            ssrc,
            rid,
            sequence: (start & 0xffff) as u16,
            timestamp: ((start >> 16) & 0xffff_ffff) as u32,
            picture: ((start >> 8) & 0x7fff) as u16,
            tl0: (start & 0xff) as u8,
            transport_cc: 0,
            sent: vec![],
        }
    }

    /// The packets of the next VP8 frame.
    fn frame(&mut self, keyframe: bool, packets: usize) -> Vec<Vec<u8>> {
        self.temporal_frame(keyframe, 0, false, packets)
    }

    /// The same, in a temporal layer.
    fn temporal_frame(&mut self, keyframe: bool, temporal: u8, sync: bool, packets: usize) -> Vec<Vec<u8>> {
        self.timestamp = self.timestamp.wrapping_add(3000);
        self.picture = self.picture.wrapping_add(1) & 0x7fff;
        self.tl0 = self.tl0.wrapping_add(u8::from(temporal == 0));
        let layer = temporal << 6 | u8::from(sync) << 5;
        (0..packets)
            .map(|index| {
                let [high, low] = (self.picture | 0x8000).to_be_bytes();
                let start = if index == 0 { 0x90 } else { 0x80 };
                let mut payload = vec![start, 0xe0, high, low, self.tl0, layer, u8::from(!keyframe)];
                payload.resize(1000, u8::try_from(index).unwrap());
                self.packet(VP8.pt, index + 1 == packets, &payload)
            })
            .collect()
    }

    fn packet(&mut self, pt: u8, marker: bool, payload: &[u8]) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        self.transport_cc = self.transport_cc.wrapping_add(1);
        let [t0, t1] = self.transport_cc.to_be_bytes();
        let mut extensions = vec![0x10, b'v', 0x41, t0, t1, 0x60, 0x85];
        if let Some(rid) = self.rid {
            extensions.extend_from_slice(&[0x20, rid.as_bytes()[0]]);
        }
        let packet = raw(pt, marker, self.sequence, self.timestamp, self.ssrc, &extensions, payload);
        self.sent.push(packet.clone());
        packet
    }

    /// What its RTX stream sends for a packet asked for again.
    fn repair(&self, rtx_ssrc: u32, rtx_sequence: u16, lost: u16) -> Option<Vec<u8>> {
        let of = |packet: &&Vec<u8>| RtpPacket::parse(packet).unwrap().sequence == lost;
        let packet = self.sent.iter().rev().find(of)?;
        let rtp = RtpPacket::parse(packet).unwrap();
        let payload = [&lost.to_be_bytes(), rtp.payload].concat();
        let mut extensions = vec![0x10, b'v'];
        if let Some(rid) = self.rid {
            extensions.extend_from_slice(&[0x30, rid.as_bytes()[0]]);
        }
        Some(raw(97, rtp.marker, rtx_sequence, rtp.timestamp, rtx_ssrc, &extensions, &payload))
    }
}

fn raw(pt: u8, marker: bool, sequence: u16, timestamp: u32, ssrc: u32, extensions: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x90, pt | if marker { 0x80 } else { 0 }];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&timestamp.to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    let words = extensions.len().div_ceil(4);
    packet.extend_from_slice(&[0xbe, 0xde, 0, u8::try_from(words).unwrap()]);
    packet.extend_from_slice(extensions);
    packet.resize(16 + 4 * words, 0);
    packet.extend_from_slice(payload);
    packet
}

/// What a viewer got of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Got {
    marker: bool,
    timestamp: u32,
    payload: Vec<u8>,
}

/// One subscriber of one stream.
struct Viewer {
    transport: TransportKey,
    ssrc: u32,
    rtx: Option<u32>,
    /// By extended sequence number.
    packets: BTreeMap<u64, Got>,
    highest: Option<u64>,
}

impl Viewer {
    fn receive(&mut self, packet: &[u8]) {
        let rtp = RtpPacket::parse(packet).unwrap();
        let (sequence, payload) = if Some(rtp.ssrc) == self.rtx {
            let ([high, low], payload) = rtp.payload.split_first_chunk::<2>().unwrap();
            (u16::from_be_bytes([*high, *low]), payload)
        } else {
            assert_eq!(rtp.ssrc, self.ssrc);
            (rtp.sequence, rtp.payload)
        };
        let highest = self.highest.unwrap_or(0x1_0000 + u64::from(sequence));
        let delta = sequence.wrapping_sub((highest & 0xffff) as u16).cast_signed();
        let extended = highest.checked_add_signed(delta.into()).unwrap();
        self.highest = Some(highest.max(extended));
        let got = Got { marker: rtp.marker, timestamp: rtp.timestamp, payload: payload.to_vec() };
        if let Some(before) = self.packets.insert(extended, got.clone()) {
            assert_eq!(before, got, "a retransmission differs");
        }
    }

    /// Takes all that is on its way to it.
    fn drain(&mut self, world: &mut World) {
        for packet in world.take_rtp(self.transport) {
            self.receive(&packet);
        }
    }

    fn missing(&self) -> Vec<u16> {
        let (Some((first, _)), Some((last, _))) = (self.packets.first_key_value(), self.packets.last_key_value())
        else {
            return vec![];
        };
        (*first..*last).filter(|s| !self.packets.contains_key(s)).map(|s| (s & 0xffff) as u16).collect()
    }

    /// The stream is one that a decoder takes: whole, beginning with a keyframe, ids and times in step.
    fn assert_decodable(&self) {
        assert_eq!(self.missing(), [] as [u16; 0], "gap-free");
        let packets: Vec<&Got> = self.packets.values().collect();
        assert!(!packets.is_empty());
        assert!(keyframe(packets[0]), "begins with a keyframe");
        for pair in packets.windows(2) {
            let same_frame = picture(pair[0]) == picture(pair[1]);
            assert_eq!(same_frame, pair[0].timestamp == pair[1].timestamp, "one timestamp a frame");
            if same_frame {
                continue;
            }
            assert_eq!(picture(pair[1]), (picture(pair[0]) + 1) & 0x7fff, "picture ids go on");
            let base = u8::from(pair[1].payload[5] >> 6 == 0);
            assert_eq!(pair[1].payload[4], pair[0].payload[4].wrapping_add(base), "TL0PICIDX goes on");
            let step = pair[1].timestamp.wrapping_sub(pair[0].timestamp).cast_signed();
            assert!(step > 0, "time goes on");
            assert!(pair[0].marker || keyframe(pair[1]), "a frame cut off is followed by a keyframe");
        }
    }
}

fn picture(got: &Got) -> u16 {
    u16::from_be_bytes([got.payload[2] & 0x7f, got.payload[3]])
}

fn keyframe(got: &Got) -> bool {
    got.payload[0] & 0x10 != 0 && got.payload[6] & 1 == 0
}
