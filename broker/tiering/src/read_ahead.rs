//! Fetches the chunks that a sequential reader will want, before it asks.

use std::collections::VecDeque;
use std::sync::Arc;

use firn_tier::footer::SectionKind;

use crate::cache::Piece;
use crate::partition::Inner;
use crate::read::ObjectLog;

/// Sequential readers of one partition that are remembered; the one idle longest is forgotten first.
const READERS_MAX: usize = 32;

/// Where the sequential readers of one partition are.
#[derive(Debug, Default)]
pub(crate) struct ReadAhead {
    readers: VecDeque<Reader>,
}

#[derive(Debug, Clone, Copy)]
struct Reader {
    next_offset: i64,
    /// Chunks to keep fetched ahead.
    window: u64,
}

impl ReadAhead {
    /// Notes a read of `[from, next)` and says how many chunks to run ahead of it: none for a read that continues no
    /// other, then more with each one that does.
    fn note(&mut self, from: i64, next: i64, window_max: u64) -> u64 {
        let known = self.readers.iter().position(|reader| reader.next_offset == from);
        let before = known.and_then(|index| self.readers.remove(index));
        let window = before.map_or(0, |reader| (reader.window * 2).max(1).min(window_max));
        self.readers.push_back(Reader { next_offset: next, window });
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
        let chunk_bytes = self.chunk_bytes(&log.read);
        let window_max = self.shared.bucket.options.read_ahead_bytes_max / chunk_bytes;
        let window = self.read_ahead.lock().note(from_offset, next_offset, window_max);
        if window == 0 {
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
        if self.shared.cache.contains(&self.key(&log.link.name, Piece::Chunk(index))) {
            return;
        }
        let Ok(permit) = self.shared.read_ahead.clone().try_acquire_owned() else { return };
        self.shared.metrics.read_ahead_chunks.add(1);
        tokio::spawn(async move {
            // The reader itself meets the same error, if it lasts, and reports it.
            if let Err(error) = self.chunk(&log.link.name, &log.read, index).await {
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
        if self.shared.cache.contains(&self.key(&link.name, Piece::Chunk(0))) {
            return;
        }
        let Ok(permit) = self.shared.read_ahead.clone().try_acquire_owned() else { return };
        self.shared.metrics.read_ahead_chunks.add(1);
        tokio::spawn(async move {
            let fetched = async {
                let log = self.clone().open(link).await?;
                self.section(&link.name, &log.read, SectionKind::OffsetIndex).await?;
                self.chunk(&link.name, &log.read, 0).await
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

    #[test]
    fn only_sequential_reads_widen_the_window() {
        let mut ahead = ReadAhead::default();
        assert_eq!(ahead.note(0, 10, 8), 0);
        assert_eq!(ahead.note(10, 20, 8), 1);
        assert_eq!(ahead.note(20, 30, 8), 2);
        assert_eq!(ahead.note(500, 510, 8), 0, "a reader elsewhere begins anew");
        assert_eq!(ahead.note(30, 40, 8), 4, "and does not disturb the first");
        assert_eq!(ahead.note(40, 50, 8), 8);
        assert_eq!(ahead.note(50, 60, 8), 8, "the window has a limit");
        for reader in 0..100 {
            ahead.note(1_000 * reader, 1_000 * reader + 1, 8);
        }
        assert_eq!(ahead.readers.len(), READERS_MAX);
    }
}
