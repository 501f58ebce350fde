//! A shard with clients that are connected, one that is not yet, and strangers; any datagram from anybody. See
//! `crate::fuzzing`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a property that does not hold is to panic"
)]

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use arbitrary::{Arbitrary, Result, Unstructured};
use arrayvec::ArrayVec;
use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
use shared::control::{Delivery, TrackKind};
use shared::ids::{Identity as Name, ParticipantSid};

use super::*;
use crate::media::api::{
    CertificateTurn, Codec, DataRole, ExtensionIds, Fingerprint, HandshakeRole, IceCredentials, PayloadType, Receiver,
    RoomKey, Sender, Speaker, SpeakerKey, SsrcPair, TrackKey, TransportKey,
};
use crate::media::dtls::fuzzing::Peer;
use crate::media::srtp::{Srtp, SrtpError};

/// Transports: two of one room, one of another.
const TRANSPORTS: u64 = 3;
/// Most steps of one story.
const MAX_STEPS: usize = 200;
/// Largest datagram that crosses an Ethernet over IPv6.
const MAX_DATAGRAM: usize = 1500 - 40 - 8;

static IDENTITIES: LazyLock<Identities> = LazyLock::new(|| {
    let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
    Identities::generate(&provider).unwrap()
});

/// A shard's life, by the bytes of `input`.
pub fn shard(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let mut world = World::new();
    for key in 0..2 {
        // Most stories are about clients that are connected; some about how they come to be.
        if !input.ratio(1, 8).unwrap_or(false) {
            world.connect(key);
        }
    }
    for _ in 0..MAX_STEPS {
        if input.is_empty() || world.step(&mut input).is_err() {
            break;
        }
        world.drain();
    }
    for key in 0..TRANSPORTS {
        world.shard.handle_command(world.now, Command::Close(TransportKey(key)));
        world.drain();
    }
    world.shard.table.assert_bounded(0);
}

struct World {
    shard: Shard,
    now: Instant,
    clients: Vec<Client>,
    /// Addresses from which a request came that a client signed.
    proven: HashSet<SocketAddr>,
    checks: u8,
}

/// How a Binding request begins (RFC 8489 section 5).
const CHECK: [u8; 2] = [0, 1];

struct Client {
    addr: SocketAddr,
    ufrag: String,
    peer: Peer,
    srtp: Option<Srtp>,
    sequence: u16,
    /// Packets from the shard that did not authenticate are the shard's fault only while the keys are those.
    reopened: bool,
}

fn at(host: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, host], 5000))
}

fn password(key: u64) -> String {
    format!("password-of-client-{key}-long-enough")
}

impl World {
    fn new() -> Self {
        let shard = Shard::new(2 + 1, 64, 1, IDENTITIES.clone(), Arc::new(AwsLcRsProvider::new()));
        let mut world = Self { shard, now: Instant::now(), clients: Vec::new(), proven: HashSet::new(), checks: 0 };
        for key in 0..TRANSPORTS {
            world.clients.push(Client {
                addr: at(u8::try_from(key + 1).unwrap()),
                ufrag: format!("ufrag{key}"),
                peer: Peer::new(world.now),
                srtp: None,
                sequence: 0,
                reopened: false,
            });
            world.open(key);
        }
        for key in 0..2 {
            world.tracks(key);
        }
        world
    }

    fn open(&mut self, key: u64) {
        let config = TransportConfig {
            key: TransportKey(key),
            room: RoomKey(key / 2),
            speaker: Speaker {
                key: SpeakerKey(key),
                participant: ParticipantSid::try_from(format!("PA_{key}")).unwrap(),
                identity: Name::try_from(format!("client-{key}")).unwrap(),
                can_publish_data: true,
                hidden: false,
                agent: false,
            },
            local: IceCredentials { ufrag: format!("ufrag{key}"), password: password(key) },
            fingerprint: Some(Peer::fingerprint()),
            certificate: CertificateTurn::First,
            handshake: HandshakeRole::Server,
            data: DataRole::Both,
            pipe: None,
        };
        self.shard.handle_command(self.now, Command::Open(Box::new(config)));
        let remote = IceCredentials { ufrag: "peer".to_owned(), password: password(key) };
        self.shard.handle_command(self.now, Command::SetRemoteIce(TransportKey(key), remote));
    }

    /// Each of the first two sends a video and gets the other's.
    fn tracks(&mut self, key: u64) {
        let ssrc = |key: u64| 1000 + 1000 * u32::try_from(key).unwrap();
        let vp8 = PayloadType {
            pt: 96,
            codec: Codec::Vp8,
            format: 0,
            clock_rate: 90_000,
            rtx_pt: Some(97),
            nack: true,
            pli: true,
        };
        let extensions = ExtensionIds { transport_cc: Some(3), mid: Some(1), ..ExtensionIds::default() };
        let receiver = Receiver {
            track: TrackKey(key),
            kind: TrackKind::Video,
            mid: "0".into(),
            payload_types: vec![vp8],
            extensions,
            ssrcs: ArrayVec::from_iter([SsrcPair { ssrc: ssrc(key), rtx: Some(ssrc(key) + 1) }]),
            rids: ArrayVec::new(),
            muted: false,
        };
        let sender = Sender {
            source: TrackKey(1 - key),
            kind: TrackKind::Video,
            mid: "1".into(),
            ssrc: 50_000 + ssrc(key),
            rtx_ssrc: Some(50_001 + ssrc(key)),
            described: true,
            payload_types: vec![vp8],
            extensions,
            playout_delay: [0; 3],
            cname: "PA".into(),
            delivery: Delivery::default(),
            only: None,
        };
        let key = TransportKey(key);
        self.shard.handle_command(self.now, Command::SetReceivers(key, vec![receiver]));
        self.shard.handle_command(self.now, Command::SetSenders(key, vec![sender]));
    }

    /// ICE, then DTLS, until the client has keys.
    fn connect(&mut self, key: usize) {
        let addr = self.clients[key].addr;
        let request = self.request(key, true, true);
        self.deliver(addr, request);
        for _ in 0..6 {
            self.drain();
            for datagram in self.clients[key].peer.take(self.now) {
                self.deliver(addr, datagram);
            }
        }
        self.drain();
        assert!(self.clients[key].srtp.is_some(), "who does as it should gets through");
    }

    fn step(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let key = input.choose_index(self.clients.len())?;
        let own = self.clients[key].addr;
        let from = if input.ratio(7, 8)? { own } else { at(input.int_in_range(1..=6)?) };
        match input.int_in_range(0..=15_u8)? {
            0..=1 => {
                let len = input.int_in_range(0..=300)?;
                let datagram = input.bytes(usize::min(len, input.len()))?.to_vec();
                self.deliver(from, datagram);
            }
            2..=3 => {
                let honest = input.ratio(3, 4)?;
                let request = self.request(key, honest, bool::arbitrary(input)?);
                if honest {
                    self.proven.insert(from);
                }
                self.deliver(from, request);
            }
            4..=8 => {
                let packet = self.media(input, key)?;
                self.deliver(from, packet);
            }
            9 => {
                let len = input.int_in_range(0..=200)?;
                let plain = input.bytes(usize::min(len, input.len()))?.to_vec();
                if let Some(packet) = self.clients[key].protect_rtcp(plain) {
                    self.deliver(from, packet);
                }
            }
            10 => {
                // What is not SCTP, inside DTLS.
                let len = input.int_in_range(0..=200)?;
                let data = input.bytes(usize::min(len, input.len()))?.to_vec();
                self.clients[key].peer.write(self.now, &data);
                self.carry(key, from);
            }
            11 => self.carry(key, from),
            12..=13 => {
                self.now += Duration::from_millis(u16::arbitrary(input)?.into());
                let mut fired = 0;
                while self.shard.next_timeout().is_some_and(|due| due <= self.now) {
                    self.shard.handle_timeout(self.now);
                    fired += 1;
                    assert!(fired < 100, "a timer that is never done");
                }
            }
            14 => self.command(input, key)?,
            _ => {
                let forged = Command::SetFingerprint(TransportKey(key as u64), Fingerprint([7; 32]));
                let command = if input.ratio(1, 4)? { forged } else { Command::ReadStats };
                self.shard.handle_command(self.now, command);
            }
        }
        Ok(())
    }

    fn command(&mut self, input: &mut Unstructured<'_>, at: usize) -> Result<()> {
        let key = at as u64;
        match input.int_in_range(0..=3_u8)? {
            0 => {
                let ufrag = format!("ufrag{}", input.int_in_range(0..=9_u8)?);
                let credentials = IceCredentials { ufrag: ufrag.clone(), password: password(key) };
                self.shard.handle_command(self.now, Command::RestartIce(TransportKey(key), credentials));
                self.clients[at].ufrag = ufrag;
            }
            1 => {
                self.shard.handle_command(self.now, Command::Close(TransportKey(key)));
                self.drain();
                self.open(key);
                let client = &mut self.clients[at];
                (client.ufrag, client.reopened) = (format!("ufrag{key}"), true);
            }
            2 => {
                let senders = Command::SetSenders(TransportKey(key), Vec::new());
                self.shard.handle_command(self.now, senders);
            }
            _ => self.shard.handle_command(self.now, Command::SetMuted(TrackKey(key), bool::arbitrary(input)?)),
        }
        Ok(())
    }

    /// The client's next packet, protected.
    fn media(&mut self, input: &mut Unstructured<'_>, key: usize) -> Result<Vec<u8>> {
        let client = &mut self.clients[key];
        client.sequence = client.sequence.wrapping_add(input.int_in_range(1..=3)?);
        let flags = u8::arbitrary(input)?;
        let ssrc = 1000 + 1000 * u32::try_from(key).unwrap() + u32::from(flags & 3 == 3);
        let mut packet = vec![0x90, if flags & 3 == 3 { 97 } else { 96 } | flags & 0x80];
        packet.extend(client.sequence.to_be_bytes());
        packet.extend((u32::from(client.sequence) * 3000).to_be_bytes());
        packet.extend(ssrc.to_be_bytes());
        let [high, low] = client.sequence.to_be_bytes();
        packet.extend([0xbe, 0xde, 0, 1, 0x31, high, low, 0]);
        let len = input.int_in_range(0..=20)?;
        packet.extend_from_slice(input.bytes(usize::min(len, input.len()))?);
        packet.resize(packet.len() + 5 * usize::from(u8::arbitrary(input)?), 0);
        let Some(srtp) = client.srtp.as_mut() else { return Ok(packet) };
        let _ = srtp.outbound.protect_rtp(&mut packet, 0, 20);
        Ok(packet)
    }

    /// A Binding request of a client; not `honest`: with another's password.
    fn request(&mut self, key: usize, honest: bool, nominates: bool) -> Vec<u8> {
        self.checks = self.checks.wrapping_add(1);
        let mut message = Message::new();
        message.set_type(BINDING_REQUEST);
        message.transaction_id = TransactionId([self.checks; 12]);
        message.write_header();
        message.add(ATTR_USERNAME, format!("{}:peer", self.clients[key].ufrag).as_bytes());
        if nominates {
            message.add(ATTR_USE_CANDIDATE, &[]);
        }
        let password = if honest { password(key as u64) } else { "another-password-long".to_owned() };
        let provider = AwsLcRsProvider::new();
        MessageIntegrity::new_short_term_integrity_with_provider(password, provider.crypto())
            .add_to(&mut message)
            .unwrap();
        FINGERPRINT.add_to(&mut message).unwrap();
        if honest && nominates {
            self.proven.insert(self.clients[key].addr);
        }
        message.raw
    }

    fn carry(&mut self, key: usize, from: SocketAddr) {
        for datagram in self.clients[key].peer.take(self.now) {
            self.deliver(from, datagram);
        }
    }

    fn deliver(&mut self, from: SocketAddr, mut datagram: Vec<u8>) {
        self.shard.handle_datagram(self.now, from, &mut datagram);
    }

    /// Looks at all that leaves, and gives it to whom it is for.
    fn drain(&mut self) {
        let mut out = Vec::new();
        while let Some(batch) = self.shard.next_batch() {
            for burst in batch.bursts() {
                assert!(burst.count >= 1 && burst.segment <= MAX_DATAGRAM, "{} bytes", burst.segment);
                assert_eq!(burst.bytes.chunks(burst.segment).count(), burst.count);
                out.extend(burst.bytes.chunks(burst.segment).map(|datagram| (burst.route.to, datagram.to_vec())));
            }
            batch.clear();
        }
        for (to, datagram) in out {
            let is_check = datagram.starts_with(&CHECK);
            assert!(is_check || self.proven.contains(&to), "who did not prove to be there is asked whether it is");
            if let Some(client) = self.clients.iter_mut().find(|client| client.addr == to) {
                client.take(self.now, datagram);
            }
        }
        while self.shard.poll_event().is_some() {}
        self.shard.table.assert_bounded(usize::try_from(TRANSPORTS).unwrap());
        assert_eq!(self.shard.stats().dropped_send, 0, "the forwarder gives nothing out that SRTP refuses");
    }
}

impl Client {
    fn protect_rtcp(&mut self, mut plain: Vec<u8>) -> Option<Vec<u8>> {
        plain.resize(plain.len().max(8), 0);
        // It has to look like RTCP to the demultiplexer.
        (plain[0], plain[1]) = (0x80 | plain[0] & 0x1f, 200 + plain[1] % 8);
        self.srtp.as_mut()?.outbound.protect_rtcp(&mut plain, 0).ok()?;
        Some(plain)
    }

    fn take(&mut self, now: Instant, mut datagram: Vec<u8>) {
        let protocol = classify(&datagram).expect("what leaves is something we speak");
        let opened = match (protocol, self.srtp.as_mut()) {
            (Protocol::Dtls, _) => {
                if let Some(keys) = self.peer.read(now, &datagram) {
                    self.srtp = Some(keys);
                }
                return;
            }
            (Protocol::Rtp, Some(srtp)) => srtp.inbound.unprotect_rtp(&mut datagram).map(drop),
            (Protocol::Rtcp, Some(srtp)) => srtp.inbound.unprotect_rtcp(&mut datagram).map(drop),
            _ => return,
        };
        // Addresses move between clients in these stories, and with them what was for another; what is for this one is
        // whole and new.
        assert!(matches!(opened, Ok(()) | Err(SrtpError::Unauthentic)), "{opened:?}");
    }
}
