//! Puts a sealed segment into the store, and says it is there only once the store has shown it.
//!
//! Order: the log is read and checked batch by batch, and written under a name that nothing may replace; then the
//! object is listed, its footer compared with what was computed on the way up, and its log read back (`verify`). Only
//! then does it count as tiered. Any failure, a lost answer included, ends in the same question to the store: is the
//! object there, and is it ours? So a PUT that timed out and arrived is found, not written again.
//!
//! A crash leaves at most: a whole object nobody has counted yet (found by the next listing), a staged object (garbage
//! after the grace period), or the parts of a multipart upload, which S3 shows in no listing: the bucket's lifecycle
//! rule `AbortIncompleteMultipartUpload` removes those.
//!
//! Memory: one upload holds at most `parts_in_flight_max` parts, whatever the segment's size, and all uploads together
//! at most `parts_max`.

use std::sync::Arc;

use bytes::Bytes;
use firn_tier::footer::{Footer, Section, SectionKind};
use firn_tier::lineage::{Compaction, Keys, LeaderEpochs};
use firn_tier::names::{ObjectName, staged_name};
use firn_tier::select::{Facts, Link};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use object_store::PutPayload;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;

use crate::error::{Failure, StoreError, TierError};
use crate::log_check::LogCheck;
use crate::metrics::Operation;
use crate::partition::{Inner, Object, TieredPartition};
use crate::segment::{SegmentSource, SegmentToUpload, TieredSegment};
use crate::store::LargeUpload;
use crate::verify::Inspection;

/// How often an upload is tried when the object in its place turns out to be damaged or gone.
const ROUNDS_MAX: u32 = 3;

/// What became of an attempt to write.
enum Written {
    /// The store took it. The footer is the one that was written.
    Created(Footer),
    /// Something has the name already; the footer is the one that would have been written.
    Exists(Footer),
    /// The store did not say; the question goes back to it.
    Unknown(Footer, StoreError),
}

impl TieredPartition {
    /// Uploads a segment, unless the same object is there already. Returns once it is listed and read back. The local
    /// segment must stay until [`TieredPartition::verified_end`] has passed it.
    pub async fn upload(&self, segment: SegmentToUpload) -> Result<TieredSegment, TierError> {
        let metrics = &self.inner.shared.metrics;
        let topic = &self.inner.traffic;
        metrics.count(topic, |traffic| traffic.copy_requests.add(1));
        let outcome = self.inner.upload(&segment).await;
        match &outcome {
            Ok(tiered) if tiered.created => {
                metrics.count(topic, |traffic| traffic.copy_bytes.add(tiered.object_bytes));
            }
            Ok(_) => {}
            Err(_) => metrics.count(topic, |traffic| traffic.copy_errors.add(1)),
        }
        outcome
    }
}

impl Inner {
    async fn upload(&self, segment: &SegmentToUpload) -> Result<TieredSegment, TierError> {
        let plan = Plan::of(segment, self.shared.bucket.options.block_bytes)?;
        if let Some(newer) = self.selection().newer.first() {
            return Err(TierError::Deposed { epoch: newer.leader_epoch });
        }
        self.refuse_superseded(segment, &plan.name).await?;
        let mut last = TierError::NotListed { path: self.path_of(&plan.name).to_string() };
        for _ in 0..ROUNDS_MAX {
            let (footer, created, lost) = match self.write(&plan).await? {
                Written::Created(footer) => (footer, true, None),
                Written::Exists(footer) => (footer, false, None),
                Written::Unknown(footer, error) => (footer, true, Some(error)),
            };
            let inspection = self.inspect(&plan.name, &footer).await?;
            self.refuse_if_newer(&inspection)?;
            match inspection {
                Inspection::Same { object_bytes, mut footer } => {
                    // Compacted by lost records, it lacks nothing, as it happens; but nobody else knows that, and serves another if
                    // there is one. Then this one is garbage, and its place is free soon.
                    if !self.has_keys_of(&footer) {
                        if !self.serves_all_of(&plan.name) {
                            return Err(TierError::Different { path: self.path_of(&plan.name).to_string() });
                        }
                        footer.compaction = plan.compaction;
                    }
                    return Ok(self.tiered(&plan, object_bytes, &footer, created));
                }
                Inspection::Different { object_bytes, footer: other } => {
                    let (theirs, ours) = (other.compaction.to, segment.compaction.to);
                    if theirs < ours || ours < 0 || !self.has_keys_of(&other) {
                        return Err(TierError::Different { path: self.path_of(&plan.name).to_string() });
                    }
                    return Ok(self.tiered(&plan, object_bytes, &other, false));
                }
                Inspection::Missing => {
                    if let Some(error) = lost {
                        return Err(error.into());
                    }
                }
                Inspection::Damaged(reason) => {
                    let path = self.path_of(&plan.name);
                    tracing::warn!(%path, %reason, "object in the tier is damaged; it is written again");
                    self.shared.bucket.delete(&path, &self.traffic).await?;
                    self.state.lock().forget(&plan.name);
                    last = TierError::Damaged { path: path.to_string(), reason };
                }
            }
        }
        Err(last)
    }

    /// What is compacted by records of a later leader is not this one's to judge.
    fn refuse_if_newer(&self, inspection: &Inspection) -> Result<(), TierError> {
        let (Inspection::Same { footer, .. } | Inspection::Different { footer, .. }) = inspection else {
            return Ok(());
        };
        match self.state.lock().view.leader_epochs.keys(&footer.compaction) {
            Keys::Newer => Err(TierError::Deposed { epoch: footer.compaction.epoch.unwrap_or(-1) }),
            Keys::Ours | Keys::Lost => Ok(()),
        }
    }

    fn has_keys_of(&self, footer: &Footer) -> bool {
        self.state.lock().has_keys_of(&footer.compaction)
    }

    fn serves_all_of(&self, name: &ObjectName) -> bool {
        let start = self.state.lock().view.log_start_offset.max(name.base_offset);
        let serves = |link: &Link| (link.name, link.from, link.to) == (*name, start, name.end_offset());
        self.selection().chain.iter().any(serves)
    }

    /// An object that is compacted further must not be covered by one that is compacted less: it would lose anyway.
    async fn refuse_superseded(&self, segment: &SegmentToUpload, name: &ObjectName) -> Result<(), TierError> {
        let selection = self.selection();
        let overlapping = selection.chain.iter().filter(|link| {
            link.name != *name && link.from <= segment.last_offset && segment.base_offset < link.to
        });
        let mut further = false;
        for link in overlapping {
            let other = &self.footer(&link.name).await?.footer;
            further |= other.compaction.to > segment.compaction.to && self.has_keys_of(other);
        }
        let start = self.state.lock().view.log_start_offset.max(segment.base_offset);
        if further && selection.served_until(start) > segment.last_offset {
            return Err(TierError::Superseded {
                base_offset: segment.base_offset,
                last_offset: segment.last_offset,
            });
        }
        Ok(())
    }

    fn tiered(&self, plan: &Plan, object_bytes: u64, footer: &Footer, created: bool) -> TieredSegment {
        // The log is as clean as the local one, and the same, though an earlier pass may have written it.
        let compacted_to = footer.compaction.to.max(plan.compaction.to);
        let mut state = self.state.lock();
        state.remember(
            plan.name,
            Object { size: object_bytes, verified: Some(compacted_to) },
            Facts::from(footer),
        );
        state.reselect();
        TieredSegment { name: plan.name, object_bytes, created }
    }

    async fn write(&self, plan: &Plan) -> Result<Written, TierError> {
        let part_bytes = u64::from(self.shared.bucket.options.part_bytes);
        let path = self.path_of(&plan.name);
        if plan.log_bytes <= part_bytes {
            let _room = self.shared.parts.acquire().await;
            let (payload, footer) = plan.whole().await?;
            return Ok(match self.shared.bucket.create(&path, &payload).await {
                Ok(()) => Written::Created(footer),
                Err(error) if error.failure.is_already_there() => Written::Exists(footer),
                Err(error) if error.failure.is_retriable() => Written::Unknown(footer, error),
                Err(error) => return Err(error.into()),
            });
        }
        // Gigabytes are not sent to learn at the end that they were there.
        if self.shared.bucket.size(&path).await?.is_some() {
            return Ok(Written::Exists(plan.footer_alone().await?));
        }
        match self.shared.bucket.store.large_upload.clone() {
            LargeUpload::Conditional(store) => self.write_parts(plan, &*store, &path).await,
            LargeUpload::StagedParts(store) => {
                let staged = self.stage(&plan.name);
                let outcome = match self.write_parts(plan, &*store, &staged.path).await {
                    Ok(written) => self.put_in_place(&staged.path, &path, written).await,
                    Err(error) => Err(error),
                };
                self.unstage(staged).await;
                outcome
            }
            LargeUpload::StagedStream => {
                let staged = self.stage(&plan.name);
                let outcome = match self.write_stream(plan, &staged.path).await {
                    Ok(footer) => self.put_in_place(&staged.path, &path, Written::Created(footer)).await,
                    Err(error) => Err(error),
                };
                self.unstage(staged).await;
                outcome
            }
        }
    }

    /// Numbered parts, a few at once, each retried by itself.
    async fn write_parts(
        &self,
        plan: &Plan,
        store: &dyn MultipartStore,
        path: &Path,
    ) -> Result<Written, TierError> {
        let bucket = &self.shared.bucket;
        let id = bucket
            .call(Operation::CreateMultipart, path, || async { Ok(store.create_multipart(path).await?) })
            .await?;
        let mut parts: Vec<(usize, PartId)> = Vec::new();
        let mut under_way = FuturesUnordered::new();
        let mut reader = LogReader::new(plan);
        let outcome: Result<Footer, TierError> = async {
            for index in 0.. {
                // Whoever waits for room while it has parts under way sees to those first: nobody else would.
                let room = loop {
                    match self.shared.parts.try_acquire() {
                        _ if under_way.len() >= bucket.options.parts_in_flight_max.max(1) => {}
                        Ok(room) => break Ok(room),
                        Err(_) if under_way.is_empty() => break self.shared.parts.acquire().await,
                        Err(_) => {}
                    }
                    parts.extend(under_way.next().await.transpose()?);
                };
                let Some(payload) = reader.next_part(bucket.options.part_bytes).await? else { break };
                let id = &id;
                under_way.push(async move {
                    bucket.pace_copy(payload.content_length()).await;
                    let put = || async { Ok(store.put_part(path, id, index, payload.clone()).await?) };
                    let part = bucket.call(Operation::PutPart, path, put).await?;
                    drop(room);
                    Ok::<_, StoreError>((index, part))
                });
            }
            while let Some(part) = under_way.next().await {
                parts.push(part?);
            }
            reader.footer.take().ok_or_else(|| plan.invalid("its log ended early"))
        }
        .await;
        drop(under_way);
        let abort = || async { Ok(store.abort_multipart(path, &id).await?) };
        let footer = match outcome {
            Ok(footer) => footer,
            Err(error) => {
                // If this fails, too, the store's lifecycle rule removes the parts.
                bucket.call(Operation::AbortMultipart, path, abort).await.ok();
                return Err(error);
            }
        };
        parts.sort_unstable_by_key(|(index, _)| *index);
        let parts: Vec<PartId> = parts.into_iter().map(|(_, part)| part).collect();
        let complete = || async {
            store.complete_multipart(path, &id, parts.clone()).await?;
            Ok(())
        };
        match bucket.call(Operation::CompleteMultipart, path, complete).await {
            Ok(()) => Ok(Written::Created(footer)),
            Err(error) if error.failure.is_already_there() => {
                bucket.call(Operation::AbortMultipart, path, abort).await.ok();
                Ok(Written::Exists(footer))
            }
            // Completed before, and only the answer was lost: the upload's id is gone then.
            Err(error) if error.failure.is_not_found() || error.failure.is_retriable() => {
                Ok(Written::Unknown(footer, error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// One part after the other; a part that fails fails the upload, for the store cannot take it again.
    async fn write_stream(&self, plan: &Plan, path: &Path) -> Result<Footer, TierError> {
        let bucket = &self.shared.bucket;
        let mut upload = bucket
            .call(Operation::CreateMultipart, path, || async {
                Ok(bucket.objects().put_multipart_opts(path, Default::default()).await?)
            })
            .await?;
        let mut reader = LogReader::new(plan);
        let outcome: Result<Footer, TierError> = async {
            loop {
                let _room = self.shared.parts.acquire().await;
                let Some(payload) = reader.next_part(bucket.options.part_bytes).await? else { break };
                bucket.pace_copy(payload.content_length()).await;
                let part = upload.put_part(payload);
                let put = async { part.await.map_err(Failure::from) };
                bucket.call_once(Operation::PutPart, path, put).await?;
            }
            let complete = async { upload.complete().await.map_err(Failure::from) };
            bucket.call_once(Operation::CompleteMultipart, path, complete).await?;
            reader.footer.take().ok_or_else(|| plan.invalid("its log ended early"))
        }
        .await;
        if outcome.is_err() {
            // What it leaves is a staged file, which collection removes.
            let abort = async { upload.abort().await.map_err(Failure::from) };
            bucket.call_once(Operation::AbortMultipart, path, abort).await.ok();
        }
        outcome
    }

    async fn put_in_place(&self, staged: &Path, path: &Path, written: Written) -> Result<Written, TierError> {
        let footer = match written {
            Written::Created(footer) | Written::Exists(footer) | Written::Unknown(footer, _) => footer,
        };
        Ok(match self.shared.bucket.copy_if_absent(staged, path).await {
            Ok(()) => Written::Created(footer),
            Err(error) if error.failure.is_already_there() => Written::Exists(footer),
            Err(error) if error.failure.is_retriable() => Written::Unknown(footer, error),
            Err(error) => return Err(error.into()),
        })
    }

    fn stage(&self, name: &ObjectName) -> Staged {
        let file_name = staged_name(name, self.shared.bucket.backoff.draw());
        self.state.lock().uploading.insert(file_name.clone());
        Staged { path: self.object_path(&file_name), file_name }
    }

    async fn unstage(&self, staged: Staged) {
        // If this fails, collection removes it.
        self.shared.bucket.delete(&staged.path, &self.traffic).await.ok();
        self.state.lock().uploading.remove(&staged.file_name);
    }
}

struct Staged {
    file_name: String,
    path: Path,
}

/// A segment that passed the checks that need no reading.
#[derive(Debug, Clone)]
struct Plan {
    name: ObjectName,
    log_bytes: u64,
    block_bytes: u32,
    uploader_epoch: i32,
    compaction: Compaction,
    leader_epochs: LeaderEpochs,
    log: Arc<dyn SegmentSource>,
    /// Offset index, time index, transaction index, producer snapshot.
    others: [Bytes; 4],
}

impl Plan {
    fn of(segment: &SegmentToUpload, block_bytes: u32) -> Result<Self, TierError> {
        let invalid = |reason: &str| TierError::InvalidSegment {
            base_offset: segment.base_offset,
            last_offset: segment.last_offset,
            reason: reason.to_owned(),
        };
        let log_bytes = segment.log.length().map_err(|error| TierError::LocalRead(Arc::new(error)))?;
        let leader_epochs = segment.leader_epochs.slice(segment.base_offset, segment.last_offset);
        let leader_epoch = leader_epochs
            .epoch_at(segment.last_offset)
            .ok_or_else(|| invalid("no leader epoch is known for its last offset"))?;
        let name = ObjectName {
            base_offset: segment.base_offset,
            last_offset: segment.last_offset,
            leader_epoch,
            max_timestamp: segment.max_timestamp.max(-1),
            log_bytes,
        };
        if !name.is_valid() || segment.uploader_epoch < 0 || segment.compaction.to < -1 || block_bytes == 0 {
            return Err(invalid("its offsets or epochs are out of range"));
        }
        Ok(Self {
            name,
            log_bytes,
            block_bytes,
            uploader_epoch: segment.uploader_epoch,
            compaction: segment.compaction,
            leader_epochs,
            log: segment.log.clone(),
            others: [
                segment.offset_index.clone(),
                segment.time_index.clone(),
                segment.transaction_index.clone(),
                segment.producer_snapshot.clone(),
            ],
        })
    }

    fn invalid(&self, reason: &str) -> TierError {
        TierError::InvalidSegment {
            base_offset: self.name.base_offset,
            last_offset: self.name.last_offset,
            reason: reason.to_owned(),
        }
    }

    /// The object as one payload, for segments of at most one part.
    async fn whole(&self) -> Result<(PutPayload, Footer), TierError> {
        let mut reader = LogReader::new(self);
        let payload = reader.next_part(u32::MAX).await?.unwrap_or_default();
        let footer = reader.footer.take().ok_or_else(|| self.invalid("its log ended early"))?;
        Ok((payload, footer))
    }

    /// The footer, with nothing written: to compare with what is there.
    async fn footer_alone(&self) -> Result<Footer, TierError> {
        const PIECE_BYTES: u32 = 4 << 20;
        let mut reader = LogReader::new(self);
        while reader.next_part(PIECE_BYTES).await?.is_some() {}
        reader.footer.take().ok_or_else(|| self.invalid("its log ended early"))
    }
}

/// Reads the log piece by piece, checks it, and sums it up; the last piece carries all that follows the log.
struct LogReader<'a> {
    plan: &'a Plan,
    position: u64,
    crc: u32,
    block: (u32, u64),
    blocks: Vec<u8>,
    check: LogCheck,
    /// Set with the last piece.
    footer: Option<Footer>,
}

impl<'a> LogReader<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            position: 0,
            crc: 0,
            block: (0, 0),
            blocks: Vec::new(),
            check: LogCheck::new(plan.name.base_offset, plan.name.last_offset),
            footer: None,
        }
    }

    /// The next piece of the object, `None` after the last.
    async fn next_part(&mut self, bytes_max: u32) -> Result<Option<PutPayload>, TierError> {
        if self.footer.is_some() {
            return Ok(None);
        }
        let length = (self.plan.log_bytes - self.position).min(u64::from(bytes_max.max(1)));
        let (log, position) = (self.plan.log.clone(), self.position);
        let bytes = match firn_blocking::run(move || log.read_at(position, length as usize)).await {
            Ok(bytes) if bytes.len() as u64 == length => bytes,
            Ok(_) => return Err(self.plan.invalid("its log ended early")),
            Err(error) => return Err(TierError::LocalRead(Arc::new(error))),
        };
        self.check.feed(&bytes).map_err(|reason| self.plan.invalid(&reason))?;
        self.sum(&bytes);
        self.position += length;
        if self.position < self.plan.log_bytes {
            return Ok(Some(bytes.into()));
        }
        self.check.finish().map_err(|reason| self.plan.invalid(&reason))?;
        let tail = self.tail();
        Ok(Some([bytes].into_iter().chain(tail).collect()))
    }

    fn sum(&mut self, mut bytes: &[u8]) {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        let block_bytes = u64::from(self.plan.block_bytes);
        while !bytes.is_empty() {
            let (crc, filled) = self.block;
            let take = bytes.len().min(usize::try_from(block_bytes - filled).unwrap_or(usize::MAX));
            let (now, rest) = bytes.split_at(take);
            self.block = (crc32c::crc32c_append(crc, now), filled + take as u64);
            bytes = rest;
            if self.block.1 == block_bytes {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        let (crc, filled) = std::mem::take(&mut self.block);
        if filled > 0 {
            self.blocks.extend(crc.to_be_bytes());
        }
    }

    /// Everything that follows the log: the other sections and the footer.
    fn tail(&mut self) -> Vec<Bytes> {
        self.end_block();
        let blocks = Bytes::from(std::mem::take(&mut self.blocks));
        let [offsets, times, transactions, producers] = self.plan.others.clone();
        let sections = [offsets, times, transactions, producers, blocks];
        let summed = |bytes: &Bytes| (bytes.len() as u64, crc32c::crc32c(bytes));
        let [a, b, c, d, e] = &sections;
        let mut footer = Footer {
            base_offset: self.plan.name.base_offset,
            last_offset: self.plan.name.last_offset,
            uploader_epoch: self.plan.uploader_epoch,
            max_timestamp: self.plan.name.max_timestamp,
            compaction: self.plan.compaction,
            block_bytes: self.plan.block_bytes,
            leader_epochs: self.plan.leader_epochs.clone(),
            sections: [Section::default(); SectionKind::ALL.len()],
            object_bytes: 0,
        };
        footer.lay_out([
            (self.plan.log_bytes, self.crc),
            summed(a),
            summed(b),
            summed(c),
            summed(d),
            summed(e),
        ]);
        let encoded = Bytes::from(footer.encode());
        self.footer = Some(footer);
        sections.into_iter().filter(|section| !section.is_empty()).chain([encoded]).collect()
    }
}
