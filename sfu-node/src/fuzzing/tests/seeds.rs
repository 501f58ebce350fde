//! Makes the seeds: `cargo test -p sfu-node write_the_seeds -- --ignored`. What is the same each time is written each
//! time; what a client makes at random is recorded once more.

use rtc::rtcp::packet::Packet;
use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::{TransportLayerNack, nack_pairs_from_sequence_numbers};

use livekit_protocol::data_packet::Value;
use livekit_protocol::{ChatMessage, DataPacket, MetricsBatch, Transcription, UserPacket};
use prost::Message as _;
use rtc::stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};

use super::*;
use crate::media::dtls::fuzzing::client_hello;
use crate::media::forward::dependency::tests::{mandatory, put_structure, two_by_two};

#[test]
#[ignore = "writes fuzz/seeds"]
fn write_the_seeds() {
    rtp_seeds();
    rtcp_seeds();
    payload_seeds();
    data_packet_seeds();
    sdp_seeds();
    let hello = client_hello();
    write("dtls", "client_hello", &[&u16::try_from(hello.len()).unwrap().to_be_bytes()[..], &hello].concat());
    write("stun", "nomination", &nomination());
    dependency_seeds();
    // A structured target reads any bytes as a story.
    let mut random = StdRng::seed_from_u64(9);
    for target in ["dtls", "forwarder", "sctp", "shard", "stun"] {
        for (name, len) in [("short", 200), ("long", 3000)] {
            let mut story = vec![0; len];
            random.fill_bytes(&mut story);
            write(target, name, &story);
        }
    }
}

fn write(target: &str, name: &str, bytes: &[u8]) {
    fs::create_dir_all(seeds_of(target)).unwrap();
    fs::write(seeds_of(target).join(name), bytes).unwrap();
}

/// An RTP packet with this extension block, profile included.
fn packet(pt: u8, sequence: u16, block: &[u8], payload: &[u8]) -> Vec<u8> {
    let first = if block.is_empty() { 0x80 } else { 0x90 };
    let mut packet = vec![first, pt];
    packet.extend(sequence.to_be_bytes());
    packet.extend((u32::from(sequence) * 3000).to_be_bytes());
    packet.extend(1000_u32.to_be_bytes());
    packet.extend(block);
    packet.extend(payload);
    packet
}

fn rtp_seeds() {
    let camera = [0xbe, 0xde, 0, 4, 0x10, b'0', 0x20, b'q', 0x41, 0, 9, 0x52, 1, 2, 3, 0x82, 0, 0, 0x0a, 0];
    let screen = [0x10, 0, 0, 6, 7, 18, 0x80, 0, 1, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 4, 2, 0, 1];
    let mut padded = packet(97, 5, &camera, &[0, 2, 9, 9, 0, 0, 3]);
    padded[0] |= 0x20;
    let mut mixed = packet(96, 6, &[], &[0, 0, 0, 7, 9]);
    mixed[0] |= 1;
    let packets = [
        ("microphone", packet(111, 1, &[0xbe, 0xde, 0, 1, 0x60, 0x85, 0x10, b'1'], &[1; 20])),
        ("camera", packet(96, 2, &camera, &[0x90, 0xe0, 0x80, 1, 1, 0, 0])),
        ("screen_with_dependency_descriptor", packet(45, 3, &screen, &[0x18, 0x0a])),
        ("plain", packet(0, 4, &[], &[0xff; 8])),
        ("rtx_with_padding", padded),
        ("contributing_source", mixed),
    ];
    for (name, packet) in packets {
        write("rtp", name, &packet);
        write("srtp", name, &[&[packet[3] & 1][..], &packet].concat());
    }
}

fn rtcp_seeds() {
    let reception = ReceptionReport { ssrc: 5, last_sender_report: 6, delay: 7, ..Default::default() };
    let sender = SenderReport {
        ssrc: 1,
        ntp_time: 1 << 40,
        rtp_time: 9,
        reports: vec![reception.clone()],
        ..Default::default()
    };
    let receiver = ReceiverReport { ssrc: 1, reports: vec![reception; 2], ..Default::default() };
    let nacks = nack_pairs_from_sequence_numbers(&[65_535, 0, 3, 4, 40]);
    let fir = FirEntry { ssrc: 11, sequence_number: 1 };
    let remb = ReceiverEstimatedMaximumBitrate { sender_ssrc: 1, bitrate: 1_500_000.0, ssrcs: vec![10] };
    let packets: [(&str, Box<dyn Packet>); 6] = [
        ("sender_report", Box::new(sender)),
        ("receiver_report", Box::new(receiver)),
        ("nack", Box::new(TransportLayerNack { sender_ssrc: 1, media_ssrc: 8, nacks })),
        ("pli", Box::new(PictureLossIndication { sender_ssrc: 1, media_ssrc: 10 })),
        ("fir", Box::new(FullIntraRequest { sender_ssrc: 1, media_ssrc: 0, fir: vec![fir] })),
        ("remb", Box::new(remb)),
    ];
    let mut compound = Vec::new();
    for (name, packet) in packets {
        let bytes = rtc::rtcp::packet::marshal(&[packet]).unwrap();
        write("rtcp", name, &bytes);
        compound.extend_from_slice(&bytes);
    }
    write("rtcp", "compound", &compound);
    write("srtp", "compound", &[&[2][..], &compound].concat());
    // Base 65530, 20 packets: a run of small deltas, a vector of two bits, a vector of one bit.
    let body = [
        &[0xff, 0xfa, 0, 20, 0, 0, 1, 0, 0x20, 3, 0xd6, 0x55, 0x95, 0x55][..],
        &[4, 4, 4, 0, 200, 4, 4, 4, 0xff, 0x38, 4, 4, 4, 4, 4, 4, 4, 0],
    ]
    .concat();
    let words = u8::try_from((body.len() + 8) / 4).unwrap();
    write("rtcp", "transport_wide", &[&[0x8f, 205, 0, words, 0, 0, 0, 1, 0, 0, 0, 2], &body[..]].concat());
}

fn dependency_seeds() {
    for (name, kinds) in [("two_by_two", two_by_two(false)), ("two_by_two_key", two_by_two(true))] {
        let mut first = mandatory(true, false, 60, 7);
        first.put(0b10000, 5);
        put_structure(&mut first, 60, &kinds, true);
        // Its own indications, differences and targets that are on.
        let mut second = mandatory(true, true, 61, 8);
        second.put(0b01110, 5).put(0b0111, 4).put(0b1000_0111, 8).put(0b01, 2).put(1, 4).put(0, 2);
        let (first, second) = (first.bytes(), second.bytes());
        let len = u8::try_from(first.len()).unwrap();
        write("dependency", name, &[&[len, 0b0011][..], &first, &second].concat());
    }
}

fn payload_seeds() {
    // The codec's place in the target's list, a shift of the ids, and a payload.
    let seeds: [(&str, u8, &[u8]); 11] = [
        ("vp8_keyframe", 0, &[0x90, 0xe0, 0x80, 0x01, 0x01, 0x20, 0x10, 2, 0, 0x9d, 1, 0x2a]),
        ("vp8_narrow_id", 0, &[0x80, 0x80, 0x7f, 0x11]),
        ("vp9_keyframe", 1, &[0xa8, 0x85, 0x00, 0x00, 0x01, 0x82]),
        ("vp9_flexible", 1, &[0xf8, 0x05, 0x22, 0x03, 0x04, 0x00]),
        ("h264_parameters_aggregated", 2, &[0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 1, 0, 3, 0x65, 1, 1]),
        ("h264_fragment", 2, &[0x7c, 0x85, 1, 2, 3]),
        ("av1_start", 3, &[0x18, 0x0a, 0x0b, 0, 0, 0]),
        ("h265_aggregated", 4, &[0x60, 1, 0, 2, 0x42, 1, 0, 2, 0x44, 1]),
        ("opus", 5, &[0x78, 1, 2, 3]),
        ("red_with_one_repeat", 6, &[0x80 | 111, 0x0f, 0x00, 2, 111, 8, 8, 1, 2]),
        ("pcmu", 7, &[0xff; 16]),
    ];
    for (name, codec, payload) in seeds {
        write("payload", name, &[&[codec, 0x12, 0x34, 0x56], payload].concat());
    }
}

fn data_packet_seeds() {
    let user = UserPacket { payload: b"hi".to_vec(), topic: Some("t".into()), ..UserPacket::default() };
    let chat = ChatMessage { id: "1".into(), message: "hi".into(), ..ChatMessage::default() };
    for (name, mode, value) in [
        ("user", 0, Value::User(user)),
        ("chat_of_an_agent", 4, Value::ChatMessage(chat)),
        ("transcription", 4, Value::Transcription(Transcription::default())),
        ("metrics", 8, Value::Metrics(MetricsBatch::default())),
    ] {
        let packet = DataPacket {
            participant_identity: "bob".into(),
            destination_identities: vec!["eve".into()],
            sequence: 7,
            value: Some(value),
            ..DataPacket::default()
        };
        write("data_packet", name, &[&[mode][..], &packet.encode_to_vec()].concat());
    }
}

/// Stories of a client that joins and then publishes, or answers what it is offered.
fn sdp_seeds() {
    const JOIN: &str = include_str!("../../../tests/fixtures/js_single_join_offer.sdp");
    const PUBLISH: &str = include_str!("../../../tests/fixtures/js_single_publish_offer.sdp");
    const NATIVE: &str = include_str!("../../../tests/fixtures/native_single_publish_offer.sdp");
    const DUAL: &str = include_str!("../../../tests/fixtures/js_dual_publish_offer.sdp");
    const DATA_ANSWER: &str = include_str!("../../../tests/fixtures/js_dual_subscriber_data_answer.sdp");
    const MEDIA_ANSWER: &str = include_str!("../../../tests/fixtures/js_dual_subscriber_media_answer.sdp");
    type Story = (&'static str, u8, &'static [(u8, &'static str)]);
    let stories: [Story; 3] = [
        ("single", 0, &[(0, JOIN), (5, ""), (7, ""), (0, PUBLISH), (6, ""), (0, PUBLISH)]),
        ("native", 0, &[(5, ""), (0, NATIVE), (7, "")]),
        ("dual", 1, &[(4, DATA_ANSWER), (5, ""), (0, DUAL), (4, MEDIA_ANSWER), (7, "")]),
    ];
    for (name, kind, events) in stories {
        let events = events.iter().flat_map(|(event, text)| [&[*event][..], text.as_bytes(), b"\n\n"].concat());
        write("sdp", name, &[kind].into_iter().chain(events).collect::<Vec<u8>>());
    }
}

fn nomination() -> Vec<u8> {
    let mut message = Message::new();
    message.set_type(BINDING_REQUEST);
    message.transaction_id = TransactionId([7; 12]);
    message.write_header();
    message.add(ATTR_USERNAME, b"node:peer");
    message.add(ATTR_ICE_CONTROLLING, &[1; 8]);
    message.add(ATTR_PRIORITY, &[0x6e, 0, 1, 0xff]);
    message.add(ATTR_USE_CANDIDATE, &[]);
    FINGERPRINT.add_to(&mut message).unwrap();
    message.raw
}
