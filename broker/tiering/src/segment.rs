//! A sealed segment on its way to the store, and what it is once there.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use firn_tier::lineage::{Compaction, LeaderEpochs};
use firn_tier::names::ObjectName;

/// Bytes of a log on the local disk. Read on a thread that may block.
pub trait SegmentSource: std::fmt::Debug + Send + Sync {
    /// Bytes of the log. It must not change while the segment is uploaded.
    fn length(&self) -> io::Result<u64>;
    /// Exactly `length` bytes from `position` on, or an error.
    fn read_at(&self, position: u64, length: usize) -> io::Result<Bytes>;
}

impl SegmentSource for Bytes {
    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_at(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let start = usize::try_from(position).map_err(io::Error::other)?;
        let end = start.checked_add(length).filter(|end| *end <= self.len());
        end.map(|end| self.slice(start..end)).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}

/// A sealed segment wholly below the high watermark and the last stable offset. The caller holds its files until the
/// upload has ended.
#[derive(Debug, Clone)]
pub struct SegmentToUpload {
    pub base_offset: i64,
    /// Last offset that the segment covers, inclusive: the next segment's base less one, even where compaction took
    /// the records at the end.
    pub last_offset: i64,
    /// Milliseconds, -1 if no record has a timestamp.
    pub max_timestamp: i64,
    /// By which records the cleaner went, in the history of the time.
    pub compaction: Compaction,
    /// The leader epoch in which this broker uploads.
    pub uploader_epoch: i32,
    /// History of leaders that covers the segment; more than that is cut away.
    pub leader_epochs: LeaderEpochs,
    pub log: Arc<dyn SegmentSource>,
    /// Kafka's `.index`: relative offset i32, position i32.
    pub offset_index: Bytes,
    /// Kafka's `.timeindex`: timestamp i64, relative offset i32.
    pub time_index: Bytes,
    /// Kafka's `.txnindex`.
    pub transaction_index: Bytes,
    /// Kafka's `.snapshot` as of the segment's end; empty if there is none.
    pub producer_snapshot: Bytes,
}

/// A segment that is in the store: listed, and read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TieredSegment {
    pub name: ObjectName,
    /// Bytes of the whole object.
    pub object_bytes: u64,
    /// False if the same object was there already, by an earlier attempt or another broker.
    pub created: bool,
}
