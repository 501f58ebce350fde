//! The forwarder as a whole: rooms, tracks, packets, reports, time.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sfu_node::fuzzing::forwarder(input));
