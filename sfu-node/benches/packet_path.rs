//! What single steps of the packet path cost: `cargo bench -p sfu-node`. For the whole, see `cargo xtask bench`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use sfu_node::media::api::{
    Codec, Event, ExtensionIds, PayloadType, Receiver, RoomKey, Sender, ShardIndex, SrtpProfile, SsrcPair, TrackKey,
    TransportKey,
};
use sfu_node::media::forward::{Forwarder, Record, Sink};
use sfu_node::media::srtp::Srtp;
use shared::control::{Delivery, TrackKind};

const PAYLOAD: usize = 1100;
const HEADER: usize = 12;
/// Packets of a video frame.
const FRAME: u32 = 6;
const ADA: TransportKey = TransportKey(1);
const CAMERA: TrackKey = TrackKey(1);
const VP8: PayloadType =
    PayloadType { pt: 96, codec: Codec::Vp8, format: 0, clock_rate: 90_000, rtx_pt: Some(97), nack: true, pli: true };
const TRANSPORT_CC: u8 = 3;

/// What is forwarded goes nowhere.
struct Nowhere;

impl Sink for Nowhere {
    fn rtp(&mut self, to: TransportKey, header: &[u8], payload: &[u8]) {
        black_box((to, header, payload));
    }
    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        black_box((to, compound));
    }
    fn cross(&mut self, _to: ShardIndex, _record: Record<'_>) {}
    fn event(&mut self, event: Event) {
        black_box(event);
    }
}

fn packet(sequence: u16, ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, VP8.pt];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&(u32::from(sequence) * 500).to_be_bytes());
    packet.extend_from_slice(&ssrc.to_be_bytes());
    // A VP8 descriptor with picture id and TL0PICIDX; the first packet begins a keyframe.
    packet.extend_from_slice(&[0x90, 0xe0, 0x80, 0x01, 0x01, 0x00, u8::from(sequence != 1)]);
    packet.resize(HEADER + PAYLOAD, 7);
    packet
}

fn srtp(criterion: &mut Criterion) {
    let provider = AwsLcRsProvider::new();
    let mut group = criterion.benchmark_group("srtp");
    group.throughput(Throughput::Elements(1));
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmHmacSha1_80] {
        let material = vec![5; Srtp::keying_material_len(profile)];
        let Ok(mut session) = Srtp::for_server(profile, &material, provider.crypto()) else { return };
        let mut sequence = 0_u16;
        let mut protect = |buffer: &mut Vec<u8>| {
            sequence = sequence.wrapping_add(1);
            buffer.clear();
            buffer.extend_from_slice(&packet_of(sequence));
            session.outbound.protect_rtp(buffer, 0, HEADER).is_ok()
        };
        let mut buffer = Vec::with_capacity(2048);
        group.bench_function(BenchmarkId::new("protect", format!("{profile:?}")), |bencher| {
            bencher.iter(|| black_box(protect(&mut buffer)));
        });
        // Both directions have the same keys here: what went out can come in.
        let inbound = &mut session.inbound;
        group.bench_function(BenchmarkId::new("unprotect", format!("{profile:?}")), |bencher| {
            let protected = || {
                let mut buffer = Vec::with_capacity(2048);
                protect(&mut buffer);
                buffer
            };
            let unprotect = |mut packet: Vec<u8>| black_box(inbound.unprotect_rtp(&mut packet).is_ok());
            bencher.iter_batched(protected, unprotect, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// As [`packet`], without its allocation.
fn packet_of(sequence: u16) -> [u8; HEADER + PAYLOAD] {
    let mut packet = [7; HEADER + PAYLOAD];
    let [high, low] = sequence.to_be_bytes();
    let head = [0x80, VP8.pt, high, low, 0, 0, 0, 1, 0, 0, 0, 9];
    packet.iter_mut().zip(head).for_each(|(to, from)| *to = from);
    packet
}

fn receiver() -> Receiver {
    Receiver {
        track: CAMERA,
        kind: TrackKind::Video,
        mid: "0".to_owned(),
        payload_types: vec![VP8],
        extensions: ExtensionIds::default(),
        ssrcs: ArrayVec::from_iter([SsrcPair { ssrc: 9, rtx: None }]),
        rids: ArrayVec::new(),
        muted: false,
    }
}

fn sender(ssrc: u32) -> Sender {
    Sender {
        source: CAMERA,
        kind: TrackKind::Video,
        mid: "1".to_owned(),
        ssrc,
        rtx_ssrc: Some(ssrc + 1),
        payload_types: vec![VP8],
        extensions: ExtensionIds { transport_cc: Some(TRANSPORT_CC), ..ExtensionIds::default() },
        playout_delay: [0; 3],
        cname: "PA_ada".to_owned(),
        described: true,
        delivery: Delivery::default(),
        only: None,
    }
}

/// A forwarder with one publisher and so many subscribers, after the keyframe.
fn forwarder(subscribers: u32, now: Instant) -> Forwarder {
    let mut forwarder = Forwarder::new(7);
    for key in 0..=u64::from(subscribers) {
        forwarder.open(TransportKey(key + 1), RoomKey(1));
        forwarder.connected(now, TransportKey(key + 1), true, &mut Nowhere);
    }
    forwarder.set_receivers(now, ADA, vec![receiver()], &mut Nowhere);
    for n in 0..subscribers {
        forwarder.set_senders(now, TransportKey(u64::from(n) + 2), vec![sender(1000 + 2 * n)], &mut Nowhere);
    }
    forwarder.on_rtp(now, ADA, &packet(1, 9), &mut Nowhere);
    forwarder.flush(&mut Nowhere);
    forwarder
}

fn forward(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("forward");
    for subscribers in [1_u32, 50, 500] {
        let mut now = Instant::now();
        let mut forwarder = forwarder(subscribers, now);
        let mut sequence = 1_u16;
        group.throughput(Throughput::Elements((FRAME * subscribers).into()));
        group.bench_function(BenchmarkId::new("frame", subscribers), |bencher| {
            bencher.iter_batched(
                || {
                    let mut next = || {
                        sequence = sequence.wrapping_add(1);
                        packet(sequence.max(2), 9)
                    };
                    (0..FRAME).map(|_| next()).collect::<Vec<_>>()
                },
                |packets| {
                    now += Duration::from_micros(100);
                    packets.iter().for_each(|packet| forwarder.on_rtp(now, ADA, packet, &mut Nowhere));
                    forwarder.flush(&mut Nowhere);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

fn feedback(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut forwarder = forwarder(1, now);
    let mut sequence = 1_u16;
    let mut base = 0_u16;
    criterion.bench_function("feedback on 20 packets", |bencher| {
        bencher.iter_batched(
            || {
                let first = base;
                let packets: Vec<_> = (0..20)
                    .map(|_| {
                        sequence = sequence.wrapping_add(1);
                        base = base.wrapping_add(1);
                        packet(sequence.max(2), 9)
                    })
                    .collect();
                (packets, report(first))
            },
            |(packets, report)| {
                packets.iter().for_each(|packet| forwarder.on_rtp(now, ADA, packet, &mut Nowhere));
                forwarder.flush(&mut Nowhere);
                forwarder.on_rtcp(now, TransportKey(2), &report, &mut Nowhere);
            },
            BatchSize::SmallInput,
        );
    });
}

/// Transport-wide feedback: 20 packets from `base` on, each 250 us after the one before.
fn report(base: u16) -> Vec<u8> {
    let [high, low] = base.to_be_bytes();
    let mut report = vec![0x8f, 205, 0, 10, 0, 0, 0, 1, 0, 0, 3, 232, high, low, 0, 20, 0, 0, 1, 0, 0x20, 20];
    report.resize(22 + 20, 1);
    report.resize(44, 0);
    report
}

criterion_group!(benches, srtp, forward, feedback);
criterion_main!(benches);
