//! Cold reads: whole batches out of checked chunks.

use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use firn_records::batch::{BatchHeader, HEADER_LENGTH};
use firn_tier::footer::SectionKind;
use firn_tier::names::ObjectName;
use firn_tier::select::Link;
use futures_util::future::try_join_all;

use crate::cache::{Cached, Piece, ReadFooter};
use crate::error::ReadError;
use crate::footers::FETCHES_MAX;
use crate::partition::{Inner, TieredPartition};

/// Chunks of one reader that the cache has room for: the one it reads, and as much again twice for those ahead.
const CHUNKS_OF_READER: u64 = 3;

/// A batch found in an object's log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FoundBatch {
    pub position: u64,
    pub header: BatchHeader,
}

impl FoundBatch {
    pub(crate) fn end(&self) -> u64 {
        self.position.saturating_add(self.header.size_in_bytes() as u64)
    }
}

/// One object's log, as far as it serves.
#[derive(Debug, Clone)]
pub(crate) struct ObjectLog {
    pub inner: Arc<Inner>,
    pub link: Link,
    pub read: Arc<ReadFooter>,
    /// Bytes that are fetched and cached as one: less where many read side by side, so that all find room.
    pub chunk_bytes: u64,
}

impl TieredPartition {
    /// Whole batches from the one that holds `from_offset` on, out of one object: at most `max_bytes`, but at least
    /// one batch if `at_least_one`. Empty if the first batch is larger than that, or if compaction has left no record
    /// from `from_offset` to the tier's end (the caller goes on at the end of [`TieredPartition::tiered_range`]).
    pub async fn read(
        &self,
        from_offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Bytes, ReadError> {
        match self.try_read(from_offset, max_bytes, at_least_one).await {
            // Collected between planning and reading: another object serves these offsets now.
            Err(ReadError::Store(error)) if error.failure.is_not_found() => {
                let view = self.inner.state.lock().view.clone();
                self.forget_unlisted(view).await?;
                self.try_read(from_offset, max_bytes, at_least_one).await
            }
            outcome => outcome,
        }
    }

    async fn forget_unlisted(&self, view: crate::partition::PartitionView) -> Result<(), ReadError> {
        use crate::error::TierError;
        match self.refresh(view).await {
            Err(TierError::Store(error)) => Err(error.into()),
            _ => Ok(()),
        }
    }

    async fn try_read(
        &self,
        from_offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Bytes, ReadError> {
        let mut offset = from_offset;
        loop {
            let selection = self.inner.selection();
            let link = match selection.link_at(offset) {
                Some(link) if link.from <= offset => *link,
                None if offset > from_offset => return Ok(Bytes::new()),
                _ => return Err(ReadError::NotTiered { offset, range: selection.last_run() }),
            };
            let log = self.inner.clone().open(link).await?;
            let Some(first) = log.first_batch_from(offset).await? else {
                offset = link.to;
                continue;
            };
            let (bytes, next_offset) = log.read_from(first, max_bytes, at_least_one).await?;
            if let Some(next_offset) = next_offset {
                let end = first.position.saturating_add(bytes.len() as u64);
                self.inner.clone().run_ahead(&log, from_offset, next_offset, end);
            }
            return Ok(bytes);
        }
    }
}

impl Inner {
    pub(crate) async fn open(self: Arc<Self>, link: Link) -> Result<ObjectLog, ReadError> {
        let read = self.footer(&link.name).await?;
        let chunk_bytes = self.shared_chunk_bytes(&read);
        Ok(ObjectLog { inner: self, link, read, chunk_bytes })
    }

    /// Bytes of one GET from objects with these blocks: whole blocks, about as many as configured.
    pub(crate) fn chunk_bytes(&self, read: &ReadFooter) -> u64 {
        whole_blocks(u64::from(self.shared.bucket.options.chunk_bytes), read)
    }

    /// The same for a reader that shares the cache with others. Each needs room for the chunk that it reads and for
    /// what follows; a chunk that is dropped before all of it was read is fetched again.
    fn shared_chunk_bytes(&self, read: &ReadFooter) -> u64 {
        let readers = self.shared.readers.lock().count() as u64;
        let share = self.shared.bucket.options.cache_bytes_max / (CHUNKS_OF_READER * readers.max(1));
        let mut bytes = self.chunk_bytes(read);
        while bytes > share && bytes > u64::from(read.footer.block_bytes) {
            bytes = whole_blocks(bytes / 2, read);
        }
        bytes
    }

    /// One chunk of an object's log, every block of it checked.
    pub(crate) async fn chunk(
        &self,
        name: &ObjectName,
        read: &ReadFooter,
        chunk: Range<u64>,
    ) -> Result<Bytes, ReadError> {
        let key = self.key(name, Piece::Chunk { start: chunk.start, end: chunk.end });
        let cached = self.shared.cache.get(key, async {
            self.shared.bucket.pace_fetch(chunk.end.saturating_sub(chunk.start)).await;
            let bytes = self.fetch_chunk(name, read, chunk).await?;
            Ok::<_, ReadError>(Cached::Bytes(bytes))
        });
        match cached.await? {
            Cached::Bytes(bytes) => Ok(bytes),
            Cached::Footer(_) => {
                Err(ReadError::Corrupt { path: self.path_of(name).to_string(), position: 0 })
            }
        }
    }

    /// Whole blocks as the store has them now, past the cache.
    pub(crate) async fn fetch_chunk(
        &self,
        name: &ObjectName,
        read: &ReadFooter,
        chunk: Range<u64>,
    ) -> Result<Bytes, ReadError> {
        let path = self.path_of(name);
        let start = chunk.start;
        let end = chunk.end.min(read.footer.section(SectionKind::Log).length);
        let block_bytes = read.footer.block_bytes.max(1) as usize;
        let first_block = (start / block_bytes as u64) as usize;
        for _ in 0..FETCHES_MAX {
            let bytes = self.shared.bucket.get_range(&path, start..end, &self.traffic).await?;
            let stored = read.blocks.get(first_block..).unwrap_or_default();
            let mut blocks = bytes.chunks(block_bytes).zip(stored);
            if bytes.len().div_ceil(block_bytes) <= stored.len()
                && blocks.all(|(b, crc)| crc32c::crc32c(b) == *crc)
            {
                return Ok(bytes);
            }
            self.shared.metrics.corrupt_chunks.add(1);
            tracing::warn!(%path, position = start, "chunk does not match its checksums; it is fetched again");
        }
        Err(ReadError::Corrupt { path: path.to_string(), position: start })
    }
}

/// `bytes`, rounded down to whole blocks, of which there is at least one.
fn whole_blocks(bytes: u64, read: &ReadFooter) -> u64 {
    let block = u64::from(read.footer.block_bytes.max(1));
    (bytes / block).max(1) * block
}

impl ObjectLog {
    /// The `index`th chunk's bytes in the log.
    pub(crate) fn chunk(&self, index: u64) -> Range<u64> {
        let start = index.saturating_mul(self.chunk_bytes);
        start..start.saturating_add(self.chunk_bytes).min(self.length())
    }

    pub(crate) fn length(&self) -> u64 {
        self.read.footer.section(SectionKind::Log).length
    }

    pub(crate) fn corrupt(&self, position: u64) -> ReadError {
        ReadError::Corrupt { path: self.inner.path_of(&self.link.name).to_string(), position }
    }

    /// Bytes of the log; copied only where they cross chunks.
    pub(crate) async fn bytes(&self, range: Range<u64>) -> Result<Bytes, ReadError> {
        if range.is_empty() || range.end > self.length() {
            return if range.is_empty() { Ok(Bytes::new()) } else { Err(self.corrupt(range.start)) };
        }
        let chunk_bytes = self.chunk_bytes;
        let indexes = range.start / chunk_bytes..(range.end - 1) / chunk_bytes + 1;
        let first = indexes.start;
        let fetches = indexes.map(|index| self.inner.chunk(&self.link.name, &self.read, self.chunk(index)));
        let chunks = try_join_all(fetches).await?;
        let cut = |index: u64, chunk: &Bytes| {
            let chunk_start = index * chunk_bytes;
            let from = range.start.saturating_sub(chunk_start) as usize;
            let to = (range.end - chunk_start).min(chunk.len() as u64) as usize;
            (from <= to).then(|| chunk.slice(from..to)).ok_or_else(|| self.corrupt(chunk_start))
        };
        if let [chunk] = chunks.as_slice() {
            return cut(first, chunk);
        }
        let mut bytes = BytesMut::with_capacity((range.end - range.start) as usize);
        for (index, chunk) in (first..).zip(&chunks) {
            bytes.extend_from_slice(&cut(index, chunk)?);
        }
        Ok(bytes.freeze())
    }

    /// The batch at `position`; `None` at the log's end.
    pub(crate) async fn batch_at(&self, position: u64) -> Result<Option<FoundBatch>, ReadError> {
        if position >= self.length() {
            return Ok(None);
        }
        let end = position.saturating_add(HEADER_LENGTH as u64);
        let header = self.bytes(position..end).await?;
        let header = BatchHeader::parse(&header).map_err(|_| self.corrupt(position))?;
        let found = FoundBatch { position, header };
        if found.end() > self.length() { Err(self.corrupt(position)) } else { Ok(Some(found)) }
    }

    /// The first batch with records at or above `offset` that this link serves.
    pub(crate) async fn first_batch_from(&self, offset: i64) -> Result<Option<FoundBatch>, ReadError> {
        let mut position = self.position_before(offset).await?;
        while let Some(batch) = self.batch_at(position).await? {
            if batch.header.base_offset >= self.link.to {
                return Ok(None);
            }
            if batch.header.last_offset() >= offset {
                return Ok(Some(batch));
            }
            position = batch.end();
        }
        Ok(None)
    }

    /// Whole batches from `first` on, and the offset after them, if there are any.
    async fn read_from(
        &self,
        first: FoundBatch,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<(Bytes, Option<i64>), ReadError> {
        let start = first.position;
        if first.header.size_in_bytes() > max_bytes && !at_least_one {
            return Ok((Bytes::new(), None));
        }
        let end = start.saturating_add(max_bytes as u64).min(self.length()).max(first.end());
        let bytes = self.bytes(start..end).await?;
        let mut whole = 0;
        let mut next_offset = None;
        for batch in firn_records::batch::batches(&bytes) {
            let (header, batch) = batch.map_err(|_| self.corrupt(start + whole as u64))?;
            if header.base_offset >= self.link.to {
                break;
            }
            whole += batch.len();
            next_offset = Some(header.next_offset());
        }
        Ok((bytes.slice(..whole), next_offset))
    }
}
