//! What publisher and viewers have in common: an address, ICE credentials, SRTP keys. DTLS is the only thing left out: what it would carry goes plain.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::rtcp::packet::Packet;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
use rtc::stun::textattrs::TextAttribute;
use shared::ids::{Identity, ParticipantSid};

use crate::media::api::{
    CertificateTurn, DataRole, HandshakeRole, IceCredentials, RoomKey, Speaker, SpeakerKey, SrtpProfile,
    TransportConfig, TransportKey,
};
use crate::media::forward::rtcp;
use crate::media::srtp::Srtp;
use crate::media::transport::PLAIN;

pub(super) const ROOM: RoomKey = RoomKey(1);
/// Time between binding requests.
const CONSENT: Duration = Duration::from_secs(2);
const PROFILE: SrtpProfile = SrtpProfile::AeadAes128Gcm;

/// A client's end of a transport.
pub(super) struct Peer {
    pub(super) key: TransportKey,
    pub(super) addr: SocketAddr,
    srtp: Srtp,
    next_binding: Instant,
    bindings: u64,
}

/// What a datagram from the node is.
pub(super) enum Datagram {
    Rtp(Vec<u8>),
    Rtcp(Vec<u8>),
    Sctp(Vec<u8>),
    Other,
}

impl Peer {
    pub(super) fn new(now: Instant, key: u64) -> Self {
        let port = 10_000 + u16::try_from(key).unwrap();
        let addr = SocketAddr::from(([192, 0, 2, 1], port));
        let (client, server) = halves(key);
        // For a client the halves are the other way round.
        let srtp = keyed(&[server, client]);
        Self { key: TransportKey(key), addr, srtp, next_binding: now, bindings: 0 }
    }

    pub(super) fn config(&self) -> TransportConfig {
        let n = self.key.0;
        TransportConfig {
            key: self.key,
            room: ROOM,
            speaker: Speaker {
                key: SpeakerKey(n),
                participant: ParticipantSid::try_from(format!("PA_{n}")).unwrap(),
                identity: Identity::try_from(format!("peer-{n}")).unwrap(),
                can_publish_data: true,
                hidden: false,
                agent: false,
            },
            local: IceCredentials { ufrag: format!("ufrag{n}"), password: password(n) },
            fingerprint: None,
            certificate: CertificateTurn::First,
            handshake: HandshakeRole::Server,
            data: DataRole::Both,
            pipe: None,
        }
    }

    /// The node's keys, as DTLS would give them.
    pub(super) fn node_srtp(&self) -> Srtp {
        let (client, server) = halves(self.key.0);
        keyed(&[client, server])
    }

    pub(super) fn next_binding(&self) -> Instant {
        self.next_binding
    }

    /// A binding request, when one is due.
    pub(super) fn binding(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_binding {
            return None;
        }
        self.next_binding = now + CONSENT;
        self.bindings += 1;
        let mut transaction = TransactionId([0; 12]);
        transaction.0[..8].copy_from_slice(&self.bindings.to_be_bytes());
        let nominate = RawAttribute { typ: ATTR_USE_CANDIDATE, length: 0, value: Vec::new() };
        let provider = AwsLcRsProvider::new();
        let integrity =
            MessageIntegrity::new_short_term_integrity_with_provider(password(self.key.0), provider.crypto());
        let setters: Vec<Box<dyn Setter>> = vec![
            Box::new(BINDING_REQUEST),
            Box::new(transaction),
            Box::new(TextAttribute::new(ATTR_USERNAME, format!("ufrag{}:peer", self.key.0))),
            Box::new(nominate),
            Box::new(integrity),
            Box::new(FINGERPRINT),
        ];
        let mut message = Message::new();
        message.build(&setters).unwrap();
        Some(message.raw)
    }

    pub(super) fn protect_rtp(&mut self, header_len: usize, mut packet: Vec<u8>) -> Vec<u8> {
        self.srtp.outbound.protect_rtp(&mut packet, 0, header_len).unwrap();
        packet
    }

    pub(super) fn protect_rtcp(&mut self, packets: &[Box<dyn Packet>]) -> Vec<u8> {
        let mut compound = rtcp::compound(packets).unwrap().to_vec();
        self.srtp.outbound.protect_rtcp(&mut compound, 0).unwrap();
        compound
    }

    /// Decrypts what the node sent. A copy that comes a second time is nothing.
    pub(super) fn open(&mut self, mut datagram: Vec<u8>) -> Datagram {
        let inbound = &mut self.srtp.inbound;
        match (datagram[0], datagram[1]) {
            (128..=191, 192..=223) => {
                inbound.unprotect_rtcp(&mut datagram).map_or(Datagram::Other, |plain| Datagram::Rtcp(plain.to_vec()))
            }
            (128..=191, _) => {
                inbound.unprotect_rtp(&mut datagram).map_or(Datagram::Other, |plain| Datagram::Rtp(plain.to_vec()))
            }
            (PLAIN, _) => Datagram::Sctp(datagram),
            _ => Datagram::Other,
        }
    }
}

fn password(n: u64) -> String {
    format!("password-of-peer-{n}-long-enough")
}

/// Master key and salt of the client and of the server.
fn halves(n: u64) -> ([u8; 28], [u8; 28]) {
    let half = |side: u8| std::array::from_fn(|at| n.to_le_bytes()[at % 8] ^ side ^ u8::try_from(at).unwrap());
    (half(0x55), half(0xaa))
}

/// Keying material: both keys, then both salts (RFC 5764 section 4.2).
fn keyed(halves: &[[u8; 28]; 2]) -> Srtp {
    let parts = |range: std::ops::Range<usize>| halves.iter().flat_map(move |half| half[range.clone()].to_vec());
    let material: Vec<u8> = parts(0..16).chain(parts(16..28)).collect();
    Srtp::for_server(PROFILE, &material, AwsLcRsProvider::new().crypto()).unwrap()
}
