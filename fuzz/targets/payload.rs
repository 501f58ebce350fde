//! Payload descriptors and redundant audio.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sfu_node::fuzzing::payload(input));
