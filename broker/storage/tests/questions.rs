//! What a log answers, against a model that looks at every record; also after restarts, and when bits have rotted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking, in its helpers too"
)]

#[path = "crash/model.rs"]
#[allow(dead_code, reason = "shared with the crash points")]
mod model;
#[path = "crash/workload.rs"]
#[allow(dead_code, reason = "shared with the crash points")]
mod workload;

use std::path::Path;
use std::sync::Arc;

use firn_model::topic_config::TopicConfig;
use firn_records::batch::BatchHeader;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::directory::LogDirOptions;
use firn_storage::error::ReadError;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::SimulatedDisk;

use model::{header_of, open_dir, partition, topic_id};
use workload::Seeded;

fn config() -> TopicConfig {
    TopicConfig { segment_bytes: 900, index_interval_bytes: 120, ..TopicConfig::default() }
}

fn open(dir: &LogDir) -> PartitionLog {
    dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap()
}

/// Batches with their offsets, the timestamp of every record, and the epochs' starts.
#[derive(Default)]
struct Known {
    batches: Vec<BatchHeader>,
    times: Vec<i64>,
    epochs: Vec<(i32, i64)>,
    start: i64,
}

fn append_some(log: &mut PartitionLog, random: &mut Seeded, known: &mut Known, count: usize) {
    for _ in 0..count {
        let epoch = known.epochs.last().map_or(0, |last| last.0) + i32::from(random.below(8) == 0);
        if known.epochs.last().is_none_or(|last| last.0 < epoch) {
            known.epochs.push((epoch, log.end_offset()));
        }
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..1 + random.below(4) {
            let time = 1_000 + known.times.len() as i64 * 3 + random.below(40) as i64;
            known.times.push(time);
            builder.push(time, None, Some(&vec![7; random.below(60) as usize]), &[]);
        }
        let bytes = builder.build().unwrap();
        let headers = header_of(&bytes);
        let appended = log.append(&bytes, &headers, epoch, AppendOrigin::Client, 0).unwrap();
        known.batches.push(BatchHeader { base_offset: appended.base_offset, ..headers[0] });
    }
}

/// Compares every answer with the model's. The error is the first that differs.
fn ask_everything(log: &PartitionLog, known: &Known) -> Result<(), String> {
    let end = known.times.len() as i64;
    if (log.log_start_offset(), log.end_offset()) != (known.start, end) {
        return Err(format!("it holds [{}, {}]", log.log_start_offset(), log.end_offset()));
    }
    for offset in known.start..end {
        for limit in [offset + 1, (offset + end) / 2 + 1, end] {
            check_read(log, known, offset, limit)?;
        }
    }
    if !matches!(log.read(end + 1, end, 1, true), Err(ReadError::OffsetOutOfRange { .. })) {
        return Err("an offset past the end is read".to_owned());
    }
    let from = known.start as usize;
    for time in 990..known.times.iter().max().copied().unwrap_or(0) + 2 {
        let expected = (from..known.times.len()).find(|offset| known.times[*offset] >= time);
        let found = log.offset_for_timestamp(time).map_err(|error| error.to_string())?;
        if found.map(|found| found.offset as usize) != expected {
            return Err(format!("time {time} gives {found:?}, not {expected:?}"));
        }
    }
    let newest = known.times[from..].iter().max().copied();
    let expected = (from..known.times.len()).find(|offset| Some(known.times[*offset]) == newest);
    let found = log.max_timestamp().map_err(|error| error.to_string())?;
    if found.map(|found| found.offset as usize) != expected {
        return Err(format!("the largest time is at {found:?}, not {expected:?}"));
    }
    Ok(())
}

fn check_read(log: &PartitionLog, known: &Known, offset: i64, limit: i64) -> Result<(), String> {
    let first = known.batches.iter().position(|batch| batch.last_offset() >= offset).unwrap();
    let base = known.batches[first].base_offset;
    let expected: usize = known.batches[first..]
        .iter()
        .take_while(|batch| {
            batch.last_offset() < limit && segment_of(log, batch) == segment_of(log, &known.batches[first])
        })
        .map(BatchHeader::size_in_bytes)
        .sum();
    let slice =
        log.read(offset, limit, usize::MAX, true).map_err(|error| format!("read {offset}: {error}"))?;
    let bytes = slice.read().map_err(|error| error.to_string())?;
    if bytes.len() != expected
        || (expected > 0 && (slice.base_offset != base || header_of(&bytes)[0].base_offset != base))
    {
        return Err(format!(
            "read {offset} to {limit}: {} bytes from {}, not {expected} from {base}",
            bytes.len(),
            slice.base_offset
        ));
    }
    Ok(())
}

fn segment_of(log: &PartitionLog, batch: &BatchHeader) -> i64 {
    let sealed = log.sealed_segments(0, i64::MAX).unwrap();
    sealed
        .iter()
        .find(|segment| segment.last_offset >= batch.base_offset)
        .map_or(i64::MAX, |segment| segment.base_offset)
}

fn check_epochs(log: &PartitionLog, known: &Known) {
    let end = known.times.len() as i64;
    for asked in -1..known.epochs.last().unwrap().0 + 3 {
        let floor = known.epochs.iter().rposition(|(epoch, _)| *epoch <= asked);
        let expected = match floor {
            _ if asked > known.epochs.last().unwrap().0 || asked < 0 => None,
            Some(at) => Some((known.epochs[at].0, known.epochs.get(at + 1).map_or(end, |next| next.1))),
            None => Some((asked, known.epochs[0].1)),
        };
        assert_eq!(log.epoch_end_offset(asked), expected, "epoch {asked}");
    }
}

#[test]
fn every_answer_agrees_with_a_naive_model_before_and_after_restarts() {
    for seed in 1..6 {
        let mut random = Seeded(seed * 77);
        let disk = SimulatedDisk::new();
        let mut known = Known::default();
        for round in 0..4 {
            let dir = open_dir(&disk);
            let mut log = open(&dir);
            append_some(&mut log, &mut random, &mut known, 20);
            ask_everything(&log, &known)
                .unwrap_or_else(|wrong| panic!("seed {seed}, round {round}: {wrong}"));
            check_epochs(&log, &known);
            if round == 2 {
                known.start = log.delete_records_before(17).unwrap();
                known
                    .epochs
                    .retain(|(epoch, _)| log.epoch_entries().iter().any(|entry| entry.epoch == *epoch));
                known.epochs[0].1 = log.epoch_entries()[0].start_offset;
                ask_everything(&log, &known).unwrap_or_else(|wrong| panic!("seed {seed}, deleted: {wrong}"));
            }
            if round % 2 == 0 {
                log.close().unwrap();
                dir.mark_clean_shutdown().unwrap();
            }
        }
    }
}

/// The youngest record is deleted, and its batch is not, since others of it count.
#[test]
fn the_largest_time_is_not_that_of_a_deleted_record() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = open(&dir);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for time in [1_000, 500, 700, 600, 700] {
        builder.push(time, None, Some(b"v"), &[]);
    }
    let bytes = builder.build().unwrap();
    log.append(&bytes, &header_of(&bytes), 0, AppendOrigin::Client, 0).unwrap();
    for (start, offset, timestamp) in [(0, 0, 1_000), (1, 2, 700), (3, 4, 700)] {
        log.delete_records_before(start).unwrap();
        let found = log.max_timestamp().unwrap().map(|found| (found.offset, found.timestamp));
        assert_eq!(found, Some((offset, timestamp)), "from {start}");
    }
}

#[test]
fn rotten_bits_in_derived_files_are_noticed_and_never_change_an_answer() {
    let mut random = Seeded(4242);
    let disk = SimulatedDisk::new();
    let mut known = Known::default();
    {
        let dir = open_dir(&disk);
        let mut log = open(&dir);
        append_some(&mut log, &mut random, &mut known, 45);
        log.close().unwrap();
        dir.mark_clean_shutdown().unwrap();
    }
    let files: Vec<_> = disk
        .files(Path::new(model::ROOT))
        .unwrap()
        .into_iter()
        .filter(|file| {
            let name = file.to_string_lossy();
            [".index", ".timeindex", ".snapshot", "recovery-point-offset-checkpoint", ".kafka_cleanshutdown"]
                .iter()
                .any(|end| name.ends_with(end))
        })
        .collect();
    let (mut flips, mut refused) = (0, 0);
    for file in files {
        let len = disk.contents(&file).unwrap().len() as u64;
        for byte in 0..len {
            let rotten = disk.after_power_cut(firn_storage::simulated::PowerCut::KeepAll);
            assert!(rotten.flip_bit(&file, byte, random.below(8) as u8));
            flips += 1;
            let what = format!("{} byte {byte}", file.display());
            let opened = LogDir::open(
                Arc::new(rotten.clone()),
                Path::new(model::ROOT),
                &model::identity(),
                LogDirOptions::default(),
            );
            let Ok(dir) = opened else {
                refused += 1;
                continue;
            };
            match dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0) {
                Ok(log) => ask_everything(&log, &known).unwrap_or_else(|wrong| panic!("{what}: {wrong}")),
                Err(error) => {
                    assert!(error.to_string().contains("damaged"), "{what}: {error}");
                    refused += 1;
                }
            }
        }
    }
    println!("{flips} flips, {refused} refused");
    assert!(flips > 500 && refused < flips / 10, "{flips} flips, {refused} refused");
}

#[test]
fn a_rotten_batch_above_the_recovery_point_is_cut_and_below_it_stops_the_log() {
    let mut random = Seeded(99);
    let disk = SimulatedDisk::new();
    let mut known = Known::default();
    let synced = {
        let dir = open_dir(&disk);
        let mut log = open(&dir);
        append_some(&mut log, &mut random, &mut known, 2);
        let done = log.flush_task().unwrap().unwrap().run().unwrap();
        log.flushed(done);
        log.remember();
        dir.checkpoint().unwrap();
        let synced = log.flushed_offset();
        append_some(&mut log, &mut random, &mut known, 2);
        synced
    };
    let file = Path::new(model::ROOT).join("snow-0").join("00000000000000000000.log");
    let first = known.batches[0].size_in_bytes() as u64;
    let unsynced = known.batches[..2].iter().map(|batch| batch.size_in_bytes() as u64).sum::<u64>();
    for (byte, survives) in [(first + 70, false), (unsynced + 70, true)] {
        let rotten = disk.after_power_cut(firn_storage::simulated::PowerCut::KeepAll);
        assert!(rotten.flip_bit(&file, byte, 3));
        let dir = open_dir(&rotten);
        let opened = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0);
        match opened {
            Ok(log) => {
                assert!(survives);
                assert_eq!(log.end_offset(), synced);
            }
            Err(error) => {
                assert!(!survives && error.to_string().contains("damaged"), "{error}");
                let other = firn_model::ids::TopicPartition::new("other", 0);
                dir.open_log(&other, topic_id(2), Arc::default(), 0).expect("other logs open");
            }
        }
    }
}
