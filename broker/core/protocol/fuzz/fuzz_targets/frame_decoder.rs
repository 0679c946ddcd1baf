//! Throws frames at all that reads a client's requests: `cargo +nightly fuzz run frame_decoder -- -malloc_limit_mb=4`.
#![no_main]

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::frame_decoder(data));
