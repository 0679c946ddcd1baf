//! Memory for what has been read from the store, bounded by bytes. Whoever asks for what another fetches waits for it.

use std::sync::Arc;

use bytes::Bytes;
use firn_tier::footer::{Footer, SectionKind};
use firn_tier::names::ObjectName;
use quick_cache::sync::Cache;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};

use crate::metrics::TierMetrics;

/// A piece of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Piece {
    Footer,
    Section(SectionKind),
    Chunk(u64),
}

/// What is cached under: which partition (by the number its handle drew), which object, which piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub partition: u64,
    pub name: ObjectName,
    pub piece: Piece,
}

/// An object's footer, and the checksums of its log's blocks.
#[derive(Debug)]
pub(crate) struct ReadFooter {
    pub footer: Footer,
    pub blocks: Vec<u32>,
}

#[derive(Debug, Clone)]
pub(crate) enum Cached {
    Bytes(Bytes),
    Footer(Arc<ReadFooter>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Bytesize;

/// What an entry costs beyond its bytes: key, slot and handle.
const ENTRY_OVERHEAD: u64 = 256;

impl Weighter<Key, Cached> for Bytesize {
    fn weight(&self, _: &Key, value: &Cached) -> u64 {
        ENTRY_OVERHEAD
            + match value {
                Cached::Bytes(bytes) => bytes.len() as u64,
                Cached::Footer(read) => {
                    (read.blocks.len() * 4 + read.footer.leader_epochs.entries().len() * 16 + 256) as u64
                }
            }
    }
}

/// The cache of one tier.
#[derive(Debug)]
pub(crate) struct PieceCache {
    cache: Cache<Key, Cached, Bytesize>,
    metrics: Arc<TierMetrics>,
}

impl PieceCache {
    pub(crate) fn new(bytes_max: u64, chunk_bytes: u32, metrics: Arc<TierMetrics>) -> Self {
        // A shard keeps nothing larger than itself, so there are only as many as can each hold a few chunks.
        let shards = (bytes_max / (u64::from(chunk_bytes).max(1) * 8)).clamp(1, 16) as usize;
        let items = (bytes_max / u64::from(chunk_bytes).max(1)).clamp(16, 1 << 20) as usize;
        let mut builder = OptionsBuilder::new();
        builder.weight_capacity(bytes_max).estimated_items_capacity(items).shards(shards);
        let cache = match builder.build() {
            Ok(options) => Cache::with_options(
                options,
                Bytesize,
                DefaultHashBuilder::default(),
                quick_cache::sync::DefaultLifecycle::default(),
            ),
            Err(_) => Cache::with_weighter(items, bytes_max, Bytesize),
        };
        Self { cache, metrics }
    }

    /// What is cached under `key`, else what `fetch` brings, which is cached then. One fetch at a time a key.
    pub(crate) async fn get<E>(
        &self,
        key: Key,
        fetch: impl Future<Output = Result<Cached, E>>,
    ) -> Result<Cached, E> {
        match self.cache.get_value_or_guard_async(&key).await {
            Ok(value) => {
                self.metrics.cache_hits.add(1);
                Ok(value)
            }
            Err(guard) => {
                self.metrics.cache_misses.add(1);
                let value = fetch.await?;
                // Refused only if the entry was removed meanwhile: then it is simply not cached.
                guard.insert(value.clone()).ok();
                Ok(value)
            }
        }
    }

    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.cache.contains_key(key)
    }

    pub(crate) fn remove(&self, key: &Key) {
        self.cache.remove(key);
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}
