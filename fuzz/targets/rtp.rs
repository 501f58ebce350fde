//! Header extensions, and SRTP's view of the header, of any packet.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sfu_node::fuzzing::rtp(input));
