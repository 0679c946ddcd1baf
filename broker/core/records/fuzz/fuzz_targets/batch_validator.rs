//! Throws bytes at all that reads a client's records: `cargo +nightly fuzz run batch_validator`.
#![no_main]

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::batch_validator(data));
