//! A seeded life of one log on a simulated disk, with the model kept in step.

use std::sync::Arc;

use firn_model::topic_config::{CleanupPolicy, TopicConfig};
use firn_records::batch::{BatchHeader, HEADER_LENGTH, batches};
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_records::record::records;
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::directory::LogDirOptions;
use firn_storage::error::StorageError;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::SimulatedDisk;
use parking_lot::Mutex;

use super::model::{LastBatch, Model, Row, header_of, partition, topic_id};

/// A repeatable source of choices.
#[derive(Debug, Clone)]
pub struct Seeded(pub u64);

impl Seeded {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// A batch of `count` keyed records.
pub fn batch(
    count: usize,
    text: &[u8],
    timestamp: i64,
    producer: Option<(i64, i16, i32)>,
    transactional: bool,
) -> Vec<u8> {
    let rows: Vec<(Vec<u8>, Option<Vec<u8>>)> =
        (0..count).map(|index| (vec![b'a' + (index % 8) as u8], Some(text.to_vec()))).collect();
    batch_of(&rows, timestamp, producer, transactional)
}

pub fn batch_of(
    rows: &[(Vec<u8>, Option<Vec<u8>>)],
    timestamp: i64,
    producer: Option<(i64, i16, i32)>,
    transactional: bool,
) -> Vec<u8> {
    let producer = match producer {
        Some((id, epoch, base_sequence)) => Producer { id, epoch, base_sequence },
        None => Producer::NONE,
    };
    let mut builder = BatchBuilder::new(BatchOptions { producer, transactional, ..BatchOptions::default() });
    for (key, value) in rows {
        builder.push(timestamp, Some(key), value.as_deref(), &[]);
    }
    builder.build().expect("a batch").to_vec()
}

/// Shared with the probe, which checks it in the middle of a call.
pub type Shared = Arc<Mutex<Model>>;

pub struct Workload {
    disk: SimulatedDisk,
    dir: Option<LogDir>,
    log: Option<PartitionLog>,
    pub model: Shared,
    random: Seeded,
    now_ms: i64,
    sequences: [i32; 3],
    shape: Shape,
    config: TopicConfig,
    /// Compactions that changed the log.
    pub compactions: u64,
    /// Segments that left the disk for the tier.
    pub cooled: usize,
    /// Never deletes the log: under faults nobody could say whether it is gone.
    pub keeps_its_log: bool,
}

/// What kind of topic the log belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Deleted,
    Compacted,
    /// Tiered from the start, and no more, and again, as restarts will have it.
    Tiered,
}

/// Small enough that every mechanism is met often.
pub fn config(shape: Shape) -> TopicConfig {
    let compacted = shape == Shape::Compacted;
    TopicConfig {
        preallocate: shape == Shape::Deleted,
        remote_storage_enable: shape == Shape::Tiered,
        local_retention_ms: 0,
        segment_bytes: 1200,
        index_interval_bytes: 200,
        retention_ms: 2_000,
        file_delete_delay_ms: 300,
        delete_retention_ms: 500,
        min_cleanable_dirty_ratio: 0.1,
        cleanup_policy: CleanupPolicy { delete: !compacted, compact: compacted },
        ..TopicConfig::default()
    }
}

impl Workload {
    pub fn new(disk: SimulatedDisk, seed: u64, shape: Shape, model: Shared) -> Self {
        let config = config(shape);
        *model.lock() = Model { topic_id: 1, config: config.clone(), may_be_gone: true, ..Model::default() };
        let mut workload = Self {
            disk,
            dir: None,
            log: None,
            model,
            random: Seeded(seed * 2 + 1),
            now_ms: 1_000,
            sequences: [0; 3],
            shape,
            config,
            compactions: 0,
            cooled: 0,
            keeps_its_log: false,
        };
        workload.open().unwrap_or_else(|error| panic!("the log does not open: {error}"));
        workload
    }

    fn open(&mut self) -> Result<(), StorageError> {
        let id = self.model.lock().topic_id;
        let path = std::path::Path::new(super::model::ROOT);
        let dir = LogDir::open(
            Arc::new(self.disk.clone()),
            path,
            &super::model::identity(),
            LogDirOptions::default(),
        )?;
        self.log =
            Some(dir.open_log(&partition(), topic_id(id), Arc::new(self.config.clone()), self.now_ms)?);
        self.dir = Some(dir);
        Ok(())
    }

    /// A record with a flush: what an acknowledgement rests on.
    pub fn write_durably(&mut self) -> Result<(), StorageError> {
        if self.log.is_none() {
            return Err(StorageError::Offline {
                what: "the log".to_owned(),
                reason: "it is closed".to_owned(),
            });
        }
        self.append()?;
        self.flush()
    }

    /// Goes on after a step failed: a log that was being closed is opened again.
    pub fn reopen_if_closed(&mut self) -> bool {
        if self.log.is_none() && self.failed().is_none() {
            self.dir = None;
            self.open().unwrap_or_else(|error| panic!("the log does not open again: {error}"));
            self.acknowledge();
        }
        self.log.is_some()
    }

    pub fn is_open(&self) -> bool {
        self.log.is_some()
    }

    /// Why the log directory stopped, if it did.
    pub fn failed(&self) -> Option<String> {
        self.dir.as_ref().and_then(LogDir::failed)
    }

    fn log(&mut self) -> &mut PartitionLog {
        self.log.as_mut().expect("an open log")
    }

    /// One step. The error is what the log said of a fault.
    pub fn step(&mut self) -> Result<(), StorageError> {
        self.now_ms += 40;
        match self.random.below(100) {
            0..58 => self.append(),
            58..69 => self.flush(),
            69..75 => self.flush_beside_appends(),
            75..82 => self.checkpoint(),
            82..86 => self.retain(),
            86..90 => self.delete_records(),
            90..93 => self.truncate(),
            93..96 => self.compact(),
            96..99 => self.restart(),
            _ if self.keeps_its_log => self.append(),
            _ => self.delete_log(),
        }
    }

    fn append(&mut self) -> Result<(), StorageError> {
        let count = 1 + self.random.below(4) as usize;
        let size = self.random.below(150) as usize;
        let rows: Vec<_> = (0..count)
            .map(|_| {
                let key = vec![b'a' + self.random.below(8) as u8];
                let value = vec![b'0' + self.random.below(10) as u8; size];
                (key, (self.random.below(6) > 0).then_some(value))
            })
            .collect();
        let who = self.random.below(4) as usize;
        let producer = self.sequences.get(who).map(|sequence| (who as i64 + 10, 0, *sequence));
        let bytes = batch_of(&rows, self.now_ms, producer, false);
        let headers = header_of(&bytes);
        let now_ms = self.now_ms;
        let base = self.log().end_offset();
        // Another leader every ten steps.
        let leader_epoch = (now_ms / 400) as i32;
        {
            let mut model = self.model.lock();
            for row in rows_of(&headers[0], &bytes, base) {
                model.rows.insert(row.offset, row);
            }
            model.end_max = base + count as i64;
        }
        let appended = match self.log().append(&bytes, &headers, leader_epoch, AppendOrigin::Client, now_ms) {
            Ok(appended) => appended,
            Err(error) => {
                let mut model = self.model.lock();
                // It may be on the disk all the same; it is not in the log.
                return match error {
                    firn_storage::error::AppendError::Storage(error) => Err(error),
                    firn_storage::error::AppendError::DiskFull { .. } => {
                        model.rows.retain(|offset, _| *offset < base);
                        Ok(())
                    }
                    other => panic!("refused: {other}"),
                };
            }
        };
        assert_eq!((appended.base_offset, appended.duplicate), (base, false));
        if let Some(sequence) = self.sequences.get_mut(who) {
            *sequence += count as i32;
            let last = LastBatch { bytes, base_offset: base, last_offset: appended.last_offset };
            self.model.lock().producers.insert(who as i64 + 10, last);
        }
        Ok(())
    }

    fn acknowledge(&mut self) {
        let (end, start) = (self.log().flushed_offset(), self.log().log_start_offset());
        let mut model = self.model.lock();
        model.end_min = model.end_min.max(end);
        model.start_min = model.start_min.max(start);
        if end > 0 {
            model.may_be_gone = false;
        }
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        if let Some(task) = self.log().flush_task()? {
            let done = task.run()?;
            self.log().flushed(done);
        }
        self.acknowledge();
        Ok(())
    }

    /// Group commit as it is: while a flush runs, others append, and roll.
    fn flush_beside_appends(&mut self) -> Result<(), StorageError> {
        let Some(task) = self.log().flush_task()? else { return self.append() };
        for _ in 0..1 + self.random.below(4) {
            self.append()?;
        }
        let done = task.run()?;
        self.log().flushed(done);
        self.acknowledge();
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StorageError> {
        if let Some(task) = self.log().checkpoint_task()? {
            let done = task.run()?;
            self.log().flushed(done);
        }
        self.acknowledge();
        self.log().remember();
        self.dir.as_ref().expect("a directory").checkpoint()
    }

    fn retain(&mut self) -> Result<(), StorageError> {
        self.flush()?;
        let (now_ms, limit) = (self.now_ms, self.log().flushed_offset());
        if self.config.remote_storage_enable {
            self.cool()?;
        } else {
            self.model.lock().start_max = limit;
        }
        let retained = self.log().retain(now_ms, limit)?;
        if self.config.remote_storage_enable {
            self.cooled += retained.segments;
        }
        self.start_moved();
        Ok(())
    }

    /// The tier has some more of what is sealed and flushed.
    fn cool(&mut self) -> Result<(), StorageError> {
        let flushed = self.log().flushed_offset();
        let sealed = self.log().sealed_segments(0, flushed)?;
        let count = self.random.below(sealed.len() as u64 + 1) as usize;
        if let Some(last) = sealed.get(..count).and_then(<[_]>::last) {
            self.log().set_tiered_end_offset(last.last_offset + 1);
        }
        Ok(())
    }

    fn start_moved(&mut self) {
        let start = self.log().log_start_offset();
        let mut model = self.model.lock();
        model.start_min = start;
        model.start_max = start;
    }

    fn delete_records(&mut self) -> Result<(), StorageError> {
        self.flush()?;
        let (start, end) = (self.log().log_start_offset(), self.log().flushed_offset());
        let target = start + self.random.below((end - start) as u64 / 2 + 1) as i64;
        self.model.lock().start_max = target.max(start);
        self.log().delete_records_before(target)?;
        self.start_moved();
        Ok(())
    }

    fn truncate(&mut self) -> Result<(), StorageError> {
        let (start, end) = (self.log().local_start_offset(), self.log().end_offset());
        let target = end - self.random.below(8.min((end - start) as u64 + 1)) as i64;
        {
            // A batch is cut whole: what is left may end a little below the target.
            let mut model = self.model.lock();
            model.end_min = model.end_min.min((target - 4).max(0));
            let floor = model.end_min;
            model.start_min = model.start_min.min(floor);
            model.producers.clear();
        }
        self.log().truncate_to(target)?;
        let end = self.log().end_offset();
        assert!(end <= target && end > target - 5, "{target} became {end}");
        self.sequences = [0; 3];
        for (id, entry) in self.log.as_ref().expect("a log").producers().entries() {
            self.sequences[(*id - 10) as usize] = entry.last_sequence() + 1;
        }
        let mut model = self.model.lock();
        model.rows.retain(|offset, _| *offset < end);
        model.end_max = end;
        model.end_min = model.end_min.min(end);
        drop(model);
        self.start_moved();
        Ok(())
    }

    fn compact(&mut self) -> Result<(), StorageError> {
        self.flush()?;
        let (now_ms, limit) = (self.now_ms, self.log().flushed_offset());
        let Some(task) = self.log().compaction_task(now_ms, limit, CleanerLimits::of_memory(4096))? else {
            return Ok(());
        };
        // The range is what the cleaner may touch; which record is newest is judged against the whole log.
        self.model.lock().compacted_below = limit;
        let done = task.run()?;
        let stats = self.log().compacted(done, now_ms)?;
        assert!(stats.applied && stats.bytes_after <= stats.bytes_before, "{stats:?}");
        self.compactions += 1;
        Ok(())
    }

    fn restart(&mut self) -> Result<(), StorageError> {
        let clean = self.random.below(3) > 0;
        if clean {
            let log = self.log.take().expect("an open log");
            let (end, start) = (log.end_offset(), log.log_start_offset());
            log.close()?;
            {
                let mut model = self.model.lock();
                model.end_min = end;
                model.start_min = start;
                model.may_be_gone = end == 0;
            }
            self.dir.as_ref().expect("a directory").mark_clean_shutdown()?;
        }
        self.log = None;
        self.dir = None;
        if self.shape == Shape::Tiered {
            self.config.remote_storage_enable = self.random.below(2) == 0;
            self.model.lock().config = self.config.clone();
        }
        self.open()?;
        // Recovery makes durable what it finds.
        self.acknowledge();
        Ok(())
    }

    fn delete_log(&mut self) -> Result<(), StorageError> {
        let log = self.log.take().expect("an open log");
        let id = {
            let mut model = self.model.lock();
            model.may_be_gone = true;
            model.topic_id
        };
        let dir = self.dir.take().expect("a directory");
        dir.delete_log(log)?;
        let next =
            Model { topic_id: id + 1, config: self.config.clone(), may_be_gone: true, ..Model::default() };
        *self.model.lock() = next;
        self.sequences = [0; 3];
        let log = dir.open_log(&partition(), topic_id(id + 1), Arc::new(self.config.clone()), self.now_ms)?;
        self.log = Some(log);
        self.dir = Some(dir);
        Ok(())
    }
}

fn rows_of(header: &BatchHeader, bytes: &[u8], base: i64) -> Vec<Row> {
    assert_eq!(batches(bytes).count(), 1);
    records(header.record_count, &bytes[HEADER_LENGTH..])
        .map(|record| {
            let record = record.expect("a record");
            Row {
                offset: base + i64::from(record.offset_delta),
                key: record.key.map(<[u8]>::to_vec),
                value: record.value.map(<[u8]>::to_vec),
                timestamp: header.base_timestamp + record.timestamp_delta,
            }
        })
        .collect()
}
