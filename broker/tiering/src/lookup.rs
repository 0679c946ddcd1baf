//! Where offsets and timestamps lie, by the indexes that each object carries.

use std::cmp::Reverse;

use bytes::Bytes;
use firn_model::broker_config::definitions::BATCH_DECOMPRESSED_BYTES_MAX;
use firn_records::batch::BatchHeader;
use firn_records::lookup::{self, LookupError, TimedOffset, first_at_or_after};
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
            if let Some(found) = log.offset_for_timestamp(timestamp).await? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The greatest timestamp in the tier and the first record that has it, as (offset, timestamp).
    pub async fn max_timestamp(&self) -> Result<Option<(i64, i64)>, ReadError> {
        let selection = self.inner.selection();
        let mut links: Vec<Link> =
            selection.chain.iter().filter(|link| link.name.max_timestamp >= 0).copied().collect();
        links.sort_by_key(|link| (Reverse(link.name.max_timestamp), link.from));
        let mut greatest: Option<(i64, i64)> = None;
        for link in links {
            let promised = link.name.max_timestamp;
            if greatest
                .is_some_and(|(offset, known)| known > promised || known == promised && offset < link.from)
            {
                break;
            }
            let log = self.inner.clone().open(link).await?;
            let found = match log.offset_for_timestamp(promised).await? {
                Some(found) => Some(found),
                // The record that had it lies where this link does not serve: below the log start, say.
                None => log.max_timestamp().await?,
            };
            let rank = |found: &(i64, i64)| (found.1, Reverse(found.0));
            greatest = greatest.into_iter().chain(found).max_by_key(rank);
        }
        Ok(greatest)
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

    /// The first record that the link serves and that is at least as young as `timestamp`.
    async fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let from = self.offset_before_timestamp(timestamp).await?.max(self.link.from);
        let mut batch = self.first_batch_from(from).await?;
        while let Some(found) = batch.filter(|found| found.header.base_offset < self.link.to) {
            if found.header.max_timestamp >= timestamp
                && let Some(record) = self
                    .record_of(&found, |header, batch, from, limit| {
                        first_at_or_after(header, batch, timestamp, from, limit)
                    })
                    .await?
            {
                return Ok(Some(record));
            }
            batch = self.batch_at(found.end()).await?;
        }
        Ok(None)
    }

    /// The greatest timestamp of the records that the link serves, and the first record that has it. Reads all headers.
    async fn max_timestamp(&self) -> Result<Option<(i64, i64)>, ReadError> {
        let mut greatest: Option<(i64, i64)> = None;
        let mut batch = self.first_batch_from(self.link.from).await?;
        while let Some(found) = batch.filter(|found| found.header.base_offset < self.link.to) {
            let known = greatest.map_or(-1, |(_, timestamp)| timestamp);
            if found.header.max_timestamp > known
                && let Some(record) = self.record_of(&found, lookup::max_timestamp).await?
                && record.1 > known
            {
                greatest = Some(record);
            }
            batch = self.batch_at(found.end()).await?;
        }
        Ok(greatest)
    }

    /// The record that `choose` finds among those of a batch from the link's beginning on, if the link serves it.
    async fn record_of(
        &self,
        found: &FoundBatch,
        choose: impl Fn(&BatchHeader, &[u8], i64, usize) -> Result<Option<TimedOffset>, LookupError>,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        if found.header.is_control() {
            return Ok(None);
        }
        let batch = self.bytes(found.position..found.end()).await?;
        let chosen = choose(&found.header, &batch, self.link.from, BATCH_DECOMPRESSED_BYTES_MAX);
        let chosen = chosen.map_err(|_| ReadError::Corrupt {
            path: self.inner.path_of(&self.link.name).to_string(),
            position: found.position,
        })?;
        Ok(chosen
            .filter(|chosen| chosen.offset < self.link.to)
            .map(|chosen| (chosen.offset, chosen.timestamp)))
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
