//! Which SRTP profiles a client offers. str0m's own DTLS always offers GCM, so a client without it gets another DTLS
//! underneath: rtc's, which takes a list of profiles.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rtc::crypto::default_provider;
use rtc::dtls::config::{ClientAuthType, ConfigBuilder, ExtendedMasterSecretType, HandshakeConfig};
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::srtp::protection_profile::ProtectionProfile;
use str0m::config::CryptoProvider;
use str0m::crypto::CryptoError;
use str0m::crypto::dtls::{
    DtlsCert, DtlsImplError, DtlsInstance, DtlsOutput, DtlsProvider, DtlsVersion, KeyingMaterial, ProtocolVersion,
    SrtpProfile,
};

/// SRTP profiles in a client's ClientHello (RFC 5764 section 4.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SrtpOffer {
    /// `AEAD_AES_128_GCM` among others, as browsers offer.
    Gcm,
    /// `AEAD_AES_128_GCM` and nothing else.
    Gcm128Only,
    /// `SRTP_AES128_CM_HMAC_SHA1_80` and nothing else.
    CmOnly,
}

impl SrtpOffer {
    /// Whether there is one profile only. Then the client has to be the one who begins the DTLS handshake.
    pub(crate) fn is_exclusive(self) -> bool {
        self != Self::Gcm
    }

    /// str0m's crypto with this offer.
    pub(crate) fn provider(self) -> Arc<CryptoProvider> {
        let own = str0m::crypto::from_feature_flags();
        Arc::new(match self {
            Self::Gcm => own,
            Self::Gcm128Only => CryptoProvider { dtls_provider: &GCM_128, ..own },
            Self::CmOnly => CryptoProvider { dtls_provider: &CM, ..own },
        })
    }
}

thread_local! {
    /// What the last handshake of this thread came to: str0m keeps keys to itself, and asks its DTLS for them while it
    /// handles the datagram that ended the handshake.
    static EXPORTED: RefCell<Option<Keys>> = const { RefCell::new(None) };
}

/// SRTP keying material of a connection whose handshake this side began.
pub(crate) struct Keys {
    /// What it is for.
    pub(crate) profile: ProtectionProfile,
    material: Vec<u8>,
}

impl Keys {
    /// Those of the connection that just handled a datagram in this thread, if that ended its handshake.
    pub(crate) fn take_exported() -> Option<Self> {
        EXPORTED.take()
    }

    /// Master key and salt of the server (RFC 5764 section 4.2: both keys, then both salts, the client's first).
    pub(crate) fn of_server(&self) -> Option<(&[u8], &[u8])> {
        let (key, salt) = (self.profile.key_len(), self.profile.salt_len());
        Some((self.material.get(key..2 * key)?, self.material.get(2 * key + salt..2 * (key + salt))?))
    }
}

/// The DTLS of [`SrtpOffer::Gcm128Only`]: two keys of 16 bytes, two salts of 12 (RFC 7714 section 12).
static GCM_128: OneProfileDtls = OneProfileDtls {
    offered: SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
    profile: SrtpProfile::AEAD_AES_128_GCM,
    srtp: ProtectionProfile::AeadAes128Gcm,
    keying_len: 2 * (16 + 12),
};
/// The DTLS of [`SrtpOffer::CmOnly`]: two keys of 16 bytes, two salts of 14 (RFC 5764 section 4.1.2).
static CM: OneProfileDtls = OneProfileDtls {
    offered: SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
    profile: SrtpProfile::AES128_CM_SHA1_80,
    srtp: ProtectionProfile::Aes128CmHmacSha1_80,
    keying_len: 2 * (16 + 14),
};
/// Label of the export (RFC 5764 section 4.2).
const KEYING_LABEL: &str = "EXTRACTOR-dtls_srtp";
/// Largest handshake record before fragmentation, bytes.
const MTU: usize = 1200;
/// An endpoint tells its peers apart by address; here there is one, and str0m knows where it is.
const PEER: ([u8; 4], u16) = ([127, 0, 0, 1], 1);
/// Nothing is due: look again much later.
const IDLE: Duration = Duration::from_secs(3600);

#[derive(Debug, Clone, Copy)]
struct OneProfileDtls {
    offered: SrtpProtectionProfile,
    /// The same to str0m.
    profile: SrtpProfile,
    /// The same to rtc's SRTP.
    srtp: ProtectionProfile,
    /// Keying material, bytes.
    keying_len: usize,
}

impl DtlsProvider for OneProfileDtls {
    /// The key travels as PEM: only [`OneProfileDtls::new_dtls`] reads it.
    fn generate_certificate(&self) -> Option<DtlsCert> {
        let provider = default_provider().ok()?;
        let made = Certificate::generate_self_signed(vec!["client".to_owned()], provider.crypto()).ok()?;
        Some(DtlsCert {
            certificate: made.certificate.first()?.to_vec(),
            private_key: made.serialize_pem().ok()?.into_bytes(),
        })
    }

    fn new_dtls(
        &self,
        cert: &DtlsCert,
        now: Instant,
        _version: DtlsVersion,
        _mtu: Option<usize>,
    ) -> Result<Box<dyn DtlsInstance>, CryptoError> {
        let config = handshake(cert, self.offered).map_err(|e| CryptoError::Other(e.to_string()))?;
        let inner = Inner {
            dtls: *self,
            endpoint: Endpoint::new(SocketAddr::from(PEER), TransportProtocol::UDP, None),
            config: Arc::new(config),
            state: Stage::Idle,
            now,
            outputs: VecDeque::new(),
        };
        Ok(Box::new(OneProfileInstance(Mutex::new(inner))))
    }
}

fn handshake(cert: &DtlsCert, offered: SrtpProtectionProfile) -> anyhow::Result<HandshakeConfig> {
    let provider = default_provider()?;
    let certificate = Certificate::from_pem(std::str::from_utf8(&cert.private_key)?, provider.crypto())?;
    Ok(ConfigBuilder::default()
        .with_crypto_provider(provider)
        .with_certificates(vec![certificate])
        .with_srtp_protection_profiles(vec![offered])
        .with_client_auth(ClientAuthType::RequireAnyClientCert)
        .with_extended_master_secret(ExtendedMasterSecretType::Require)
        // str0m compares the fingerprint itself.
        .with_insecure_skip_verify(true)
        .with_mtu(MTU)
        .build(true, Some(SocketAddr::from(PEER)))?)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Due,
    Running,
    Closed,
}

enum Queued {
    Packet(Vec<u8>),
    Connected,
    PeerCert(Vec<u8>),
    Keys(Vec<u8>),
    Data(Vec<u8>),
    Closed,
}

struct Inner {
    dtls: OneProfileDtls,
    endpoint: Endpoint,
    config: Arc<HandshakeConfig>,
    state: Stage,
    now: Instant,
    outputs: VecDeque<Queued>,
}

struct OneProfileInstance(Mutex<Inner>);

impl fmt::Debug for OneProfileInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneProfileInstance")
    }
}

impl OneProfileInstance {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn handle(&mut self, packet: &[u8]) {
        // A handshake that fails shows as a connection that never comes up.
        let events = self.endpoint.read(self.now, SocketAddr::from(PEER), None, packet.into()).unwrap_or_default();
        for event in events {
            match event {
                EndpointEvent::HandshakeComplete => self.complete(),
                EndpointEvent::ApplicationData(data) => self.outputs.push_back(Queued::Data(data.to_vec())),
                EndpointEvent::PeerClosed => self.outputs.push_back(Queued::Closed),
                _ => {}
            }
        }
        self.collect();
    }

    fn complete(&mut self) {
        let Some(state) = self.endpoint.get_connection_state(SocketAddr::from(PEER)) else { return };
        if let Some(certificate) = state.peer_certificates.first() {
            self.outputs.push_back(Queued::PeerCert(certificate.clone()));
        }
        if state.srtp_protection_profile() == self.dtls.offered
            && let Ok(keys) = state.export_keying_material(KEYING_LABEL, &[], self.dtls.keying_len)
        {
            let material = keys.into_bytes();
            EXPORTED.set(Some(Keys { profile: self.dtls.srtp, material: material.clone() }));
            self.outputs.push_back(Queued::Keys(material));
        }
        self.outputs.push_back(Queued::Connected);
    }

    fn collect(&mut self) {
        while let Some(datagram) = self.endpoint.poll_transmit() {
            self.outputs.push_back(Queued::Packet(datagram.message.to_vec()));
        }
    }
}

impl DtlsInstance for OneProfileInstance {
    fn set_active(&mut self, active: bool) {
        let mut inner = self.inner();
        if active && inner.state == Stage::Idle {
            inner.state = Stage::Due;
        }
    }

    fn handle_packet(&mut self, packet: &[u8]) -> Result<(), DtlsImplError> {
        self.inner().handle(packet);
        Ok(())
    }

    fn poll_output<'a>(&mut self, buf: &'a mut [u8]) -> DtlsOutput<'a> {
        let mut inner = self.inner();
        let Some(next) = inner.outputs.pop_front() else {
            let due = match inner.state {
                Stage::Due => Some(inner.now),
                Stage::Running => inner.endpoint.poll_timeout(&SocketAddr::from(PEER)),
                Stage::Idle | Stage::Closed => None,
            };
            return DtlsOutput::Timeout(due.unwrap_or(inner.now + IDLE));
        };
        let bytes = match &next {
            Queued::Packet(bytes) | Queued::PeerCert(bytes) | Queued::Data(bytes) => bytes.as_slice(),
            Queued::Keys(keys) => {
                return DtlsOutput::KeyingMaterial(KeyingMaterial::new(keys), inner.dtls.profile);
            }
            Queued::Connected => return DtlsOutput::Connected,
            Queued::Closed => return DtlsOutput::CloseNotify,
        };
        let needed = bytes.len();
        let Some(out) = buf.get_mut(..needed) else {
            inner.outputs.push_front(next);
            return DtlsOutput::BufferTooSmall { needed };
        };
        out.copy_from_slice(bytes);
        match next {
            Queued::Packet(_) => DtlsOutput::Packet(out),
            Queued::PeerCert(_) => DtlsOutput::PeerCert(out),
            _ => DtlsOutput::ApplicationData(out),
        }
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), DtlsImplError> {
        let mut inner = self.inner();
        inner.now = now;
        let config = Arc::clone(&inner.config);
        let failed = match inner.state {
            Stage::Due => {
                inner.state = Stage::Running;
                inner.endpoint.connect(now, SocketAddr::from(PEER), config, None).is_err()
            }
            Stage::Running => inner.endpoint.handle_timeout(SocketAddr::from(PEER), now).is_err(),
            Stage::Idle | Stage::Closed => false,
        };
        inner.collect();
        if failed {
            inner.state = Stage::Closed;
            return Err(DtlsImplError::ConnectionClosed);
        }
        Ok(())
    }

    fn send_application_data(&mut self, data: &[u8]) -> Result<usize, DtlsImplError> {
        let mut inner = self.inner();
        let now = inner.now;
        // Refused until the handshake is over; str0m tries again.
        let sent = inner.endpoint.write(now, SocketAddr::from(PEER), data).is_ok();
        inner.collect();
        Ok(if sent { data.len() } else { 0 })
    }

    fn is_active(&self) -> bool {
        true
    }

    fn protocol_version(&self) -> Option<ProtocolVersion> {
        Some(ProtocolVersion::DTLS1_2)
    }

    fn is_closing(&self) -> bool {
        self.inner().state == Stage::Closed
    }

    fn is_closed(&self) -> bool {
        let inner = self.inner();
        inner.state == Stage::Closed && inner.outputs.is_empty()
    }

    fn close(&mut self) -> Result<(), DtlsImplError> {
        let mut inner = self.inner();
        let now = inner.now;
        inner.state = Stage::Closed;
        // There is nobody to tell when it fails.
        let _ = inner.endpoint.close(now);
        inner.collect();
        Ok(())
    }
}
