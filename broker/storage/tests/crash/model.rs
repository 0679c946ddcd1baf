//! What the log must hold, kept beside the workload, and the check of a reopened disk against it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;
use firn_records::batch::{BatchHeader, HEADER_LENGTH, batches, verify_crc};
use firn_records::record::records;
use firn_storage::directory::LogDirOptions;
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::SimulatedDisk;

pub const ROOT: &str = "/data";

/// One record as it was appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub timestamp: i64,
}

/// The last batch of a producer.
#[derive(Debug, Clone)]
pub struct LastBatch {
    pub bytes: Vec<u8>,
    pub base_offset: i64,
    pub last_offset: i64,
}

/// One log's history, and which of it must survive. What a call in progress may or may not have done is a range.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub topic_id: u128,
    pub config: TopicConfig,
    /// Every appended record that was not truncated, by offset; those of a call in progress too.
    pub rows: BTreeMap<i64, Row>,
    /// Smallest and largest end that the log may have.
    pub end_min: i64,
    pub end_max: i64,
    /// Smallest and largest log start.
    pub start_min: i64,
    pub start_max: i64,
    /// Below this offset only the last record of each key is owed.
    pub compacted_below: i64,
    /// The log may be gone: it is being deleted, or was never flushed.
    pub may_be_gone: bool,
    pub producers: BTreeMap<i64, LastBatch>,
}

pub fn identity() -> Identity {
    Identity { cluster_id: "cluster".to_owned(), node_id: 1, directory_id: "directory".to_owned() }
}

pub fn partition() -> TopicPartition {
    TopicPartition::new("snow", 0)
}

pub fn open_dir(disk: &SimulatedDisk) -> LogDir {
    LogDir::open(Arc::new(disk.clone()), Path::new(ROOT), &identity(), LogDirOptions::default())
        .unwrap_or_else(|error| panic!("the directory does not open: {error}"))
}

pub fn topic_id(id: u128) -> TopicId {
    TopicId(uuid::Uuid::from_u128(id))
}

pub fn header_of(bytes: &[u8]) -> Vec<BatchHeader> {
    batches(bytes).map(|batch| batch.expect("a batch").0).collect()
}

/// Everything that a log serves: whole batches, each with its CRC right.
pub fn read_all(log: &PartitionLog) -> Result<Vec<(BatchHeader, Vec<u8>)>, String> {
    let mut found: Vec<(BatchHeader, Vec<u8>)> = Vec::new();
    let mut offset = log.local_start_offset();
    while offset < log.end_offset() {
        let slice = log
            .read(offset, log.end_offset(), 4000, true)
            .map_err(|error| format!("read {offset}: {error}"))?;
        let bytes = slice.read().map_err(|error| format!("read {offset}: {error}"))?;
        let mut next = offset;
        for batch in batches(&bytes) {
            let (header, batch) = batch.map_err(|error| format!("at {offset}: {error}"))?;
            verify_crc(batch).map_err(|error| format!("served at {}: {error}", header.base_offset))?;
            if header.last_offset() < next {
                return Err(format!("batch {}..{} after {next}", header.base_offset, header.last_offset()));
            }
            next = header.next_offset();
            found.push((header, batch.to_vec()));
        }
        if next == offset {
            break;
        }
        offset = next;
    }
    Ok(found)
}

impl Model {
    /// Opens what a power cut left and compares it with what it owes. The error says what is wrong.
    pub fn check(&self, disk: &SimulatedDisk) -> Result<(), String> {
        let dir =
            LogDir::open(Arc::new(disk.clone()), Path::new(ROOT), &identity(), LogDirOptions::default())
                .map_err(|error| format!("the directory does not open: {error}"))?;
        let mut log = dir
            .open_log(&partition(), topic_id(self.topic_id), Arc::new(self.config.clone()), 0)
            .map_err(|error| format!("the log does not open: {error}"))?;
        let (start, end) = (log.log_start_offset(), log.end_offset());
        if self.may_be_gone && end == 0 {
            return Ok(());
        }
        if end < self.end_min || end > self.end_max {
            return Err(format!("it ends at {end}, not in [{}, {}]", self.end_min, self.end_max));
        }
        if log.flushed_offset() != end {
            return Err(format!("only {} of {end} is durable after recovery", log.flushed_offset()));
        }
        // While nothing was flushed, even the first segment may be lost before the second.
        let start_max = if self.end_min == 0 { self.end_max } else { self.start_max };
        if start < self.start_min || start > start_max {
            return Err(format!("it starts at {start}, not in [{}, {}]", self.start_min, self.start_max));
        }
        self.check_rows(&log)?;
        self.check_producers(&mut log)?;
        drop((log, dir));
        let dir = open_dir(disk);
        let log = dir
            .open_log(&partition(), topic_id(self.topic_id), Arc::new(self.config.clone()), 0)
            .map_err(|error| format!("the log does not open a second time: {error}"))?;
        read_all(&log).map(drop)
    }

    fn check_rows(&self, log: &PartitionLog) -> Result<(), String> {
        let (start, end) = (log.local_start_offset(), log.end_offset());
        let mut found = BTreeMap::new();
        for (header, batch) in read_all(log)? {
            let (said, known) = (header.partition_leader_epoch, log.epoch_for_offset(header.base_offset));
            if known != Some(said) && header.base_offset >= log.log_start_offset() {
                return Err(format!(
                    "the batch at {} is of epoch {said}, the log says {known:?}",
                    header.base_offset
                ));
            }
            for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
                let record = record.map_err(|error| error.to_string())?;
                let row = Row {
                    offset: header.base_offset + i64::from(record.offset_delta),
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    timestamp: header.base_timestamp + record.timestamp_delta,
                };
                if self.rows.get(&row.offset) != Some(&row) {
                    return Err(format!("served {row:?}, appended {:?}", self.rows.get(&row.offset)));
                }
                found.insert(row.offset, ());
            }
        }
        let mut latest = BTreeMap::new();
        for row in self.rows.range(start..end).map(|(_, row)| row) {
            latest.insert(&row.key, row);
        }
        for row in self.rows.range(start..end).map(|(_, row)| row) {
            let Some(newest) = latest.get(&row.key) else { continue };
            let is_there = found.contains_key(&row.offset);
            let may_go =
                row.offset < self.compacted_below && (newest.offset != row.offset || row.value.is_none());
            if !may_go && !is_there {
                return Err(format!(
                    "offset {} of [{start}, {end}) is lost, found {:?}",
                    row.offset,
                    found.keys()
                ));
            }
            if is_there && newest.value.is_none() && !found.contains_key(&newest.offset) {
                return Err(format!("offset {} came back after its tombstone went", row.offset));
            }
        }
        Ok(())
    }

    fn check_producers(&self, log: &mut PartitionLog) -> Result<(), String> {
        let end = log.end_offset();
        for (id, last) in &self.producers {
            // What retention or the tier took is remembered; what was never durable, and is gone, need not be.
            let never_durable = last.last_offset >= self.end_min;
            if last.last_offset >= end || (last.base_offset < log.local_start_offset() && never_durable) {
                continue;
            }
            let headers = header_of(&last.bytes);
            let again = log
                .append(&last.bytes, &headers, 1, AppendOrigin::Client, 0)
                .map_err(|error| format!("retry of producer {id}: {error}"))?;
            if !again.duplicate || again.base_offset != last.base_offset {
                return Err(format!("retry of producer {id} at {} became {again:?}", last.base_offset));
            }
            let header = headers[0];
            let next = super::workload::batch(
                1,
                b"next",
                9_000,
                Some((*id, header.producer_epoch, header.base_sequence + header.last_offset_delta + 1)),
                header.is_transactional(),
            );
            log.append(&next, &header_of(&next), 1, AppendOrigin::Client, 0)
                .map_err(|error| format!("next batch of producer {id}: {error}"))?;
        }
        if let Some(task) = log.flush_task().map_err(|error| error.to_string())? {
            log.flushed(task.run().map_err(|error| error.to_string())?);
        }
        Ok(())
    }
}
