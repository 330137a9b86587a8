//! The header of a request, from a whole frame.
#![no_main]

libfuzzer_sys::fuzz_target!(|frame: &[u8]| ringlog_fuzz::request_header(frame));
