//! DTLS datagrams, and somebody between a client and the server.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| sfu_node::fuzzing::dtls(input));
