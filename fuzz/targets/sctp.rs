//! SCTP packets and channel messages, and somebody between a client and the node.
#![no_main]

use meridian_fuzz::{contained, expect_contained_panics};

libfuzzer_sys::fuzz_target!(init: expect_contained_panics(), |input: &[u8]| contained(sfu_node::fuzzing::sctp, input));
