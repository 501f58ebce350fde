//! Known answers of RFC 7714 and RFC 3711, agreement with an independent implementation, and the replay rules.

use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::srtp::context::Context;
use rtc::srtp::protection_profile::ProtectionProfile;

use super::kdf::{Label, derive};
use super::*;

const PROFILES: [SrtpProfile; 2] = [SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmHmacSha1_80];

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn array<const N: usize>(text: &str) -> [u8; N] {
    hex(text).try_into().unwrap()
}

/// RFC 7714 section 16 and 17: session key and salt of all examples.
fn rfc7714() -> Gcm {
    let key = array("000102030405060708090a0b0c0d0e0f");
    let salt = array("517569642070726f2071756f");
    Gcm::new(&key, salt, &key, salt).unwrap()
}

const RFC7714_RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976 69736120 696e2070 \
                           61727465 73207472 6573";
const RFC7714_SRTP: &str = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5 0d294e6f 42a5f47a \
                            51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439 0cce";
const RFC7714_RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61 deadbeef deadbeef \
                            deadbeef deadbeef deadbeef";
const RFC7714_SRTCP: &str = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d c676a5f1 730d6fda \
                             4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872 45d9eade 800005d4";

#[test]
fn gcm_rtp_known_answer() {
    let mut packet = hex(RFC7714_RTP);
    rfc7714().seal_rtp(&mut packet, 0, 12, 0x5501_a0b2, 0xf17b).unwrap();
    assert_eq!(packet, hex(RFC7714_SRTP));
    let len = rfc7714().open_rtp(&mut packet, 12, 0x5501_a0b2, 0xf17b).unwrap();
    assert_eq!(packet[..len], hex(RFC7714_RTP));
}

#[test]
fn gcm_rtcp_known_answer() {
    let mut packet = hex(RFC7714_RTCP);
    rfc7714().seal_rtcp(&mut packet, 0, 0x4d61_7273, 0x5d4).unwrap();
    assert_eq!(packet, hex(RFC7714_SRTCP));
    let index_at = packet.len() - 4;
    let len = rfc7714().open_rtcp(&mut packet, index_at, 0x4d61_7273, 0x5d4).unwrap();
    assert_eq!(packet[..len], hex(RFC7714_RTCP));
}

const RFC3711_KEY: &str = "E1F97A0D3E018BE0D64FA32C06DE4139";
const RFC3711_SALT: &str = "0EC675AD498AFEEBB6960B3AABE6";

#[test]
fn key_derivation_known_answer() {
    let (key, salt, provider) = (hex(RFC3711_KEY), hex(RFC3711_SALT), AwsLcRsProvider::new());
    let crypto = provider.crypto();
    let cipher: [u8; 16] = derive(Label::RtpKey, &key, &salt, crypto).unwrap();
    assert_eq!(cipher, array("C61E7A93744F39EE10734AFE3FF7A087"));
    let salting: [u8; 14] = derive(Label::RtpSalt, &key, &salt, crypto).unwrap();
    assert_eq!(salting, array("30CBBC08863D8C85D49DB34A9AE1"));
    let auth: [u8; 20] = derive(Label::RtpAuth, &key, &salt, crypto).unwrap();
    assert_eq!(auth, array("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
}

/// RFC 3711 appendix B.2: the keystream of SSRC 0, index 0.
#[test]
fn counter_mode_known_answer() {
    let provider = AwsLcRsProvider::new();
    let mut stream = provider
        .crypto()
        .new_stream_cipher(rtc::crypto::StreamCipherAlgorithm::Aes128Ctr, &hex("2B7E151628AED2A6ABF7158809CF4F3C"))
        .unwrap();
    let mut data = vec![0; 48];
    stream.apply_keystream(&hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD0000"), &mut data).unwrap();
    let expected = "E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB 41E95B3BB0A2E8DD477901E4FCA894C0";
    assert_eq!(data, hex(expected));
}

fn material(profile: SrtpProfile) -> Vec<u8> {
    (0..Srtp::keying_material_len(profile)).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
}

fn server(profile: SrtpProfile) -> Srtp {
    Srtp::for_server(profile, &material(profile), AwsLcRsProvider::new().crypto()).unwrap()
}

/// A client of the other implementation: (protects what we open, opens what we protect).
fn client(profile: SrtpProfile) -> (Context, Context) {
    let (theirs, salt) = match profile {
        SrtpProfile::AeadAes128Gcm => (ProtectionProfile::AeadAes128Gcm, 12),
        SrtpProfile::Aes128CmHmacSha1_80 => (ProtectionProfile::Aes128CmHmacSha1_80, 14),
    };
    let (provider, m) = (AwsLcRsProvider::new(), material(profile));
    let context = |key: &[u8], salt: &[u8]| Context::new(key, salt, theirs, None, None, provider.crypto()).unwrap();
    (context(&m[..16], &m[32..32 + salt]), context(&m[16..32], &m[32 + salt..]))
}

fn rtp(sequence: u16, extension: bool) -> Vec<u8> {
    let mut packet = vec![if extension { 0x90 } else { 0x80 }, 96];
    packet.extend(sequence.to_be_bytes());
    packet.extend(1000u32.to_be_bytes());
    packet.extend(0xcafe_u32.to_be_bytes());
    if extension {
        packet.extend([0xbe, 0xde, 0, 1, 0x10, 7, 0, 0]);
    }
    packet.extend([0x55; 100]);
    packet
}

fn rtcp() -> Vec<u8> {
    hex(RFC7714_RTCP)
}

#[test]
fn both_profiles_agree_with_the_other_implementation() {
    for profile in PROFILES {
        let (mut us, (mut protect, mut open)) = (server(profile), client(profile));
        // Over a wrap, so that the rollover counter counts.
        for sequence in (65_500..=u16::MAX).chain(0..50) {
            let plain = rtp(sequence, sequence % 2 == 0);
            let mut sealed = protect.encrypt_rtp(&plain).unwrap().to_vec();
            assert_eq!(us.inbound.unprotect_rtp(&mut sealed), Ok(plain.as_slice()));

            let mut buffer = [b"before".as_slice(), &plain].concat();
            us.outbound.protect_rtp(&mut buffer, 6, if sequence % 2 == 0 { 20 } else { 12 }).unwrap();
            assert_eq!(&open.decrypt_rtp(&buffer[6..]).unwrap()[..], plain);
        }
        for _ in 0..3 {
            let mut sealed = protect.encrypt_rtcp(&rtcp()).unwrap().to_vec();
            assert_eq!(us.inbound.unprotect_rtcp(&mut sealed), Ok(rtcp().as_slice()));
            let mut buffer = [b"before".as_slice(), &rtcp()].concat();
            us.outbound.protect_rtcp(&mut buffer, 6).unwrap();
            assert_eq!(&open.decrypt_rtcp(&buffer[6..]).unwrap()[..], rtcp());
        }
    }
}

#[test]
fn a_replayed_packet_is_dropped() {
    for profile in PROFILES {
        let (mut us, (mut protect, _)) = (server(profile), client(profile));
        let media = protect.encrypt_rtp(&rtp(7, false)).unwrap();
        let control = protect.encrypt_rtcp(&rtcp()).unwrap();
        assert!(us.inbound.unprotect_rtp(&mut media.to_vec()).is_ok());
        assert_eq!(us.inbound.unprotect_rtp(&mut media.to_vec()), Err(SrtpError::Replayed));
        assert!(us.inbound.unprotect_rtcp(&mut control.to_vec()).is_ok());
        assert_eq!(us.inbound.unprotect_rtcp(&mut control.to_vec()), Err(SrtpError::Replayed));
    }
}

#[test]
fn a_changed_bit_anywhere_is_noticed() {
    for profile in PROFILES {
        let (mut us, (mut protect, _)) = (server(profile), client(profile));
        let media = protect.encrypt_rtp(&rtp(7, true)).unwrap();
        let control = protect.encrypt_rtcp(&rtcp()).unwrap();
        for bit in 0..media.len() * 8 {
            let mut forged = media.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(us.inbound.unprotect_rtp(&mut forged).is_err(), "rtp bit {bit}");
        }
        for bit in 0..control.len() * 8 {
            let mut forged = control.to_vec();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert!(us.inbound.unprotect_rtcp(&mut forged).is_err(), "rtcp bit {bit}");
        }
        // None of the forgeries left state behind.
        assert!(us.inbound.streams.is_empty());
        assert!(us.inbound.unprotect_rtp(&mut media.to_vec()).is_ok());
    }
}

#[test]
fn rtcp_in_the_clear_is_refused() {
    for profile in PROFILES {
        let mut forged = rtcp();
        forged.extend(5u32.to_be_bytes());
        forged.extend([0; cm::TAG_LEN]);
        if profile == SrtpProfile::AeadAes128Gcm {
            forged = [rtcp(), vec![0; 16], 5u32.to_be_bytes().to_vec()].concat();
        }
        assert_eq!(server(profile).inbound.unprotect_rtcp(&mut forged), Err(SrtpError::Unauthentic));
    }
}

#[test]
fn no_nonce_is_used_twice() {
    for profile in PROFILES {
        let mut us = server(profile);
        us.outbound.protect_rtp(&mut rtp(9, false), 0, 12).unwrap();
        assert_eq!(us.outbound.protect_rtp(&mut rtp(9, false), 0, 12), Err(SrtpError::Replayed));
        us.outbound.protect_rtp(&mut rtp(8, false), 0, 12).unwrap();
    }
}

#[test]
fn ssrcs_are_bounded() {
    let profile = SrtpProfile::AeadAes128Gcm;
    let (mut us, (mut protect, _)) = (server(profile), client(profile));
    let of_ssrc = |ssrc: u32| {
        let mut packet = rtp(1, false);
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        packet
    };
    for ssrc in 0..u32::try_from(MAX_INBOUND_SSRCS).unwrap() {
        us.inbound.unprotect_rtp(&mut protect.encrypt_rtp(&of_ssrc(ssrc)).unwrap().to_vec()).unwrap();
    }
    let mut another = protect.encrypt_rtp(&of_ssrc(0xffff_0000)).unwrap().to_vec();
    assert_eq!(us.inbound.unprotect_rtp(&mut another), Err(SrtpError::TooManySsrcs));
    let mut control = protect.encrypt_rtcp(&rtcp()).unwrap().to_vec();
    assert_eq!(us.inbound.unprotect_rtcp(&mut control), Err(SrtpError::TooManySsrcs));
    for ssrc in 0..u32::try_from(MAX_OUTBOUND_SSRCS).unwrap() {
        us.outbound.protect_rtp(&mut of_ssrc(ssrc), 0, 12).unwrap();
    }
    assert_eq!(us.outbound.protect_rtp(&mut of_ssrc(0xffff_0000), 0, 12), Err(SrtpError::TooManySsrcs));
}

#[test]
fn rtcp_ends_before_its_index_wraps() {
    for profile in PROFILES {
        let mut us = server(profile);
        us.outbound.rtcp_index = RTCP_ENCRYPTED - 2;
        us.outbound.protect_rtcp(&mut rtcp(), 0).unwrap();
        assert_eq!(us.outbound.protect_rtcp(&mut rtcp(), 0), Err(SrtpError::Crypto));
    }
}

#[test]
fn short_and_odd_packets_are_errors() {
    for profile in PROFILES {
        let mut us = server(profile);
        assert_eq!(us.inbound.unprotect_rtp(&mut [0x40; 80]), Err(SrtpError::Malformed), "version 1");
        for len in 0..80 {
            for first in [0x80u8, 0x8f, 0x90, 0x9f, 0xbf, 0x00] {
                let mut packet = vec![first; len];
                assert!(us.inbound.unprotect_rtp(&mut packet).is_err());
                assert!(us.inbound.unprotect_rtcp(&mut packet).is_err());
            }
        }
    }
}
