//! Scalable streams of one SSRC: each subscriber gets the spatial and temporal layers it can use, and decodes them.

use rtc::rtcp::packet::Packet;
use shared::control::Delivery;

use super::cost::Nowhere;
use super::encoder3::{Coded, Encoder3};
use super::*;
use crate::media::forward::allocation::Quality;
use crate::media::forward::dependency::{Extended, Mandatory, Structure};

pub(super) const VP9: PayloadType = PayloadType { pt: 98, codec: Codec::Vp9, rtx_pt: Some(99), ..VP8 };
pub(super) const VP9_DOWN: PayloadType = PayloadType { pt: 122, rtx_pt: Some(123), ..VP9 };
const DESCRIPTOR: u8 = 7;

/// The RTP packets of the next temporal unit.
pub(super) fn unit(encoder: &mut Encoder3, keyframe: bool) -> Vec<Vec<u8>> {
    let packet = |Coded { marker, sequence, timestamp, descriptor, payload }: Coded| {
        let mut elements = vec![1, 1, b'v'];
        if !descriptor.is_empty() {
            elements.extend([DESCRIPTOR, u8::try_from(descriptor.len()).unwrap()]);
            elements.extend(descriptor);
        }
        two_byte(marker, sequence, timestamp, &elements, &payload)
    };
    encoder.unit(keyframe).into_iter().map(packet).collect()
}

fn two_byte(marker: bool, sequence: u16, timestamp: u32, elements: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x90, 98 | if marker { 0x80 } else { 0 }];
    packet.extend(sequence.to_be_bytes());
    packet.extend(timestamp.to_be_bytes());
    packet.extend(1000_u32.to_be_bytes());
    let words = elements.len().div_ceil(4);
    packet.extend([0x10, 0, 0, u8::try_from(words).unwrap()]);
    packet.extend(elements);
    packet.resize(16 + 4 * words, 0);
    packet.extend(payload);
    packet
}

/// A frame that a decoder got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Decoded {
    timestamp: u32,
    spatial: u8,
    temporal: u8,
}

/// What a subscriber's decoder makes of its packets.
#[derive(Default)]
struct Decoder {
    structure: Option<Structure>,
    active: Option<u32>,
    sequence: Option<u16>,
    /// Number in the descriptor less the encoder's.
    shift: Option<u16>,
    complete: Vec<u16>,
    frames: Vec<Decoded>,
    unit_open: Option<u32>,
}

impl Decoder {
    /// Takes packets in order; panics at what a real one would stumble over.
    fn take(&mut self, packets: &[Vec<u8>]) {
        for packet in packets {
            let rtp = RtpPacket::parse(packet).unwrap();
            assert_eq!((rtp.ssrc, rtp.payload_type), (3000, 122));
            let expected = self.sequence.map_or(rtp.sequence, |before| before.wrapping_add(1));
            assert_eq!(rtp.sequence, expected, "gap-free");
            self.sequence = Some(rtp.sequence);
            if let Some(open) = self.unit_open {
                assert_eq!(open, rtp.timestamp, "the unit before has no marker");
            }
            self.unit_open = (!rtp.marker).then_some(rtp.timestamp);
            let ends = rtp.payload[0] & 0x04 != 0;
            let [high, low, spatial, temporal, needed] = *rtp.payload[3..].first_chunk().unwrap();
            let number = u16::from_be_bytes([high, low]);
            if let Some(descriptor) = rtp.extensions.element(DOWN.dependency_descriptor) {
                self.take_descriptor(descriptor, number);
            }
            if !ends {
                continue;
            }
            for back in &rtp.payload[8..8 + usize::from(needed)] {
                let needed = number.wrapping_sub((*back).into());
                assert!(self.complete.contains(&needed), "{number} ({spatial}/{temporal}) needs {needed}");
            }
            self.complete.push(number);
            self.frames.push(Decoded { timestamp: rtp.timestamp, spatial, temporal });
        }
    }

    fn take_descriptor(&mut self, descriptor: &[u8], number: u16) {
        let sent = Mandatory::read(descriptor).unwrap().number;
        let shift = *self.shift.get_or_insert(sent.wrapping_sub(number));
        assert_eq!(sent, number.wrapping_add(shift), "numbers keep their distance");
        if descriptor.len() > 3 {
            let extended = Extended::read(descriptor, self.structure.as_ref()).unwrap();
            self.structure = extended.structure.or(self.structure.take());
            self.active = extended.active.or(self.active);
        }
    }

    /// Of the last units: their number, and the highest spatial and temporal layers among them.
    fn shows(&self, units: usize) -> (u8, u8) {
        let mut times: Vec<u32> = self.frames.iter().map(|frame| frame.timestamp).collect();
        times.dedup();
        let last = &times[times.len() - units..];
        let tops = last.iter().map(|time| self.frames.iter().filter(|f| f.timestamp == *time).map(|f| f.spatial).max());
        let tops: Vec<u8> = tops.flatten().collect();
        assert!(tops.iter().all(|top| *top == tops[0]), "one size: {tops:?}");
        let temporal = self.frames.iter().filter(|f| last.contains(&f.timestamp)).map(|f| f.temporal).max();
        (tops[0], temporal.unwrap())
    }
}

struct Call {
    world: World,
    encoder: Encoder3,
    viewer: Viewer,
    decoder: Decoder,
}

impl Call {
    fn new(key: bool) -> Self {
        let mut world = World::new();
        world.publish(vec![Receiver { payload_types: vec![VP9], ..camera(&[], &[(1000, 1001)]) }]);
        let viewer = world.viewer(20, vec![sender(CAMERA, 3000, vec![VP9_DOWN])]);
        Self { world, encoder: Encoder3::new(key), viewer, decoder: Decoder::default() }
    }

    /// Units, keyframes where they were asked for; gives how many keyframes there were.
    fn run(&mut self, units: usize) -> usize {
        let mut keyframes = 0;
        for _ in 0..units {
            let asked = !self.world.take_plis().is_empty() || self.decoder.sequence.is_none();
            keyframes += usize::from(asked);
            for packet in unit(&mut self.encoder, asked) {
                self.world.rtp(ADA, &packet);
            }
            self.world.pass(Duration::from_millis(33));
            self.decoder.take(&self.world.take_rtp(self.viewer.transport));
        }
        keyframes
    }

    fn deliver(&mut self, max_layer: Option<u8>, max_frame_rate: Option<u16>) {
        let delivery = Delivery { max_layer, max_frame_rate, ..Delivery::default() };
        let sender = Sender { delivery, ..sender(CAMERA, 3000, vec![VP9_DOWN]) };
        self.world.forwarder.set_senders(self.world.now, self.viewer.transport, vec![sender], &mut self.world.out);
    }

    fn carry(&mut self, layer: u8, temporal: u8) {
        let (_, subscription) = self.world.forwarder.subscriptions.iter_mut().next().unwrap();
        subscription.ceiling = Some(Quality { layer, temporal });
    }
}

#[test]
fn each_size_goes_out_and_is_decodable() {
    for key in [true, false] {
        let mut call = Call::new(key);
        call.run(32);
        assert_eq!(call.decoder.shows(16), (2, 2), "the best first");
        for (wanted, shown) in [(Some(0), 0), (Some(1), 1), (Some(2), 2), (Some(1), 1), (Some(0), 0), (None, 2)] {
            call.deliver(wanted, None);
            call.run(40);
            assert_eq!(call.decoder.shows(20), (shown, 2), "{wanted:?}");
        }
    }
}

#[test]
fn a_keyframe_is_asked_for_only_where_it_is_needed() {
    for (key, down, up) in [(true, 1, 1), (false, 0, 1)] {
        let mut call = Call::new(key);
        assert_eq!(call.run(20), 1);
        call.deliver(Some(0), None);
        assert_eq!(call.run(40), down, "down, key {key}");
        call.deliver(Some(2), None);
        assert_eq!(call.run(40), up, "up, key {key}");
        call.deliver(Some(2), Some(8));
        assert_eq!(call.run(40), 0, "another frame rate");
        assert_eq!(call.decoder.shows(10), (2, 0));
        call.deliver(Some(2), None);
        assert_eq!(call.run(40), 0, "all frames again");
        assert_eq!(call.decoder.shows(20), (2, 2));
    }
}

#[test]
fn the_upper_layer_of_a_key_structure_comes_without_what_it_does_not_need() {
    let mut call = Call::new(true);
    call.run(20);
    let before = call.decoder.frames.len();
    call.run(20);
    let frames = &call.decoder.frames[before..];
    assert_eq!(frames.len(), 20);
    assert!(frames.iter().all(|frame| frame.spatial == 2));
}

#[test]
fn the_receiver_is_told_what_is_on() {
    let mut call = Call::new(false);
    call.run(8);
    assert_eq!(call.decoder.active, Some(0b1_1111_1111));
    call.deliver(Some(1), None);
    call.run(8);
    assert_eq!(call.decoder.active, Some(0b11_1111));
    call.carry(1, 0);
    call.run(8);
    assert_eq!(call.decoder.active, Some(0b00_1001));
}

#[test]
fn a_layer_that_is_turned_off_is_not_waited_for() {
    for key in [true, false] {
        let mut call = Call::new(key);
        call.run(20);
        // As an encoder does that changes its structure: a keyframe with another set of templates.
        call.encoder.spatial = 2;
        call.encoder.kinds.truncate(8);
        call.encoder.kinds.iter_mut().for_each(|kind| kind.indications.truncate(6));
        call.encoder.offset = 20;
        call.decoder.sequence = None;
        call.run(40);
        assert_eq!(call.decoder.shows(20), (1, 2));
        call.deliver(Some(0), None);
        call.run(40);
        assert_eq!(call.decoder.shows(20), (0, 2));
    }
}

#[test]
fn a_layer_turned_off_between_keyframes_makes_way_for_the_one_below() {
    for (key, asked) in [(true, 1), (false, 0)] {
        let mut call = Call::new(key);
        call.run(20);
        call.encoder.spatial = 2;
        call.encoder.active = Some(0b11_1111);
        assert_eq!(call.run(40), asked, "key {key}");
        assert_eq!(call.decoder.shows(20), (1, 2));
        call.encoder.spatial = 3;
        call.encoder.active = Some(0b1_1111_1111);
        assert_eq!(call.run(40), 1, "and again the way up");
        assert_eq!(call.decoder.shows(20), (2, 2));
    }
}

#[test]
fn without_a_descriptor_the_payload_tells_the_layers() {
    for key in [true, false] {
        let mut call = Call::new(key);
        call.encoder.describes = false;
        call.run(8);
        call.deliver(Some(0), None);
        call.run(40);
        assert_eq!(call.decoder.shows(20), (0, 2));
        call.deliver(None, None);
        call.run(40);
        assert_eq!(call.decoder.shows(20), (2, 2));
        call.carry(2, 0);
        call.run(20);
        assert_eq!(call.decoder.shows(4), (2, 0));
    }
}

#[test]
fn late_packets_and_retransmissions_are_those_of_their_layers() {
    for (key, layer) in [(true, 0), (false, 1), (true, 2)] {
        let mut call = Call::new(key);
        call.run(8);
        call.deliver(Some(layer), None);
        call.run(40);
        let mut received: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        let mut random = SplitMix(layer.into());
        for _ in 0..40 {
            let mut packets = unit(&mut call.encoder, false);
            if random.next().is_multiple_of(2) {
                let late = packets.remove(random.below(packets.len()));
                packets.push(late);
            }
            packets.iter().for_each(|packet| call.world.rtp(ADA, packet));
            call.world.pass(Duration::from_millis(33));
            for packet in call.world.take_rtp(call.viewer.transport) {
                received.insert(RtpPacket::parse(&packet).unwrap().sequence, packet);
            }
        }
        let asked: Vec<u16> = received.keys().rev().take(20).copied().collect();
        let nack: Box<dyn Packet> = Box::new(rtcp::nack(1, 3000, &asked));
        call.world.rtcp(call.viewer.transport, &[nack]);
        let again = call.world.take_rtp(call.viewer.transport);
        assert_eq!(again.len(), asked.len());
        for packet in again {
            let rtp = RtpPacket::parse(&packet).unwrap();
            let (original, payload) = rtp.payload.split_first_chunk::<2>().unwrap();
            let before = RtpPacket::parse(&received[&u16::from_be_bytes(*original)]).unwrap();
            assert_eq!((rtp.ssrc, payload, rtp.marker), (3001, before.payload, before.marker));
        }
        let mut at = call.decoder.sequence.unwrap();
        let mut unfilled = 0;
        for (_, packet) in received.range(at.wrapping_add(1)..) {
            let rtp = RtpPacket::parse(packet).unwrap();
            assert_eq!(rtp.sequence, at.wrapping_add(1), "gap-free");
            at = rtp.sequence;
            unfilled += usize::from(rtp.payload.is_empty());
            assert!(rtp.payload.is_empty() || rtp.payload[5] == layer || (!key && rtp.payload[5] < layer));
        }
        assert!(unfilled > 0 || layer == 2, "numbers kept for what is not wanted go out empty");
    }
}

#[test]
fn what_waits_is_of_the_structure_it_came_with() {
    let mut call = Call::new(false);
    call.deliver(Some(0), None);
    call.run(20);
    let first = unit(&mut call.encoder, true).remove(0);
    call.encoder.offset = 20;
    let second = unit(&mut call.encoder, true).remove(0);
    let World { forwarder, now, out } = &mut call.world;
    // Both are there at once.
    forwarder.on_rtp(*now, ADA, &first, out);
    forwarder.on_rtp(*now, ADA, &second, out);
    forwarder.flush(out);
    for packet in call.world.take_rtp(call.viewer.transport) {
        let rtp = RtpPacket::parse(&packet).unwrap();
        let descriptor = rtp.extensions.element(DOWN.dependency_descriptor).unwrap();
        assert_eq!(Extended::read(descriptor, None).unwrap().active, Some(0b111), "what is not sent is off");
    }
}

#[test]
fn choosing_layers_allocates_nothing() {
    let mut call = Call::new(true);
    let transports: Vec<u64> = (30..40).collect();
    for key in &transports {
        let ssrc = 4000 + 10 * u32::try_from(*key).unwrap();
        let mut watching = sender(CAMERA, ssrc, vec![VP9_DOWN]);
        watching.delivery.max_layer = Some((key % 3) as u8);
        call.world.viewer(*key, vec![watching]);
    }
    call.run(20);
    let packets: Vec<_> = (0..500).flat_map(|number| unit(&mut call.encoder, number % 50 == 0)).collect();
    let (mut forwarder, mut now) = (call.world.forwarder, call.world.now);
    // What is remembered of packets sent grows first.
    let (first, packets) = packets.split_at(6 * 300);
    first.iter().for_each(|packet| forwarder.on_rtp(now, ADA, packet, &mut Nowhere));
    forwarder.flush(&mut Nowhere);
    let before = forwarder.stats().packets_sent;
    let counted = allocation_counter::measure(|| {
        for packet in packets {
            now += Duration::from_micros(50);
            forwarder.on_rtp(now, ADA, packet, &mut Nowhere);
        }
    });
    forwarder.flush(&mut Nowhere);
    assert!(forwarder.stats().packets_sent - before > 200 * 11);
    assert_eq!(counted.count_total, 0);
}
