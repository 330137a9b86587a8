//! What happened to a journal before it is scanned and recovered.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringlog_fuzz::journal(input));
