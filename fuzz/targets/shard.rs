//! A shard: datagrams from clients, from those who are to be, and from strangers.
#![no_main]

use meridian_fuzz::{contained, expect_contained_panics};

libfuzzer_sys::fuzz_target!(init: expect_contained_panics(), |input: &[u8]| contained(sfu_node::fuzzing::shard, input));
