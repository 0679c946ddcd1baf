//! Writes one log on the real disk by the storage crate's own interface: batches of each kind, and what befalls a log.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::{TimestampType, TopicConfig};
use firn_records::batch::Codec;
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_records::control::{EndTransactionMarker, TransactionResult};
use firn_records::validate::{Compression, ProducePolicy, ValidatedBatches, validate};
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::directory::LogDirOptions;
use firn_storage::error::StorageError;
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::real_disk::RealDisk;
use firn_tests::process::TempDir;

const TOPIC_ID: [u8; 16] = *b"a-topic's own id";
const START_MS: i64 = 1_700_000_000_000;
const STEP_MS: i64 = 40;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];
const KEYS: u64 = 12;

/// A repeatable source of choices.
#[derive(Debug)]
struct Seeded(u64);

impl Seeded {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// Whose batches they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    Anonymous,
    Idempotent,
    Transactional,
    All,
}

/// One of the producers that take turns.
#[derive(Debug, Clone, Copy)]
struct Writer {
    id: i64,
    epoch: i16,
    next_sequence: i32,
    transactional: bool,
    in_transaction: bool,
}

/// A log directory with one log in it.
#[derive(Debug)]
pub struct Scribe {
    work: TempDir,
    dir: Option<LogDir>,
    log: Option<PartitionLog>,
    config: Arc<TopicConfig>,
    random: Seeded,
    now_ms: i64,
    leader_epoch: i32,
    writers: Vec<Writer>,
    /// Compactions that took a record away.
    pub compactions: u64,
}

fn topic_partition() -> TopicPartition {
    TopicPartition::new("written", 0)
}

impl Scribe {
    pub fn new(config: TopicConfig, writers: Writers, seed: u64) -> Scribe {
        let writer =
            |id| Writer { id, epoch: 0, next_sequence: 0, transactional: id >= 20, in_transaction: false };
        let ids: &[i64] = match writers {
            Writers::Anonymous => &[],
            Writers::Idempotent => &[10, 11, 12],
            Writers::Transactional => &[20, 21, 22],
            Writers::All => &[10, 11, 20, 21],
        };
        let mut scribe = Scribe {
            work: TempDir::new("written"),
            dir: None,
            log: None,
            config: Arc::new(config),
            random: Seeded(seed * 2 + 1),
            now_ms: START_MS,
            leader_epoch: 0,
            writers: ids.iter().map(|id| writer(*id)).collect(),
            compactions: 0,
        };
        scribe.open();
        scribe
    }

    pub fn path(&self) -> &Path {
        self.work.path()
    }

    pub fn partition_path(&self) -> PathBuf {
        self.path().join(topic_partition().to_string())
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.random.below(limit)
    }

    pub fn open(&mut self) {
        let identity =
            Identity { cluster_id: "cluster".to_owned(), node_id: 1, directory_id: "directory".to_owned() };
        // A process that another test starts has the lock's file, too, until it has become the program that it is to be.
        let deadline = Instant::now() + Duration::from_secs(20);
        let dir = loop {
            match LogDir::open(Arc::new(RealDisk), self.path(), &identity, LogDirOptions::default()) {
                Err(StorageError::Locked { .. }) if Instant::now() < deadline => std::thread::yield_now(),
                opened => break opened.expect("a directory"),
            }
        };
        let id = TopicId::from_bytes(TOPIC_ID);
        let log = dir.open_log(&topic_partition(), id, Arc::clone(&self.config), self.now_ms);
        self.log = Some(log.expect("the log opens"));
        self.dir = Some(dir);
        self.ask_after_the_writers();
    }

    pub fn log(&mut self) -> &mut PartitionLog {
        self.log.as_mut().expect("an open log")
    }

    /// As a broker that is told to stop leaves it.
    pub fn close(&mut self) {
        self.log.take().expect("an open log").close().expect("the log closes");
        self.dir.take().expect("a directory").mark_clean_shutdown().expect("a clean end");
    }

    /// As a broker that is killed in the middle of an append leaves it.
    pub fn crash(&mut self) {
        self.log = None;
        self.dir = None;
        let mut logs = self.files("log");
        logs.sort();
        let Some(last) = logs.last() else { return };
        let (batch, _) = self.batch(None, 3);
        let mut file = std::fs::File::options().append(true).open(last).expect("the last segment");
        file.write_all(&batch[..batch.len() / 2]).expect("half a batch");
    }

    /// Takes these files away.
    pub fn remove_files(&self, kinds: &[&str]) {
        for kind in kinds {
            for file in self.files(kind) {
                std::fs::remove_file(file).expect("remove a file");
            }
        }
    }

    pub fn files(&self, kind: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.partition_path()).expect("the partition's directory");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.filter(|path| path.extension().is_some_and(|found| found == kind)).collect()
    }

    /// Where the first segment on the disk begins, whatever of it was deleted.
    pub fn first_base_offset(&self) -> i64 {
        let bases = self.files("log").into_iter().filter_map(|path| {
            path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok())
        });
        bases.min().expect("a segment")
    }

    /// After what may have taken batches away the log says where its producers go on.
    fn ask_after_the_writers(&mut self) {
        let Some(log) = &self.log else { return };
        for writer in &mut self.writers {
            let entry = log.producers().entries().get(&writer.id);
            writer.epoch = entry.map_or(0, |entry| entry.epoch.max(0));
            writer.next_sequence = entry.map_or(0, |entry| entry.last_sequence() + 1);
            writer.in_transaction = entry.is_some_and(|entry| entry.current_txn_first_offset.is_some());
        }
    }

    pub fn new_leader(&mut self) {
        self.leader_epoch += 1;
        let epoch = self.leader_epoch;
        self.log().start_epoch(epoch);
    }

    /// A batch of whatever codec, keys, tombstones and headers chance gives.
    fn batch(&mut self, writer: Option<Writer>, count: u64) -> (Bytes, i32) {
        let producer = writer.map_or(Producer::NONE, |writer| Producer {
            id: writer.id,
            epoch: writer.epoch,
            base_sequence: writer.next_sequence,
        });
        let codec = CODECS[self.below(CODECS.len() as u64) as usize];
        let transactional = writer.is_some_and(|writer| writer.transactional);
        let options = BatchOptions { codec, producer, transactional, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        for _ in 0..count {
            let key = format!("key-{}", self.below(KEYS));
            let has_key = self.config.cleanup_policy.compact || self.below(4) > 0;
            let value = vec![b'a' + self.below(26) as u8; self.below(120) as usize];
            let has_value = self.below(6) > 0;
            // Producers' clocks differ.
            let timestamp = self.now_ms - self.below(100) as i64;
            let headers: [(&[u8], Option<&[u8]>); 2] = [(b"empty", None), (b"full", Some(&value))];
            let headers = &headers[..self.below(3) as usize];
            builder.push(
                timestamp,
                has_key.then_some(key.as_bytes()),
                has_value.then_some(value.as_slice()),
                headers,
            );
        }
        (builder.build().expect("a batch"), count as i32)
    }

    /// Appends what one of the writers sends, after the checks that a broker makes of it.
    pub fn produce(&mut self) {
        self.now_ms += STEP_MS;
        let who = self.random.below(self.writers.len() as u64 + 1) as usize;
        let writer = self.writers.get(who).copied();
        let count = 1 + self.below(6);
        let (bytes, count) = self.batch(writer, count);
        let policy = ProducePolicy {
            max_message_bytes: self.config.max_message_bytes as usize,
            timestamp_type: self.config.message_timestamp_type,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            compression: Compression::Producer,
            compacted: self.config.cleanup_policy.compact,
            single_batch: true,
            zstd_allowed: true,
            decompressed_bytes_max: 1 << 20,
        };
        let batches = validate(bytes, &policy, self.now_ms).expect("valid records");
        self.append(&batches, AppendOrigin::Client);
        if let Some(writer) = self.writers.get_mut(who) {
            writer.next_sequence += count;
            writer.in_transaction = writer.transactional;
        }
    }

    fn append(&mut self, batches: &ValidatedBatches, origin: AppendOrigin) {
        let (leader_epoch, now_ms) = (self.leader_epoch, self.now_ms);
        let appended = self.log().append(&batches.bytes, &batches.headers, leader_epoch, origin, now_ms);
        assert!(!appended.expect("appended").duplicate);
    }

    /// Ends one open transaction, if there is any.
    pub fn end_a_transaction(&mut self) {
        let Some(who) = self.writers.iter().position(|writer| writer.in_transaction) else { return };
        self.now_ms += STEP_MS;
        let writer = self.writers[who];
        let commit = self.below(2) == 0;
        let result = if commit { TransactionResult::Commit } else { TransactionResult::Abort };
        let marker = EndTransactionMarker { result, coordinator_epoch: 3 };
        let producer = Producer { id: writer.id, epoch: writer.epoch, base_sequence: -1 };
        let options =
            BatchOptions { producer, transactional: true, control: true, ..BatchOptions::default() };
        let mut builder = BatchBuilder::new(options);
        builder.push(self.now_ms, Some(&marker.key()), Some(&marker.value()), &[]);
        let batches = ValidatedBatches::trusted(builder.build().expect("a marker")).expect("whole");
        self.append(&batches, AppendOrigin::Coordinator);
        self.writers[who].in_transaction = false;
    }

    /// A producer that begins anew with a higher epoch.
    pub fn bump_an_epoch(&mut self) {
        let idle = |writer: &&mut Writer| !writer.in_transaction;
        if let Some(writer) = self.writers.iter_mut().rfind(idle) {
            writer.epoch += 1;
            writer.next_sequence = 0;
        }
    }

    pub fn flush(&mut self) {
        if let Some(task) = self.log().flush_task().expect("a flush") {
            let done = task.run().expect("flushed");
            self.log().flushed(done);
        }
        let end = self.log().end_offset();
        self.log().high_watermark_moved(end);
    }

    /// Cuts up to `records_max` records off, and lets another leader go on.
    pub fn truncate(&mut self, records_max: u64) {
        let (start, end) = (self.log().local_start_offset(), self.log().end_offset());
        let most = records_max.min((end - start) as u64);
        let target = end - self.below(most + 1) as i64;
        self.log().truncate_to(target).expect("truncated");
        self.new_leader();
        self.ask_after_the_writers();
    }

    /// Moves the log start into the log, and lets whole segments below it go.
    pub fn delete_records(&mut self) {
        self.flush();
        let (start, end) = (self.log().log_start_offset(), self.log().flushed_offset());
        let target = start + self.below((end - start) as u64 / 3 + 1) as i64;
        self.log().delete_records_before(target).expect("deleted");
        let now_ms = self.now_ms;
        self.log().retain(now_ms, end).expect("retained");
        self.ask_after_the_writers();
    }

    pub fn compact(&mut self, memory_bytes: usize) {
        self.flush();
        let now_ms = self.now_ms;
        let log = self.log();
        let limit = log.last_stable_offset(log.end_offset());
        let task = log.compaction_task(now_ms, limit, CleanerLimits::of_memory(memory_bytes));
        let Some(task) = task.expect("a look at the dirt") else { return };
        let done = task.run().expect("cleaned");
        let stats = log.compacted(done, now_ms).expect("swapped in");
        assert!(stats.applied, "{stats:?}");
        self.compactions += u64::from(stats.bytes_after < stats.bytes_before);
    }

    /// One step of a life in which anything may happen.
    pub fn live(&mut self) {
        match self.below(100) {
            0..64 => self.produce(),
            64..78 => self.end_a_transaction(),
            78..82 => self.flush(),
            82..84 => self.bump_an_epoch(),
            84..86 => self.new_leader(),
            86..89 => self.truncate(12),
            89..91 if self.config.cleanup_policy.delete => self.delete_records(),
            89..96 if self.config.cleanup_policy.compact => {
                let memory_bytes = (64 * 24) << self.below(8);
                self.compact(memory_bytes);
            }
            96..98 => {
                self.close();
                self.open();
            }
            98 => {
                self.crash();
                self.open();
            }
            _ => self.produce(),
        }
    }
}

/// So small that every mechanism is met often, and every batch has index entries.
pub fn small_segments() -> TopicConfig {
    TopicConfig {
        segment_bytes: 3_000,
        index_interval_bytes: 1,
        retention_ms: -1,
        delete_retention_ms: 2_000,
        file_delete_delay_ms: 100,
        min_cleanable_dirty_ratio: 0.0,
        message_timestamp_type: TimestampType::CreateTime,
        ..TopicConfig::default()
    }
}
