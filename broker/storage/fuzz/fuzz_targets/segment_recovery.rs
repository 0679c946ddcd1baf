//! Opens partition directories made of any bytes: `make fuzz`.
#![no_main]

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::segment_recovery(data));
