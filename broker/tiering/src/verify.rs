//! Asks the store what it has: whether an object is listed, is what its name says, and holds the bytes it sums up.

use std::sync::Arc;

use firn_tier::footer::{Footer, SectionKind};
use firn_tier::names::ObjectName;
use firn_tier::select::Facts;

use crate::cache::{Piece, ReadFooter};
use crate::error::{ReadError, TierError};
use crate::footers::FooterOutcome;
use crate::options::ReadBack;
use crate::partition::{Inner, TieredPartition};

/// How often a listing is asked for an object that its PUT says is there.
const LISTINGS_MAX: u32 = 5;

/// What the store has under a name.
#[derive(Debug)]
pub(crate) enum Inspection {
    /// The same log, whole.
    Same {
        object_bytes: u64,
        footer: Footer,
    },
    /// Another log, whole.
    Different {
        object_bytes: u64,
        footer: Footer,
    },
    Missing,
    Damaged(String),
}

impl TieredPartition {
    /// Reads back every object that serves offsets from `from_offset` on and that this process has not read back
    /// yet: what a new leader or a restarted broker does before [`TieredPartition::verified_end`] tells it anything.
    /// Objects found damaged serve no more. Returns the verified end.
    pub async fn verify(&self, from_offset: i64, cleaned_offset: i64) -> Result<i64, TierError> {
        loop {
            let next = {
                let state = self.inner.state.lock();
                let unverified = |name: &ObjectName| {
                    state.objects.get(name).is_none_or(|object| object.verified.is_none())
                };
                let mut links = state.selection.chain.iter().filter(|link| link.to > from_offset);
                links.find(|link| unverified(&link.name)).map(|link| link.name)
            };
            let Some(name) = next else { return Ok(self.verified_end(from_offset, cleaned_offset)) };
            let size = self.inner.size_of(&name).unwrap_or_default();
            let outcome = self.inner.check(&name, size).await?;
            let mut state = self.inner.state.lock();
            match outcome {
                Ok(read) => {
                    if let Some(object) = state.objects.get_mut(&name) {
                        object.verified = Some(read.footer.compaction.to);
                    }
                    state.facts.insert(name, Facts::from(&read.footer));
                }
                Err(reason) => {
                    tracing::warn!(%name, %reason, "object in the tier is damaged; it serves nothing");
                    state.facts.insert(name, Facts::Damaged);
                }
            }
            state.reselect();
        }
    }
}

impl Inner {
    /// Whether `name` is listed and holds the log that `ours` sums up.
    pub(crate) async fn inspect(&self, name: &ObjectName, ours: &Footer) -> Result<Inspection, TierError> {
        let Some(size) = self.listed_back(name).await? else { return Ok(Inspection::Missing) };
        self.shared.cache.remove(&self.key(name, Piece::Footer));
        let read = match self.check(name, size).await? {
            Ok(read) => read,
            Err(reason) => return Ok(Inspection::Damaged(reason)),
        };
        let (theirs, mine) = (read.footer.section(SectionKind::Log), ours.section(SectionKind::Log));
        let footer = read.footer.clone();
        Ok(if theirs.crc == mine.crc && theirs.length == mine.length {
            Inspection::Same { object_bytes: size, footer }
        } else {
            Inspection::Different { object_bytes: size, footer }
        })
    }

    /// The object's listed size. `None` if it neither is listed nor exists; an error if it exists but stays unlisted.
    async fn listed_back(&self, name: &ObjectName) -> Result<Option<u64>, TierError> {
        let bucket = &self.shared.bucket;
        let path = self.path_of(name);
        let after = self.object_path(&name.range_prefix());
        for attempt in 1..=LISTINGS_MAX {
            if let Some(size) = bucket.listed_size(&self.directory, &after, &path).await? {
                return Ok(Some(size));
            }
            if bucket.size(&path).await?.is_none() {
                return Ok(None);
            }
            tokio::time::sleep(bucket.backoff.pause(attempt)).await;
        }
        Err(TierError::NotListed { path: path.to_string() })
    }

    /// Reads an object back, past the cache: its footer, and its log if the options ask for it.
    async fn check(
        &self,
        name: &ObjectName,
        size: u64,
    ) -> Result<Result<Arc<ReadFooter>, String>, TierError> {
        let read = match self.fetch_footer(name, size).await? {
            FooterOutcome::Read(read) => read,
            FooterOutcome::Damaged(reason) => return Ok(Err(reason)),
            FooterOutcome::NewerFormat => {
                return Err(TierError::Different { path: self.path_of(name).to_string() });
            }
        };
        if self.shared.bucket.options.read_back == ReadBack::Footer {
            return Ok(Ok(read));
        }
        let section = read.footer.section(SectionKind::Log);
        let chunk_bytes = self.chunk_bytes(&read);
        let mut crc = 0;
        for index in 0..section.length.div_ceil(chunk_bytes) {
            let chunk = index * chunk_bytes..(index + 1) * chunk_bytes;
            match self.fetch_chunk(name, &read, chunk).await {
                Ok(bytes) => crc = crc32c::crc32c_append(crc, &bytes),
                Err(ReadError::Corrupt { position, .. }) => {
                    return Ok(Err(format!("bytes from {position} on do not match their checksums")));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if crc == section.crc {
            Ok(Ok(read))
        } else {
            Ok(Err("its log does not match its checksum".to_owned()))
        }
    }
}
