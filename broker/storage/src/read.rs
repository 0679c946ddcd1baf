//! Reading from a log: which bytes of which file a fetch gets.
//!
//! No record is touched: a read finds a position and a length, and the server sends the file's bytes, once they are known to
//! be what they were (`sound.rs`).

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::{DiskFile, read_exact_at};
use crate::error::{ReadError, StorageError};
use crate::open_files::Part;
use crate::partition_log::PartitionLog;
use crate::sound::Sound;

/// A stretch of one segment file. Holding it keeps the file readable, whatever becomes of the segment.
#[derive(Debug, Clone)]
pub struct LogSlice {
    /// `None` for an empty slice.
    pub file: Option<Arc<dyn DiskFile>>,
    /// Byte in the file at which the first batch begins.
    pub position: u64,
    /// Bytes; the last batch may be cut short, as Kafka's clients expect.
    pub len: usize,
    /// Base offset of the first batch, which may lie below the offset asked for. For an empty slice the offset itself.
    pub base_offset: i64,
    /// What it is to be by what lies before it; it may lie above if there may be a gap.
    pub(crate) due: i64,
    /// `None` for an empty slice, and for one that is not of a log.
    pub(crate) origin: Option<Origin>,
}

/// The segment that a slice is of, and what is known of its bytes.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) segment: i64,
    pub(crate) sound: Arc<Sound>,
}

impl LogSlice {
    /// Nothing, at `offset`.
    pub fn empty(offset: i64) -> Self {
        Self { file: None, position: 0, len: 0, base_offset: offset, due: offset, origin: None }
    }

    /// Of any file.
    pub fn of_file(file: Arc<dyn DiskFile>, position: u64, len: usize) -> Self {
        Self { file: Some(file), position, len, base_offset: 0, due: 0, origin: None }
    }

    /// Copies the bytes out of the file.
    pub fn read(&self) -> io::Result<Bytes> {
        let Some(file) = &self.file else { return Ok(Bytes::new()) };
        let mut bytes = vec![0; self.len];
        read_exact_at(file.as_ref(), &mut bytes, self.position)?;
        Ok(bytes.into())
    }
}

/// A batch's place.
#[derive(Debug, Clone, Copy)]
struct Place {
    segment: usize,
    position: u64,
    base_offset: i64,
    /// As of [`LogSlice`].
    due: i64,
    bytes: u64,
}

impl PartitionLog {
    /// The batches from the one that holds `from_offset` on, of at most `max_bytes` and below `limit_offset` (the high
    /// watermark, the last stable offset, or the log's end). With `at_least_one` the first batch comes whole even if
    /// it is larger; without, a first batch that does not fit gives an empty slice.
    pub fn read(
        &self,
        from_offset: i64,
        limit_offset: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<LogSlice, ReadError> {
        self.directory.check()?;
        self.check_range(from_offset)?;
        let limit = limit_offset.min(self.end_offset);
        if from_offset >= limit {
            return Ok(LogSlice::empty(from_offset));
        }
        let Some(place) = self.find(from_offset)? else { return Ok(LogSlice::empty(from_offset)) };
        if place.base_offset > from_offset && !self.may_have_gaps() {
            return Err(self.misplaced(&place, from_offset).into());
        }
        if place.base_offset >= limit {
            return Ok(LogSlice::empty(from_offset));
        }
        let Some(segment) = self.segments.get(place.segment) else {
            return Ok(LogSlice::empty(from_offset));
        };
        let end = if limit >= self.segment_end(place.segment) {
            segment.size
        } else {
            match self.find(limit)?.filter(|above| above.segment == place.segment) {
                Some(above) if above.position < place.position => {
                    return Err(self.misplaced(&above, limit).into());
                }
                Some(above) => above.position,
                None => segment.size,
            }
        };
        let available = end.saturating_sub(place.position);
        let wanted = if max_bytes as u64 >= place.bytes {
            max_bytes as u64
        } else if at_least_one {
            place.bytes
        } else {
            return Ok(LogSlice::empty(from_offset));
        };
        let len = usize::try_from(available.min(wanted)).unwrap_or(usize::MAX);
        if len == 0 {
            return Ok(LogSlice::empty(from_offset));
        }
        Ok(LogSlice {
            file: Some(segment.file(self.home(), Part::Log)?),
            position: place.position,
            len,
            base_offset: place.base_offset,
            due: place.due,
            origin: Some(Origin { segment: segment.base_offset, sound: Arc::clone(&self.sound) }),
        })
    }

    fn misplaced(&self, place: &Place, offset: i64) -> StorageError {
        let base_offset = self.segments.get(place.segment).map_or(0, |segment| segment.base_offset);
        let what = format!(
            "a batch at {} claims offset {} where {offset} is due",
            place.position, place.base_offset
        );
        StorageError::corrupt(&self.home().log_path(base_offset), what)
    }

    /// Refuses offsets that the log does not have, or does not have here.
    pub(crate) fn check_range(&self, offset: i64) -> Result<(), ReadError> {
        if offset < self.log_start_offset || offset > self.end_offset {
            return Err(ReadError::OffsetOutOfRange {
                offset,
                log_start_offset: self.log_start_offset,
                end_offset: self.end_offset,
            });
        }
        let local_start_offset = self.local_start_offset();
        if offset < local_start_offset {
            return Err(ReadError::BelowLocalStart { offset, local_start_offset });
        }
        Ok(())
    }

    /// The batch that holds `offset`, or the first one above it.
    fn find(&self, offset: i64) -> Result<Option<Place>, StorageError> {
        if let (Some(recent), Some(segment)) = (self.recent.find(offset), self.segments.len().checked_sub(1))
        {
            return Ok(Some(Place {
                segment,
                position: u64::from(recent.position),
                base_offset: recent.base_offset,
                due: recent.base_offset,
                bytes: u64::from(recent.bytes),
            }));
        }
        let first = self.segment_for(offset).unwrap_or(0);
        for (index, segment) in self.segments.iter().enumerate().skip(first) {
            if let Some((located, due)) = segment.locate_in_order(self.home(), offset)? {
                return Ok(Some(Place {
                    segment: index,
                    position: located.position,
                    base_offset: located.header.base_offset,
                    due,
                    bytes: located.header.size_in_bytes() as u64,
                }));
            }
            // Segments meet without a hole, compacted ones too.
            if offset < self.segment_end(index) {
                let path = self.home().log_path(segment.base_offset);
                return Err(StorageError::corrupt(&path, format!("it ends before offset {offset}")));
            }
        }
        Ok(None)
    }
}
