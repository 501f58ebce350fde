//! DTLS of one transport, in either role (RFC 6347, RFC 5764): bytes in, bytes and events out. **Gives out keys and data only
//! after the peer showed the certificate its description names.**

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod hello;

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rtc::crypto::{HashAlgorithm, RTCCryptoProvider, SecretVec, constant_time_eq};
use rtc::dtls::cipher_suite::CipherSuiteId;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::shared::error::Error;

use self::hello::Hello;
use super::api::{CertificateTurn, Fingerprint, SrtpProfile};
use super::srtp::Srtp;

/// Exporter label of SRTP keys (RFC 5764 section 4.2).
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";
/// Time before a flight is sent again; the library gives up after 7 times. RFC 6347 section 4.2.4.1 allows less than
/// its 1 s where, as here, the peer has just been seen.
const RETRANSMIT_AFTER: Duration = Duration::from_millis(500);
/// Datagrams taken while the handshake runs. One needs about 10; the rest is for retransmissions.
const MAX_HANDSHAKE_DATAGRAMS: usize = 128;
/// Datagrams with handshake records taken afterwards: repeats of the peer's last flight (RFC 6347 section 4.2.4).
const MAX_LATE_HANDSHAKE_DATAGRAMS: usize = 32;
/// Application data held while the peer's fingerprint is awaited; its SCTP INIT and repeats.
const MAX_HELD: usize = 8;
/// The library tells peers apart by address; each of ours has an instance of its own.
const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);

/// A certificate of ours and how we shake hands.
#[derive(Clone)]
pub struct Identity {
    provider: Arc<dyn RTCCryptoProvider>,
    gcm: Roles,
    cm: Roles,
    fingerprint: Fingerprint,
}

/// How we shake hands where one SRTP profile is agreed on.
#[derive(Clone)]
struct Roles {
    server: Arc<HandshakeConfig>,
    client: Arc<HandshakeConfig>,
}

/// The process's two certificates. A client that goes from one session here to the next makes a new association only where
/// the description names another certificate (RFC 8842 section 5.1), so sessions show them by turns.
#[derive(Clone)]
pub struct Identities([Identity; 2]);

/// The certificate could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a certificate: {0}")]
pub struct IdentityError(String);

impl Identity {
    /// Makes a self-signed ECDSA P-256 certificate.
    ///
    /// # Errors
    /// [`IdentityError`] if the crypto library fails.
    pub fn generate(provider: Arc<dyn RTCCryptoProvider>) -> Result<Self, IdentityError> {
        let failed = |error: &dyn std::fmt::Display| IdentityError(error.to_string());
        let certificate = Certificate::generate_self_signed(vec!["meridian".to_owned()], provider.crypto())
            .map_err(|e| failed(&e))?;
        let der = certificate.certificate.first().ok_or_else(|| IdentityError("empty chain".to_owned()))?;
        let fingerprint =
            fingerprint_of(der, provider.as_ref()).ok_or_else(|| IdentityError("no SHA-256".to_owned()))?;
        let config = |profile: SrtpProfile, begins: bool| {
            let builder = ConfigBuilder::default()
                .with_crypto_provider(provider.clone())
                .with_certificates(vec![certificate.clone()])
                .with_cipher_suites(vec![
                    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_Aes_128_Gcm_Sha256,
                    CipherSuiteId::Tls_Ecdhe_Ecdsa_With_ChaCha20_Poly1305_Sha256,
                ])
                .with_srtp_protection_profiles(vec![protection_profile(profile)])
                .with_client_auth(ClientAuthType::RequireAnyClientCert)
                .with_extended_master_secret(ExtendedMasterSecretType::Require)
                // There is no certificate authority in WebRTC; the fingerprint is what counts.
                .with_insecure_skip_verify(true)
                .with_flight_interval(RETRANSMIT_AFTER);
            builder.build(begins, begins.then_some(PEER)).map(Arc::new).map_err(|e| failed(&e))
        };
        let roles = |profile| Ok(Roles { server: config(profile, false)?, client: config(profile, true)? });
        Ok(Self {
            gcm: roles(SrtpProfile::AeadAes128Gcm)?,
            cm: roles(SrtpProfile::Aes128CmHmacSha1_80)?,
            fingerprint,
            provider,
        })
    }

    /// SHA-256 of our certificate, for `a=fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    fn roles(&self, profile: SrtpProfile) -> &Roles {
        match profile {
            SrtpProfile::AeadAes128Gcm => &self.gcm,
            SrtpProfile::Aes128CmHmacSha1_80 => &self.cm,
        }
    }
}

impl Identities {
    /// Makes both.
    ///
    /// # Errors
    /// [`IdentityError`] if the crypto library fails.
    pub fn generate(provider: &Arc<dyn RTCCryptoProvider>) -> Result<Self, IdentityError> {
        Ok(Self([Identity::generate(provider.clone())?, Identity::generate(provider.clone())?]))
    }

    /// What a session shows.
    #[must_use]
    pub fn of(&self, certificate: CertificateTurn) -> &Identity {
        certificate.of(&self.0)
    }

    /// SHA-256 of both, in the order of their turns.
    #[must_use]
    pub fn fingerprints(&self) -> [Fingerprint; 2] {
        self.0.each_ref().map(Identity::fingerprint)
    }
}

/// What became of a datagram or a deadline.
#[derive(Debug)]
pub enum DtlsEvent {
    /// The handshake is done and the peer is who its description says.
    Connected {
        /// Profile agreed on.
        profile: SrtpProfile,
        /// Keying material of the profile's length.
        keys: SecretVec,
    },
    /// Application data.
    Data(BytesMut),
    /// Over: the peer's certificate is not the one of its description.
    FingerprintMismatch,
    /// Over: the peer closed, or the handshake failed.
    Closed,
}

enum Phase {
    /// Collects the datagrams of the ClientHello until `use_srtp` can be read.
    AwaitingHello(Vec<BytesMut>),
    Handshaking(usize),
    /// The handshake is done, the expected fingerprint is not known yet.
    AwaitingFingerprint(VecDeque<BytesMut>),
    Connected(usize),
    Over,
}

/// One DTLS association; in server role, unless it begins.
pub struct Dtls {
    identity: Identity,
    endpoint: Endpoint,
    expected: Option<Fingerprint>,
    profile: SrtpProfile,
    phase: Phase,
}

impl Dtls {
    /// Awaits a ClientHello. `expected` may follow later.
    #[must_use]
    pub fn new(identity: Identity, expected: Option<Fingerprint>) -> Self {
        Self {
            endpoint: Endpoint::new(PEER, TransportProtocol::UDP, None),
            identity,
            expected,
            profile: SrtpProfile::AeadAes128Gcm,
            phase: Phase::AwaitingHello(Vec::new()),
        }
    }

    /// Nobody has begun a handshake.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        matches!(self.phase, Phase::AwaitingHello(_))
    }

    /// Begins the handshake and offers this profile.
    pub fn begin(&mut self, now: Instant, profile: SrtpProfile, events: &mut Vec<DtlsEvent>) {
        if !self.may_begin() {
            return;
        }
        self.profile = profile;
        self.phase = Phase::Handshaking(MAX_HANDSHAKE_DATAGRAMS);
        if self.endpoint.connect(now, PEER, self.identity.roles(profile).client.clone(), None).is_err() {
            self.end(events);
        }
    }

    /// Names the certificate the peer must have. Another than before ends the association.
    pub fn expect(&mut self, fingerprint: Fingerprint, events: &mut Vec<DtlsEvent>) {
        if self.expected.is_some_and(|before| before != fingerprint) {
            self.phase = Phase::Over;
            events.push(DtlsEvent::FingerprintMismatch);
            return;
        }
        self.expected = Some(fingerprint);
        if let Phase::AwaitingFingerprint(held) = &mut self.phase {
            let held = std::mem::take(held);
            self.identify(held, events);
        }
    }

    /// Whether a peer with this certificate would be taken.
    #[cfg(feature = "sim")]
    pub(super) fn expects(&self, fingerprint: Fingerprint) -> bool {
        self.expected == Some(fingerprint) && !matches!(self.phase, Phase::Over)
    }

    /// Our certificate.
    #[cfg(feature = "sim")]
    pub(super) fn shows(&self) -> Fingerprint {
        self.identity.fingerprint()
    }

    /// Says and waits for nothing any more.
    #[cfg(any(test, feature = "sim"))]
    pub(super) fn abandon(&mut self) {
        self.endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
        self.phase = Phase::Over;
    }

    /// Takes a datagram from the peer; the caller then drains [`Dtls::poll_transmit`].
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8], events: &mut Vec<DtlsEvent>) {
        let Some(has_handshake) = hello::has_handshake(datagram) else { return };
        match &mut self.phase {
            Phase::AwaitingHello(_) if !has_handshake => {}
            Phase::AwaitingHello(collected) => {
                collected.push(BytesMut::from(datagram));
                match hello::read(collected) {
                    Hello::Incomplete => {}
                    Hello::Unusable => self.end(events),
                    Hello::Offers(profile) => {
                        let collected = std::mem::take(collected);
                        self.start(now, profile, collected, events);
                    }
                }
            }
            Phase::Handshaking(0) => self.end(events),
            Phase::Handshaking(budget) => {
                *budget -= 1;
                self.feed(now, BytesMut::from(datagram), events);
            }
            Phase::AwaitingFingerprint(_) if has_handshake => {}
            Phase::Connected(0) if has_handshake => {}
            Phase::Connected(budget) => {
                *budget -= usize::from(has_handshake);
                self.feed(now, BytesMut::from(datagram), events);
            }
            Phase::AwaitingFingerprint(_) => self.feed(now, BytesMut::from(datagram), events),
            Phase::Over => {}
        }
    }

    /// Takes what may be a datagram of another association: application data with this one's keys, or nothing happens. Of
    /// a record that does not authenticate nothing stays (RFC 6347 section 4.1.2.7).
    pub fn handle_data(&mut self, now: Instant, datagram: &[u8], events: &mut Vec<DtlsEvent>) {
        if matches!(self.phase, Phase::Connected(_)) && hello::has_handshake(datagram) == Some(false) {
            self.feed(now, BytesMut::from(datagram), events);
        }
    }

    /// Sends application data; dropped unless connected.
    pub fn send(&mut self, now: Instant, data: &[u8]) {
        if matches!(self.phase, Phase::Connected(_)) {
            // Fails only for an association that is gone, which its event tells.
            let _ = self.endpoint.write(now, PEER, data);
        }
    }

    /// Says goodbye (close_notify).
    pub fn close(&mut self, now: Instant) {
        self.endpoint.stop(now, PEER);
        self.phase = Phase::Over;
    }

    /// The next datagram for the peer.
    pub fn poll_transmit(&mut self) -> Option<BytesMut> {
        self.endpoint.poll_transmit().map(|transmit| transmit.message)
    }

    /// When to call [`Dtls::handle_timeout`].
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        self.endpoint.poll_timeout(&PEER)
    }

    /// Repeats a flight, or gives up.
    pub fn handle_timeout(&mut self, now: Instant, events: &mut Vec<DtlsEvent>) {
        if self.next_timeout().is_some_and(|at| at <= now) && self.endpoint.handle_timeout(PEER, now).is_err() {
            self.end(events);
        }
    }

    fn start(&mut self, now: Instant, profile: SrtpProfile, hello: Vec<BytesMut>, events: &mut Vec<DtlsEvent>) {
        self.profile = profile;
        self.endpoint.set_server_config(Some(self.identity.roles(profile).server.clone()));
        self.phase = Phase::Handshaking(MAX_HANDSHAKE_DATAGRAMS);
        for datagram in hello {
            self.feed(now, datagram, events);
        }
    }

    fn feed(&mut self, now: Instant, datagram: BytesMut, events: &mut Vec<DtlsEvent>) {
        let messages = match self.endpoint.read(now, PEER, None, datagram) {
            Ok(messages) => messages,
            Err(error) => {
                // Once connected only an authenticated fatal alert ends it; forged records do nothing.
                if matches!(self.phase, Phase::Handshaking(_)) || matches!(error, Error::ErrAlertFatalOrClose) {
                    self.end(events);
                }
                return;
            }
        };
        for message in messages {
            match message {
                EndpointEvent::HandshakeComplete if self.expected.is_some() => self.identify(VecDeque::new(), events),
                EndpointEvent::HandshakeComplete => self.phase = Phase::AwaitingFingerprint(VecDeque::new()),
                EndpointEvent::ApplicationData(data) => match &mut self.phase {
                    Phase::Connected(_) => events.push(DtlsEvent::Data(data)),
                    Phase::AwaitingFingerprint(held) if held.len() < MAX_HELD => held.push_back(data),
                    _ => {}
                },
                _ => self.end(events),
            }
        }
    }

    /// The handshake is done and the fingerprint known: are they of one certificate?
    fn identify(&mut self, held: VecDeque<BytesMut>, events: &mut Vec<DtlsEvent>) {
        let shown = self
            .endpoint
            .get_connection_state(PEER)
            .and_then(|state| fingerprint_of(state.peer_certificates.first()?, self.identity.provider.as_ref()));
        let matches = shown.zip(self.expected).is_some_and(|(a, b)| constant_time_eq(&a.0, &b.0));
        if !matches {
            self.phase = Phase::Over;
            events.push(DtlsEvent::FingerprintMismatch);
            return;
        }
        let keys = self.endpoint.get_connection_state(PEER).and_then(|state| {
            let len = Srtp::keying_material_len(self.profile);
            let agreed = state.srtp_protection_profile() == protection_profile(self.profile);
            agreed.then(|| state.export_keying_material(EXPORTER_LABEL, &[], len).ok())?
        });
        let Some(keys) = keys else { return self.end(events) };
        self.phase = Phase::Connected(MAX_LATE_HANDSHAKE_DATAGRAMS);
        events.push(DtlsEvent::Connected { profile: self.profile, keys });
        events.extend(held.into_iter().map(DtlsEvent::Data));
    }

    fn end(&mut self, events: &mut Vec<DtlsEvent>) {
        if !matches!(self.phase, Phase::Over) {
            self.phase = Phase::Over;
            events.push(DtlsEvent::Closed);
        }
    }
}

fn protection_profile(profile: SrtpProfile) -> SrtpProtectionProfile {
    match profile {
        SrtpProfile::AeadAes128Gcm => SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
        SrtpProfile::Aes128CmHmacSha1_80 => SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    }
}

fn fingerprint_of(certificate: &[u8], provider: &dyn RTCCryptoProvider) -> Option<Fingerprint> {
    let digest = provider.crypto().hash(HashAlgorithm::Sha256, certificate).ok()?;
    digest.try_into().ok().map(Fingerprint)
}

#[cfg(test)]
mod tests;
