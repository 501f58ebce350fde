//! What a peer says, and what we write back.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sfu_node::fuzzing::rtcp(input));
