//! The server between a client and somebody who changes, repeats, drops and adds what the client sends. See
//! `crate::fuzzing`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a property that does not hold is to panic"
)]

use std::sync::LazyLock;

use arbitrary::{Arbitrary, Result, Unstructured};
use rtc::crypto::providers::AwsLcRsProvider;

use super::*;
use crate::media::demux::{Protocol, classify};

/// What takes time to make and is the same for all.
struct Ends {
    server: Identity,
    client: Arc<HandshakeConfig>,
    fingerprint: Fingerprint,
}

static ENDS: LazyLock<Ends> = LazyLock::new(|| {
    let provider: Arc<dyn RTCCryptoProvider> = Arc::new(AwsLcRsProvider::new());
    let certificate = Certificate::generate_self_signed(vec!["client".to_owned()], provider.crypto()).unwrap();
    let fingerprint = fingerprint_of(certificate.certificate.first().unwrap(), provider.as_ref()).unwrap();
    let profiles = [SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80, SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm];
    let client = ConfigBuilder::default()
        .with_crypto_provider(provider.clone())
        .with_certificates(vec![certificate])
        .with_srtp_protection_profiles(profiles.to_vec())
        .with_insecure_skip_verify(true)
        .build(true, Some(PEER))
        .unwrap();
    Ends { server: Identity::generate(provider).unwrap(), client: Arc::new(client), fingerprint }
});

/// Datagrams for the server as they are, then the same bytes as what becomes of a client's.
pub fn dtls(input: &[u8]) {
    raw(input);
    let _ = handshake(&mut Unstructured::new(input));
}

/// Datagrams, each behind its 16-bit length, at a server that has seen nothing.
fn raw(input: &[u8]) {
    let mut server = Server::new(true);
    let mut rest = input;
    let mut seen = Vec::new();
    while let Some((len, tail)) = rest.split_first_chunk::<2>() {
        let (datagram, tail) = tail.split_at(usize::from(u16::from_be_bytes(*len)).min(tail.len()));
        rest = tail;
        if hello::has_handshake(datagram).is_some_and(|has| has) {
            assert_eq!(classify(datagram), Some(Protocol::Dtls), "a record is one to the demultiplexer too");
            seen.push(BytesMut::from(datagram));
            hello::read(&seen);
        }
        server.take(datagram);
    }
    assert!(server.keys == 0 && server.data == 0, "no keys without a handshake");
}

fn handshake(input: &mut Unstructured<'_>) -> Result<()> {
    let mut server = Server::new(bool::arbitrary(input)?);
    let mut client = Endpoint::new(PEER, TransportProtocol::UDP, None);
    client.connect(server.now, PEER, ENDS.client.clone(), None).unwrap();
    let mut sent: Vec<BytesMut> = Vec::new();
    let mut said = 0;
    for _ in 0..12 {
        while let Some(transmit) = client.poll_transmit() {
            sent.push(transmit.message.clone());
            // Without more input the handshake goes on as it should.
            let fate = if input.is_empty() { 0 } else { u8::arbitrary(input)? };
            for _ in 0..fate >> 4 & 3 {
                let forged = forge(input, &sent)?;
                server.take(&forged);
            }
            if fate & 0x0f != 0x0f {
                server.take(&transmit.message);
            }
        }
        for datagram in std::mem::take(&mut server.out) {
            let _ = client.read(server.now, PEER, None, BytesMut::from(&datagram[..]));
        }
        if !input.is_empty() && input.ratio(1, 4)? {
            server.pass();
            let _ = client.handle_timeout(PEER, server.now);
        }
        if server.keys > 0 && said < 3 {
            said += 1;
            let _ = client.write(server.now, PEER, b"hello");
        }
    }
    assert!(server.keys <= 1 && server.data <= said, "each message once");
    if !server.expected {
        assert!(server.keys == 0 && server.data == 0, "nothing comes out before the fingerprint is known");
    }
    Ok(())
}

/// A datagram of the client's, changed.
fn forge(input: &mut Unstructured<'_>, sent: &[BytesMut]) -> Result<Vec<u8>> {
    let mut forged = sent[input.choose_index(sent.len())?].to_vec();
    for _ in 0..input.int_in_range(0..=4)? {
        let at = input.choose_index(forged.len())?;
        match input.int_in_range(0..=5_u8)? {
            0 => forged.truncate(at.max(1)),
            1 => {
                let len = input.int_in_range(1..=16)?;
                let news = input.bytes(usize::min(len, input.len()))?;
                forged.splice(at..at, news.iter().copied());
            }
            2 => forged.extend_from_within(at..),
            _ => forged[at] = u8::arbitrary(input)?,
        }
    }
    // Lengths that fit again let more of the change be read: the record's, and the fragment's.
    if bool::arbitrary(input)? && forged.len() > 25 && forged.len() < 4096 {
        let record = u16::try_from(forged.len() - 13).unwrap().to_be_bytes();
        forged[11..13].copy_from_slice(&record);
        let [_, fragment @ ..] = u32::try_from(forged.len() - 25).unwrap().to_be_bytes();
        if bool::arbitrary(input)? {
            forged[14..17].copy_from_slice(&fragment);
            forged[22..25].copy_from_slice(&fragment);
        }
    }
    Ok(forged)
}

/// A client that does as it should, for stories in which others do not.
pub(crate) struct Peer {
    endpoint: Endpoint,
}

impl Peer {
    /// Begins a handshake.
    pub(crate) fn new(now: Instant) -> Self {
        let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
        endpoint.connect(now, PEER, ENDS.client.clone(), None).unwrap();
        Self { endpoint }
    }

    /// Of its certificate.
    pub(crate) fn fingerprint() -> Fingerprint {
        ENDS.fingerprint
    }

    /// What it sends, after its timers.
    pub(crate) fn take(&mut self, now: Instant) -> Vec<Vec<u8>> {
        if self.endpoint.poll_timeout(&PEER).is_some_and(|due| due <= now) {
            let _ = self.endpoint.handle_timeout(PEER, now);
        }
        std::iter::from_fn(|| self.endpoint.poll_transmit()).map(|transmit| transmit.message.to_vec()).collect()
    }

    /// Application data, once connected.
    pub(crate) fn write(&mut self, now: Instant, data: &[u8]) {
        let _ = self.endpoint.write(now, PEER, data);
    }

    /// Takes a datagram; gives its SRTP keys when the handshake is done with it.
    pub(crate) fn read(&mut self, now: Instant, datagram: &[u8]) -> Option<Srtp> {
        let events = self.endpoint.read(now, PEER, None, BytesMut::from(datagram)).ok()?;
        if !events.iter().any(|event| matches!(event, EndpointEvent::HandshakeComplete)) {
            return None;
        }
        let profile = SrtpProfile::AeadAes128Gcm;
        let state = self.endpoint.get_connection_state(PEER)?;
        let keys = state.export_keying_material(EXPORTER_LABEL, &[], Srtp::keying_material_len(profile)).ok()?;
        // The material of a server, seen from the other end: keys of 16 bytes and salts of 12 change places.
        let (keys, salts) = keys.as_ref().split_at(32);
        let swapped = [&keys[16..], &keys[..16], &salts[12..], &salts[..12]].concat();
        Srtp::for_server(profile, &swapped, AwsLcRsProvider::new().crypto()).ok()
    }
}

/// A client's first datagram, as a seed.
#[cfg(test)]
pub(crate) fn client_hello() -> BytesMut {
    let mut client = Endpoint::new(PEER, TransportProtocol::UDP, None);
    client.connect(Instant::now(), PEER, ENDS.client.clone(), None).unwrap();
    client.poll_transmit().unwrap().message
}

/// The server and what came out of it.
struct Server {
    dtls: Dtls,
    now: Instant,
    expected: bool,
    keys: usize,
    data: usize,
    ends: usize,
    out: Vec<BytesMut>,
}

impl Server {
    fn new(expected: bool) -> Self {
        let dtls = Dtls::new(ENDS.server.clone(), expected.then_some(ENDS.fingerprint));
        Self { dtls, now: Instant::now(), expected, keys: 0, data: 0, ends: 0, out: Vec::new() }
    }

    fn take(&mut self, datagram: &[u8]) {
        let mut events = Vec::new();
        self.dtls.handle_datagram(self.now, datagram, &mut events);
        self.note(events);
    }

    fn pass(&mut self) {
        let mut events = Vec::new();
        if let Some(next) = self.dtls.next_timeout() {
            self.now = self.now.max(next);
            self.dtls.handle_timeout(self.now, &mut events);
        }
        self.note(events);
    }

    fn note(&mut self, events: Vec<DtlsEvent>) {
        for event in events {
            assert_eq!(self.ends, 0, "over is over");
            match event {
                DtlsEvent::Connected { profile, keys } => {
                    assert_eq!(keys.as_ref().len(), Srtp::keying_material_len(profile));
                    self.keys += 1;
                }
                DtlsEvent::Data(data) => {
                    assert_eq!(&data[..], b"hello", "only what the client said");
                    self.data += 1;
                }
                DtlsEvent::FingerprintMismatch | DtlsEvent::Closed => self.ends += 1,
            }
        }
        while let Some(datagram) = self.dtls.poll_transmit() {
            assert!(datagram.len() <= 1500 - 48 && hello::has_handshake(&datagram).is_some(), "whole records");
            self.out.push(datagram);
        }
    }
}
