//! Footers and sections of objects: fetched by range, checked, cached.

use std::sync::Arc;

use bytes::Bytes;
use firn_tier::footer::{Footer, FooterError, SectionKind, Trailer};
use firn_tier::names::ObjectName;

use crate::cache::{Cached, Key, Piece, ReadFooter};
use crate::error::{ReadError, StoreError};
use crate::partition::Inner;

/// Bytes from an object's end that the first GET asks for: footer and block checksums of a segment of any usual size.
const TAIL_BYTES: u64 = 64 << 10;
/// How often bytes that do not match their checksum are fetched before they count as damaged.
pub(crate) const FETCHES_MAX: u32 = 3;

/// What an object's end says.
#[derive(Debug)]
pub(crate) enum FooterOutcome {
    Read(Arc<ReadFooter>),
    /// Not what its name says, however often it is read.
    Damaged(String),
    /// Written by a newer Firn.
    NewerFormat,
}

impl Inner {
    pub(crate) fn key(&self, name: &ObjectName, piece: Piece) -> Key {
        Key { partition: self.handle, name: *name, piece }
    }

    /// The footer of a listed object, cached.
    pub(crate) async fn footer(&self, name: &ObjectName) -> Result<Arc<ReadFooter>, ReadError> {
        match self.judge_footer(name).await? {
            FooterOutcome::Read(read) => Ok(read),
            FooterOutcome::Damaged(_) | FooterOutcome::NewerFormat => {
                Err(ReadError::Corrupt { path: self.path_of(name).to_string(), position: name.log_bytes })
            }
        }
    }

    /// The same, with a footer that does not pass told apart from a store that does not answer.
    pub(crate) async fn judge_footer(&self, name: &ObjectName) -> Result<FooterOutcome, ReadError> {
        let Some(size) = self.size_of(name) else {
            let range = self.selection().last_run();
            return Err(ReadError::NotTiered { offset: name.base_offset, range });
        };
        let key = self.key(name, Piece::Footer);
        let fetched = self.shared.cache.get(key, async {
            match self.fetch_footer(name, size).await {
                Ok(FooterOutcome::Read(read)) => Ok(Cached::Footer(read)),
                Ok(other) => Err(Ok(other)),
                Err(error) => Err(Err(error)),
            }
        });
        match fetched.await {
            Ok(Cached::Footer(read)) => Ok(FooterOutcome::Read(read)),
            Ok(Cached::Bytes(_)) => Ok(FooterOutcome::Damaged("cached under another kind".to_owned())),
            Err(Ok(other)) => Ok(other),
            Err(Err(error)) => Err(error.into()),
        }
    }

    /// The footer as the store has it now.
    pub(crate) async fn fetch_footer(
        &self,
        name: &ObjectName,
        size: u64,
    ) -> Result<FooterOutcome, StoreError> {
        let mut reason = String::new();
        for _ in 0..FETCHES_MAX {
            match self.try_fetch_footer(name, size).await? {
                Ok(read) => return Ok(FooterOutcome::Read(Arc::new(read))),
                Err(FooterError::UnknownVersion(_)) => return Ok(FooterOutcome::NewerFormat),
                Err(error) => reason = error.to_string(),
            }
            self.shared.metrics.corrupt_chunks.add(1);
        }
        Ok(FooterOutcome::Damaged(reason))
    }

    async fn try_fetch_footer(
        &self,
        name: &ObjectName,
        size: u64,
    ) -> Result<Result<ReadFooter, FooterError>, StoreError> {
        let path = self.path_of(name);
        let tail_from = size.saturating_sub(TAIL_BYTES);
        let mut tail = self.shared.bucket.get_range(&path, tail_from..size, &self.traffic).await?;
        let trailer = match Trailer::parse(&tail, size) {
            Ok(trailer) => trailer,
            Err(error) => return Ok(Err(error)),
        };
        if trailer.footer_length() > tail.len() {
            let from = size.saturating_sub(trailer.footer_length() as u64);
            tail = self.shared.bucket.get_range(&path, from..size, &self.traffic).await?;
        }
        let footer = match Footer::parse(&tail, size) {
            Ok(footer) if footer.name() == *name => footer,
            Ok(_) => return Ok(Err(FooterError::Inconsistent("it belongs to another name"))),
            Err(error) => return Ok(Err(error)),
        };
        let section = footer.section(SectionKind::BlockChecksums);
        let tail_from = size.saturating_sub(tail.len() as u64);
        let inside = section.offset.checked_sub(tail_from).map(|from| from as usize);
        let inside = inside.and_then(|from| tail.get(from..from.checked_add(section.length as usize)?));
        let blocks = match inside {
            Some(blocks) => Bytes::copy_from_slice(blocks),
            None if section.length == 0 => Bytes::new(),
            None => {
                let range = section.offset..section.offset.saturating_add(section.length);
                self.shared.bucket.get_range(&path, range, &self.traffic).await?
            }
        };
        if crc32c::crc32c(&blocks) != section.crc {
            return Ok(Err(FooterError::Inconsistent("block checksums do not match their own")));
        }
        let (words, _) = blocks.as_chunks::<4>();
        Ok(Ok(ReadFooter { footer, blocks: words.iter().map(|word| u32::from_be_bytes(*word)).collect() }))
    }

    /// One whole section other than the log, checked and cached.
    pub(crate) async fn section(
        &self,
        name: &ObjectName,
        read: &ReadFooter,
        kind: SectionKind,
    ) -> Result<Bytes, ReadError> {
        let section = read.footer.section(kind);
        if section.length == 0 {
            return Ok(Bytes::new());
        }
        let cached = self.shared.cache.get(self.key(name, Piece::Section(kind)), async {
            let path = self.path_of(name);
            let range = section.offset..section.offset.saturating_add(section.length);
            for _ in 0..FETCHES_MAX {
                let bytes = self.shared.bucket.get_range(&path, range.clone(), &self.traffic).await?;
                if crc32c::crc32c(&bytes) == section.crc {
                    return Ok(Cached::Bytes(bytes));
                }
                self.shared.metrics.corrupt_chunks.add(1);
            }
            Err(ReadError::Corrupt { path: path.to_string(), position: section.offset })
        });
        match cached.await? {
            Cached::Bytes(bytes) => Ok(bytes),
            Cached::Footer(_) => {
                Err(ReadError::Corrupt { path: self.path_of(name).to_string(), position: section.offset })
            }
        }
    }
}
