//! Where offsets and timestamps lie, by the indexes that each object carries.

use std::cmp::Reverse;

use bytes::Bytes;
use firn_model::broker_config::definitions::BATCH_DECOMPRESSED_BYTES_MAX;
use firn_records::lookup::{first_at_or_after, max_timestamp};
use firn_tier::footer::SectionKind;
use firn_tier::lineage::LeaderEpochs;
use firn_tier::select::Link;

use crate::error::ReadError;
use crate::partition::TieredPartition;
use crate::read::ObjectLog;

impl TieredPartition {
    /// The first record at or after both `timestamp` and `from_offset`, as (offset, timestamp); `None` if the tier has
    /// none. The log start may have moved since the tier was told, so the caller says where it is.
    pub async fn offset_for_timestamp(
        &self,
        timestamp: i64,
        from_offset: i64,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        for link in self.links_from(from_offset).filter(|link| link.name.max_timestamp >= timestamp) {
            let log = self.inner.clone().open(link).await?;
            let found = log.first_from_timestamp(timestamp).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The greatest timestamp in the tier from `from_offset` on and the first record that has it, as (offset, timestamp).
    pub async fn max_timestamp(&self, from_offset: i64) -> Result<Option<(i64, i64)>, ReadError> {
        // A name promises the greatest timestamp of all that its object was made of: the record that had it may be
        // deleted, served by another object, or emptied by compaction. So the greatest promise is looked into first.
        let mut links: Vec<Link> =
            self.links_from(from_offset).filter(|link| link.name.max_timestamp >= 0).collect();
        links.sort_by_key(|link| (Reverse(link.name.max_timestamp), link.from));
        let mut greatest: Option<(i64, i64)> = None;
        for link in links {
            let promised = link.name.max_timestamp;
            let is_beaten = |(offset, known)| known > promised || known == promised && offset < link.from;
            if greatest.is_some_and(is_beaten) {
                break;
            }
            let log = self.inner.clone().open(link).await?;
            let found = log.greatest_timestamp().await?;
            greatest =
                greatest.into_iter().chain(found).max_by_key(|(offset, known)| (*known, Reverse(*offset)));
        }
        Ok(greatest)
    }

    /// What serves offsets from `from_offset` on, cut there.
    fn links_from(&self, from_offset: i64) -> impl Iterator<Item = Link> + use<> {
        let chain = self.chain().into_iter().filter(move |link| link.to > from_offset);
        chain.map(move |link| Link { from: link.from.max(from_offset), ..link })
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
    async fn first_from_timestamp(&self, timestamp: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let from = self.offset_before_timestamp(timestamp).await?.max(self.link.from);
        let mut batch = self.first_batch_from(from).await?;
        while let Some(found) = batch.filter(|found| found.header.base_offset < self.link.to) {
            if found.header.max_timestamp >= timestamp && !found.header.is_control() {
                let bytes = self.bytes(found.position..found.end()).await?;
                let limit = BATCH_DECOMPRESSED_BYTES_MAX;
                let first = first_at_or_after(&found.header, &bytes, timestamp, self.link.from, limit);
                let first = first.map_err(|_| self.corrupt(found.position))?;
                if let Some(first) = first.filter(|first| first.offset < self.link.to) {
                    return Ok(Some((first.offset, first.timestamp)));
                }
            }
            batch = self.batch_at(found.end()).await?;
        }
        Ok(None)
    }

    /// The greatest timestamp of the records that the link serves, and the first record that has it.
    async fn greatest_timestamp(&self) -> Result<Option<(i64, i64)>, ReadError> {
        // As a rule it is the one that the name promises, and the index leads to it.
        if let Some(found) = self.first_from_timestamp(self.link.name.max_timestamp).await? {
            return Ok(Some(found));
        }
        let serves = self.link.from..self.link.to;
        let mut greatest: Option<(i64, i64)> = None;
        let mut batch = self.first_batch_from(self.link.from).await?;
        while let Some(found) = batch.filter(|found| found.header.base_offset < self.link.to) {
            let (header, known) = (&found.header, greatest.map_or(-1, |(_, timestamp)| timestamp));
            if header.record_count > 0 && !header.is_control() && header.max_timestamp > known {
                let bytes = self.bytes(found.position..found.end()).await?;
                let inside = max_timestamp(header, &bytes, &serves, BATCH_DECOMPRESSED_BYTES_MAX);
                let inside = inside.map_err(|_| self.corrupt(found.position))?;
                let better = inside.filter(|inside| inside.timestamp > known);
                greatest = better.map(|inside| (inside.offset, inside.timestamp)).or(greatest);
            }
            batch = self.batch_at(found.end()).await?;
        }
        Ok(greatest)
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
