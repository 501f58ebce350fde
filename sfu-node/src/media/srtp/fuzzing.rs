//! What holds of protected packets, whatever is in them or comes instead of them. See `crate::fuzzing`.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a property that does not hold is to panic")]

use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;

use super::{Srtp, SrtpError, rtp_header_len};
use crate::media::api::SrtpProfile;
use crate::media::demux::{Protocol, classify};

/// The first byte says: profile, RTP or RTCP. The rest is a plain packet, and, as it is, a forged one.
pub fn srtp(input: &[u8]) {
    let Some((mode, plain)) = input.split_first() else { return };
    let profile = if mode & 1 == 0 { SrtpProfile::AeadAes128Gcm } else { SrtpProfile::Aes128CmHmacSha1_80 };
    let provider = AwsLcRsProvider::new();
    let material = vec![5; Srtp::keying_material_len(profile)];
    // Both directions have the same keys here: what goes out can come in.
    let mut session = Srtp::for_server(profile, &material, provider.crypto()).expect("it has its length");
    let forged = &mut plain.to_vec();
    assert!(session.inbound.unprotect_rtp(forged).is_err());
    assert!(session.inbound.unprotect_rtcp(&mut plain.to_vec()).is_err());
    match mode & 2 {
        0 => media(&mut session, plain),
        _ => control(&mut session, plain),
    }
}

fn media(session: &mut Srtp, plain: &[u8]) {
    let Ok(header_len) = rtp_header_len(plain) else { return };
    assert!(matches!(classify(plain), Some(Protocol::Rtp | Protocol::Rtcp)));
    let mut protected = plain.to_vec();
    session.outbound.protect_rtp(&mut protected, 0, header_len).expect("the first of its stream");
    assert!(protected.starts_with(plain.get(..header_len).unwrap()), "the header stays in the clear");
    let again = &mut plain.to_vec();
    assert_eq!(session.outbound.protect_rtp(again, 0, header_len), Err(SrtpError::Replayed), "no nonce twice");
    let mut changed = protected.clone();
    *changed.last_mut().unwrap() ^= 1;
    assert_eq!(session.inbound.unprotect_rtp(&mut changed), Err(SrtpError::Unauthentic));
    assert_eq!(session.inbound.unprotect_rtp(&mut protected.clone()), Ok(plain));
    assert_eq!(session.inbound.unprotect_rtp(&mut protected), Err(SrtpError::Replayed));
}

fn control(session: &mut Srtp, plain: &[u8]) {
    // What the node writes has a header and an SSRC.
    if plain.len() < 8 {
        return;
    }
    let mut protected = plain.to_vec();
    session.outbound.protect_rtcp(&mut protected, 0).expect("there is room");
    let mut changed = protected.clone();
    *changed.first_mut().unwrap() ^= 1;
    assert_eq!(session.inbound.unprotect_rtcp(&mut changed), Err(SrtpError::Unauthentic));
    assert_eq!(session.inbound.unprotect_rtcp(&mut protected.clone()), Ok(plain));
    assert_eq!(session.inbound.unprotect_rtcp(&mut protected), Err(SrtpError::Replayed));
}
