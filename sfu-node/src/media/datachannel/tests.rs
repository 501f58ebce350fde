//! Channels against an SCTP client that goes astray: packets that are changed but have a right checksum.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtc::sctp::ClientConfig;

use super::*;

/// CRC-32C (RFC 9260 appendix A), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
}

/// A client with its association, and what it sent.
pub(crate) struct Client {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    sent: Vec<Bytes>,
}

impl Client {
    fn dial(now: Instant) -> Self {
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), None);
        let (handle, association) = endpoint.connect(now, ClientConfig::default(), PEER).unwrap();
        Self { endpoint, handle, association, sent: Vec::new() }
    }

    /// Carries packets both ways until all is quiet; `astray` sees each of the client's before it arrives.
    fn run(
        &mut self,
        now: Instant,
        server: &mut DataChannels,
        received: &mut Vec<Message>,
        mut astray: impl FnMut(&Bytes, &mut DataChannels),
    ) {
        for _ in 0..50 {
            let mut quiet = true;
            while let Some(transmit) = self.association.poll_transmit(now) {
                let Payload::RawEncode(packets) = transmit.message else { continue };
                for packet in packets {
                    quiet = false;
                    self.sent.push(packet.clone());
                    astray(&packet, server);
                    server.handle_packet(now, packet, received);
                }
            }
            while let Some(packet) = server.poll_transmit(now) {
                quiet = false;
                if let Some((_, DatagramEvent::AssociationEvent(event))) = self.endpoint.handle(now, PEER, None, packet)
                {
                    self.association.handle_event(event);
                }
            }
            if quiet {
                return;
            }
        }
    }

    fn open(&mut self, now: Instant) {
        let config = DataChannelConfig { label: "_reliable".to_owned(), ..DataChannelConfig::default() };
        if self.association.open_stream(2, PayloadProtocolIdentifier::Binary).is_ok() {
            let mut channel = DataChannel::dial(config, self.handle.0, 2).unwrap();
            flush_dcep(now, &mut self.association, 2, &mut channel);
        }
    }

    fn say(&mut self, now: Instant, data: &[u8]) {
        if let Ok(mut stream) = self.association.stream(2) {
            let _ = stream.write_sctp(now, &Bytes::copy_from_slice(data), PayloadProtocolIdentifier::Binary);
        }
    }
}

fn mutate(rng: &mut StdRng, packet: &Bytes) -> Bytes {
    let mut bytes = packet.to_vec();
    // Past the ports and the tag, which would only make it somebody else's.
    for _ in 0..rng.random_range(1..6) {
        let first = if rng.random_bool(0.05) { 0 } else { 12.min(bytes.len() - 1) };
        let at = rng.random_range(first..bytes.len());
        bytes[at] = if rng.random_bool(0.5) { rng.random_range(0..20) } else { rng.random() };
    }
    match rng.random_range(0..6) {
        0 => bytes.truncate(rng.random_range(12..=bytes.len())),
        1 => bytes.extend_from_within(12..),
        _ => {}
    }
    sealed(bytes)
}

/// With a right checksum.
fn sealed(mut bytes: Vec<u8>) -> Bytes {
    bytes[8..12].fill(0);
    let checksum = crc32c(&bytes).to_le_bytes();
    bytes[8..12].copy_from_slice(&checksum);
    Bytes::from(bytes)
}

/// A client connects, then sends what the library panics on.
pub(crate) fn provoke_panic(now: Instant, server: &mut DataChannels) -> Client {
    let (mut client, mut received) = (Client::dial(now), Vec::new());
    client.run(now, server, &mut received, |_, _| {});
    // An ABORT whose cause is longer than the packet, with the ports and the tag of the client's last packet.
    let mut abort = client.sent.last().unwrap()[..8].to_vec();
    abort.extend([0, 0, 0, 0, 6, 0, 0, 8, 0, 1, 0xff, 0xff]);
    let checksum = crc32c(&abort).to_le_bytes();
    abort[8..12].copy_from_slice(&checksum);
    server.handle_packet(now, Bytes::from(abort), &mut received);
    client
}

#[test]
fn a_peer_that_makes_the_library_panic_loses_its_channels_only() {
    let (now, mut server, mut received) = (Instant::now(), DataChannels::new(DataRole::Both), Vec::new());
    assert!(!server.take_panic());
    let mut client = provoke_panic(now, &mut server);
    assert_eq!(server.send(now, Label::Reliable, &Bytes::from_static(b"hello")), Err(Dropped));
    client.open(now);
    client.run(now, &mut server, &mut received, |_, _| {});
    assert!(received.is_empty() && server.poll_transmit(now).is_none() && server.next_timeout().is_none());
    assert_eq!((server.take_panic(), server.take_panic()), (true, false), "counted once");
}

#[test]
fn packets_that_make_no_sense_never_panic() {
    let (mut rng, mut heard, mut noticed) = (StdRng::seed_from_u64(11), 0, 0);
    for round in 0..400 {
        let mut now = Instant::now();
        let (mut client, mut server) = (Client::dial(now), DataChannels::new(DataRole::Both));
        let mut received = Vec::new();
        let forgeries = round % 5;
        let mut astray = |packet: &Bytes, server: &mut DataChannels| {
            let mut lost = Vec::new();
            for _ in 0..forgeries {
                server.handle_packet(now, mutate(&mut rng, packet), &mut lost);
            }
            noticed += lost.len();
        };
        client.run(now, &mut server, &mut received, &mut astray);
        client.open(now);
        client.run(now, &mut server, &mut received, &mut astray);
        client.say(now, &[7; 3000]);
        client.say(now, b"short");
        client.run(now, &mut server, &mut received, &mut astray);
        heard += usize::from(received.len() == 2);
        // Everything once more, changed, and then the timers of what that left behind.
        for packet in client.sent.clone() {
            let mut lost = Vec::new();
            for _ in 0..forgeries {
                server.handle_packet(now, mutate(&mut rng, &packet), &mut lost);
            }
        }
        for _ in 0..5 {
            let Some(next) = server.next_timeout() else { break };
            now = now.max(next);
            server.handle_timeout(now, &mut received);
            while server.poll_transmit(now).is_some() {}
        }
    }
    assert!(heard >= 80, "what is whole gets through: {heard}");
    assert!(noticed > 0, "changed packets have a right checksum");
}

#[test]
fn a_peer_that_skips_a_thousand_million_numbers_is_not_followed() {
    let (now, mut server, mut received) = (Instant::now(), DataChannels::new(DataRole::Both), Vec::new());
    let mut client = Client::dial(now);
    client.run(now, &mut server, &mut received, |_, _| {});
    client.open(now);
    client.say(now, b"before");
    client.run(now, &mut server, &mut received, |_, _| {});
    // A DATA chunk's first field is its number.
    let data = client.sent.iter().rev().find(|packet| packet[12] == 0).unwrap().clone();
    let last = u32::from_be_bytes(data[16..20].try_into().unwrap());
    let skip = |ahead: u32| {
        let mut packet = data[..8].to_vec();
        packet.extend([0, 0, 0, 0, 192, 0, 0, 8]);
        packet.extend(last.wrapping_add(ahead).to_be_bytes());
        let checksum = crc32c(&packet).to_le_bytes();
        packet[8..12].copy_from_slice(&checksum);
        Bytes::from(packet)
    };
    for ahead in [20_000, 1 << 30, (1 << 31) - 1] {
        server.handle_packet(now, skip(ahead), &mut received);
    }
    client.say(now, b"after");
    client.run(now, &mut server, &mut received, |_, _| {});
    let heard: Vec<&[u8]> = received.iter().map(|message| &message.data[..]).collect();
    assert_eq!(heard, [&b"before"[..], b"after"]);
    // A few are followed: what comes with their numbers now is out of date.
    server.handle_packet(now, skip(100), &mut received);
    client.say(now, b"skipped");
    client.run(now, &mut server, &mut received, |_, _| {});
    assert_eq!(received.len(), 2);
}

/// Carries packets between two until both are quiet; what each received.
fn exchange(now: Instant, ends: [&mut DataChannels; 2]) -> [Vec<Message>; 2] {
    let (mut received, [a, b]) = ([Vec::new(), Vec::new()], ends);
    for _ in 0..50 {
        let mut quiet = true;
        while let Some(packet) = a.poll_transmit(now) {
            quiet = false;
            b.handle_packet(now, packet, &mut received[1]);
        }
        while let Some(packet) = b.poll_transmit(now) {
            quiet = false;
            a.handle_packet(now, packet, &mut received[0]);
        }
        if quiet {
            break;
        }
    }
    received
}

#[test]
fn channels_of_another_node_go_on_without_being_opened_anew() {
    let now = Instant::now();
    let streams: ChannelStreams = [(Label::Lossy, 0), (Label::Reliable, 2)].into_iter().collect();
    let (mut node, mut client) = (DataChannels::new(DataRole::Both), DataChannels::new(DataRole::Both));
    // One who has the same channels, and waits for the association as clients do that were moved.
    [&mut node, &mut client].into_iter().for_each(|end| end.take_over(streams.clone()));
    let early = Bytes::from_static(b"early");
    node.send(now, Label::Reliable, &early).unwrap();
    node.start(now, false);
    let [_, heard] = exchange(now, [&mut node, &mut client]);
    assert_eq!(heard, [Message { label: Label::Reliable, data: early }]);
    assert_eq!((node.take_opened(), client.take_opened()), (None, None), "nobody opened anything");
    for label in [Label::Reliable, Label::Lossy] {
        let message = Message { label, data: Bytes::from_static(b"on") };
        node.send(now, label, &message.data).unwrap();
        client.send(now, label, &message.data).unwrap();
        let heard = exchange(now, [&mut node, &mut client]);
        assert_eq!(heard, [vec![message.clone()], vec![message]]);
    }
    assert_eq!(node.send(now, Label::DataTrack, &Bytes::from_static(b"x")), Err(Dropped), "it was not open");
}

#[test]
fn a_client_that_starts_over_by_itself_is_followed() {
    let (now, mut received) = (Instant::now(), Vec::new());
    let (mut node, mut client) = (DataChannels::new(DataRole::Both), Client::dial(now));
    node.take_over([(Label::Reliable, 2)].into_iter().collect());
    node.start(now, false);
    client.run(now, &mut node, &mut received, |_, _| {});
    client.association.open_stream(2, PayloadProtocolIdentifier::Binary).unwrap();
    client.say(now, b"here");
    client.run(now, &mut node, &mut received, |_, _| {});
    assert_eq!(received, [Message { label: Label::Reliable, data: Bytes::from_static(b"here") }]);
    assert_eq!(node.send(now, Label::Reliable, &Bytes::from_static(b"there")), Ok(()));
}

#[test]
fn what_a_client_says_together_with_its_cookie_is_heard() {
    let (now, mut received, mut first_tsn) = (Instant::now(), Vec::new(), [0; 4]);
    let (mut node, mut client) = (DataChannels::new(DataRole::Both), Client::dial(now));
    node.take_over([(Label::Reliable, 2)].into_iter().collect());
    client.run(now, &mut node, &mut Vec::new(), |packet, node| match packet[12] {
        1 => first_tsn.copy_from_slice(&packet[28..32]),
        10 => {
            // A DATA chunk behind it (RFC 9260 section 3.3.1): stream 2, the first message, WebRTC Binary.
            let mut both = packet.to_vec();
            both.resize(both.len().next_multiple_of(4), 0);
            both.extend([0, 3, 0, 20]);
            both.extend(first_tsn);
            both.extend([0, 2, 0, 0, 0, 0, 0, 53]);
            both.extend(b"here");
            node.handle_packet(now, sealed(both), &mut received);
        }
        _ => {}
    });
    assert_eq!(received, [Message { label: Label::Reliable, data: Bytes::from_static(b"here") }]);
    assert_eq!(node.send(now, Label::Reliable, &Bytes::from_static(b"there")), Ok(()));
}

#[test]
fn an_init_of_the_client_that_crosses_its_cookie_ends_nothing() {
    let (now, mut received) = (Instant::now(), Vec::new());
    let (mut node, mut client) = (DataChannels::new(DataRole::Both), DataChannels::new(DataRole::Both));
    [&mut node, &mut client].into_iter().for_each(|end| end.take_over([(Label::Reliable, 2)].into_iter().collect()));
    node.start(now, false);
    client.handle_packet(now, node.poll_transmit(now).unwrap(), &mut received);
    node.handle_packet(now, client.poll_transmit(now).unwrap(), &mut received);
    let cookie = node.poll_transmit(now).unwrap();
    // The client had started it as well, with the tag that its answer had: the INIT was late.
    let Payload::RawEncode(inits) = Client::dial(now).association.poll_transmit(now).unwrap().message else { panic!() };
    let mut init = inits[0].to_vec();
    init[16..20].copy_from_slice(&cookie[4..8]);
    node.handle_packet(now, sealed(init), &mut received);
    assert_eq!(node.poll_transmit(now), None, "the cookie is answer enough");
    client.handle_packet(now, cookie, &mut received);
    exchange(now, [&mut node, &mut client]);
    let message = Message { label: Label::Reliable, data: Bytes::from_static(b"on") };
    client.send(now, Label::Reliable, &message.data).unwrap();
    assert_eq!(exchange(now, [&mut node, &mut client])[0], [message]);
}

#[test]
fn a_client_that_starts_over_while_its_cookie_is_under_way_is_followed() {
    let (now, mut received) = (Instant::now(), Vec::new());
    let (mut node, mut before) = (DataChannels::new(DataRole::Both), DataChannels::new(DataRole::Both));
    node.take_over([(Label::Reliable, 2)].into_iter().collect());
    node.start(now, false);
    before.handle_packet(now, node.poll_transmit(now).unwrap(), &mut received);
    node.handle_packet(now, before.poll_transmit(now).unwrap(), &mut received);
    assert!(node.poll_transmit(now).is_some(), "a cookie for a tag that the client has forgotten");
    let mut client = Client::dial(now);
    client.run(now, &mut node, &mut received, |_, _| {});
    client.association.open_stream(2, PayloadProtocolIdentifier::Binary).unwrap();
    client.say(now, b"here");
    client.run(now, &mut node, &mut received, |_, _| {});
    assert_eq!(received, [Message { label: Label::Reliable, data: Bytes::from_static(b"here") }]);
}

#[test]
fn a_client_that_starts_over_in_mid_call_is_followed() {
    let (now, mut received) = (Instant::now(), Vec::new());
    let mut node = DataChannels::new(DataRole::Both);
    let mut before = Client::dial(now);
    before.run(now, &mut node, &mut received, |_, _| {});
    before.open(now);
    before.run(now, &mut node, &mut received, |_, _| {});
    before.say(now, b"before");
    before.run(now, &mut node, &mut received, |_, _| {});
    for round in 0..3 {
        // It knows its channel: no DCEP.
        let mut client = Client::dial(now);
        client.run(now, &mut node, &mut received, |_, _| {});
        client.association.open_stream(2, PayloadProtocolIdentifier::Binary).unwrap();
        client.say(now, b"after");
        client.run(now, &mut node, &mut received, |_, _| {});
        assert_eq!(received.len(), 2 + round, "{received:?}");
        node.send(now, Label::Reliable, &Bytes::from_static(b"back")).unwrap();
        client.run(now, &mut node, &mut received, |_, _| {});
        let answer = client.association.stream(2).unwrap().read_sctp().unwrap().unwrap();
        assert_eq!(answer.to_payload(100).unwrap(), b"back"[..]);
    }
    let late = before.sent[0].clone();
    let known = node.associations.len();
    (0..100).for_each(|_| node.handle_packet(now, late.clone(), &mut received));
    assert!(node.associations.len() <= known + MAX_HALF_OPEN);
    node.send(now, Label::Reliable, &Bytes::from_static(b"still")).unwrap();
}
