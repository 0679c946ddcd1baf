//! Reads footers and names out of any bytes: `make fuzz`.
#![no_main]

#[path = "../exercise.rs"]
mod exercise;

libfuzzer_sys::fuzz_target!(|data: &[u8]| exercise::object_footer(data));
