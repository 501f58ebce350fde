//! Descriptions of clients, over a session's life.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sfu_node::fuzzing::sdp(input));
