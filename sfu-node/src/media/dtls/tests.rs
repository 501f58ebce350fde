//! Either role against the other one, datagram by datagram.

use rtc::crypto::providers::AwsLcRsProvider;

use super::*;

struct Client {
    endpoint: Endpoint,
    fingerprint: Fingerprint,
    connected: bool,
}

fn provider() -> Arc<dyn RTCCryptoProvider> {
    Arc::new(AwsLcRsProvider::new())
}

fn client(now: Instant, profiles: &[SrtpProtectionProfile]) -> Client {
    client_with(now, profiles, |config| config)
}

fn client_with(
    now: Instant,
    profiles: &[SrtpProtectionProfile],
    change: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
) -> Client {
    let certificate = Certificate::generate_self_signed(vec!["client".to_owned()], provider().crypto()).unwrap();
    let fingerprint = fingerprint_of(&certificate.certificate[0], provider().as_ref()).unwrap();
    let config = ConfigBuilder::default()
        .with_crypto_provider(provider())
        .with_certificates(vec![certificate])
        .with_srtp_protection_profiles(profiles.to_vec())
        .with_insecure_skip_verify(true);
    let config = change(config).build(true, Some(PEER)).unwrap();
    let mut endpoint = Endpoint::new(PEER, TransportProtocol::UDP, None);
    endpoint.connect(now, PEER, Arc::new(config), None).unwrap();
    Client { endpoint, fingerprint, connected: false }
}

/// Carries datagrams both ways until none is left.
fn run(now: Instant, client: &mut Client, server: &mut Dtls, events: &mut Vec<DtlsEvent>) {
    loop {
        let mut quiet = true;
        while let Some(transmit) = client.endpoint.poll_transmit() {
            quiet = false;
            server.handle_datagram(now, &transmit.message, events);
        }
        while let Some(datagram) = server.poll_transmit() {
            quiet = false;
            for event in client.endpoint.read(now, PEER, None, datagram).unwrap_or_default() {
                client.connected |= matches!(event, EndpointEvent::HandshakeComplete);
            }
        }
        if quiet {
            return;
        }
    }
}

const BOTH: [SrtpProtectionProfile; 2] =
    [SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80, SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm];

#[test]
fn agrees_on_gcm_though_the_client_prefers_cm() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    run(now, &mut client, &mut server, &mut events);
    let [DtlsEvent::Connected { profile, keys }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(*profile, SrtpProfile::AeadAes128Gcm);
    let theirs = client.endpoint.get_connection_state(PEER).unwrap();
    assert_eq!(keys.as_ref(), theirs.export_keying_material(EXPORTER_LABEL, &[], 56).unwrap().as_ref());
}

#[test]
fn agrees_on_cm_with_a_client_that_has_no_gcm() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH[..1]);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    run(now, &mut client, &mut server, &mut events);
    let [DtlsEvent::Connected { profile, keys }] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!((*profile, keys.as_ref().len()), (SrtpProfile::Aes128CmHmacSha1_80, 60));
}

#[test]
fn whoever_begins_offers_the_one_profile_that_it_is_told() {
    for profile in [SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmHmacSha1_80] {
        let now = Instant::now();
        let identities = Identities::generate(&provider()).unwrap();
        let [ours, theirs] = [CertificateTurn::First, CertificateTurn::Second].map(|turn| identities.of(turn).clone());
        let (our_events, their_events) = (&mut Vec::new(), &mut Vec::new());
        let mut begins = Dtls::new(ours.clone(), Some(theirs.fingerprint()));
        let mut waits = Dtls::new(theirs, Some(ours.fingerprint()));
        assert!(begins.may_begin());
        begins.begin(now, profile, our_events);
        begins.begin(now, SrtpProfile::AeadAes128Gcm, our_events);
        assert!(!begins.may_begin());
        while let Some(datagram) = begins.poll_transmit() {
            waits.handle_datagram(now, &datagram, their_events);
            while let Some(datagram) = waits.poll_transmit() {
                begins.handle_datagram(now, &datagram, our_events);
            }
        }
        let agreed = |events: &[DtlsEvent]| match events {
            [DtlsEvent::Connected { profile, keys }] => (*profile, keys.as_ref().to_vec()),
            events => panic!("{events:?}"),
        };
        assert_eq!(agreed(our_events), agreed(their_events));
        assert_eq!(agreed(our_events).0, profile);
    }
}

#[test]
fn another_certificate_than_described_ends_it() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(Fingerprint([7; 32])));
    run(now, &mut client, &mut server, &mut events);
    assert!(matches!(events.as_slice(), [DtlsEvent::FingerprintMismatch]), "{events:?}");
    client.endpoint.write(now, PEER, b"secret").unwrap();
    run(now, &mut client, &mut server, &mut events);
    assert_eq!(events.len(), 1);
}

#[test]
fn nothing_comes_out_before_the_fingerprint_is_known() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), None);
    run(now, &mut client, &mut server, &mut events);
    client.endpoint.write(now, PEER, b"early").unwrap();
    run(now, &mut client, &mut server, &mut events);
    assert!(client.connected && events.is_empty(), "{events:?}");
    server.expect(client.fingerprint, &mut events);
    let [DtlsEvent::Connected { .. }, DtlsEvent::Data(data)] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(&data[..], b"early");
}

#[test]
fn little_is_held_before_the_fingerprint_is_known() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), None);
    run(now, &mut client, &mut server, &mut events);
    for _ in 0..MAX_HELD + 5 {
        client.endpoint.write(now, PEER, b"early").unwrap();
    }
    run(now, &mut client, &mut server, &mut events);
    server.expect(client.fingerprint, &mut events);
    assert_eq!(events.iter().filter(|event| matches!(event, DtlsEvent::Data(_))).count(), MAX_HELD);
}

#[test]
fn another_fingerprint_later_ends_it() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    run(now, &mut client, &mut server, &mut events);
    events.clear();
    server.expect(client.fingerprint, &mut events);
    assert!(events.is_empty(), "the same again is none");
    server.expect(Fingerprint([7; 32]), &mut events);
    client.endpoint.write(now, PEER, b"secret").unwrap();
    run(now, &mut client, &mut server, &mut events);
    assert!(matches!(events.as_slice(), [DtlsEvent::FingerprintMismatch]), "{events:?}");
}

#[test]
fn a_client_without_a_certificate_is_turned_away_in_the_handshake() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client_with(now, &BOTH, |config| config.with_certificates(Vec::new()));
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    run(now, &mut client, &mut server, &mut events);
    assert!(matches!(events.as_slice(), [DtlsEvent::Closed]), "{events:?}");
}

#[test]
fn a_client_without_the_extended_master_secret_is_turned_away() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let disable = |config: ConfigBuilder| config.with_extended_master_secret(ExtendedMasterSecretType::Disable);
    let mut client = client_with(now, &BOTH, disable);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    run(now, &mut client, &mut server, &mut events);
    assert!(matches!(events.as_slice(), [DtlsEvent::Closed]), "{events:?}");
}

#[test]
fn late_handshake_records_are_bounded() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    run(now, &mut client, &mut server, &mut events);
    for _ in 0..=MAX_LATE_HANDSHAKE_DATAGRAMS {
        server.handle_datagram(now, &[22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 77, 0, 2, 2, 40], &mut events);
    }
    assert!(matches!(server.phase, Phase::Connected(0)), "the library sees no more of them");
    events.clear();
    client.endpoint.write(now, PEER, b"still here").unwrap();
    run(now, &mut client, &mut server, &mut events);
    assert!(matches!(events.as_slice(), [DtlsEvent::Data(d)] if &d[..] == b"still here"), "{events:?}");
}

#[test]
fn a_late_fingerprint_that_differs_ends_it() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), None);
    run(now, &mut client, &mut server, &mut events);
    server.expect(Fingerprint([7; 32]), &mut events);
    assert!(matches!(events.as_slice(), [DtlsEvent::FingerprintMismatch]), "{events:?}");
}

#[test]
fn lost_flights_are_sent_again_and_given_up() {
    let (mut now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    // The cookie exchange gets through, the server's certificate flight never does.
    for _ in 0..2 {
        while let Some(transmit) = client.endpoint.poll_transmit() {
            server.handle_datagram(now, &transmit.message, &mut events);
        }
        while let Some(datagram) = server.poll_transmit() {
            if datagram.len() < 100 {
                client.endpoint.read(now, PEER, None, datagram).unwrap();
            }
        }
    }
    let mut repeats = 0;
    while events.is_empty() {
        now = server.next_timeout().expect("armed until it gives up");
        server.handle_timeout(now, &mut events);
        repeats += usize::from(server.poll_transmit().is_some());
        while server.poll_transmit().is_some() {}
    }
    assert!((5..10).contains(&repeats), "{repeats}");
    assert!(matches!(events.as_slice(), [DtlsEvent::Closed]), "{events:?}");
}

#[test]
fn a_client_that_never_finishes_is_bounded() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    let hello = client.endpoint.poll_transmit().unwrap().message;
    for _ in 0..=MAX_HANDSHAKE_DATAGRAMS + 1 {
        server.handle_datagram(now, &hello, &mut events);
        while server.poll_transmit().is_some() {}
    }
    assert!(matches!(events.as_slice(), [DtlsEvent::Closed]), "{events:?}");
}

#[test]
fn forged_records_do_not_end_a_connection() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    run(now, &mut client, &mut server, &mut events);
    events.clear();
    // A fatal alert in epoch 0 and in epoch 1, application data, noise.
    for (kind, epoch) in [(21, 0), (21, 1), (23, 0), (23, 1), (22, 0), (20, 0), (99, 1)] {
        for _ in 0..100 {
            server.handle_datagram(now, &[kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 77, 0, 2, 2, 40], &mut events);
        }
    }
    // A record of the client's, changed, cut and padded.
    client.endpoint.write(now, PEER, b"real").unwrap();
    let real = client.endpoint.poll_transmit().unwrap().message;
    for at in 0..real.len() {
        let mut forged = real.to_vec();
        forged[at] ^= 1;
        server.handle_datagram(now, &forged, &mut events);
        server.handle_datagram(now, &real[..at], &mut events);
        server.handle_datagram(now, &[&real[..at], &[0xff; 30]].concat(), &mut events);
    }
    assert!(events.is_empty(), "{events:?}");
    while server.poll_transmit().is_some() {}
    client.endpoint.write(now, PEER, b"still here").unwrap();
    run(now, &mut client, &mut server, &mut events);
    assert!(matches!(events.as_slice(), [DtlsEvent::Data(d)] if &d[..] == b"still here"), "{events:?}");
}

#[test]
fn a_close_is_reported() {
    let (now, mut events) = (Instant::now(), Vec::new());
    let mut client = client(now, &BOTH);
    let mut server = Dtls::new(Identity::generate(provider()).unwrap(), Some(client.fingerprint));
    run(now, &mut client, &mut server, &mut events);
    events.clear();
    client.endpoint.close(now).unwrap();
    run(now, &mut client, &mut server, &mut events);
    assert!(matches!(events.as_slice(), [DtlsEvent::Closed]), "{events:?}");
}

#[test]
fn mutated_handshakes_never_panic() {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    let (now, mut rng, mut connected) = (Instant::now(), StdRng::seed_from_u64(3), 0);
    let identity = Identity::generate(provider()).unwrap();
    for round in 0..150_u32 {
        let mut client = client(now, &BOTH);
        let (mut server, mut events) = (Dtls::new(identity.clone(), Some(client.fingerprint)), Vec::new());
        for _ in 0..8 {
            while let Some(transmit) = client.endpoint.poll_transmit() {
                // The first rounds stay whole, so that later flights are reached; a forgery comes before the real one.
                for _ in 0..round % 4 {
                    let mut forged = transmit.message.to_vec();
                    for _ in 0..rng.random_range(1..6) {
                        let at = rng.random_range(0..forged.len());
                        forged[at] = rng.random();
                    }
                    let len = if rng.random_bool(0.2) { rng.random_range(0..forged.len()) } else { forged.len() };
                    server.handle_datagram(now, &forged[..len], &mut events);
                }
                server.handle_datagram(now, &transmit.message, &mut events);
            }
            while let Some(datagram) = server.poll_transmit() {
                let _ = client.endpoint.read(now, PEER, None, datagram);
            }
        }
        connected += u32::from(events.iter().any(|event| matches!(event, DtlsEvent::Connected { .. })));
    }
    assert!(connected >= 38, "whole handshakes get through: {connected}");
}
