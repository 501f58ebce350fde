//! Protected packets and forged ones.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sfu_node::fuzzing::srtp(input));
