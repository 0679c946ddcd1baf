//! Which records of one batch the cleaner keeps, and from when its tombstones may go.

use firn_model::broker_config::definitions::BATCH_DECOMPRESSED_BYTES_MAX;
use firn_records::batch::BatchHeader;
use firn_records::compaction::{Filtered, filter};
use firn_records::record::Record;

/// What the cleaner knows when it judges a record.
#[derive(Clone, Copy)]
pub(crate) struct Filter<'a> {
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
    /// Does this offset hold its key's newest record, as far as is known?
    pub(crate) is_newest: &'a dyn Fn(&[u8], i64) -> bool,
    /// Records at or above are not judged yet.
    pub(crate) end_offset: i64,
}

impl Filter<'_> {
    /// Judges a data batch. A batch that keeps a tombstone gets a delete horizon, once (KIP-534). The error says what is
    /// wrong with its records.
    pub(crate) fn apply(&self, header: &BatchHeader, batch: &[u8]) -> Result<Filtered, String> {
        let mut tombstones = false;
        let filtered = self.filter(header, batch, None, &mut tombstones)?;
        if !tombstones || header.has_delete_horizon() {
            return Ok(filtered);
        }
        let horizon = self.now_ms.saturating_add(self.delete_retention_ms.max(0));
        self.filter(header, batch, Some(horizon), &mut tombstones)
    }

    fn filter(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        delete_horizon_ms: Option<i64>,
        tombstones: &mut bool,
    ) -> Result<Filtered, String> {
        let horizon = header.has_delete_horizon().then_some(header.base_timestamp);
        filter(header, batch, delete_horizon_ms, BATCH_DECOMPRESSED_BYTES_MAX, |offset, record| {
            let keeps = self.keeps(offset, record, horizon);
            *tombstones |= keeps && record.value.is_none();
            keeps
        })
        .map_err(|error| error.to_string())
    }

    fn keeps(&self, offset: i64, record: &Record<'_>, horizon: Option<i64>) -> bool {
        if offset >= self.end_offset {
            return true;
        }
        // A record without a key has no place in a compacted topic; the broker refuses it, older data may have it.
        let Some(key) = record.key else { return false };
        let value_counts = record.value.is_some() || horizon.is_none_or(|horizon| self.now_ms < horizon);
        value_counts && (self.is_newest)(key, offset)
    }
}
