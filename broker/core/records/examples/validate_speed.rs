//! Prints what checking produced batches costs, by record size and codec: `cargo run --release -p firn-records --example validate_speed`.

use std::io::{self, Write};
use std::time::Instant;

use bytes::Bytes;
use firn_model::topic_config::TimestampType;
use firn_records::batch::{Codec, verify_crc};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::validate::{Compression, ProducePolicy, validate};

const NOW_MS: i64 = 1_700_000_000_000;
const BATCH_BYTES: usize = 1 << 20;
const PASSES: u32 = 200;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = io::stdout().lock();
    let policy = ProducePolicy {
        max_message_bytes: usize::MAX,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        compression: Compression::Producer,
        compacted: false,
        single_batch: true,
        zstd_allowed: true,
        decompressed_bytes_max: usize::MAX,
    };
    writeln!(out, "record bytes  validate GB/s  CRC alone GB/s  ns a record beside the CRC")?;
    for size in [10, 100, 1 << 10, 10 << 10] {
        let batch = batch_of(Codec::None, size)?;
        let records = BATCH_BYTES / size;
        let whole = cost(&batch, &policy);
        let crc = best(|| {
            std::hint::black_box(verify_crc(&batch).is_ok());
        });
        let rate = |seconds: f64| batch.len() as f64 / seconds / 1e9;
        let each = (whole - crc) * 1e9 / records as f64;
        writeln!(out, "{size:>12}  {:>13.2}  {:>14.2}  {each:>26.2}", rate(whole), rate(crc))?;
    }
    writeln!(out, "\nrecord bytes  codec   ratio  CPU seconds a GB uncompressed")?;
    for size in [100, 1 << 10] {
        let plain = batch_of(Codec::None, size)?.len() as f64;
        for codec in [Codec::Lz4, Codec::Snappy, Codec::Zstd, Codec::Gzip] {
            let batch = batch_of(codec, size)?;
            let ratio = plain / batch.len() as f64;
            let seconds = cost(&batch, &policy) / plain * 1e9;
            writeln!(out, "{size:>12}  {:<6}  {ratio:>5.2}  {seconds:>29.2}", format!("{codec:?}"))?;
        }
    }
    Ok(())
}

fn cost(batch: &Bytes, policy: &ProducePolicy) -> f64 {
    best(|| {
        let valid = validate(batch.clone(), policy, NOW_MS);
        std::hint::black_box(valid.is_ok());
    })
}

/// Records of words, as compressible as text is.
fn batch_of(codec: Codec, size: usize) -> Result<Bytes, Box<dyn std::error::Error>> {
    const WORDS: [&str; 16] = [
        "snow",
        "firn",
        "ice",
        "glacier",
        "moraine",
        "crevasse",
        "serac",
        "névé",
        "\"id\":",
        "\"name\":",
        "1700",
        "42",
        "true",
        "null",
        "{",
        "},",
    ];
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for index in 0..BATCH_BYTES / size {
        let mut value = String::with_capacity(size + 10);
        while value.len() < size {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            match state >> 60 {
                0..6 => value.push_str(&format!("{:x}", state >> 40 & 0xffff)),
                _ => value.push_str(WORDS[(state >> 33 & 15) as usize]),
            }
        }
        builder.push(NOW_MS + index as i64 % 1000, None, value.as_bytes().get(..size), &[]);
    }
    Ok(builder.build()?)
}

/// Seconds of the fastest pass: what the code costs when the machine lets it run.
fn best(mut pass: impl FnMut()) -> f64 {
    let mut best = f64::MAX;
    for _ in 0..PASSES {
        let start = Instant::now();
        pass();
        best = best.min(start.elapsed().as_secs_f64());
    }
    best
}
