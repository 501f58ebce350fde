//! What holds of an agent, whoever sends it what. See `crate::fuzzing`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a property that does not hold is to panic"
)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Result, Unstructured};
use rtc::crypto::RTCCryptoProvider;
use rtc::crypto::providers::AwsLcRsProvider;
use rtc::stun::attributes::{ATTR_ICE_CONTROLLING, ATTR_REALM, AttrType};

use super::*;

const PASSWORD: &str = "a-password-of-22-chars";
/// Most requests of one story.
const MAX_STEPS: usize = 64;

/// First a datagram as it is; then the same bytes as a story of requests, some of them signed.
pub fn stun(input: &[u8]) {
    raw(input);
    let _ = story(&mut Unstructured::new(input));
}

fn raw(datagram: &[u8]) {
    let Some(request) = Request::parse(datagram) else { return };
    assert!(datagram.len() <= MAX_REQUEST_LEN);
    let mut agent = agent();
    let refused = agent.handle(Instant::now(), at(1), request, AwsLcRsProvider::new().crypto());
    assert!(refused.is_err() && agent.addresses().next().is_none() && agent.selected().is_none());
}

fn story(input: &mut Unstructured<'_>) -> Result<()> {
    let provider = AwsLcRsProvider::new();
    let (mut agent, mut now) = (agent(), Instant::now());
    let mut valid = vec!["node".to_owned()];
    for step in 0..MAX_STEPS {
        if input.is_empty() {
            break;
        }
        match input.int_in_range(0..=9_u8)? {
            0 => {
                now += Duration::from_millis(u16::arbitrary(input)?.into());
                if agent.next_timeout().is_some_and(|due| due <= now) {
                    agent.handle_timeout(now);
                }
                continue;
            }
            1 => {
                let ufrag = format!("node{step}");
                let unused = agent.restart(IceCredentials { ufrag: ufrag.clone(), password: PASSWORD.into() });
                valid.retain(|known| Some(known) != unused.as_ref());
                valid.push(ufrag);
                continue;
            }
            2 => {
                agent.forget(at(input.int_in_range(1..=12)?));
                continue;
            }
            _ => {}
        }
        let from = at(input.int_in_range(1..=12)?);
        let (datagram, honest) = request(input, &valid)?;
        let before: Vec<SocketAddr> = agent.addresses().collect();
        let Some(parsed) = Request::parse(&datagram) else { continue };
        let transaction = parsed.message.transaction_id;
        let response = match agent.handle(now, from, parsed, provider.crypto()) {
            Ok(accepted) => {
                assert!(honest, "accepted what the peer did not sign");
                assert!(agent.addresses().any(|known| known == from) && agent.is_fresh(now, from));
                assert_eq!(accepted.learned, !before.contains(&from));
                valid.retain(|known| Some(known) != accepted.retired.as_ref());
                Some(accepted.response)
            }
            Err(refused) => {
                assert!(agent.addresses().eq(before.iter().copied()), "learns nothing from what it refuses");
                match refused {
                    Refused::Rejected(response) => {
                        assert!(honest);
                        Some(response)
                    }
                    Refused::Unauthenticated(response) => {
                        assert!(response.is_none() || before.contains(&from), "answers strangers");
                        response
                    }
                }
            }
        };
        if let Some(response) = response {
            let mut message = Message::new();
            message.unmarshal_binary(&response).expect("a response parses");
            assert_eq!(message.transaction_id, transaction);
            assert!(FINGERPRINT.check(&message).is_ok() && response.len() <= 128);
        }
        assert!(agent.addresses().count() <= MAX_ADDRESSES && agent.recent.ids.len() <= RECENT_CHECKS);
        assert!(agent.selected().is_none_or(|selected| agent.addresses().any(|known| known == selected.to)));
        assert!(agent.ufrags().count() <= 2 && agent.ufrags().all(|ufrag| valid.iter().any(|known| known == ufrag)));
    }
    Ok(())
}

/// A request, and whether the peer could have made it: signed with the password, for a ufrag that is valid.
fn request(input: &mut Unstructured<'_>, valid: &[String]) -> Result<(Vec<u8>, bool)> {
    let mut message = Message::new();
    message.set_type(BINDING_REQUEST);
    let mut id = [0; 12];
    id[0] = input.int_in_range(0..=99)?;
    message.transaction_id = TransactionId(id);
    message.write_header();
    let known = input.ratio(7, 8)?;
    let ufrag = if known { input.choose(valid)?.clone() } else { "other".to_owned() };
    let named = input.ratio(7, 8)?;
    if named {
        message.add(ATTR_USERNAME, format!("{ufrag}:peer").as_bytes());
    }
    for _ in 0..input.int_in_range(0..=4)? {
        let usual = [ATTR_PRIORITY, ATTR_USE_CANDIDATE, ATTR_ICE_CONTROLLING, ATTR_ICE_CONTROLLED, ATTR_REALM];
        let kind = if input.ratio(3, 4)? { *input.choose(&usual)? } else { AttrType(u16::arbitrary(input)?) };
        let len = input.int_in_range(0..=20)?;
        // One that ends what is signed, or names another, makes it a forgery.
        if kind != ATTR_MESSAGE_INTEGRITY && kind != ATTR_USERNAME {
            message.add(kind, input.bytes(len.min(input.len()))?);
        }
    }
    let signed = input.ratio(7, 8)?;
    let password = if signed { PASSWORD } else { "another" };
    let provider = AwsLcRsProvider::new();
    let _ = MessageIntegrity::new_short_term_integrity_with_provider(password.to_owned(), provider.crypto())
        .add_to(&mut message);
    let signed_len = message.raw.len();
    // Behind the signature anybody may have put it.
    for _ in 0..input.int_in_range(0..=1)? {
        message.add(ATTR_USE_CANDIDATE, &[]);
    }
    let _ = FINGERPRINT.add_to(&mut message);
    let mut raw = message.raw;
    let mut whole = true;
    if input.ratio(1, 8)? && !raw.is_empty() {
        // Not the type and the length, which make it another message.
        let place = input.int_in_range(4..=raw.len() - 1)?;
        let bits = u8::arbitrary(input)?;
        raw[place] ^= bits;
        whole = bits == 0 || place >= signed_len;
        // With a right fingerprint the change has to be seen by other means.
        refinger(&mut raw);
    }
    Ok((raw, known && named && signed && whole))
}

/// Makes FINGERPRINT, the last attribute, right again.
fn refinger(raw: &mut Vec<u8>) {
    let Some(len) = raw.len().checked_sub(8) else { return };
    let mut message = Message::new();
    message.raw = raw.get(..len).unwrap_or_default().to_vec();
    if message.decode().is_ok() && FINGERPRINT.add_to(&mut message).is_ok() {
        *raw = message.raw;
    }
}

fn agent() -> Agent {
    Agent::new(IceCredentials { ufrag: "node".into(), password: PASSWORD.into() })
}

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}
