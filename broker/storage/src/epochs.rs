//! Which leader epoch began at which offset: the memory behind OffsetForLeaderEpoch (KIP-101, KIP-279).
//!
//! Pure. The log writes it to `leader-epoch-checkpoint` before the recovery point passes the first record of a new
//! epoch; what a crash loses above the recovery point, recovery reads again from the batches themselves.

use crate::checkpoint;

/// One epoch and the offset of its first record, or of the end of the log when its leader began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEntry {
    pub epoch: i32,
    pub start_offset: i64,
}

/// Epochs of one log, both columns strictly rising.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
    changes: u64,
}

impl EpochCache {
    /// Reads Kafka's checkpoint: version, count, then `epoch start_offset` a line.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let mut cache = Self::default();
        for [epoch, start_offset] in checkpoint::entries::<2>(bytes)? {
            let epoch = epoch.parse().map_err(|_| format!("'{epoch}' is not an epoch"))?;
            let start_offset: i64 =
                start_offset.parse().map_err(|_| format!("'{start_offset}' is not an offset"))?;
            let rising = cache
                .entries
                .last()
                .is_none_or(|last| last.epoch < epoch && last.start_offset <= start_offset);
            if epoch < 0 || start_offset < 0 || !rising {
                return Err(format!("epoch {epoch} at offset {start_offset} is out of order"));
            }
            cache.entries.push(EpochEntry { epoch, start_offset });
        }
        Ok(cache)
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        checkpoint::encode(
            self.entries.iter().map(|entry| format!("{} {}\n", entry.epoch, entry.start_offset)),
        )
    }

    /// Grows with every change, so that its owner knows what is not on disk yet.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    pub fn latest(&self) -> Option<EpochEntry> {
        self.entries.last().copied()
    }

    /// Notes that `epoch` begins at `start_offset`. An epoch that is known, or older than one known, changes nothing,
    /// and one that began without writing a record is replaced by its successor.
    pub(crate) fn assign(&mut self, epoch: i32, start_offset: i64) {
        if epoch < 0 || self.entries.last().is_some_and(|last| last.epoch >= epoch) {
            return;
        }
        while self.entries.last().is_some_and(|last| last.start_offset >= start_offset) {
            self.entries.pop();
        }
        self.entries.push(EpochEntry { epoch, start_offset });
        self.changes += 1;
    }

    /// Forgets epochs that begin at or above `end_offset`.
    pub(crate) fn truncate_from_end(&mut self, end_offset: i64) {
        let kept = self.entries.partition_point(|entry| entry.start_offset < end_offset);
        if kept < self.entries.len() {
            self.entries.truncate(kept);
            self.changes += 1;
        }
    }

    /// Forgets epochs that ended before `start_offset`; the one that holds it now begins there.
    pub(crate) fn truncate_from_start(&mut self, start_offset: i64) {
        let past = self.entries.partition_point(|entry| entry.start_offset <= start_offset);
        if past == 0 {
            return;
        }
        let holder = past - 1;
        let moved = self.entries.get(holder).is_some_and(|entry| entry.start_offset < start_offset);
        if holder == 0 && !moved {
            return;
        }
        self.entries.drain(..holder);
        if let Some(first) = self.entries.first_mut() {
            first.start_offset = start_offset;
        }
        self.changes += 1;
    }

    pub(crate) fn clear(&mut self) {
        if !self.entries.is_empty() {
            self.entries.clear();
            self.changes += 1;
        }
    }

    /// The largest epoch at or below `epoch`, and the offset at which it ended: the answer to OffsetForLeaderEpoch
    /// (Kafka's `LeaderEpochFileCache.endOffsetFor`). `None` means "unknown": -1 and -1 on the wire.
    pub fn end_offset_for(&self, epoch: i32, log_end_offset: i64) -> Option<(i32, i64)> {
        let latest = self.latest()?;
        if epoch < 0 || epoch > latest.epoch {
            return None;
        }
        if epoch == latest.epoch {
            return Some((epoch, log_end_offset));
        }
        let next = self.entries.partition_point(|entry| entry.epoch <= epoch);
        let end = self.entries.get(next)?.start_offset;
        match next.checked_sub(1).and_then(|floor| self.entries.get(floor)) {
            Some(floor) => Some((floor.epoch, end)),
            // Older than all that is known: the requested epoch ended where the first known one begins.
            None => Some((epoch, end)),
        }
    }

    /// The epoch of the record at `offset`.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        let past = self.entries.partition_point(|entry| entry.start_offset <= offset);
        past.checked_sub(1).and_then(|index| self.entries.get(index)).map(|entry| entry.epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(entries: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for &(epoch, start) in entries {
            cache.assign(epoch, start);
        }
        cache
    }

    fn pairs(cache: &EpochCache) -> Vec<(i32, i64)> {
        cache.entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect()
    }

    #[test]
    fn end_offsets_follow_kip_279() {
        let epochs = cache(&[(2, 10), (4, 20), (7, 30)]);
        for (asked, answer) in [
            (-1, None),
            (0, Some((0, 10))),
            (2, Some((2, 20))),
            (3, Some((2, 20))),
            (4, Some((4, 30))),
            (6, Some((4, 30))),
            (7, Some((7, 99))),
            (8, None),
        ] {
            assert_eq!(epochs.end_offset_for(asked, 99), answer, "epoch {asked}");
        }
        assert_eq!(EpochCache::default().end_offset_for(0, 5), None);
    }

    #[test]
    fn an_epoch_without_records_is_replaced_by_the_next() {
        assert_eq!(pairs(&cache(&[(1, 0), (2, 10), (3, 10)])), [(1, 0), (3, 10)]);
        assert_eq!(pairs(&cache(&[(5, 0), (4, 10), (5, 20)])), [(5, 0)], "epochs never go back");
    }

    #[test]
    fn truncation_keeps_what_the_log_still_holds() {
        let mut epochs = cache(&[(1, 0), (2, 10), (3, 20)]);
        epochs.truncate_from_end(20);
        assert_eq!(pairs(&epochs), [(1, 0), (2, 10)]);
        epochs.truncate_from_start(15);
        assert_eq!(pairs(&epochs), [(2, 15)]);
        let changes = epochs.changes();
        epochs.truncate_from_start(15);
        epochs.truncate_from_end(99);
        assert_eq!(epochs.changes(), changes, "nothing to do is no change");
        assert_eq!(epochs.epoch_for_offset(14), None);
        assert_eq!(epochs.epoch_for_offset(15), Some(2));
    }

    #[test]
    fn the_checkpoint_is_kafkas_and_damage_is_refused() {
        let epochs = cache(&[(1, 0), (3, 20)]);
        assert_eq!(epochs.encode().trim_ascii_end(), b"0\n2\n1 0\n3 20");
        assert_eq!(EpochCache::parse(&epochs.encode()).map(|read| pairs(&read)), Ok(pairs(&epochs)));
        for bad in ["0\n2\n1 0\n", "0\n2\n3 0\n1 5\n", "0\n2\n1 9\n2 3\n", "0\n1\n-1 0\n", "x"] {
            assert!(EpochCache::parse(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
