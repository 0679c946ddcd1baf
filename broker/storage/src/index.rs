//! Sparse indexes of a segment: offset → position, and timestamp → offset, in Kafka's bytes (`OffsetIndex`, `TimeIndex`).
//!
//! An index is a hint. The newest entries wait in memory and are written in bunches; a crash that loses some, or the
//! whole file, costs only a longer scan. Readers check the batch an entry points at before they believe it.

use crate::disk::{DiskFile, read_exact_at, read_full_at, write_all_at};
use std::io;

/// Bytes of pending entries after which they are written.
const PENDING_BYTES_MAX: usize = 512;
/// Bytes read at the end of a search instead of single entries.
const BLOCK_BYTES: usize = 4096;

/// A fixed-size entry of an index file.
pub(crate) trait Entry: Copy {
    const WIDTH: usize;
    /// `bytes` is `WIDTH` long.
    fn read(bytes: &[u8]) -> Option<Self>;
    fn write(&self, out: &mut Vec<u8>);
}

/// `relative_offset` is the last offset of the batch at `position`, less the segment's base offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative_offset: u32,
    pub(crate) position: u32,
}

impl Entry for OffsetEntry {
    const WIDTH: usize = 8;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (offset, position) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            relative_offset: u32::from_be_bytes(*offset),
            position: u32::from_be_bytes(*position.first_chunk()?),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }
}

/// Up to the batch whose last offset is `relative_offset`, no timestamp is larger than `timestamp`, and that batch has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    pub(crate) relative_offset: u32,
}

impl Entry for TimeEntry {
    const WIDTH: usize = 12;

    fn read(bytes: &[u8]) -> Option<Self> {
        let (timestamp, offset) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            timestamp: i64::from_be_bytes(*timestamp),
            relative_offset: u32::from_be_bytes(*offset.first_chunk()?),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }
}

/// One index file: how many entries the file holds, and those that wait in memory after them.
#[derive(Debug)]
pub(crate) struct Index<E> {
    written: u32,
    pending: Vec<E>,
    last: Option<E>,
}

impl<E: Entry> Index<E> {
    pub(crate) fn empty() -> Self {
        Self { written: 0, pending: Vec::new(), last: None }
    }

    /// An index whose file is `bytes` long. A torn last entry is not counted, and is overwritten by the next.
    pub(crate) fn of_file_length(bytes: u64) -> Self {
        let written = u32::try_from(bytes / E::WIDTH as u64).unwrap_or(u32::MAX);
        Self { written, pending: Vec::new(), last: None }
    }

    pub(crate) fn entries(&self) -> u32 {
        self.written.saturating_add(u32::try_from(self.pending.len()).unwrap_or(u32::MAX))
    }

    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// True when the file has entries: only then need it be opened for reading.
    pub(crate) fn has_written(&self) -> bool {
        self.written > 0
    }

    /// True when enough entries wait to be worth a write.
    pub(crate) fn wants_write(&self) -> bool {
        self.pending.len() * E::WIDTH >= PENDING_BYTES_MAX
    }

    pub(crate) fn push(&mut self, entry: E) {
        self.pending.push(entry);
        self.last = Some(entry);
    }

    /// Writes what waits. After an error everything still waits, and the next call writes the same bytes again.
    pub(crate) fn write_pending(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut bytes = Vec::with_capacity(self.pending.len() * E::WIDTH);
        for entry in &self.pending {
            entry.write(&mut bytes);
        }
        write_all_at(file, &bytes, u64::from(self.written) * E::WIDTH as u64)?;
        self.written = self.entries();
        self.pending = Vec::new();
        Ok(())
    }

    /// The last entry, as far as memory knows it.
    pub(crate) fn last_in_memory(&self) -> Option<E> {
        self.last
    }

    /// Learns the last entry from the file, before more are pushed.
    pub(crate) fn load_last(&mut self, file: Option<&dyn DiskFile>) -> io::Result<()> {
        self.last = self.last(file)?;
        Ok(())
    }

    /// The last entry, read from the file when memory has none.
    pub(crate) fn last(&self, file: Option<&dyn DiskFile>) -> io::Result<Option<E>> {
        match (self.last, self.written.checked_sub(1), file) {
            (Some(last), _, _) => Ok(Some(last)),
            (None, Some(at), Some(file)) => read_entry(file, at).map(Some),
            _ => Ok(None),
        }
    }

    /// The last entry that `before` accepts, when it accepts a (perhaps empty) run of entries from the first on.
    pub(crate) fn find_last(
        &self,
        file: Option<&dyn DiskFile>,
        before: impl Fn(&E) -> bool,
    ) -> io::Result<Option<E>> {
        let in_memory = self.pending.partition_point(|entry| before(entry));
        if let Some(found) = in_memory.checked_sub(1).and_then(|at| self.pending.get(at)) {
            return Ok(Some(*found));
        }
        let Some(file) = file else { return Ok(None) };
        let per_block = (BLOCK_BYTES / E::WIDTH) as u32;
        let (mut low, mut high) = (0, self.written);
        // Invariant: entries below `low` are accepted, those from `high` on are not.
        while high - low > per_block {
            let middle = low + (high - low) / 2;
            if before(&read_entry(file, middle)?) { low = middle + 1 } else { high = middle }
        }
        let first = low.saturating_sub(1);
        let mut block = vec![0; (high - first) as usize * E::WIDTH];
        let read = read_full_at(file, &mut block, u64::from(first) * E::WIDTH as u64)?;
        block.truncate(read);
        let mut found = None;
        for entry in block.chunks_exact(E::WIDTH).filter_map(E::read) {
            if !before(&entry) {
                break;
            }
            found = Some(entry);
        }
        Ok(found)
    }

    /// Drops the entries that `before` refuses, in memory and, if it has any, in the file.
    pub(crate) fn truncate(
        &mut self,
        file: Option<&dyn DiskFile>,
        before: impl Fn(&E) -> bool,
    ) -> io::Result<()> {
        let in_memory = self.pending.partition_point(|entry| before(entry));
        if let Some(file) = file {
            if in_memory == 0 {
                let (mut low, mut high) = (0, self.written);
                while low < high {
                    let middle = low + (high - low) / 2;
                    if before(&read_entry(file, middle)?) { low = middle + 1 } else { high = middle }
                }
                self.written = low;
            }
            file.set_len(u64::from(self.written) * E::WIDTH as u64)?;
        }
        self.pending.truncate(in_memory);
        self.last = self.pending.last().copied();
        self.last = self.last(file)?;
        Ok(())
    }

    /// Empties the index, to be built again.
    pub(crate) fn reset(&mut self, file: &dyn DiskFile) -> io::Result<()> {
        file.set_len(0)?;
        *self = Self::empty();
        Ok(())
    }
}

fn read_entry<E: Entry>(file: &dyn DiskFile, at: u32) -> io::Result<E> {
    let mut bytes = [0; 16];
    let bytes = &mut bytes[..E::WIDTH];
    read_exact_at(file, bytes, u64::from(at) * E::WIDTH as u64)?;
    E::read(bytes).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}
