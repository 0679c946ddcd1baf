//! Configs of a topic that shape its segments: when one is full or due, and the room that it reserves.

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

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firn_model::topic_config::TopicConfig;
use firn_storage::directory::LogDirOptions;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::real_disk::RealDisk;
use firn_storage::simulated::SimulatedDisk;

use model::{header_of, identity, open_dir, partition, topic_id};

fn open(dir: &LogDir, config: TopicConfig) -> PartitionLog {
    dir.open_log(&partition(), topic_id(1), Arc::new(config), 0).unwrap()
}

fn append(log: &mut PartitionLog, timestamp: i64, now_ms: i64) {
    let bytes = workload::batch(1, b"snow", timestamp, None, false);
    log.append(&bytes, &header_of(&bytes), 0, AppendOrigin::Client, now_ms).unwrap();
}

/// How long each of 20 segments lasts, whoever asks for the same log.
fn lifetimes(segment_ms: i64, segment_jitter_ms: i64) -> Vec<i64> {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let config = TopicConfig { segment_ms, segment_jitter_ms, ..TopicConfig::default() };
    let mut log = open(&dir, config);
    let (mut now_ms, mut lifetimes) = (0, Vec::new());
    for _ in 0..20 {
        append(&mut log, now_ms, now_ms);
        let lasted = (0..).find(|waited| log.roll_if_due(now_ms + waited).unwrap()).unwrap();
        lifetimes.push(lasted);
        now_ms += lasted;
    }
    lifetimes
}

#[test]
fn segment_jitter_ms_spreads_when_segments_are_due() {
    assert_eq!(lifetimes(1_000, 0), [1_001; 20], "past segment.ms");
    let spread = lifetimes(1_000, 400);
    assert!(spread.iter().all(|lasted| (602..=1_001).contains(lasted)), "{spread:?}");
    assert!(spread.iter().collect::<BTreeSet<_>>().len() > 10, "{spread:?}");
    assert_eq!(lifetimes(1_000, 400), spread, "the same for a restarted broker");
}

/// Segments of a log of 100 batches with an index entry for each, and the longest of its index files.
fn indexed(segment_index_bytes: i32, times_rise: bool) -> (usize, u64) {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let config = TopicConfig { segment_index_bytes, index_interval_bytes: 0, ..TopicConfig::default() };
    let mut log = open(&dir, config);
    for number in 0..100 {
        append(&mut log, if times_rise { number } else { 7 }, 0);
    }
    let segments = log.segment_count();
    log.close().unwrap();
    let files = disk.files(Path::new(model::ROOT)).unwrap();
    let indexes = files.iter().filter(|file| {
        [".index", ".timeindex"].iter().any(|ending| file.to_string_lossy().ends_with(ending))
    });
    (segments, indexes.map(|file| disk.contents(file).unwrap().len() as u64).max().unwrap())
}

#[test]
fn segment_index_bytes_ends_a_segment_whose_index_is_full() {
    assert_eq!(indexed(10 << 20, false).0, 1);
    for times_rise in [false, true] {
        let (few, longer) = indexed(240, times_rise);
        let (many, shorter) = indexed(120, times_rise);
        assert!(few > 1 && many > few, "{few} segments, {many} with half the room");
        assert!(longer <= 240 && shorter <= 120, "{longer} and {shorter} bytes");
    }
}

/// A directory of this machine that goes with its owner.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Bytes on the disk of the log's segments, the oldest first.
fn allocated(scratch: &Scratch) -> Vec<u64> {
    let entries = std::fs::read_dir(scratch.0.join(partition().to_string())).unwrap();
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "log"));
    files.sort();
    files.iter().map(|file| std::fs::metadata(file).unwrap().blocks() * 512).collect()
}

#[test]
fn preallocate_reserves_a_segment_s_room_until_it_is_sealed() {
    const SEGMENT_BYTES: i32 = 4 << 20;
    const FEW_BYTES: u64 = 256 << 10;
    for preallocate in [false, true] {
        let name = format!("firn-preallocate-{preallocate}-{}", std::process::id());
        let scratch = Scratch(std::env::temp_dir().join(name));
        let dir =
            LogDir::open(Arc::new(RealDisk), &scratch.0, &identity(), LogDirOptions::default()).unwrap();
        let config = TopicConfig {
            preallocate,
            segment_bytes: SEGMENT_BYTES,
            segment_ms: 1_000,
            ..TopicConfig::default()
        };
        let mut log = open(&dir, config);
        append(&mut log, 0, 0);
        let reserved = |bytes: u64| (bytes >= SEGMENT_BYTES as u64) == preallocate;
        assert!(reserved(allocated(&scratch)[0]), "{:?}", allocated(&scratch));
        assert!(log.roll_if_due(5_000).unwrap());
        let both = allocated(&scratch);
        assert!(both.len() == 2 && both[0] <= FEW_BYTES && reserved(both[1]), "{both:?}");
        assert_eq!(log.size_bytes(), std::fs::metadata(log_file(&scratch)).unwrap().len(), "no byte more");
    }
}

fn log_file(scratch: &Scratch) -> PathBuf {
    scratch.0.join(partition().to_string()).join("00000000000000000000.log")
}
