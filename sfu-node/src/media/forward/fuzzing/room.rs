//! The forwarder as a whole: a few transports in two rooms, their tracks and subscriptions, then whatever packets and
//! times come. What leaves is looked at as it leaves.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use arrayvec::ArrayVec;
use shared::control::{BEST_SCORE, Delivery, TrackKind};

use super::{CODECS, IDS};
use crate::media::api::{
    Codec, Event, ExtensionIds, LOUDEST_STEP, PayloadType, Receiver, RoomKey, Sender, ShardIndex, SsrcPair, TrackKey,
    TransportKey,
};
use crate::media::forward::rtcp::{self, Said};
use crate::media::forward::rtp::RtpPacket;
use crate::media::forward::{Forwarder, Record, Sink};
use crate::media::srtp::MAX_OVERHEAD;

/// Transports; the last is alone in another room and wants what is not for it.
const TRANSPORTS: u64 = 4;
/// Tracks: a simulcast camera and a microphone of the first transport, a camera of the second.
const TRACKS: u64 = 3;
/// Most steps of one story.
const MAX_STEPS: usize = 300;
/// Largest datagram that crosses an Ethernet: its MTU less IPv6 and UDP headers.
const MAX_DATAGRAM: usize = 1500 - 40 - 8;
/// Time in which a layer's publisher is asked for two keyframes at most.
const KEYFRAME_WINDOW: Duration = Duration::from_secs(1);

/// A room's life, by the bytes of `input`.
pub fn forwarder(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mut world = World::new(u64::arbitrary(&mut input).unwrap_or(1));
    for _ in 0..MAX_STEPS {
        if input.is_empty() || world.step(&mut input).is_err() {
            break;
        }
        world.assert_whole();
    }
    // Whatever was begun comes to rest: nothing is due twice at one instant.
    for _ in 0..20 {
        world.pass(Duration::from_millis(250));
    }
    for key in 0..TRANSPORTS {
        world.forwarder.close(world.now, TransportKey(key), &mut world.watch);
    }
    world.assert_whole();
    assert!(world.forwarder.transports.is_empty() && world.forwarder.tracks.is_empty());
    assert!(world.forwarder.subscriptions.is_empty() && world.forwarder.track_slots.is_empty());
}

/// What a story knows of a transport.
#[derive(Default)]
struct Known {
    open: bool,
    connected: bool,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
}

/// Looks at all that leaves.
#[derive(Default)]
struct Watch {
    now: Option<Instant>,
    transports: HashMap<TransportKey, Known>,
    /// Numbers sent on each stream: each is one SRTP nonce.
    sent: HashMap<(TransportKey, u32), HashSet<u16>>,
    /// Payload bytes of media and of retransmissions by RTX stream.
    media: HashMap<(TransportKey, u32), (usize, usize)>,
    keyframes: HashMap<TransportKey, VecDeque<Instant>>,
    /// The newest numbers, for reports that make sense.
    newest: Option<(u32, u16)>,
    transport_cc: u16,
}

struct World {
    forwarder: Forwarder,
    now: Instant,
    watch: Watch,
    encoders: [Encoder; 6],
    next_ssrc: u32,
}

/// A stream a publisher sends.
struct Encoder {
    from: u64,
    ssrc: u32,
    mid: &'static [u8],
    rid: &'static [u8],
    pt: u8,
    sequence: u16,
    timestamp: u32,
    transport_cc: u16,
}

fn room_of(transport: TransportKey) -> RoomKey {
    RoomKey(u64::from(transport.0 == TRANSPORTS - 1))
}

impl Sink for Watch {
    fn cross(&mut self, to: ShardIndex, _record: Record<'_>) {
        panic!("nobody on {to:?} follows");
    }

    fn rtp(&mut self, to: TransportKey, header: &[u8], payload: &[u8]) {
        let known = self.transports.get(&to).expect("it was opened");
        assert!(known.open && known.connected, "nothing before it is connected");
        let packet = [header, payload].concat();
        assert!(packet.len() + MAX_OVERHEAD <= MAX_DATAGRAM, "{} bytes", packet.len());
        let rtp = RtpPacket::parse(&packet).expect("what leaves is RTP");
        let sender = known.senders.iter().find(|sender| sender.ssrc == rtp.ssrc || sender.rtx_ssrc == Some(rtp.ssrc));
        let sender = sender.expect("a stream that was announced");
        let is_rtx = sender.rtx_ssrc == Some(rtp.ssrc);
        let fits =
            |pt: &PayloadType| if is_rtx { pt.rtx_pt == Some(rtp.payload_type) } else { pt.pt == rtp.payload_type };
        assert!(sender.payload_types.iter().any(fits), "a payload type that was negotiated");
        let mut sources = self.transports.iter().filter(|(_, t)| t.receivers.iter().any(|r| r.track == sender.source));
        let (source, _) = sources.next().expect("somebody publishes it");
        assert_eq!(room_of(*source), room_of(to), "nothing leaves its room");
        assert!(self.sent.entry((to, rtp.ssrc)).or_default().insert(rtp.sequence), "no nonce twice");
        let media = (to, sender.ssrc);
        let (media, repeated) = self.media.entry(media).or_default();
        if !is_rtx {
            *media += rtp.payload.len();
            self.newest = Some((rtp.ssrc, rtp.sequence));
        } else if let Some(len) = rtp.payload.len().checked_sub(2) {
            *repeated += len;
            assert!(*repeated <= 32 * 1024 + *media / 5, "a fifth of the media, and what it begins with");
        }
        if let Some([high, low]) = rtp.extensions.element(sender.extensions.transport_cc) {
            self.transport_cc = u16::from_be_bytes([*high, *low]);
        }
    }

    fn rtcp(&mut self, to: TransportKey, compound: &[u8]) {
        let known = self.transports.get(&to).expect("it was opened");
        assert!(known.open && compound.len() + MAX_OVERHEAD <= MAX_DATAGRAM);
        let layers: usize = known.receivers.iter().map(|r| r.rids.len().max(r.ssrcs.len()).max(1)).sum();
        let mut asked = 0;
        rtcp::read(compound, |said| asked += usize::from(matches!(said, Said::KeyframeNeeded { .. })))
            .expect("what leaves is RTCP");
        let now = self.now.expect("it was told");
        let recent = self.keyframes.entry(to).or_default();
        recent.retain(|at| now.duration_since(*at) < KEYFRAME_WINDOW);
        recent.extend((0..asked).map(|_| now));
        assert!(recent.len() <= 2 * layers, "two keyframe requests a second a layer");
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::LayerSeen { track, layer, .. } => assert!(track.0 < TRACKS && layer < 3),
            Event::Paused { transport, source, .. } => assert!(transport.0 < TRANSPORTS && source.0 < TRACKS),
            Event::Score { transport, score } => assert!(transport.0 < TRANSPORTS && score <= BEST_SCORE),
            Event::Loudness { track, step } => assert!(track.0 < TRACKS && step <= LOUDEST_STEP),
            event => panic!("{event:?}"),
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let encoder = |from, ssrc, mid, rid, pt| Encoder {
            from,
            ssrc,
            mid,
            rid,
            pt,
            sequence: 65_530,
            timestamp: u32::MAX - 9000,
            transport_cc: 65_500,
        };
        let encoders = [
            encoder(0, 1000, b"0", b"q", 96),
            encoder(0, 1001, b"0", b"h", 96),
            encoder(0, 1002, b"0", b"f", 96),
            encoder(0, 2000, b"1", b"", 111),
            encoder(1, 3000, b"2", b"", 96),
            encoder(0, 1003, b"0", b"q", 97),
        ];
        let now = Instant::now();
        let mut world =
            Self { forwarder: Forwarder::new(seed), now, watch: Watch::default(), encoders, next_ssrc: 10_000 };
        let codec = CODECS[usize::try_from(seed % 5).unwrap_or(0)];
        for key in 0..TRANSPORTS {
            world.open(TransportKey(key));
            world.connect(TransportKey(key), true);
        }
        world.receive(TransportKey(0), vec![receiver(0, codec), receiver(1, Codec::Opus)]);
        world.receive(TransportKey(1), vec![receiver(2, codec)]);
        for (to, sources) in [(1, [0, 1]), (2, [0, 2]), (3, [0, 1])] {
            let senders = sources.map(|source| world.sender(source, codec)).to_vec();
            world.send(TransportKey(to), senders);
        }
        world
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        self.watch.now = Some(self.now);
        let from = TransportKey(input.int_in_range(0..=TRANSPORTS - 1)?);
        match input.int_in_range(0..=31_u8)? {
            0..=13 => {
                let (from, packet) = self.packet(input)?;
                self.forwarder.on_rtp(self.now, from, &packet, &mut self.watch);
            }
            14 => {
                let len = input.int_in_range(0..=200)?;
                self.forwarder.on_rtp(self.now, from, input.bytes(len.min(input.len()))?, &mut self.watch);
                self.forwarder.flush(&mut self.watch);
            }
            15 => {
                let len = input.int_in_range(0..=200)?;
                self.forwarder.on_rtcp(self.now, from, input.bytes(len.min(input.len()))?, &mut self.watch);
            }
            16..=20 => {
                let compound = self.report(input)?;
                self.forwarder.on_rtcp(self.now, from, &compound, &mut self.watch);
            }
            21..=24 => self.pass(Duration::from_millis(u8::arbitrary(input)?.into())),
            25 => self.pass(Duration::from_millis(u16::arbitrary(input)?.into())),
            26 => self.connect(from, bool::arbitrary(input)?),
            27 => {
                let tracks: &[u64] = if from.0 == 0 { &[0, 1] } else { &[2] };
                let mut receivers = Vec::new();
                if from.0 < 2 {
                    for track in tracks {
                        if !input.ratio(1, 4)? {
                            let codec = *input.choose(&CODECS)?;
                            receivers.push(Receiver { muted: input.ratio(1, 8)?, ..receiver(*track, codec) });
                        }
                    }
                }
                self.receive(from, receivers);
            }
            28..=29 => self.change_senders(input, from)?,
            30 => self.forwarder.set_muted(self.now, TrackKey(from.0), bool::arbitrary(input)?, &mut self.watch),
            _ => {
                self.forwarder.close(self.now, from, &mut self.watch);
                self.watch.forget(from);
                self.open(from);
                self.connect(from, bool::arbitrary(input)?);
            }
        }
        Ok(())
    }

    /// The next packet of a stream, more or less.
    fn packet(&mut self, input: &mut Unstructured<'_>) -> Result<(TransportKey, Vec<u8>)> {
        let encoder = &mut self.encoders[input.choose_index(6)?];
        let flags = u8::arbitrary(input)?;
        let step: i16 = match flags & 7 {
            0..=4 => 1,
            5 => i8::arbitrary(input)?.into(),
            6 => i16::arbitrary(input)?,
            _ => 2,
        };
        encoder.sequence = encoder.sequence.wrapping_add_signed(step);
        if flags & 0x08 != 0 {
            encoder.timestamp = encoder.timestamp.wrapping_add(3000);
        }
        if flags & 0x10 != 0 {
            encoder.timestamp = u32::arbitrary(input)?;
        }
        if flags & 0x60 == 0x60 {
            encoder.ssrc = 1000 + u32::from(u8::arbitrary(input)?);
        }
        encoder.transport_cc = encoder.transport_cc.wrapping_add_signed(if flags & 0x60 == 0x20 { step } else { 1 });
        let mut elements = Vec::new();
        let mut element = |id: Option<u8>, data: &[u8]| {
            if let (Some(id), 1..=16) = (id, data.len()) {
                elements.push(id << 4 | u8::try_from(data.len() - 1).unwrap_or(0));
                elements.extend_from_slice(data);
            }
        };
        element(IDS.mid, encoder.mid);
        element(if encoder.pt == 97 { IDS.repaired_rid } else { IDS.rid }, encoder.rid);
        element(IDS.transport_cc, &encoder.transport_cc.to_be_bytes());
        if flags & 0x80 != 0 {
            let len = input.int_in_range(0..=16)?;
            element(IDS.dependency_descriptor, input.bytes(len.min(input.len()))?);
            element(IDS.audio_level, &[0x85]);
        }
        let mut packet = vec![0x90, encoder.pt | flags & 0x80];
        packet.extend(encoder.sequence.to_be_bytes());
        packet.extend(encoder.timestamp.to_be_bytes());
        packet.extend(encoder.ssrc.to_be_bytes());
        elements.resize(elements.len().next_multiple_of(4), 0);
        packet.extend([0xbe, 0xde, 0, u8::try_from(elements.len() / 4).unwrap_or(0)]);
        packet.extend(&elements);
        let len = input.int_in_range(0..=24)?;
        packet.extend(input.bytes(len.min(input.len()))?);
        let len = match u8::arbitrary(input)? {
            pad @ 0..=99 => packet.len() + usize::from(pad),
            pad => usize::from(pad) * 6,
        };
        packet.resize(len.max(packet.len()), 0x10);
        Ok((TransportKey(encoder.from), packet))
    }

    /// Something a subscriber or a publisher might say of what was sent lately.
    fn report(&mut self, input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
        let (ssrc, sequence) = self.watch.newest.unwrap_or((1000, 0));
        let back = sequence.wrapping_sub(u8::arbitrary(input)?.into()).to_be_bytes();
        let packet = |count: u8, kind: u8, body: &[&[u8]]| {
            let body = body.concat();
            let mut packet = vec![0x80 | count, kind, 0, u8::try_from(body.len() / 4).unwrap_or(0)];
            packet.extend(body);
            packet
        };
        let stream = ssrc.to_be_bytes();
        Ok(match input.int_in_range(0..=6_u8)? {
            0..=1 => packet(1, 205, &[&[0; 4], &stream, &back, &<[u8; 2]>::arbitrary(input)?]),
            2 => packet(1, 206, &[&[0; 4], &stream]),
            3 => {
                let bits = <[u8; 3]>::arbitrary(input)?;
                packet(15, 206, &[&[0; 8], b"REMB\x01", &bits, &stream])
            }
            4 => packet(1, 201, &[&[0; 4], &stream, &[0; 12], &<[u8; 8]>::arbitrary(input)?]),
            5 => {
                let encoder = &self.encoders[input.choose_index(6)?];
                packet(0, 200, &[&encoder.ssrc.to_be_bytes(), &<[u8; 12]>::arbitrary(input)?, &[0; 8]])
            }
            _ => {
                let count = input.int_in_range(1..=16_u8)?;
                let base = self.watch.transport_cc.wrapping_sub(u16::from(count) - 1).to_be_bytes();
                let reference = <[u8; 2]>::arbitrary(input)?;
                let deltas = <[u8; 16]>::arbitrary(input)?;
                let head = [base[0], base[1], 0, count, 0, reference[0], reference[1], 0];
                packet(15, 205, &[&[0; 4], &stream, &head, &[0x20, count], &deltas, &[0; 2]])
            }
        })
    }

    fn change_senders(&mut self, input: &mut Unstructured<'_>, to: TransportKey) -> Result<()> {
        let mut senders = self.watch.transports.get(&to).map(|known| known.senders.clone()).unwrap_or_default();
        for sender in &mut senders {
            let flags = u8::arbitrary(input)?;
            let max_layer = (flags & 1 != 0).then_some(flags >> 1 & 3);
            let max_frame_rate = (flags & 2 != 0).then_some(u16::from(flags));
            sender.delivery =
                Delivery { paused: flags & 0x38 == 0x38, max_layer, max_frame_rate, priority: flags >> 3 };
            if flags & 0xc0 == 0xc0 {
                sender.source = TrackKey(input.int_in_range(0..=TRACKS - 1)?);
                sender.kind = kind_of(sender.source);
            }
        }
        if input.ratio(1, 4)? && !senders.is_empty() {
            senders.remove(input.choose_index(senders.len())?);
        }
        if senders.len() < 4 && input.ratio(1, 2)? {
            let (track, codec) = (input.int_in_range(0..=TRACKS - 1)?, *input.choose(&CODECS)?);
            senders.push(self.sender(track, codec));
        }
        self.send(to, senders);
        Ok(())
    }

    /// A subscription with an SSRC of its own; like the control thread, it never gives one a second time.
    fn sender(&mut self, source: u64, codec: Codec) -> Sender {
        self.next_ssrc += 2;
        let source = TrackKey(source);
        let kind = kind_of(source);
        let codec = if kind == TrackKind::Audio { Codec::Opus } else { codec };
        Sender {
            source,
            kind,
            mid: "9".into(),
            ssrc: self.next_ssrc,
            rtx_ssrc: (kind == TrackKind::Video).then_some(self.next_ssrc + 1),
            described: self.next_ssrc.is_multiple_of(4),
            payload_types: payload_types(codec, 40),
            extensions: ExtensionIds { dependency_descriptor: Some(12), ..IDS },
            playout_delay: [0; 3],
            cname: "PA_ada".into(),
            delivery: Delivery::default(),
            only: None,
        }
    }

    fn open(&mut self, key: TransportKey) {
        self.forwarder.open(key, room_of(key));
        self.watch.transports.entry(key).or_default().open = true;
    }

    fn connect(&mut self, key: TransportKey, connected: bool) {
        self.settle();
        self.watch.transports.entry(key).or_default().connected = connected;
        self.forwarder.connected(self.now, key, connected, &mut self.watch);
    }

    fn receive(&mut self, key: TransportKey, receivers: Vec<Receiver>) {
        self.settle();
        // New receivers are new layers: they may ask at once.
        self.watch.keyframes.remove(&key);
        self.watch.transports.entry(key).or_default().receivers.clone_from(&receivers);
        self.forwarder.set_receivers(self.now, key, receivers, &mut self.watch);
    }

    fn send(&mut self, key: TransportKey, senders: Vec<Sender>) {
        self.settle();
        self.watch.transports.entry(key).or_default().senders.clone_from(&senders);
        self.forwarder.set_senders(self.now, key, senders, &mut self.watch);
    }

    /// What waits goes out, as before each change.
    fn settle(&mut self) {
        self.watch.now = Some(self.now);
        self.forwarder.flush(&mut self.watch);
    }

    /// Time passes; what is due happens when it is due.
    fn pass(&mut self, span: Duration) {
        self.settle();
        let end = self.now + span;
        let mut at_once = 0;
        while let Some(due) = self.forwarder.next_timeout().filter(|due| *due <= end) {
            at_once = if due > self.now { 0 } else { at_once + 1 };
            assert!(at_once < 3, "a timer that is never done");
            self.now = self.now.max(due);
            self.watch.now = Some(self.now);
            self.forwarder.on_timeout(self.now, &mut self.watch);
        }
        self.now = end;
    }

    /// The tables fit each other and stay within their bounds.
    fn assert_whole(&self) {
        let Forwarder { transports, transport_slots, tracks, track_slots, subscriptions, .. } = &self.forwarder;
        assert_eq!((transports.len(), tracks.len()), (transport_slots.len(), track_slots.len()));
        for (slot, transport) in transports {
            assert_eq!(transport_slots.get(&transport.key), Some(&slot));
            assert!(transport.streams.len() <= 2 * 3 * transport.tracks.len(), "a stream a layer and kind");
            let ours = |known: &usize| subscriptions.get(*known).is_some_and(|known| known.transport == slot);
            assert!(transport.subscriptions.iter().all(ours));
        }
        for (slot, track) in tracks {
            assert_eq!(track_slots.get(&track.key), Some(&slot));
            assert!(!track.unused(), "it would stay for ever");
            let ours = |known: &usize| subscriptions.get(*known).is_some_and(|known| known.track == slot);
            assert!(track.subscriptions.iter().all(ours));
        }
        let listed: usize = transports.iter().map(|(_, transport)| transport.subscriptions.len()).sum();
        let fed: usize = tracks.iter().map(|(_, track)| track.subscriptions.len()).sum();
        assert_eq!((listed, fed), (subscriptions.len(), subscriptions.len()));
    }
}

impl Watch {
    /// The transport is another from now on, with keys of its own.
    fn forget(&mut self, key: TransportKey) {
        self.transports.remove(&key);
        self.keyframes.remove(&key);
        self.sent.retain(|(to, _), _| *to != key);
        self.media.retain(|(to, _), _| *to != key);
    }
}

fn kind_of(track: TrackKey) -> TrackKind {
    if track.0 == 1 { TrackKind::Audio } else { TrackKind::Video }
}

fn payload_types(codec: Codec, first: u8) -> Vec<PayloadType> {
    let clock_rate = if codec == Codec::Opus { 48_000 } else { 90_000 };
    let video = codec != Codec::Opus;
    let pt = PayloadType { pt: first, codec, format: 0, clock_rate, rtx_pt: None, nack: true, pli: video };
    if video {
        return vec![PayloadType { rtx_pt: Some(first + 1), ..pt }];
    }
    vec![PayloadType { pt: first + 2, codec: Codec::Red, ..pt }, pt]
}

/// What is published under a track's key.
fn receiver(track: u64, codec: Codec) -> Receiver {
    let kind = kind_of(TrackKey(track));
    let audio = kind == TrackKind::Audio;
    let pair = |ssrc: u32| SsrcPair { ssrc, rtx: (!audio).then_some(ssrc + 1) };
    Receiver {
        track: TrackKey(track),
        kind,
        mid: track.to_string(),
        payload_types: if audio { payload_types(Codec::Opus, 111) } else { payload_types(codec, 96) },
        extensions: IDS,
        ssrcs: if track == 0 {
            ArrayVec::new()
        } else {
            ArrayVec::from_iter([pair(1000 + 1000 * u32::try_from(track).unwrap())])
        },
        rids: if track == 0 { ["q", "h", "f"].map(str::to_owned).into() } else { ArrayVec::new() },
        muted: false,
    }
}
