//! Walking the batches of a segment file: by their headers alone, or whole with their checksums.

use std::io;

use firn_records::batch::{BatchHeader, HEADER_LENGTH, verify_crc};

use crate::disk::{DiskFile, read_full_at};

/// Bytes read at a time while walking headers; enough for the stretch between two index entries.
const HEADER_CHUNK_BYTES: usize = 4096;
/// Bytes read at a time while checking whole batches.
const SCAN_CHUNK_BYTES: usize = 1 << 20;

/// What lies at a position of a segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step<T> {
    Batch(T),
    /// The file ends here, on a batch's edge.
    End,
    /// What follows is not a whole, sane batch.
    Invalid {
        reason: String,
    },
}

/// A header and where its batch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Located {
    pub(crate) position: u64,
    pub(crate) header: BatchHeader,
}

/// Walks headers from a position on; reads a chunk at a time and hops over the records.
#[derive(Debug)]
pub(crate) struct HeaderWalk<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    chunk: Vec<u8>,
    chunk_start: u64,
}

impl<'a> HeaderWalk<'a> {
    /// `end` is the length of the segment as its owner knows it: the file may be longer.
    pub(crate) fn new(file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        Self { file, position, end, chunk: Vec::new(), chunk_start: 0 }
    }

    pub(crate) fn next(&mut self) -> io::Result<Step<Located>> {
        let position = self.position;
        let left = self.end.saturating_sub(position);
        if left == 0 {
            return Ok(Step::End);
        }
        if left < HEADER_LENGTH as u64 {
            return Ok(Step::Invalid { reason: format!("{left} bytes at {position} are no whole header") });
        }
        let bytes = self.header_bytes()?;
        let header = match BatchHeader::parse(bytes) {
            Ok(header) => header,
            Err(error) => return Ok(Step::Invalid { reason: format!("at {position}: {error}") }),
        };
        if let Some(reason) = insane(&header, left) {
            return Ok(Step::Invalid { reason: format!("at {position}: {reason}") });
        }
        self.position += header.size_in_bytes() as u64;
        Ok(Step::Batch(Located { position, header }))
    }

    fn header_bytes(&mut self) -> io::Result<&[u8]> {
        let inside = self.position.checked_sub(self.chunk_start).and_then(|from| usize::try_from(from).ok());
        let held = inside.is_some_and(|from| from + HEADER_LENGTH <= self.chunk.len());
        if !held {
            let want =
                usize::try_from(self.end - self.position).unwrap_or(usize::MAX).min(HEADER_CHUNK_BYTES);
            self.chunk.resize(want, 0);
            let read = read_full_at(self.file, &mut self.chunk, self.position)?;
            self.chunk.truncate(read);
            self.chunk_start = self.position;
        }
        let from = usize::try_from(self.position - self.chunk_start).unwrap_or(usize::MAX);
        Ok(self.chunk.get(from..).unwrap_or_default())
    }
}

/// Why a header cannot be believed, if so. `left` is how many bytes the segment has from its start on.
pub(crate) fn insane(header: &BatchHeader, left: u64) -> Option<String> {
    let size = header.size_in_bytes() as u64;
    if size > left {
        return Some(format!("a batch of {size} bytes where {left} are left"));
    }
    if header.base_offset < 0 || header.last_offset_delta < 0 || header.last_offset() < header.base_offset {
        return Some(format!("offsets {} + {}", header.base_offset, header.last_offset_delta));
    }
    None
}

/// Walks whole batches from a position on, and checks each one's CRC.
#[derive(Debug)]
pub(crate) struct BatchScan<'a> {
    file: &'a dyn DiskFile,
    position: u64,
    end: u64,
    chunk: Vec<u8>,
    chunk_start: u64,
}

impl<'a> BatchScan<'a> {
    pub(crate) fn new(file: &'a dyn DiskFile, position: u64, end: u64) -> Self {
        Self { file, position, end, chunk: Vec::new(), chunk_start: position }
    }

    pub(crate) fn next(&mut self) -> io::Result<Step<(Located, &[u8])>> {
        let position = self.position;
        let left = self.end.saturating_sub(position);
        if left == 0 {
            return Ok(Step::End);
        }
        self.fill(HEADER_LENGTH)?;
        let header = match BatchHeader::parse(self.held()) {
            Ok(header) => header,
            Err(error) => return Ok(Step::Invalid { reason: format!("at {position}: {error}") }),
        };
        if let Some(reason) = insane(&header, left) {
            return Ok(Step::Invalid { reason: format!("at {position}: {reason}") });
        }
        let size = header.size_in_bytes();
        self.fill(size)?;
        let Some(start) = usize::try_from(position - self.chunk_start).ok() else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let Some(batch) = self.chunk.get(start..start + size) else {
            return Ok(Step::Invalid { reason: format!("at {position}: the file ends inside a batch") });
        };
        if let Err(error) = verify_crc(batch) {
            return Ok(Step::Invalid { reason: format!("at {position}: {error}") });
        }
        self.position += size as u64;
        Ok(Step::Batch((Located { position, header }, batch)))
    }

    fn held(&self) -> &[u8] {
        let from = usize::try_from(self.position - self.chunk_start).unwrap_or(usize::MAX);
        self.chunk.get(from..).unwrap_or_default()
    }

    /// Holds at least `wanted` bytes from the position on, or all that the file has.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        if self.held().len() >= wanted {
            return Ok(());
        }
        let left = usize::try_from(self.end - self.position).unwrap_or(usize::MAX);
        self.chunk.resize(wanted.max(SCAN_CHUNK_BYTES).min(left), 0);
        let read = read_full_at(self.file, &mut self.chunk, self.position)?;
        self.chunk.truncate(read);
        self.chunk_start = self.position;
        Ok(())
    }
}
