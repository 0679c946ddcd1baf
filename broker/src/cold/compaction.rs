//! Compaction of logs whose beginning is cold: the same pass cleans what the store has and what the disk has.
//!
//! Whose log lies on the disk as a whole, `housekeeping` compacts. Here the cold segments are fetched one run after the
//! other, cleaned (`firn_storage::cold_compaction` says in which order and why), and put back as new objects, which
//! serve instead of the old ones because they are compacted further; the old ones are garbage from then on.

use std::sync::Arc;

use firn_storage::cold_compaction::{CleanedCopy, ColdSegment, CopyRange, SegmentCopy, TieredCompaction};
use firn_storage::error::StorageError;
use firn_tier::lineage::{Compaction, LeaderEpochs};
use firn_tier::select::Link;
use firn_tiering::partition::TieredPartition;
use firn_tiering::segment::SegmentToUpload;
use firn_tiering::whole::WholeObject;

use super::cooling::SegmentFile;
use super::{Cold, ColdError, leader_epochs, view};
use crate::cleaner_pace::limits_of_one;
use crate::partition::{Partition, PartitionError};

impl Cold {
    /// Compacts the log with its tier, if it has a cold part and is dirty enough. One log at a time: who comes while
    /// another is compacted comes again with the next cooling.
    pub(super) async fn compact(
        &self,
        partition: &Arc<Partition>,
        tiered: &TieredPartition,
    ) -> Result<(), ColdError> {
        let log = self.broker_config.borrow().log.clone();
        let (Ok(_memory), Some(_alone)) = (self.compacting.try_lock(), partition.begin_compaction()) else {
            return Ok(());
        };
        let offsets = partition.offsets()?;
        if !log.cleaner_enable || offsets.log_start >= offsets.local_start {
            return Ok(());
        }
        tiered.follow(view(partition)?);
        let chain = tiered.chain();
        let limits = limits_of_one(&log, &self.cleaner_pace);
        let now_ms = self.environment.clock.now_ms();
        let begun = {
            let stored = chain.iter().map(cold_segment).collect();
            let partition = partition.clone();
            let begin = move || {
                let current = partition.leader_epoch();
                partition.with_log(|log| {
                    let pass = log.tiered_compaction(now_ms, offsets.last_stable, limits, stored);
                    (pass, leader_epochs(log, current))
                })
            };
            let (pass, history) = firn_blocking::run(begin).await?;
            pass.map_err(PartitionError::from)?.map(|pass| (pass, history))
        };
        let Some((pass, history)) = begun else { return Ok(()) };
        let (pass, rewritten) = Box::pin(rewrite_cold(partition, tiered, &chain, &history, pass)).await?;
        let stats = {
            let partition = partition.clone();
            let finish = move || {
                let cleaned = pass.clean_local().map_err(PartitionError::from)?;
                Ok::<_, PartitionError>(partition.with_log(|log| log.compacted(cleaned, now_ms))??)
            };
            firn_blocking::run(finish).await?
        };
        tracing::info!(
            partition = %partition.name,
            cold_segments_before = rewritten.before,
            cold_segments_after = rewritten.after,
            segments_before = stats.segments_before,
            segments_after = stats.segments_after,
            bytes_before = stats.bytes_before,
            bytes_after = stats.bytes_after,
            applied = stats.applied,
            "compacted a log and its tier"
        );
        Ok(())
    }
}

/// How many cold segments changed, and how many there are in their place.
#[derive(Debug, Default, Clone, Copy)]
struct Rewritten {
    before: usize,
    after: usize,
}

/// Gathers the dirty keys, and cleans the cold segments. `history` is the log's as it was when the pass began.
async fn rewrite_cold(
    partition: &Arc<Partition>,
    tiered: &TieredPartition,
    chain: &[Link],
    history: &LeaderEpochs,
    mut pass: TieredCompaction,
) -> Result<(TieredCompaction, Rewritten), ColdError> {
    if let Some(first) = chain.first() {
        for (_, index) in tiered.transaction_indexes(first.from, pass.cold_end()).await? {
            pass.add_transaction_index(&index);
        }
    }
    for link in pass.dirty_cold().into_iter().filter_map(|index| chain.get(index)) {
        let whole = tiered.whole(*link).await?;
        let copy;
        (pass, copy) = fetch(pass, link, &whole).await?;
        pass = with(pass, move |pass| pass.gather(&copy)).await?.0;
    }
    pass = with(pass, TieredCompaction::gather_local).await?.0;
    let mut rewritten = Rewritten::default();
    for group in pass.cold_groups() {
        let links = chain.get(group).unwrap_or_default();
        let (mut copies, mut epochs, mut last) = (Vec::new(), Vec::new(), None);
        for link in links {
            let whole = tiered.whole(*link).await?;
            let copy;
            (pass, copy) = fetch(pass, link, &whole).await?;
            copies.push(copy);
            epochs.extend(whole.leader_epochs().entries().iter().copied());
            last = Some(whole);
        }
        let cleaned;
        (pass, cleaned) = with(pass, move |pass| pass.clean_copies(&copies)).await?;
        let (Some(cleaned), Some(last)) = (cleaned, last) else { continue };
        rewritten.before += links.len();
        rewritten.after += 1;
        let compaction = history.compaction(pass.end_offset());
        let segment = SegmentToUpload {
            producer_snapshot: last.producer_snapshot().await?,
            // The objects' own histories: what a lost branch left in them stays marked as such.
            leader_epochs: LeaderEpochs::from_checkpoint(epochs),
            ..to_upload(&cleaned, compaction, partition.leader_epoch())
        };
        let uploaded = tiered.upload(segment).await?;
        tracing::debug!(partition = %partition.name, object = %uploaded.name, "compacted a cold segment");
    }
    Ok((pass, rewritten))
}

fn cold_segment(link: &Link) -> ColdSegment {
    ColdSegment {
        from: link.from,
        to: link.to,
        bytes: link.name.log_bytes,
        max_timestamp: link.name.max_timestamp,
        serves_in_part: link.from > link.name.base_offset || link.to < link.name.end_offset(),
    }
}

/// Runs one step of the pass on a thread that may block.
async fn with<T: Send + 'static>(
    mut pass: TieredCompaction,
    step: impl FnOnce(&mut TieredCompaction) -> Result<T, StorageError> + Send + 'static,
) -> Result<(TieredCompaction, T), ColdError> {
    let run = move || step(&mut pass).map(|result| (pass, result));
    Ok(firn_blocking::run(run).await.map_err(PartitionError::from)?)
}

async fn fetch(
    pass: TieredCompaction,
    link: &Link,
    whole: &WholeObject,
) -> Result<(TieredCompaction, SegmentCopy), ColdError> {
    let range = CopyRange {
        base_offset: link.name.base_offset,
        end_offset: link.name.end_offset(),
        from: link.from,
        to: link.to,
    };
    let (pass, mut copy) = with(pass, move |pass| pass.receive(range)).await?;
    for index in 0.. {
        let Some(piece) = whole.log_piece(index).await? else { break };
        let push = move || copy.push(&piece).map(|()| copy);
        copy = firn_blocking::run(push).await.map_err(PartitionError::from)?;
    }
    Ok((pass, copy))
}

fn to_upload(cleaned: &CleanedCopy, compaction: Compaction, uploader_epoch: i32) -> SegmentToUpload {
    SegmentToUpload {
        base_offset: cleaned.base_offset,
        last_offset: cleaned.last_offset,
        max_timestamp: cleaned.max_timestamp,
        compaction,
        uploader_epoch,
        leader_epochs: LeaderEpochs::default(),
        log: Arc::new(SegmentFile { file: cleaned.log(), bytes: cleaned.bytes }),
        offset_index: cleaned.offset_index.clone(),
        time_index: cleaned.time_index.clone(),
        transaction_index: cleaned.transaction_index.clone(),
        producer_snapshot: bytes::Bytes::new(),
    }
}
