//! Data packets on their way from one participant to the others.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sfu_node::fuzzing::data_packet(input));
