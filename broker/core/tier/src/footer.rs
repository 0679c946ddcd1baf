//! The end of every object: where its sections lie, their checksums, and what the segment was.
//!
//! Format 2, all numbers big-endian:
//! ```text
//! object  = log, offset index, time index, transaction index, producer snapshot, block checksums, body, trailer
//! body    = base offset i64, last offset i64, uploader's epoch i32, max timestamp i64, compacted to i64,
//!           epoch compacted to i32 (the leader epoch of the offset before), block length u32, epochs (count u32, then epoch i32 and start offset i64 each),
//!           sections (count u32, then kind u16, offset u64, length u64, crc32c u32 each)
//! trailer = body length u32, version u16, zero u16, object length u64, crc32c u32 of body and the trailer so far,
//!           magic "FirnSeg\n"
//! ```
//! Format 1 has no epoch compacted to. It is read, and written still where there is none to tell: of logs that were never
//! compacted.
//!
//! The trailer has a fixed size, so one ranged GET of an object's last bytes finds it, and usually the body and the
//! block checksums too. The log comes first: a position in it is a position in the object, and `head -c` of the log's
//! length is a file that Kafka's tools read.
//!
//! Block checksums are the CRC-32C of each `block_bytes` of the log. A batch's own CRC leaves its base offset and
//! leader epoch out, and a ranged read cuts batches; the blocks cover every byte, and are checked before a byte is served.

use crate::lineage::{Compaction, EpochStart, LeaderEpochs};
use crate::names::ObjectName;

/// Versions that [`Footer::encode`] writes: without an epoch compacted to, and with one.
pub const FORMAT_VERSIONS: [u16; 2] = [1, 2];
/// Bytes of the trailer, the object's last.
pub const TRAILER_LENGTH: usize = 28;
/// Longest body that is read: far above what a segment's leader epochs can need.
pub const BODY_LENGTH_MAX: usize = 16 << 20;
const MAGIC: [u8; 8] = *b"FirnSeg\n";
const SECTION_LENGTH: usize = 22;
const EPOCH_LENGTH: usize = 12;

/// A part of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SectionKind {
    Log,
    OffsetIndex,
    TimeIndex,
    TransactionIndex,
    ProducerSnapshot,
    BlockChecksums,
}

impl SectionKind {
    /// All kinds, in the order they lie in an object.
    pub const ALL: [SectionKind; 6] = [
        SectionKind::Log,
        SectionKind::OffsetIndex,
        SectionKind::TimeIndex,
        SectionKind::TransactionIndex,
        SectionKind::ProducerSnapshot,
        SectionKind::BlockChecksums,
    ];

    fn code(self) -> u16 {
        match self {
            SectionKind::Log => 1,
            SectionKind::OffsetIndex => 2,
            SectionKind::TimeIndex => 3,
            SectionKind::TransactionIndex => 4,
            SectionKind::ProducerSnapshot => 5,
            SectionKind::BlockChecksums => 6,
        }
    }
}

/// Where a section lies and what it must sum to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Section {
    /// From the object's start.
    pub offset: u64,
    pub length: u64,
    pub crc: u32,
}

/// Everything an object says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    /// Leader epoch of the broker that uploaded the object, at the time.
    pub uploader_epoch: i32,
    /// Milliseconds, -1 if no record has a timestamp.
    pub max_timestamp: i64,
    pub compaction: Compaction,
    /// Bytes of the log that one block checksum covers.
    pub block_bytes: u32,
    /// Who led while these records were written.
    pub leader_epochs: LeaderEpochs,
    /// One for each kind, in the order of [`SectionKind::ALL`].
    pub sections: [Section; 6],
    /// Bytes of the whole object.
    pub object_bytes: u64,
}

/// Why bytes are not the end of an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FooterError {
    #[error("the object has {0} bytes, fewer than a footer")]
    TooShort(u64),
    #[error("the object does not end as a segment does")]
    NoMagic,
    #[error("footer format {0} is not known here; a newer Firn wrote it")]
    UnknownVersion(u16),
    #[error("the footer says its object has {said} bytes, it has {have}")]
    WrongLength { said: u64, have: u64 },
    #[error("the footer's CRC is {stored:08x}, over its bytes it is {computed:08x}")]
    WrongCrc { stored: u32, computed: u32 },
    #[error("the footer contradicts itself: {0}")]
    Inconsistent(&'static str),
}

/// The fixed end of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    pub body_length: usize,
    pub object_bytes: u64,
    version: u16,
}

impl Trailer {
    /// Reads the trailer from `tail`, the last bytes of an object of `object_bytes`.
    pub fn parse(tail: &[u8], object_bytes: u64) -> Result<Self, FooterError> {
        let Some(bytes) = tail.last_chunk::<TRAILER_LENGTH>() else {
            return Err(FooterError::TooShort(object_bytes));
        };
        let mut reader = Reader(bytes);
        let body_length = reader.u32()? as usize;
        let version = reader.u16()?;
        let zero = reader.u16()?;
        let said = reader.u64()?;
        reader.u32()?;
        if reader.0 != MAGIC {
            return Err(FooterError::NoMagic);
        }
        if !FORMAT_VERSIONS.contains(&version) {
            return Err(FooterError::UnknownVersion(version));
        }
        if said != object_bytes {
            return Err(FooterError::WrongLength { said, have: object_bytes });
        }
        if zero != 0 || body_length > BODY_LENGTH_MAX || (body_length + TRAILER_LENGTH) as u64 > object_bytes
        {
            return Err(FooterError::Inconsistent("its length"));
        }
        Ok(Self { body_length, object_bytes, version })
    }

    /// Bytes of body and trailer: what a tail must hold for [`Footer::parse`].
    pub fn footer_length(&self) -> usize {
        self.body_length + TRAILER_LENGTH
    }
}

impl Footer {
    /// Reads a footer from `tail`, the last bytes of an object of `object_bytes`; [`Trailer::footer_length`] tells how
    /// many it needs. Every number is checked: sections lie back to back and fill the object, blocks match the log.
    pub fn parse(tail: &[u8], object_bytes: u64) -> Result<Self, FooterError> {
        let trailer = Trailer::parse(tail, object_bytes)?;
        let start = tail.len().checked_sub(trailer.footer_length());
        let Some(footer) = start.and_then(|start| tail.get(start..)) else {
            return Err(FooterError::TooShort(tail.len() as u64));
        };
        let (signed, end) = footer.split_at(footer.len() - MAGIC.len() - 4);
        let stored = Reader(end).u32()?;
        let computed = crc32c::crc32c(signed);
        if stored != computed {
            return Err(FooterError::WrongCrc { stored, computed });
        }
        let mut reader = Reader(signed.get(..trailer.body_length).unwrap_or_default());
        let parsed = Self::parse_body(&mut reader, &trailer)?;
        if !reader.0.is_empty() {
            return Err(FooterError::Inconsistent("bytes after its sections"));
        }
        parsed.check(trailer.footer_length() as u64)?;
        Ok(parsed)
    }

    fn parse_body(reader: &mut Reader<'_>, trailer: &Trailer) -> Result<Self, FooterError> {
        let base_offset = reader.i64()?;
        let last_offset = reader.i64()?;
        let uploader_epoch = reader.i32()?;
        let max_timestamp = reader.i64()?;
        let to = reader.i64()?;
        let epoch = if trailer.version == FORMAT_VERSIONS[0] { None } else { Some(reader.i32()?) };
        let block_bytes = reader.u32()?;
        let epochs = reader.u32()? as usize;
        // Each entry takes bytes that must be there, so the count bounds itself.
        if epochs > reader.0.len() / EPOCH_LENGTH {
            return Err(FooterError::Inconsistent("more leader epochs than bytes for them"));
        }
        let mut entries = Vec::with_capacity(epochs);
        for _ in 0..epochs {
            entries.push(EpochStart { epoch: reader.i32()?, start_offset: reader.i64()? });
        }
        let leader_epochs =
            LeaderEpochs::new(entries).ok_or(FooterError::Inconsistent("leader epochs do not rise"))?;
        if reader.u32()? as usize != SectionKind::ALL.len() {
            return Err(FooterError::Inconsistent("its number of sections"));
        }
        let mut sections = [Section::default(); 6];
        for (kind, section) in SectionKind::ALL.into_iter().zip(&mut sections) {
            if reader.u16()? != kind.code() {
                return Err(FooterError::Inconsistent("a section's kind"));
            }
            *section = Section { offset: reader.u64()?, length: reader.u64()?, crc: reader.u32()? };
        }
        Ok(Self {
            base_offset,
            last_offset,
            uploader_epoch,
            max_timestamp,
            compaction: Compaction { to, epoch },
            block_bytes,
            leader_epochs,
            sections,
            object_bytes: trailer.object_bytes,
        })
    }

    fn check(&self, footer_length: u64) -> Result<(), FooterError> {
        let mut end = Some(0u64);
        for section in &self.sections {
            if Some(section.offset) != end {
                return Err(FooterError::Inconsistent("sections do not lie back to back"));
            }
            end = section.offset.checked_add(section.length);
        }
        if end.and_then(|end| end.checked_add(footer_length)) != Some(self.object_bytes) {
            return Err(FooterError::Inconsistent("sections do not fill the object"));
        }
        let log = self.section(SectionKind::Log);
        if self.block_bytes == 0 {
            return Err(FooterError::Inconsistent("blocks of no bytes"));
        }
        let blocks = log.length.div_ceil(u64::from(self.block_bytes));
        if blocks.checked_mul(4) != Some(self.section(SectionKind::BlockChecksums).length) {
            return Err(FooterError::Inconsistent("checksums do not match the log's blocks"));
        }
        if !self.name().is_valid() || self.uploader_epoch < 0 || self.compaction.to < -1 {
            return Err(FooterError::Inconsistent("offsets, epoch or timestamp out of range"));
        }
        if self.compaction.epoch.is_some_and(|epoch| epoch < 0 || self.compaction.to < 1) {
            return Err(FooterError::Inconsistent("compacted in an epoch, and by no records"));
        }
        if self.leader_epochs.epoch_at(self.last_offset).is_none() {
            return Err(FooterError::Inconsistent("no leader epoch for its last offset"));
        }
        Ok(())
    }

    pub fn section(&self, kind: SectionKind) -> Section {
        let index = SectionKind::ALL.iter().position(|&other| other == kind).unwrap_or_default();
        self.sections.get(index).copied().unwrap_or_default()
    }

    /// The name that an object with this footer must have.
    pub fn name(&self) -> ObjectName {
        ObjectName {
            base_offset: self.base_offset,
            last_offset: self.last_offset,
            leader_epoch: self.leader_epochs.epoch_at(self.last_offset).unwrap_or(-1),
            max_timestamp: self.max_timestamp,
            log_bytes: self.section(SectionKind::Log).length,
        }
    }

    /// Body and trailer, to follow the last section. Call [`Footer::lay_out`] first.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_length());
        out.extend(self.base_offset.to_be_bytes());
        out.extend(self.last_offset.to_be_bytes());
        out.extend(self.uploader_epoch.to_be_bytes());
        out.extend(self.max_timestamp.to_be_bytes());
        out.extend(self.compaction.to.to_be_bytes());
        out.extend(self.compaction.epoch.into_iter().flat_map(i32::to_be_bytes));
        out.extend(self.block_bytes.to_be_bytes());
        out.extend((self.leader_epochs.entries().len() as u32).to_be_bytes());
        for entry in self.leader_epochs.entries() {
            out.extend(entry.epoch.to_be_bytes());
            out.extend(entry.start_offset.to_be_bytes());
        }
        out.extend((SectionKind::ALL.len() as u32).to_be_bytes());
        for (kind, section) in SectionKind::ALL.into_iter().zip(&self.sections) {
            out.extend(kind.code().to_be_bytes());
            out.extend(section.offset.to_be_bytes());
            out.extend(section.length.to_be_bytes());
            out.extend(section.crc.to_be_bytes());
        }
        let body_length = out.len() as u32;
        out.extend(body_length.to_be_bytes());
        out.extend(self.version().to_be_bytes());
        out.extend(0u16.to_be_bytes());
        out.extend(self.object_bytes.to_be_bytes());
        let crc = crc32c::crc32c(&out);
        out.extend(crc.to_be_bytes());
        out.extend(MAGIC);
        out
    }

    fn version(&self) -> u16 {
        let [without_epoch, with_epoch] = FORMAT_VERSIONS;
        if self.compaction.epoch.is_none() { without_epoch } else { with_epoch }
    }

    /// Bytes that [`Footer::encode`] makes.
    pub fn encoded_length(&self) -> usize {
        const FIXED: usize = 8 + 8 + 4 + 8 + 8 + 4 + 4 + 4;
        FIXED
            + self.compaction.epoch.map_or(0, |_| size_of::<i32>())
            + self.leader_epochs.entries().len() * EPOCH_LENGTH
            + SectionKind::ALL.len() * SECTION_LENGTH
            + TRAILER_LENGTH
    }

    /// Lays `parts`, the length and CRC of each section in order, back to back and sets the object's length.
    pub fn lay_out(&mut self, parts: [(u64, u32); 6]) {
        let mut offset = 0;
        for (section, (length, crc)) in self.sections.iter_mut().zip(parts) {
            *section = Section { offset, length, crc };
            offset += length;
        }
        self.object_bytes = offset + self.encoded_length() as u64;
    }
}

/// Reads numbers off the front of bytes that may end too early.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], FooterError> {
        let (front, rest) =
            self.0.split_first_chunk::<N>().ok_or(FooterError::Inconsistent("it ends too early"))?;
        self.0 = rest;
        Ok(*front)
    }

    fn u16(&mut self) -> Result<u16, FooterError> {
        self.take().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, FooterError> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Result<u64, FooterError> {
        self.take().map(u64::from_be_bytes)
    }

    fn i32(&mut self) -> Result<i32, FooterError> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Result<i64, FooterError> {
        self.take().map(i64::from_be_bytes)
    }
}

#[cfg(test)]
#[path = "footer/tests.rs"]
mod tests;
