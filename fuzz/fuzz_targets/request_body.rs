//! The body of any request, in any version.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| ringlog_fuzz::request_body(input));
