//! A record batch as a producer sends it.
#![no_main]

libfuzzer_sys::fuzz_target!(|batch: &[u8]| ringlog_fuzz::record_batch(batch));
