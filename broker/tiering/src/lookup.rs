//! Where offsets and timestamps lie, by the indexes that each object carries.

use bytes::Bytes;
use firn_model::broker_config::definitions::BATCH_DECOMPRESSED_BYTES_MAX;
use firn_records::lookup::first_at_or_after;
use firn_tier::footer::SectionKind;
use firn_tier::lineage::LeaderEpochs;
use firn_tier::select::Link;

use crate::error::ReadError;
use crate::partition::TieredPartition;
use crate::read::{FoundBatch, ObjectLog};

impl TieredPartition {
    /// The first record with a timestamp at or above `timestamp`, as (offset, timestamp); `None` if the tier has none.
    pub async fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let selection = self.inner.selection();
        for link in selection.chain.iter().filter(|link| link.name.max_timestamp >= timestamp) {
            let log = self.inner.clone().open(*link).await?;
            let from = log.offset_before_timestamp(timestamp).await?.max(link.from);
            let mut batch = log.first_batch_from(from).await?;
            while let Some(found) = batch.filter(|found| found.header.base_offset < link.to) {
                if found.header.max_timestamp >= timestamp
                    && let Some(record) = log.record_from_timestamp(&found, timestamp).await?
                {
                    return Ok(Some(record));
                }
                batch = log.batch_at(found.end()).await?;
            }
        }
        Ok(None)
    }

    /// The greatest timestamp in the tier and the first record that has it, as (offset, timestamp).
    pub async fn max_timestamp(&self) -> Result<Option<(i64, i64)>, ReadError> {
        let selection = self.inner.selection();
        match selection.chain.iter().map(|link| link.name.max_timestamp).max() {
            Some(timestamp) if timestamp >= 0 => self.offset_for_timestamp(timestamp).await,
            _ => Ok(None),
        }
    }

    /// The leader epochs of the object that serves `offset`, as its uploader knew them: what a new replica, or one
    /// rebuilt from the bucket, takes for the history below its local log.
    pub async fn leader_epochs_at(&self, offset: i64) -> Result<LeaderEpochs, ReadError> {
        let log = self.open_at(offset).await?;
        Ok(log.read.footer.leader_epochs.clone())
    }

    /// Kafka's producer snapshot as of the end of the object that serves `offset`; empty if it carries none.
    pub async fn producer_snapshot_at(&self, offset: i64) -> Result<Bytes, ReadError> {
        let log = self.open_at(offset).await?;
        self.inner.section(&log.link.name, &log.read, SectionKind::ProducerSnapshot).await
    }

    /// Kafka's transaction indexes of the objects that serve `[from, to)`, in order, one after the other: the aborted
    /// transactions that a read_committed reader of that range must know, if those of later segments are added.
    pub async fn transaction_indexes(&self, from: i64, to: i64) -> Result<Vec<(Link, Bytes)>, ReadError> {
        let mut indexes = Vec::new();
        for link in self.inner.selection().chain.iter().filter(|link| link.from < to && from < link.to) {
            let log = self.inner.clone().open(*link).await?;
            let bytes = self.inner.section(&link.name, &log.read, SectionKind::TransactionIndex).await?;
            if !bytes.is_empty() {
                indexes.push((*link, bytes));
            }
        }
        Ok(indexes)
    }

    async fn open_at(&self, offset: i64) -> Result<ObjectLog, ReadError> {
        let selection = self.inner.selection();
        match selection.link_at(offset) {
            Some(link) if link.from <= offset => self.inner.clone().open(*link).await,
            _ => Err(ReadError::NotTiered { offset, range: selection.last_run() }),
        }
    }
}

impl ObjectLog {
    /// A position at or before the batch that holds `offset`, by the object's offset index.
    pub(crate) async fn position_before(&self, offset: i64) -> Result<u64, ReadError> {
        let index = self.inner.section(&self.link.name, &self.read, SectionKind::OffsetIndex).await?;
        let (entries, _) = index.as_chunks::<8>();
        let base = self.link.name.base_offset;
        let after = entries.partition_point(|entry| base.saturating_add(offset_entry(entry).0) <= offset);
        let entry = after.checked_sub(1).and_then(|at| entries.get(at)).map(offset_entry);
        // An index that points past the log is no reason to fail: a walk from the start finds every batch.
        Ok(entry.map(|(_, position)| position).filter(|position| *position < self.length()).unwrap_or(0))
    }

    /// An offset at or before the first record that is at least as young as `timestamp`, by the time index.
    async fn offset_before_timestamp(&self, timestamp: i64) -> Result<i64, ReadError> {
        let index = self.inner.section(&self.link.name, &self.read, SectionKind::TimeIndex).await?;
        let (entries, _) = index.as_chunks::<12>();
        let base = self.link.name.base_offset;
        let after = entries.partition_point(|entry| time_entry(entry).0 < timestamp);
        let entry = after.checked_sub(1).and_then(|at| entries.get(at)).map(time_entry);
        Ok(entry.map_or(base, |(_, relative)| base.saturating_add(relative)))
    }

    /// The first record of a batch that the link serves and that is at least as young as `timestamp`.
    async fn record_from_timestamp(
        &self,
        found: &FoundBatch,
        timestamp: i64,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        let corrupt = || ReadError::Corrupt {
            path: self.inner.path_of(&self.link.name).to_string(),
            position: found.position,
        };
        let batch = self.bytes(found.position..found.end()).await?;
        let limit = BATCH_DECOMPRESSED_BYTES_MAX;
        let first = first_at_or_after(&found.header, &batch, timestamp, self.link.from, limit);
        let first = first.map_err(|_| corrupt())?.filter(|first| first.offset < self.link.to);
        Ok(first.map(|first| (first.offset, first.timestamp)))
    }
}

fn offset_entry(entry: &[u8; 8]) -> (i64, u64) {
    let [a, b, c, d, e, f, g, h] = *entry;
    (i64::from(u32::from_be_bytes([a, b, c, d])), u64::from(u32::from_be_bytes([e, f, g, h])))
}

fn time_entry(entry: &[u8; 12]) -> (i64, i64) {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = *entry;
    (i64::from_be_bytes([a, b, c, d, e, f, g, h]), i64::from(u32::from_be_bytes([i, j, k, l])))
}
