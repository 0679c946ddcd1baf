//! Compaction against a model: the last value of each key survives, in order, at its offset.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking, in its helpers too"
)]

#[path = "crash/model.rs"]
#[allow(dead_code, reason = "shared with the crash points")]
mod model;
#[path = "crash/workload.rs"]
#[allow(dead_code, reason = "shared with the crash points")]
mod workload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_model::topic_config::{CleanupPolicy, TopicConfig};
use firn_records::batch::{BatchHeader, Codec, HEADER_LENGTH};
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_records::compression::decompress;
use firn_records::record::records;
use firn_storage::cleaner_limits::{CleanerLimits, CleanerPace};
use firn_storage::cold_compaction::{ColdSegment, CopyRange};
use firn_storage::compaction::CompactionStats;
use firn_storage::error::StorageError;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::{Operation, SimulatedDisk};
use proptest::prelude::*;

use model::{header_of, open_dir, partition, read_all, topic_id};

const DELETE_RETENTION_MS: i64 = 1_000;

fn config() -> TopicConfig {
    TopicConfig {
        segment_bytes: 700,
        index_interval_bytes: 100,
        delete_retention_ms: DELETE_RETENTION_MS,
        min_cleanable_dirty_ratio: 0.0,
        cleanup_policy: CleanupPolicy { delete: false, compact: true },
        ..TopicConfig::default()
    }
}

fn append(log: &mut PartitionLog, bytes: &[u8], origin: AppendOrigin) -> i64 {
    log.append(bytes, &header_of(bytes), 1, origin, 0).unwrap().base_offset
}

fn compact(log: &mut PartitionLog, now_ms: i64, buffer: usize) -> Option<CompactionStats> {
    if let Some(task) = log.flush_task().unwrap() {
        let done = task.run().unwrap();
        log.flushed(done);
    }
    let task = log.compaction_task(now_ms, log.end_offset(), CleanerLimits::of_memory(buffer)).unwrap()?;
    let done = task.run().unwrap();
    Some(log.compacted(done, now_ms).unwrap())
}

type Row = (i64, Vec<u8>, Option<Vec<u8>>);

fn rows(log: &PartitionLog) -> Vec<Row> {
    let mut rows = Vec::new();
    for (header, batch) in read_all(log).unwrap() {
        if header.is_control() {
            continue;
        }
        let payload = match header.codec().unwrap() {
            Codec::None => batch[HEADER_LENGTH..].to_vec(),
            codec => decompress(codec, &batch[HEADER_LENGTH..], 1 << 20).unwrap_or_default(),
        };
        for record in records(header.record_count, &payload) {
            let record = record.unwrap();
            let offset = header.base_offset + i64::from(record.offset_delta);
            rows.push((offset, record.key.unwrap().to_vec(), record.value.map(<[u8]>::to_vec)));
        }
    }
    rows
}

/// Keys and values of one batch, and whether it is compressed.
type Batch = (Vec<(u8, Option<u8>)>, bool);

fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let record = (0u8..90, proptest::option::weighted(0.8, any::<u8>()));
    proptest::collection::vec((proptest::collection::vec(record, 1..8), any::<bool>()), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_last_value_of_each_key_survives(batches in batches(), restart in any::<bool>()) {
        let disk = SimulatedDisk::new();
        let mut dir = open_dir(&disk);
        let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
        let mut appended: Vec<Row> = Vec::new();
        for (index, (records, compressed)) in batches.iter().enumerate() {
            let codec = if *compressed { Codec::Lz4 } else { Codec::None };
            let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
            let base = log.end_offset();
            for (delta, (key, value)) in records.iter().enumerate() {
                let value = value.map(|value| vec![value; 20]);
                builder.push(index as i64, Some(&[*key]), value.as_deref(), &[(b"h", Some(b"v"))]);
                appended.push((base + delta as i64, vec![*key], value));
            }
            append(&mut log, &builder.build().unwrap(), AppendOrigin::Client);
        }
        // A memory of 57 keys: many passes are needed, and each must leave a true log.
        for now_ms in 10_000..10_200 {
            let before = rows(&log);
            let Some(stats) = compact(&mut log, now_ms, 64 * 24) else { break };
            prop_assert!(stats.applied);
            prop_assert!(rows(&log).iter().all(|row| before.contains(row)), "cleaning makes nothing up");
        }
        if restart {
            drop((log, dir));
            dir = open_dir(&disk);
            log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
        }
        let found = rows(&log);
        prop_assert!(found.iter().all(|row| appended.contains(row)));
        prop_assert!(found.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets rise");
        // Sealed segments hold each key's last record of the sealed part, and no other.
        let sealed = log.sealed_segments(0, i64::MAX).unwrap().last().map_or(0, |last| last.last_offset + 1);
        let mut last: BTreeMap<&Vec<u8>, i64> = BTreeMap::new();
        for (offset, key, _) in appended.iter().filter(|row| row.0 < sealed) {
            last.insert(key, *offset);
        }
        let mut expected: Vec<i64> = last.values().copied().collect();
        expected.extend(appended.iter().map(|row| row.0).filter(|offset| *offset >= sealed));
        expected.sort_unstable();
        prop_assert_eq!(found.iter().map(|row| row.0).collect::<Vec<_>>(), expected);
        prop_assert_eq!(log.end_offset(), appended.len() as i64);
    }
}

fn keyed(rows: &[(&str, Option<&str>)], producer: Producer, transactional: bool) -> Vec<u8> {
    let options = BatchOptions { producer, transactional, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    for (key, value) in rows {
        builder.push(1_000, Some(key.as_bytes()), value.map(str::as_bytes), &[]);
    }
    builder.build().unwrap().to_vec()
}

fn fill(log: &mut PartitionLog, name: &str) {
    for _ in 0..3 {
        append(log, &keyed(&[(name, Some(&"x".repeat(400)))], Producer::NONE, false), AppendOrigin::Client);
    }
}

#[test]
fn a_tombstone_stays_until_its_horizon_and_then_goes() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
    append(&mut log, &keyed(&[("a", Some("1")), ("a", None)], Producer::NONE, false), AppendOrigin::Client);
    fill(&mut log, "f");
    compact(&mut log, 5_000, 1 << 20).unwrap();
    let header = |log: &PartitionLog| -> BatchHeader { read_all(log).unwrap()[0].0 };
    assert!(header(&log).has_delete_horizon());
    assert_eq!(header(&log).base_timestamp, 5_000 + DELETE_RETENTION_MS);
    assert_eq!(rows(&log)[0], (1, b"a".to_vec(), None));
    let found = log.offset_for_timestamp(1_000).unwrap().unwrap();
    assert_eq!((found.offset, found.timestamp), (1, 1_000), "record times survive the horizon");
    fill(&mut log, "f");
    compact(&mut log, 5_999, 1 << 20).unwrap();
    assert_eq!(rows(&log)[0].1, b"a");
    fill(&mut log, "f");
    compact(&mut log, 6_000, 1 << 20).unwrap();
    assert!(rows(&log).iter().all(|row| row.1 != b"a"));
}

#[test]
fn the_last_batch_of_a_producer_stays_emptied_and_its_retry_is_known_after_a_restart() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
    let producer = Producer { id: 9, epoch: 0, base_sequence: 4 };
    let batch = keyed(&[("a", Some("1"))], producer, false);
    append(&mut log, &batch, AppendOrigin::Client);
    append(&mut log, &keyed(&[("a", Some("2"))], Producer::NONE, false), AppendOrigin::Client);
    fill(&mut log, "f");
    compact(&mut log, 5_000, 1 << 20).unwrap();
    let first = read_all(&log).unwrap()[0].0;
    assert_eq!((first.record_count, first.base_sequence, first.last_offset()), (0, 4, 0));
    // Without the snapshots the batches alone must tell.
    drop((log, dir));
    for file in disk.files(std::path::Path::new(model::ROOT)).unwrap() {
        if file.extension().is_some_and(|extension| extension == "snapshot") {
            firn_storage::disk::Disk::remove_file(&disk, &file).unwrap();
        }
    }
    let dir = open_dir(&disk);
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
    let again = log.append(&batch, &header_of(&batch), 1, AppendOrigin::Client, 0).unwrap();
    assert!(again.duplicate && again.base_offset == 0);
}

#[test]
fn the_time_of_an_emptied_batch_is_no_time_of_the_log() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
    let mut late = BatchBuilder::new(BatchOptions {
        producer: Producer { id: 9, epoch: 0, base_sequence: 0 },
        ..BatchOptions::default()
    });
    late.push(9_000, Some(b"a"), Some(b"1"), &[]);
    append(&mut log, &late.build().unwrap(), AppendOrigin::Client);
    append(&mut log, &keyed(&[("a", Some("2"))], Producer::NONE, false), AppendOrigin::Client);
    fill(&mut log, "f");
    compact(&mut log, 5_000, 1 << 20).unwrap();
    assert_eq!(read_all(&log).unwrap()[0].0.record_count, 0);
    let check = |log: &PartitionLog| {
        assert_eq!(
            log.max_timestamp().unwrap().map(|found| (found.offset, found.timestamp)),
            Some((1, 1_000))
        );
        assert_eq!(log.offset_for_timestamp(1_001).unwrap(), None);
    };
    check(&log);
    drop((log, dir));
    let dir = open_dir(&disk);
    check(&dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap());
}

#[test]
fn aborted_records_go_and_markers_and_the_abort_index_stay() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
    let marker = |id: i64, commit: bool| {
        let options = BatchOptions {
            producer: Producer { id, epoch: 0, base_sequence: -1 },
            transactional: true,
            control: true,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        builder.push(1_000, Some(&[0, 0, 0, u8::from(commit)]), Some(&[0, 0, 0, 0, 0, 1]), &[]);
        builder.build().unwrap().to_vec()
    };
    append(&mut log, &keyed(&[("a", Some("kept"))], Producer::NONE, false), AppendOrigin::Client);
    let open = |id| Producer { id, epoch: 0, base_sequence: 0 };
    append(&mut log, &keyed(&[("a", Some("aborted"))], open(1), true), AppendOrigin::Client);
    append(&mut log, &keyed(&[("b", Some("committed"))], open(2), true), AppendOrigin::Client);
    assert_eq!(log.last_stable_offset(log.end_offset()), 1);
    append(&mut log, &marker(1, false), AppendOrigin::Coordinator);
    append(&mut log, &marker(2, true), AppendOrigin::Coordinator);
    assert_eq!(log.last_stable_offset(log.end_offset()), 5);
    fill(&mut log, "f");
    let before = log.aborted_transactions(0, 5).unwrap();
    assert_eq!(before.len(), 1);
    assert_eq!((before[0].first_offset, before[0].last_offset, before[0].last_stable_offset), (1, 3, 2));
    compact(&mut log, 5_000, 1 << 20).unwrap();
    let kept = rows(&log);
    assert_eq!(kept[0], (0, b"a".to_vec(), Some(b"kept".to_vec())), "an aborted record supersedes nothing");
    assert_eq!(kept[1], (2, b"b".to_vec(), Some(b"committed".to_vec())));
    let control: Vec<i64> = read_all(&log)
        .unwrap()
        .iter()
        .filter(|(header, _)| header.is_control())
        .map(|(h, _)| h.base_offset)
        .collect();
    assert_eq!(control, [3, 4]);
    assert_eq!(log.aborted_transactions(0, 5).unwrap(), before);
}

#[test]
fn young_records_wait_and_old_ones_do_not() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let patient = TopicConfig { min_cleanable_dirty_ratio: 1.0, ..config() };
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(patient.clone()), 0).unwrap();
    fill(&mut log, "f");
    assert_eq!(compact(&mut log, 5_000, 1 << 20), None, "not dirtier than the ratio");
    log.update_config(Arc::new(TopicConfig { max_compaction_lag_ms: 4_000, ..patient.clone() }));
    assert_eq!(compact(&mut log, 5_000, 1 << 20), None, "exactly max.compaction.lag.ms old");
    log.update_config(Arc::new(TopicConfig { min_compaction_lag_ms: 4_002, ..config() }));
    assert_eq!(compact(&mut log, 5_001, 1 << 20), None, "younger than min.compaction.lag.ms");
    log.update_config(Arc::new(TopicConfig { max_compaction_lag_ms: 4_000, ..patient }));
    assert!(compact(&mut log, 5_001, 1 << 20).unwrap().applied);
}

#[test]
fn the_active_segment_is_left_in_time_for_the_largest_lag() {
    let lag = TopicConfig { max_compaction_lag_ms: 4_000, segment_bytes: 1 << 20, ..config() };
    let not_compacted = CleanupPolicy { delete: true, compact: false };
    for (config, now_ms, rolls) in [
        (lag.clone(), 4_000, false),
        (lag.clone(), 4_001, true),
        // A share of the jitter that is larger than the lag would have every record begin a segment.
        (TopicConfig { segment_jitter_ms: i64::MAX, ..lag.clone() }, 0, false),
        (TopicConfig { segment_ms: 2_000, ..lag.clone() }, 2_001, true),
        (TopicConfig { cleanup_policy: not_compacted, ..lag }, 4_001, false),
    ] {
        let dir = open_dir(&SimulatedDisk::new());
        let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap();
        append(&mut log, &keyed(&[("k", Some("v"))], Producer::NONE, false), AppendOrigin::Client);
        assert_eq!(log.roll_if_due(now_ms).unwrap(), rolls, "at {now_ms} with {config:?}");
    }
}

#[test]
fn a_pass_that_is_stopped_ends_at_the_next_batch_and_leaves_the_log_as_it_was() {
    let disk = SimulatedDisk::new();
    let dir = Arc::new(open_dir(&disk));
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
    fill(&mut log, "f");
    fill(&mut log, "f");
    let flushed = log.flush_task().unwrap().unwrap().run().unwrap();
    log.flushed(flushed);
    let before = rows(&log);
    let task = || log.compaction_task(5_000, log.end_offset(), CleanerLimits::of_memory(1 << 20)).unwrap();
    let (first, second) = (task().unwrap(), task().unwrap());
    let created = Arc::new(std::sync::Mutex::new(Vec::new()));
    disk.set_probe(Some({
        let (dir, created) = (Arc::clone(&dir), Arc::clone(&created));
        Arc::new(move |_, _, operation, path| {
            if operation == Operation::Create && path.to_string_lossy().ends_with(".cleaned") {
                created.lock().unwrap().push(path.to_owned());
                dir.stop_compaction();
            }
        })
    }));
    assert!(matches!(first.run(), Err(StorageError::CompactionStopped)));
    assert_eq!(created.lock().unwrap().len(), 1, "not even the first segment was finished");
    assert!(matches!(second.run(), Err(StorageError::CompactionStopped)));
    assert_eq!(created.lock().unwrap().len(), 1, "keys are not gathered either");
    assert!(task().is_none(), "none begins");
    disk.set_probe(None);
    assert_eq!(rows(&log), before);
    log.close().unwrap();
    drop(dir);
    let dir = open_dir(&disk);
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
    assert_eq!(rows(&log), before);
    let files = disk.files(std::path::Path::new(model::ROOT)).unwrap();
    assert!(!files.iter().any(|file| file.to_string_lossy().ends_with(".cleaned")), "{files:?}");
    assert!(compact(&mut log, 5_000, 1 << 20).unwrap().applied, "the next process begins again");
}

/// The value that lies furthest behind is the one that survives: no checksum covers where a batch says that it lies.
#[test]
fn a_batch_that_says_that_it_lies_elsewhere_is_not_compacted() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let config = TopicConfig { segment_bytes: 1_500, ..config() };
    let mut log = nine_segments(&dir, config);
    let path = dir.path().join(partition().to_string()).join("00000000000000000000.log");
    let batches: Vec<BatchHeader> = read_all(&log).unwrap().into_iter().map(|(header, _)| header).collect();
    let before = rows(&log);
    let mut at = 0;
    for header in &batches[..3] {
        for (byte, bit) in (0..8).flat_map(|byte| (0..8).map(move |bit| (at + byte, bit))) {
            assert!(disk.flip_bit(&path, byte, bit));
            let task =
                log.compaction_task(5_000, log.end_offset(), CleanerLimits::of_memory(1 << 20)).unwrap();
            let ended = task.unwrap().run().map(drop);
            assert!(
                matches!(ended, Err(StorageError::Corrupt { .. })),
                "{header:?}, byte {byte}, bit {bit}: {ended:?}"
            );
            assert!(disk.flip_bit(&path, byte, bit));
        }
        at += header.size_in_bytes() as u64;
    }
    assert_eq!(rows(&log), before);
    assert!(compact(&mut log, 5_000, 1 << 20).unwrap().applied);
}

/// A log of nine flushed segments, one record each: three of key f, three of g, three of f.
fn nine_segments(dir: &LogDir, config: TopicConfig) -> PartitionLog {
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config), 0).unwrap();
    for name in ["f", "g", "f"] {
        fill(&mut log, name);
    }
    let flushed = log.flush_task().unwrap().unwrap().run().unwrap();
    log.flushed(flushed);
    log
}

#[test]
fn a_segment_that_leaves_the_disk_ends_the_pass_and_the_next_one_begins_anew() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = nine_segments(&dir, config());
    let task =
        log.compaction_task(5_000, log.end_offset(), CleanerLimits::of_memory(1 << 20)).unwrap().unwrap();
    let segments = log.segment_count();
    log.set_log_start_offset(2).unwrap();
    log.retain(5_000, log.end_offset()).unwrap();
    assert_eq!(log.segment_count(), segments - 2);
    assert!(matches!(task.run(), Err(StorageError::CompactionStopped)));
    assert!(compact(&mut log, 5_000, 1 << 20).unwrap().applied);
    assert_eq!(
        rows(&log).iter().map(|row| row.0).collect::<Vec<_>>(),
        [5, 7, 8],
        "the last of f, of g, and what is active"
    );
}

/// The leader that makes it cut them may have what they superseded here.
#[test]
fn a_tiered_log_that_loses_records_by_which_it_was_compacted_begins_anew() {
    for (is_tiered, cut_at, end) in [(true, 8, 8), (true, 7, 0), (false, 7, 7)] {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let config = TopicConfig { remote_storage_enable: is_tiered, ..config() };
        let mut log = nine_segments(&dir, config);
        compact(&mut log, 5_000, 1 << 20).unwrap();
        assert_eq!(log.cleaned_offset(), 8);
        log.truncate_to(cut_at).unwrap();
        assert_eq!((log.end_offset(), log.cleaned_offset()), (end, end), "cut at {cut_at}, {is_tiered}");
        assert_eq!(log.log_start_offset(), 0);
    }
}

/// The same, of which the first three have left the disk.
fn cold_at_its_beginning(dir: &LogDir) -> PartitionLog {
    let tiered = TopicConfig { remote_storage_enable: true, local_retention_bytes: 2_600, ..config() };
    let mut log = nine_segments(dir, tiered);
    log.set_tiered_end_offset(8);
    log.retain(5_000, log.end_offset()).unwrap();
    assert_eq!((log.log_start_offset(), log.local_start_offset(), log.end_offset()), (0, 3, 9));
    log
}

/// Counts, and never makes anybody wait.
#[derive(Debug, Default)]
struct Counting(AtomicU64);

impl CleanerPace for Counting {
    fn spend(&self, bytes: u64, stopped: &dyn Fn() -> bool) {
        assert!(!stopped());
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[test]
fn what_compaction_reads_and_writes_is_paced() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = nine_segments(&dir, config());
    let pace = Arc::new(Counting::default());
    let limits = CleanerLimits { pace: pace.clone(), ..CleanerLimits::of_memory(1 << 20) };
    let task = log.compaction_task(5_000, log.end_offset(), limits).unwrap().unwrap();
    let done = task.run().unwrap();
    let stats = log.compacted(done, 5_000).unwrap();
    assert!(stats.bytes_after > 0 && stats.bytes_after < stats.bytes_before);
    let read_twice_and_written = 2 * stats.bytes_before + stats.bytes_after;
    assert_eq!(
        pace.0.load(Ordering::Relaxed),
        read_twice_and_written,
        "once for the keys, once for the rest"
    );
}

fn stored(from: i64, to: i64) -> ColdSegment {
    ColdSegment { from, to, bytes: 420, max_timestamp: -1, serves_in_part: false }
}

/// Segments leave the disk while a pass is being prepared, and a listing may lack what is in the store.
#[test]
fn a_pass_over_cold_segments_goes_up_to_where_the_disk_begins_and_around_no_hole() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let log = cold_at_its_beginning(&dir);
    let begin = |ranges: &[(i64, i64)]| {
        let stored = ranges.iter().map(|(from, to)| stored(*from, *to)).collect();
        log.tiered_compaction(5_000, log.end_offset(), CleanerLimits::of_memory(1 << 20), stored)
    };
    let pass = begin(&[(0, 2), (2, 4), (4, 8)]).unwrap().unwrap();
    assert_eq!((pass.cold_end(), pass.dirty_cold()), (3, vec![0, 1]));
    let refused = |ranges: &[(i64, i64)]| match begin(ranges) {
        Err(StorageError::NotInStore { from, to, .. }) => (from, to),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&[]), (0, 3));
    assert_eq!(refused(&[(0, 1), (1, 2)]), (2, 3), "what left the disk last");
    assert_eq!(refused(&[(0, 1), (3, 8)]), (1, 3));
    assert_eq!(refused(&[(0, 1), (2, 3)]), (1, 2));
    assert_eq!(refused(&[(1, 3)]), (0, 1));
}

#[test]
fn what_a_crash_leaves_of_a_pass_over_cold_segments_the_next_open_removes() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let log = cold_at_its_beginning(&dir);
    let pass = log
        .tiered_compaction(5_000, log.end_offset(), CleanerLimits::of_memory(1 << 20), vec![stored(0, 3)])
        .unwrap()
        .unwrap();
    let range = CopyRange { base_offset: 0, end_offset: 1, from: 0, to: 1 };
    let names = || -> Vec<String> {
        let files = disk.files(std::path::Path::new(model::ROOT)).unwrap();
        files.iter().map(|file| file.to_string_lossy().into_owned()).filter(|n| n.contains("cold")).collect()
    };
    let mut copy = pass.receive(range).unwrap();
    copy.push(b"whatever").unwrap();
    assert_eq!(names().len(), 1);
    drop(copy);
    assert_eq!(names(), Vec::<String>::new(), "a copy goes when it is let go of");
    std::mem::forget(pass.receive(range).unwrap());
    assert_eq!(names().len(), 1);
    drop((log, dir));
    open_dir(&disk).open_log(&partition(), topic_id(1), Arc::new(config()), 0).unwrap();
    assert_eq!(names(), Vec::<String>::new());
}
