//! Prints what checking produced batches costs, by record size: `cargo run --release -p firn-records --example validate_speed`.

use std::io::{self, Write};
use std::time::Instant;

use bytes::Bytes;
use firn_model::topic_config::TimestampType;
use firn_records::batch::verify_crc;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::validate::{Compression, ProducePolicy, validate};

const NOW_MS: i64 = 1_700_000_000_000;
const BATCH_BYTES: usize = 1 << 20;
const PASSES: u32 = 500;

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
        let batch = batch_of(size)?;
        let records = BATCH_BYTES / size;
        let whole = best(|| {
            let valid = validate(batch.clone(), &policy, NOW_MS);
            std::hint::black_box(valid.is_ok());
        });
        let crc = best(|| {
            std::hint::black_box(verify_crc(&batch).is_ok());
        });
        let rate = |seconds: f64| batch.len() as f64 / seconds / 1e9;
        let each = (whole - crc) * 1e9 / records as f64;
        writeln!(out, "{size:>12}  {:>13.2}  {:>14.2}  {each:>26.2}", rate(whole), rate(crc))?;
    }
    Ok(())
}

fn batch_of(size: usize) -> Result<Bytes, Box<dyn std::error::Error>> {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value = vec![b'x'; size];
    for index in 0..BATCH_BYTES / size {
        builder.push(NOW_MS + index as i64 % 1000, None, Some(&value), &[]);
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
