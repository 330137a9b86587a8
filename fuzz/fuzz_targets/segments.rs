//! What happened to segments and indexes before they are loaded, read and scrubbed.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringlog_fuzz::segments(input));
