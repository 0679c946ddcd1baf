//! Whole objects: what compaction takes out of the store, past the cache.

use bytes::Bytes;
use firn_tier::footer::SectionKind;
use firn_tier::lineage::LeaderEpochs;
use firn_tier::select::Link;

use crate::error::ReadError;
use crate::partition::TieredPartition;
use crate::read::ObjectLog;

/// An object to be read from its beginning to its end.
#[derive(Debug, Clone)]
pub struct WholeObject {
    log: ObjectLog,
}

impl TieredPartition {
    /// The object behind one link of [`TieredPartition::chain`].
    pub async fn whole(&self, link: Link) -> Result<WholeObject, ReadError> {
        let mut log = self.inner.clone().open(link).await?;
        // Nobody shares the cache with what goes past it.
        log.chunk_bytes = self.inner.chunk_bytes(&log.read);
        Ok(WholeObject { log })
    }
}

impl WholeObject {
    /// The history of leaders that its uploader knew.
    pub fn leader_epochs(&self) -> &LeaderEpochs {
        &self.log.read.footer.leader_epochs
    }

    /// The `index`th piece of its log, checked; `None` after the last. A piece is a few MiB of whatever falls into it.
    pub async fn log_piece(&self, index: u64) -> Result<Option<Bytes>, ReadError> {
        let ObjectLog { inner, link, read, .. } = &self.log;
        let chunk = self.log.chunk(index);
        if chunk.is_empty() {
            return Ok(None);
        }
        inner.fetch_chunk(&link.name, read, chunk).await.map(Some)
    }

    /// Kafka's producer snapshot as of the object's end; empty if it carries none.
    pub async fn producer_snapshot(&self) -> Result<Bytes, ReadError> {
        let ObjectLog { inner, link, read, .. } = &self.log;
        inner.section(&link.name, read, SectionKind::ProducerSnapshot).await
    }
}
