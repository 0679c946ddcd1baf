//! Fetches the chunks that a sequential reader will want, before it asks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use firn_tier::footer::SectionKind;
use tokio::time::Instant;

use crate::cache::Piece;
use crate::partition::Inner;
use crate::read::ObjectLog;

/// Sequential readers that are remembered; the one idle longest is forgotten first.
const READERS_MAX: usize = 256;
/// After so long without a read a reader has its share of the memory no more.
const IDLE_MAX: Duration = Duration::from_secs(10);

/// Where the sequential readers of all partitions are. They share what may be fetched ahead: chunks that the cache
/// had to drop before they were read would be fetched twice.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    readers: VecDeque<Reader>,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    partition: u64,
    next_offset: i64,
    seen: Instant,
    /// Bytes to keep fetched ahead.
    window: u64,
}

/// What may be fetched ahead, in bytes.
#[derive(Debug, Clone, Copy)]
struct Limits {
    one: u64,
    all: u64,
}

impl ReadAhead {
    /// Readers that are remembered, one of which may have just begun.
    pub(crate) fn count(&self) -> usize {
        self.readers.len()
    }

    /// Notes a read of `[from, next)` and says how many bytes to run ahead of it: none for a read that continues no
    /// other, then a chunk, then twice as many with each one that does.
    fn note(
        &mut self,
        partition: u64,
        (from, next_offset): (i64, i64),
        chunk: u64,
        limits: Limits,
        seen: Instant,
    ) -> u64 {
        let known = |reader: &Reader| reader.partition == partition && reader.next_offset == from;
        let before = self.readers.iter().position(known).and_then(|index| self.readers.remove(index));
        while self.readers.front().is_some_and(|oldest| seen.duration_since(oldest.seen) > IDLE_MAX) {
            self.readers.pop_front();
        }
        let share = limits.one.min(limits.all / (self.readers.len() as u64 + 1));
        let window = before.map_or(0, |reader| (reader.window * 2).max(chunk).min(share));
        self.readers.push_back(Reader { partition, next_offset, seen, window });
        if self.readers.len() > READERS_MAX {
            self.readers.pop_front();
        }
        window
    }
}

impl Inner {
    /// After a read of `log` that ended at `position`: fetches what comes next if the reader is a sequential one.
    /// Never waits, and never takes the last permit from a reader that does.
    pub(crate) fn run_ahead(
        self: Arc<Self>,
        log: &ObjectLog,
        from_offset: i64,
        next_offset: i64,
        position: u64,
    ) {
        let chunk_bytes = log.chunk_bytes;
        let options = &self.shared.bucket.options;
        // The rest of the cache is for what readers are reading, or have just read.
        let limits = Limits { one: options.read_ahead_bytes_max, all: options.cache_bytes_max / 3 };
        let (read, now) = ((from_offset, next_offset), Instant::now());
        let window = self.shared.readers.lock().note(self.handle, read, chunk_bytes, limits, now);
        let window = window / chunk_bytes;
        // What has to wait for its turn anyway is left to those who do want it now.
        if window == 0 || self.shared.bucket.cold_reads.is_behind() {
            return;
        }
        let chunks = log.length().div_ceil(chunk_bytes);
        let first = position.div_ceil(chunk_bytes);
        let last = first.saturating_add(window).min(chunks);
        for index in first..last {
            self.clone().fetch_ahead(log.clone(), index);
        }
        if first.saturating_add(window) > chunks {
            self.open_ahead(log.link.to);
        }
    }

    fn fetch_ahead(self: Arc<Self>, log: ObjectLog, index: u64) {
        let chunk = log.chunk(index);
        let piece = Piece::Chunk { start: chunk.start, end: chunk.end };
        if self.shared.cache.contains(&self.key(&log.link.name, piece)) {
            return;
        }
        let Ok(permit) = self.shared.read_ahead.clone().try_acquire_owned() else { return };
        self.shared.metrics.read_ahead_chunks.add(1);
        tokio::spawn(async move {
            // The reader itself meets the same error, if it lasts, and reports it.
            if let Err(error) = self.chunk(&log.link.name, &log.read, chunk).await {
                tracing::debug!(%error, "read-ahead failed");
            }
            drop(permit);
        });
    }

    /// The reader is about to cross into the object that serves `offset`: its footer, index and first chunk.
    fn open_ahead(self: Arc<Self>, offset: i64) {
        let Some(link) = self.selection().link_at(offset).copied().filter(|link| link.from <= offset) else {
            return;
        };
        // Its index is fetched first of all, before its first chunk.
        if self.shared.cache.contains(&self.key(&link.name, Piece::Section(SectionKind::OffsetIndex))) {
            return;
        }
        let Ok(permit) = self.shared.read_ahead.clone().try_acquire_owned() else { return };
        self.shared.metrics.read_ahead_chunks.add(1);
        tokio::spawn(async move {
            let fetched = async {
                let log = self.clone().open(link).await?;
                self.section(&link.name, &log.read, SectionKind::OffsetIndex).await?;
                self.chunk(&link.name, &log.read, log.chunk(0)).await
            };
            if let Err(error) = fetched.await {
                tracing::debug!(%error, "read-ahead failed");
            }
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { one: 8, all: 16 };

    #[test]
    fn only_sequential_reads_widen_the_window() {
        let (mut ahead, now) = (ReadAhead::default(), Instant::now());
        let mut note = |from, next| ahead.note(0, (from, next), 1, LIMITS, now);
        assert_eq!(note(0, 10), 0);
        assert_eq!(note(10, 20), 1);
        assert_eq!(note(20, 30), 2);
        assert_eq!(note(500, 510), 0, "a reader elsewhere begins anew");
        assert_eq!(note(30, 40), 4, "and does not disturb the first");
        assert_eq!(note(40, 50), 8);
        assert_eq!(note(50, 60), 8, "the window has a limit");
    }

    #[test]
    fn readers_share_what_may_be_fetched_ahead_until_they_are_idle() {
        let (mut ahead, now) = (ReadAhead::default(), Instant::now());
        let mut turn = |now, partitions: u64, turn: i64| -> u64 {
            let read = |partition| ahead.note(partition, (turn, turn + 1), 1, LIMITS, now);
            (0..partitions).map(read).sum()
        };
        for number in 0..9 {
            assert!(turn(now, 4, number) <= 16, "what all have together");
        }
        assert_eq!(turn(now, 4, 9), 16);
        assert_eq!(turn(now, 1, 10), 4, "the others may come back");
        assert_eq!(turn(now + IDLE_MAX * 2, 1, 11), 8, "they did not");
    }

    #[test]
    fn many_readers_are_forgotten_in_the_order_of_their_idleness() {
        let (mut ahead, now) = (ReadAhead::default(), Instant::now());
        for reader in 0..2 * READERS_MAX as u64 {
            ahead.note(reader, (0, 1), 1, LIMITS, now);
        }
        assert_eq!(ahead.readers.len(), READERS_MAX);
        assert_eq!(ahead.readers.front().map(|oldest| oldest.partition), Some(READERS_MAX as u64));
    }
}
