//! A client that has AES-CM only, made of the other crate's parts: its DTLS client and its SRTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::dtls::config::ConfigBuilder;
use rtc::dtls::crypto::Certificate;
use rtc::dtls::endpoint::{Endpoint, EndpointEvent};
use rtc::dtls::extension::extension_use_srtp::SrtpProtectionProfile;
use rtc::shared::TransportProtocol;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;
use rtc::stun::attributes::{ATTR_USE_CANDIDATE, ATTR_USERNAME, RawAttribute};
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{BINDING_REQUEST, Message, Setter, TransactionId};
use rtc::stun::textattrs::TextAttribute;

use super::world::{NODE, OPUS, World, config, credentials};
use crate::media::api::*;
use crate::media::demux::{Protocol, classify};

/// A connected client and its keys.
struct Plain {
    addr: SocketAddr,
    protect: Context,
    unprotect: Context,
}

/// A new check of a client, which nominates where it is sent from.
pub(super) fn binding(n: u64) -> Vec<u8> {
    let (local, provider) = (credentials(n), AwsLcRsProvider::new());
    let mut message = Message::new();
    let setters: Vec<Box<dyn Setter>> = vec![
        Box::new(BINDING_REQUEST),
        Box::new(TransactionId::new()),
        Box::new(TextAttribute::new(ATTR_USERNAME, format!("{}:plain", local.ufrag))),
        Box::new(RawAttribute { typ: ATTR_USE_CANDIDATE, length: 0, value: Vec::new() }),
        Box::new(MessageIntegrity::new_short_term_integrity_with_provider(local.password, provider.crypto())),
        Box::new(FINGERPRINT),
    ];
    message.build(&setters).unwrap();
    message.raw
}

fn connect(world: &mut World, n: u64) -> Plain {
    let provider = Arc::new(AwsLcRsProvider::new());
    let certificate = Certificate::generate_self_signed(vec!["plain".to_owned()], provider.crypto()).unwrap();
    let digest = provider.crypto().hash(rtc::crypto::HashAlgorithm::Sha256, &certificate.certificate[0]).unwrap();
    let fingerprint = Fingerprint(digest.try_into().unwrap());
    world.command(Command::Open(Box::new(config(n, DataRole::Both, Some(fingerprint)))));

    let (addr, node) = (SocketAddr::from(([10, 0, 1, 1], 7000)), SocketAddr::from(NODE));
    let handshake = ConfigBuilder::default()
        .with_crypto_provider(provider.clone())
        .with_certificates(vec![certificate])
        .with_srtp_protection_profiles(vec![SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80])
        .with_insecure_skip_verify(true)
        .build(true, Some(node))
        .unwrap();
    let mut dtls = Endpoint::new(addr, TransportProtocol::UDP, None);
    let now: Instant = world.now;
    world.shard.handle_datagram(now, addr, &mut binding(n));
    dtls.connect(now, node, Arc::new(handshake), None).unwrap();
    let mut done = false;
    while !done {
        while let Some(transmit) = dtls.poll_transmit() {
            world.shard.handle_datagram(now, addr, &mut transmit.message.to_vec());
        }
        world.carry();
        for (_, datagram) in world.stray.drain(..).filter(|(_, d)| classify(d) == Some(Protocol::Dtls)) {
            let events = dtls.read(now, node, None, datagram[..].into()).unwrap();
            done |= events.iter().any(|e| matches!(e, EndpointEvent::HandshakeComplete));
        }
    }
    let keys = dtls.get_connection_state(node).unwrap().export_keying_material("EXTRACTOR-dtls_srtp", &[], 60).unwrap();
    let (profile, keys) = (ProtectionProfile::Aes128CmHmacSha1_80, keys.as_ref());
    let context = |key: &[u8], salt: &[u8]| Context::new(key, salt, profile, None, None, provider.crypto()).unwrap();
    Plain { addr, protect: context(&keys[..16], &keys[32..46]), unprotect: context(&keys[16..32], &keys[46..60]) }
}

#[test]
fn media_flows_between_cm_and_gcm() {
    let mut world = World::new();
    let ada = world.join(DataRole::Both);
    world.connect(ada);
    let mut plain = connect(&mut world, 7);
    let profile = world.events.iter().find_map(|e| match e {
        Event::Connected { transport: TransportKey(7), profile } => Some(*profile),
        _ => None,
    });
    assert_eq!(profile, Some(SrtpProfile::Aes128CmHmacSha1_80));

    // From GCM to CM.
    let subscription = world.audio_track(ada);
    world.command(Command::SetSenders(TransportKey(7), vec![subscription]));
    world.speak(ada, b"from gcm");
    let sealed = world.stray.iter().find(|(to, d)| *to == plain.addr && classify(d) == Some(Protocol::Rtp)).unwrap();
    let packet = plain.unprotect.decrypt_rtp(&sealed.1).unwrap();
    assert!(packet.ends_with(b"from gcm"));

    // And back.
    let subscription = world.audio_receiver(TransportKey(7), 5555);
    world.expect_audio(ada, subscription.ssrc);
    world.command(Command::SetSenders(TransportKey(0), vec![subscription]));
    let rtp = [&[0x80, OPUS, 0, 1, 0, 0, 0, 1][..], &5555u32.to_be_bytes(), b"from cm"].concat();
    let sealed = plain.protect.encrypt_rtp(&rtp).unwrap();
    world.shard.handle_datagram(world.now, plain.addr, &mut sealed.to_vec());
    world.until("heard", |w| w.heard(ada) == [b"from cm"]);
}
