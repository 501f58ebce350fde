//! Random and unique values negotiation needs: SSRCs, ICE credentials, session ids. The only source of randomness in it.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::media::api::IceCredentials;

/// ice-char (RFC 8839 section 5.4) less what is hard to read.
const ICE_ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Characters of a username fragment: 95 bits, unique and unguessable.
const UFRAG_LEN: usize = 16;
/// Characters of a password: 190 bits; RFC 8445 section 5.3 wants 128.
const PASSWORD_LEN: usize = 32;

/// Hands out what must be random, unique on the node, or both.
#[derive(Debug)]
pub(crate) struct Allocator {
    rng: StdRng,
    ssrcs: HashSet<u32>,
    last_key: u64,
}

impl Allocator {
    /// From a seed that must come from the system's generator.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        Self { rng: StdRng::from_seed(seed), ssrcs: HashSet::new(), last_key: 0 }
    }

    /// An SSRC nobody on the node has.
    pub(crate) fn ssrc(&mut self) -> u32 {
        loop {
            let ssrc = self.rng.random_range(1..=u32::MAX);
            if self.ssrcs.insert(ssrc) {
                return ssrc;
            }
        }
    }

    /// Gives an SSRC back.
    pub(crate) fn release_ssrc(&mut self, ssrc: u32) {
        self.ssrcs.remove(&ssrc);
    }

    /// Local credentials for a new transport or an ICE restart.
    pub(crate) fn ice_credentials(&mut self) -> IceCredentials {
        IceCredentials { ufrag: self.ice_text(UFRAG_LEN), password: self.ice_text(PASSWORD_LEN) }
    }

    /// A session id for `o=` (RFC 8829 section 5.2.1: 63 bits).
    pub(crate) fn session_id(&mut self) -> u64 {
        self.rng.random::<u64>() >> 1
    }

    /// First id of a connection's server offers.
    pub(crate) fn first_offer_id(&mut self) -> u32 {
        self.rng.random_range(1..=256)
    }

    /// A number for a key type that is never reused.
    pub(crate) fn key(&mut self) -> u64 {
        self.last_key += 1;
        self.last_key
    }

    fn ice_text(&mut self, len: usize) -> String {
        let letter = |rng: &mut StdRng| ICE_ALPHABET.get(rng.random_range(0..ICE_ALPHABET.len())).copied();
        (0..len).map(|_| char::from(letter(&mut self.rng).unwrap_or(b'A'))).collect()
    }
}
