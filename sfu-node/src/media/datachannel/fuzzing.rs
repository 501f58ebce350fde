//! Data channels and somebody between them and the client; and the packets that go through them. See `crate::fuzzing`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a property that does not hold is to panic"
)]

use arbitrary::{Arbitrary, Result, Unstructured};
use livekit_protocol::DataPacket;
use livekit_protocol::data_packet::Value;
use prost::Message as _;
use rtc::sctp::ClientConfig;
use shared::ids::{Identity, ParticipantSid};

use super::packet::{Rejected, stamp};
use super::*;
use crate::media::api::{Speaker, SpeakerKey};

/// SCTP packets that never fit a datagram are not made.
const MAX_PACKET: usize = 1500;
/// Rounds of one story.
const ROUNDS: usize = 12;

/// A client opens its channels and speaks, while its packets are changed, repeated, dropped and added to.
pub fn sctp(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let _ = story(&mut input);
}

/// The first byte says who sends on which channel; the rest is its message.
pub fn data_packet(input: &[u8]) {
    let Some((mode, data)) = input.split_first() else { return };
    let sender = Speaker {
        key: SpeakerKey(1),
        participant: ParticipantSid::try_from("PA_ada").unwrap(),
        identity: Identity::try_from("ada").unwrap(),
        can_publish_data: mode & 1 == 0,
        hidden: mode & 2 != 0,
        agent: mode & 4 != 0,
    };
    let label = if mode & 8 == 0 { Label::Reliable } else { Label::Lossy };
    let mut last = u32::from(mode >> 4);
    let before = last;
    let stamped = match stamp(&sender, label, data, &mut last) {
        Ok(stamped) => stamped,
        Err(rejected) => {
            assert!(sender.can_publish_data || rejected == Rejected::NotPermitted);
            return;
        }
    };
    assert!(sender.can_publish_data && last >= before);
    let sent = DataPacket::decode(&stamped.bytes[..]).expect("what is forwarded decodes");
    assert_eq!(sent.participant_sid, "PA_ada", "nobody speaks under another's sid");
    let own = if sender.hidden { "" } else { "ada" };
    assert!(sender.agent || sent.participant_identity == own, "only agents speak for others");
    match &sent.value {
        Some(Value::User(user)) => {
            #[allow(deprecated, reason = "older SDKs read it")]
            let (identity, sid) = (&user.participant_identity, &user.participant_sid);
            assert_eq!((identity.as_str(), sid.as_str()), (own, "PA_ada"));
        }
        Some(Value::Transcription(_)) => assert!(sender.agent),
        #[allow(deprecated, reason = "must not be forwarded")]
        Some(Value::Metrics(_) | Value::Speaker(_)) | None => panic!("is for nobody"),
        Some(_) => {}
    }
    // A stamp has nothing to add to its own.
    let again = stamp(&sender, label, &stamped.bytes, &mut 0).expect("it was taken once");
    assert_eq!(DataPacket::decode(&again.bytes[..]), Ok(sent));
}

/// The client, its end of the association and all it sent.
struct Client {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
    sent: Vec<Bytes>,
}

fn story(input: &mut Unstructured<'_>) -> Result<()> {
    let role = *input.choose(&[DataRole::Both, DataRole::Upstream, DataRole::Downstream])?;
    let (mut now, mut server) = (Instant::now(), DataChannels::new(role));
    let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, Arc::new(EndpointConfig::new()), None);
    let (handle, association) = endpoint.connect(now, ClientConfig::default(), PEER).unwrap();
    let mut client = Client { endpoint, handle, association, sent: Vec::new() };
    let mut received = Vec::new();
    for round in 0..ROUNDS {
        client.round(now, round, input)?;
        while let Some(transmit) = client.association.poll_transmit(now) {
            let Payload::RawEncode(packets) = transmit.message else { continue };
            for packet in packets {
                client.sent.push(packet.clone());
                let fate = if input.is_empty() { 0 } else { u8::arbitrary(input)? };
                for _ in 0..fate >> 4 & 3 {
                    let forged = forge(input, &client.sent)?;
                    server.handle_packet(now, forged, &mut received);
                }
                if fate & 0x0f != 0x0f {
                    server.handle_packet(now, packet, &mut received);
                }
            }
        }
        if !input.is_empty() {
            if input.ratio(1, 4)? {
                let data = Bytes::from(vec![7; input.int_in_range(0..=3000)?]);
                let label = *input.choose(&Label::ALL)?;
                // As the shard does: nothing goes down a connection that only goes up.
                if server.is_downstream() {
                    let _ = server.send(now, label, &data);
                }
            }
            if input.ratio(1, 4)? {
                now += Duration::from_millis(u16::arbitrary(input)?.into());
                server.handle_timeout(now, &mut received);
            }
        }
        let mut out = 0;
        while let Some(packet) = server.poll_transmit(now) {
            out += 1;
            assert!(packet.len() <= MAX_PACKET && out < 10_000, "{} bytes, {out} packets", packet.len());
            client.hear(now, packet);
        }
        assert!(received.iter().all(|message| message.data.len() <= MAX_MESSAGE_LEN));
        assert!(
            role != DataRole::Downstream || received.is_empty(),
            "nothing comes up a connection that only goes down"
        );
        let most = usize::from(server.established) + MAX_HALF_OPEN;
        assert!(server.associations.len() <= most && server.channels.len() <= Label::ALL.len());
        let early: usize = server.early.iter().map(|(_, data)| data.len()).sum();
        assert!(early <= MAX_EARLY && (server.early.is_empty() || early == server.early_len));
        assert!(!server.broken || server.next_timeout().is_none() && server.poll_transmit(now).is_none());
    }
    Ok(())
}

impl Client {
    /// What a client does in each round.
    fn round(&mut self, now: Instant, round: usize, input: &mut Unstructured<'_>) -> Result<()> {
        let label = Label::ALL[round % 3];
        let stream = u16::try_from(2 * (round % 3)).unwrap();
        if self.association.open_stream(stream, PayloadProtocolIdentifier::Binary).is_ok() {
            let config = DataChannelConfig {
                channel_type: label.channel_type(),
                label: label.text().to_owned(),
                ..DataChannelConfig::default()
            };
            let mut channel = DataChannel::dial(config, self.handle.0, stream).unwrap();
            flush_dcep(now, &mut self.association, stream, &mut channel);
        }
        if input.is_empty() {
            return Ok(());
        }
        if let Ok(mut stream) = self.association.stream(stream) {
            let ppi =
                if input.ratio(1, 4)? { PayloadProtocolIdentifier::Dcep } else { PayloadProtocolIdentifier::Binary };
            let len = input.int_in_range(0..=40)?;
            let mut message = input.bytes(usize::min(len, input.len()))?.to_vec();
            if !input.is_empty() && input.ratio(1, 8)? {
                message.resize(usize::from(u16::arbitrary(input)?), 1);
            }
            let _ = stream.write_sctp(now, &Bytes::from(message), ppi);
        }
        Ok(())
    }

    /// A client that does not keep to the protocol may make its own library panic; that is not ours.
    fn hear(&mut self, now: Instant, packet: Bytes) {
        let Self { endpoint, association, .. } = self;
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if let Some((_, DatagramEvent::AssociationEvent(event))) = endpoint.handle(now, PEER, None, packet) {
                association.handle_event(event);
            }
        }));
    }
}

/// A packet of the client's, changed, with a right checksum.
fn forge(input: &mut Unstructured<'_>, sent: &[Bytes]) -> Result<Bytes> {
    let mut forged = sent[input.choose_index(sent.len())?].to_vec();
    for _ in 0..input.int_in_range(0..=4)? {
        // Past the ports and the tag, which would make it somebody else's.
        let at = input.int_in_range(12..=forged.len().max(13) - 1)?.min(forged.len() - 1);
        match input.int_in_range(0..=6_u8)? {
            0 => forged.truncate(at.max(12)),
            1 => {
                let len = input.int_in_range(1..=24)?;
                let news = input.bytes(usize::min(len, input.len()))?;
                forged.splice(at..at, news.iter().copied());
            }
            2 => forged.extend_from_within(at..),
            3 => {
                // A chunk of another kind with what follows as it is.
                forged.truncate(12);
                let len = input.int_in_range(0..=64)?;
                forged.extend_from_slice(input.bytes(usize::min(len, input.len()))?);
            }
            _ => forged[at] = u8::arbitrary(input)?,
        }
        forged.truncate(MAX_PACKET);
    }
    forged[8..12].fill(0);
    let checksum = crc32c(&forged).to_le_bytes();
    forged[8..12].copy_from_slice(&checksum);
    Ok(Bytes::from(forged))
}

/// CRC-32C (RFC 9260 appendix A) of each byte.
const CRC32C: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < table.len() {
        let (mut crc, mut bit) = (byte as u32, 0);
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| crc >> 8 ^ CRC32C[usize::from(crc.to_le_bytes()[0] ^ byte)])
}
