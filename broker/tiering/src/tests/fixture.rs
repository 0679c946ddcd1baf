//! A partition's true log, cut into segments, for tests to compare with.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use firn_model::ids::{TopicId, TopicPartition};
use firn_records::batch::{Codec, batches};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_tier::lineage::{Compaction, EpochStart, LeaderEpochs};

use crate::options::TierOptions;
use crate::partition::{PartitionView, TieredPartition};
use crate::segment::SegmentToUpload;
use crate::tier::Tier;

pub const TOPIC_ID: TopicId = TopicId::ZERO;

/// Record at offset n: timestamp 1000 + 10 n.
pub fn timestamp_of(offset: i64) -> i64 {
    1_000 + 10 * offset
}

/// A batch of `count` records whose values tell their offsets.
pub fn batch(base_offset: i64, count: i64, value_bytes: usize, codec: Codec) -> Bytes {
    let mut builder = BatchBuilder::at_offset(BatchOptions { codec, ..BatchOptions::default() }, base_offset);
    for offset in base_offset..base_offset + count {
        let mut value = format!("record {offset} ").into_bytes();
        let mut random = (offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        while value.len() < value_bytes {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            value.push((random >> 33) as u8);
        }
        builder.push(timestamp_of(offset), Some(b"key"), Some(&value), &[]);
    }
    builder.build().unwrap()
}

/// One segment of the log and what Kafka keeps beside it.
#[derive(Debug, Clone)]
pub struct Segment {
    pub base_offset: i64,
    pub last_offset: i64,
    pub log: Bytes,
    pub offset_index: Bytes,
    pub time_index: Bytes,
}

impl Segment {
    pub fn of(base_offset: i64, batches_count: i64, records: i64, value_bytes: usize, codec: Codec) -> Self {
        let mut log = BytesMut::new();
        let (mut offset_index, mut time_index) = (BytesMut::new(), BytesMut::new());
        for index in 0..batches_count {
            let base = base_offset + index * records;
            // An entry for every third batch, as Kafka's interval would leave it.
            if index % 3 == 2 {
                offset_index.extend_from_slice(&((base - base_offset) as u32).to_be_bytes());
                offset_index.extend_from_slice(&(log.len() as u32).to_be_bytes());
                time_index.extend_from_slice(&timestamp_of(base - 1).to_be_bytes());
                time_index.extend_from_slice(&((base - 1 - base_offset) as u32).to_be_bytes());
            }
            log.extend_from_slice(&batch(base, records, value_bytes, codec));
        }
        Self {
            base_offset,
            last_offset: base_offset + batches_count * records - 1,
            log: log.freeze(),
            offset_index: offset_index.freeze(),
            time_index: time_index.freeze(),
        }
    }

    /// Batches of `records` records that were written at these times; without index entries, as a small one has none.
    pub fn at_times(base_offset: i64, records: usize, timestamps: &[i64]) -> Self {
        let mut log = BytesMut::new();
        let mut next = base_offset;
        for times in timestamps.chunks(records) {
            let mut builder = BatchBuilder::at_offset(BatchOptions::default(), next);
            for timestamp in times {
                builder.push(*timestamp, Some(b"key"), Some(b"value"), &[]);
                next += 1;
            }
            log.extend_from_slice(&builder.build().unwrap());
        }
        let (offset_index, time_index) = (Bytes::new(), Bytes::new());
        Self { base_offset, last_offset: next - 1, log: log.freeze(), offset_index, time_index }
    }

    pub fn to_upload(&self, leader_epochs: &LeaderEpochs) -> SegmentToUpload {
        SegmentToUpload {
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            max_timestamp: timestamp_of(self.last_offset),
            compaction: Compaction::NONE,
            uploader_epoch: leader_epochs.latest().map_or(0, |entry| entry.epoch),
            leader_epochs: leader_epochs.clone(),
            log: Arc::new(self.log.clone()),
            offset_index: self.offset_index.clone(),
            time_index: self.time_index.clone(),
            transaction_index: Bytes::new(),
            producer_snapshot: Bytes::from_static(b"producers"),
        }
    }

    /// Whole batches from the one that holds `offset` on, at most `max_bytes`, at least one.
    pub fn expected(&self, offset: i64, max_bytes: usize) -> Bytes {
        let mut start = None;
        let mut end = 0;
        let mut position = 0;
        for found in batches(&self.log) {
            let (header, bytes) = found.unwrap();
            let next = position + bytes.len();
            if start.is_none() && header.last_offset() >= offset {
                start = Some(position);
                end = next;
            } else if start.is_some_and(|start| next - start <= max_bytes) {
                end = next;
            }
            position = next;
        }
        start.map_or_else(Bytes::new, |start| self.log.slice(start..end))
    }
}

pub fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
    let entries = entries.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset });
    LeaderEpochs::new(entries.collect()).unwrap()
}

pub fn view(leader_epochs: &LeaderEpochs) -> PartitionView {
    PartitionView { leader_epochs: leader_epochs.clone(), log_start_offset: 0, log_end_offset: i64::MAX }
}

/// Small pieces, so that small segments have many.
pub fn small() -> TierOptions {
    TierOptions {
        cache_bytes_max: 1 << 20,
        chunk_bytes: 4 << 10,
        block_bytes: 1 << 10,
        read_ahead_bytes_max: 32 << 10,
        part_bytes: 16 << 10,
        attempt_timeout: Duration::from_secs(5),
        call_deadline: Duration::from_secs(60),
        seed: 7,
        ..TierOptions::default()
    }
}

pub fn partition(tier: &Tier) -> TieredPartition {
    tier.partition("cluster", &TopicPartition::new("cold.topic", 3), TOPIC_ID)
}
