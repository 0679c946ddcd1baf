//! Throws bytes at all that reads a client's records: `make fuzz`.
#![no_main]

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::batch_validator(data));
