//! Memory follows the options, whatever is uploaded and read: the only test of this program, since it measures it.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use firn_model::ids::{TopicId, TopicPartition};
use firn_records::batch::batches;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_tier::lineage::{Compaction, EpochStart, LeaderEpochs};
use firn_tiering::options::TierOptions;
use firn_tiering::partition::{PartitionView, TieredPartition};
use firn_tiering::segment::{SegmentSource, SegmentToUpload};
use firn_tiering::store::Store;
use firn_tiering::tier::Tier;
use peak_alloc::PeakAlloc;

const MIB: u64 = 1 << 20;
const PARTITIONS: i32 = 10;
const SEGMENT_BATCHES: i64 = 48;

/// A log that is made up as it is read: batches alike but for their offsets, which no checksum covers.
#[derive(Debug)]
struct MadeUp {
    batch: Bytes,
}

impl MadeUp {
    /// Batches of one record of nearly a megabyte.
    fn new() -> Self {
        let mut builder = BatchBuilder::at_offset(BatchOptions::default(), 0);
        builder.push(1, None, Some(&vec![7; MIB as usize - 200]), &[]);
        Self { batch: builder.build().unwrap() }
    }
}

impl SegmentSource for MadeUp {
    fn length(&self) -> io::Result<u64> {
        Ok(self.batch.len() as u64 * SEGMENT_BATCHES as u64)
    }

    fn read_at(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let size = self.batch.len() as u64;
        let mut bytes = BytesMut::with_capacity(length);
        let mut at = position;
        while bytes.len() < length {
            let (number, within) = (at / size, (at % size) as usize);
            let offset = number.to_be_bytes();
            let piece = if within < offset.len() { &offset[within..] } else { &self.batch[within..] };
            let take = piece.len().min(length - bytes.len());
            bytes.extend_from_slice(&piece[..take]);
            at += take as u64;
        }
        Ok(bytes.freeze())
    }
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn epochs() -> LeaderEpochs {
    LeaderEpochs::new(vec![EpochStart { epoch: 0, start_offset: 0 }]).unwrap()
}

fn segment(log: &Arc<MadeUp>) -> SegmentToUpload {
    SegmentToUpload {
        base_offset: 0,
        last_offset: SEGMENT_BATCHES - 1,
        max_timestamp: 1,
        compaction: Compaction::NONE,
        uploader_epoch: 0,
        leader_epochs: epochs(),
        log: log.clone(),
        offset_index: Bytes::new(),
        time_index: Bytes::new(),
        transaction_index: Bytes::new(),
        producer_snapshot: Bytes::new(),
    }
}

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

async fn read_all(partition: TieredPartition) {
    let view = PartitionView { leader_epochs: epochs(), log_start_offset: 0, log_end_offset: i64::MAX };
    partition.refresh(view).await.unwrap();
    let mut offset = 0;
    while offset < SEGMENT_BATCHES {
        let bytes = partition.read(offset, 2 * MIB as usize, true).await.unwrap();
        offset = batches(&bytes).last().unwrap().unwrap().0.next_offset();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_uploads_and_ten_readers_at_once_stay_within_what_the_options_allow() {
    let directory = Directory(std::env::temp_dir().join(format!("firn-tier-memory-{}", std::process::id())));
    let options = TierOptions {
        part_bytes: 16 << 20,
        parts_max: 2,
        chunk_bytes: MIB as u32,
        cache_bytes_max: 24 * MIB,
        ..TierOptions::default()
    };
    let allowed_mib = (u64::from(options.part_bytes) * 2 + options.cache_bytes_max) / MIB;
    let log = Arc::new(MadeUp::new());
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let tier = Tier::with_store(Store::directory(&directory.0).unwrap(), options);
    let partition = |index| tier.partition("cluster", &TopicPartition::new("large", index), TopicId::ZERO);
    let uploads: Vec<_> = (0..PARTITIONS)
        .map(|index| {
            let (partition, segment) = (partition(index), segment(&log));
            tokio::spawn(async move { partition.upload(segment).await })
        })
        .collect();
    for upload in uploads {
        assert!(upload.await.unwrap().unwrap().created);
    }
    let readers: Vec<_> = (0..PARTITIONS).map(|index| tokio::spawn(read_all(partition(index)))).collect();
    for reader in readers {
        reader.await.unwrap();
    }
    let used_mib = (MEMORY.peak_usage() - before) as u64 / MIB;
    // Beside what the options name: a chunk or two in the hands of each of ten readers.
    let slack_mib = 24;
    assert!(used_mib <= allowed_mib + slack_mib, "{used_mib} MiB; the options allow {allowed_mib}");
}
