//! Memory for what has been read from the store, bounded by bytes. Whoever asks for what another fetches waits for it.

use std::sync::Arc;

use bytes::Bytes;
use firn_tier::footer::{Footer, SectionKind};
use firn_tier::names::ObjectName;
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::metrics::TierMetrics;

/// A piece of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Piece {
    Footer,
    Section(SectionKind),
    /// A run of whole blocks of the log.
    Chunk {
        start: u64,
        end: u64,
    },
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

/// What an entry costs beyond its bytes: key, slot and handle.
const ENTRY_OVERHEAD: u64 = 256;

impl Cached {
    fn weight(&self) -> u64 {
        ENTRY_OVERHEAD
            + match self {
                Cached::Bytes(bytes) => bytes.len() as u64,
                Cached::Footer(read) => {
                    (read.blocks.len() * 4 + read.footer.leader_epochs.entries().len() * 16 + 256) as u64
                }
            }
    }
}

/// Filled by whoever asks first; the others wait for it.
type Slot = Arc<OnceCell<Cached>>;

#[derive(Debug)]
struct Entry {
    slot: Slot,
    /// 0 until the slot is filled.
    weight: u64,
}

#[derive(Debug)]
struct Entries {
    by_key: LruCache<Key, Entry>,
    weight: u64,
}

/// The cache of one tier. Of chunks the oldest go first, of footers and indexes those not used for longest. Most chunks
/// are for sequential readers, who use each for a while and then never again: a cache that preferred what was used
/// often, or lately, would keep those that have been read and drop those that were fetched ahead.
#[derive(Debug)]
pub(crate) struct PieceCache {
    entries: Mutex<Entries>,
    bytes_max: u64,
    metrics: Arc<TierMetrics>,
}

/// A slot that somebody waits for. Taken away again if it is not filled and nobody else waits.
struct Claim<'a> {
    cache: &'a PieceCache,
    key: Key,
    slot: Slot,
}

impl PieceCache {
    pub(crate) fn new(bytes_max: u64, metrics: Arc<TierMetrics>) -> Self {
        // The number of entries follows from their bytes.
        let entries = Entries { by_key: LruCache::unbounded(), weight: 0 };
        Self { entries: Mutex::new(entries), bytes_max, metrics }
    }

    /// What is cached under `key`, else what `fetch` brings, which is cached then. One fetch at a time a key.
    pub(crate) async fn get<E>(
        &self,
        key: Key,
        fetch: impl Future<Output = Result<Cached, E>>,
    ) -> Result<Cached, E> {
        let claim = self.claim(key);
        let mut fetched = false;
        let fill = async {
            fetched = true;
            fetch.await
        };
        let value = claim.slot.get_or_try_init(|| fill).await?.clone();
        if fetched {
            self.metrics.cache_misses.add(1);
            self.filled(&claim, value.weight());
        } else {
            self.metrics.cache_hits.add(1);
        }
        Ok(value)
    }

    fn claim(&self, key: Key) -> Claim<'_> {
        let mut entries = self.entries.lock();
        // A chunk keeps its place in the row, however often it is used.
        let known = match key.piece {
            Piece::Chunk { .. } => entries.by_key.peek(&key),
            Piece::Footer | Piece::Section(_) => entries.by_key.get(&key),
        };
        let slot = known.map(|entry| entry.slot.clone()).unwrap_or_else(|| {
            let slot = Slot::default();
            entries.by_key.push(key, Entry { slot: slot.clone(), weight: 0 });
            slot
        });
        Claim { cache: self, key, slot }
    }

    fn filled(&self, claim: &Claim<'_>, weight: u64) {
        let mut entries = self.entries.lock();
        match entries.by_key.peek_mut(&claim.key) {
            Some(entry) if Arc::ptr_eq(&entry.slot, &claim.slot) => entry.weight = weight,
            // Removed meanwhile: then it is simply not cached.
            _ => return,
        }
        entries.weight += weight;
        while entries.weight > self.bytes_max {
            let Some((_, oldest)) = entries.by_key.pop_lru() else { return };
            entries.weight -= oldest.weight;
        }
    }

    /// Whether it is there, or on its way.
    pub(crate) fn contains(&self, key: &Key) -> bool {
        self.entries.lock().by_key.contains(key)
    }

    pub(crate) fn remove(&self, key: &Key) {
        let mut entries = self.entries.lock();
        if let Some(removed) = entries.by_key.pop(key) {
            entries.weight -= removed.weight;
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.entries.lock().weight
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.slot.initialized() {
            return;
        }
        let mut entries = self.cache.entries.lock();
        let ours = entries.by_key.peek(&self.key).is_some_and(|entry| Arc::ptr_eq(&entry.slot, &self.slot));
        // This claim and the entry itself.
        if ours && Arc::strong_count(&self.slot) <= 2 {
            entries.by_key.pop(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use firn_tier::names::ObjectName;

    use super::*;

    fn key(index: u64) -> Key {
        let name = ObjectName {
            base_offset: 0,
            last_offset: 9,
            leader_epoch: 0,
            max_timestamp: -1,
            log_bytes: 1 << 20,
        };
        Key { partition: 0, name, piece: Piece::Chunk { start: index, end: index + 1 } }
    }

    fn cache(bytes_max: u64) -> PieceCache {
        PieceCache::new(bytes_max, Arc::default())
    }

    async fn put(cache: &PieceCache, index: u64, bytes: usize) {
        let chunk = Cached::Bytes(Bytes::from(vec![0; bytes]));
        cache.get(key(index), async { Ok::<_, ()>(chunk) }).await.unwrap();
    }

    #[tokio::test]
    async fn the_oldest_chunks_go_first_and_footers_in_use_stay() {
        let entry = 1_000 + ENTRY_OVERHEAD;
        let cache = cache(3 * entry);
        let footer = Key { piece: Piece::Footer, ..key(0) };
        let get_footer =
            || cache.get(footer, async { Ok::<_, ()>(Cached::Bytes(Bytes::from(vec![0; 1_000]))) });
        get_footer().await.unwrap();
        for index in 0..2 {
            put(&cache, index, 1_000).await;
        }
        put(&cache, 0, 1_000).await;
        get_footer().await.unwrap();
        put(&cache, 2, 1_000).await;
        assert_eq!([0, 1, 2].map(|index| cache.contains(&key(index))), [false, true, true]);
        assert!(cache.contains(&footer));
        assert_eq!(cache.bytes(), 3 * entry);
        put(&cache, 4, 10_000).await;
        assert_eq!(cache.bytes(), 0, "what is larger than all of it is not kept");
        put(&cache, 5, 1_000).await;
        cache.remove(&key(5));
        assert_eq!((cache.bytes(), cache.entries.lock().by_key.len()), (0, 0));
    }

    #[tokio::test]
    async fn a_fetch_that_fails_or_is_given_up_leaves_nothing() {
        let cache = cache(1 << 20);
        assert_eq!(cache.get(key(0), async { Err::<Cached, _>("away") }).await.err(), Some("away"));
        let hangs = cache.get(key(1), std::future::pending::<Result<Cached, ()>>());
        assert!(tokio::time::timeout(std::time::Duration::ZERO, hangs).await.is_err());
        assert_eq!(cache.entries.lock().by_key.len(), 0);
    }

    #[tokio::test]
    async fn whoever_waits_takes_over_when_the_first_gives_up() {
        let cache = cache(1 << 20);
        let mut first = Box::pin(cache.get(key(0), std::future::pending::<Result<Cached, ()>>()));
        let chunk = Cached::Bytes(Bytes::from_static(b"there"));
        let mut second = Box::pin(cache.get(key(0), async { Ok::<_, ()>(chunk) }));
        let poll = futures_util::future::poll_fn(|context| {
            assert!(first.as_mut().poll(context).is_pending());
            assert!(second.as_mut().poll(context).is_pending(), "one fetch at a time");
            std::task::Poll::Ready(())
        });
        poll.await;
        drop(first);
        assert!(matches!(second.await.unwrap(), Cached::Bytes(bytes) if bytes == "there"));
        assert!(cache.contains(&key(0)));
    }
}
