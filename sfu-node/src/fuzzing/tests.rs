//! The seeds of the fuzz targets, and what once broke a promise, in every test run.

mod seeds;

use std::fs;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

use super::*;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 12] = [
    ("data_packet", data_packet),
    ("dependency", dependency),
    ("dtls", dtls),
    ("forwarder", forwarder),
    ("payload", payload),
    ("rtcp", rtcp),
    ("rtp", rtp),
    ("sctp", sctp),
    ("sdp", sdp),
    ("shard", shard),
    ("srtp", srtp),
    ("stun", stun),
];

fn seeds_of(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target)
}

#[test]
fn seeds_keep_the_promises() {
    for (name, target) in TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(seeds_of(name)).unwrap() {
            target(&fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has seeds");
    }
}

#[test]
fn noise_keeps_the_promises() {
    let mut random = StdRng::seed_from_u64(7);
    for (_, target) in TARGETS {
        for _ in 0..100 {
            let mut noise = vec![0; random.random_range(0..4000)];
            random.fill_bytes(&mut noise);
            target(&noise);
        }
    }
}
