//! Where the newest batches lie. Consumers that keep up read them before any index or header is looked at.

/// Batches remembered.
const REMEMBERED: usize = 16;

/// A batch of the active segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecentBatch {
    pub(crate) base_offset: i64,
    pub(crate) position: u32,
    pub(crate) bytes: u32,
}

/// A ring of the active segment's newest batches.
#[derive(Debug, Default)]
pub(crate) struct RecentBatches {
    ring: Vec<RecentBatch>,
    next: usize,
}

impl RecentBatches {
    pub(crate) fn push(&mut self, batch: RecentBatch) {
        match self.ring.get_mut(self.next) {
            Some(slot) => *slot = batch,
            None => self.ring.push(batch),
        }
        self.next = (self.next + 1) % REMEMBERED;
    }

    /// The batch that begins exactly at `offset`.
    pub(crate) fn find(&self, offset: i64) -> Option<RecentBatch> {
        self.ring.iter().find(|batch| batch.base_offset == offset).copied()
    }

    /// After a roll, a cut or an exchange of segments.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }
}
