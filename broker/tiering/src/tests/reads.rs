//! What is read back is what was written, byte for byte, by any path.

use bytes::{Bytes, BytesMut};
use firn_records::batch::Codec;
use firn_records::builder::{BatchBuilder, BatchOptions};

use super::fixture::{Segment, epochs, partition, small, timestamp_of, view};
use crate::error::ReadError;
use crate::options::TierOptions;
use crate::partition::{PartitionView, TieredPartition};
use crate::segment::SegmentToUpload;
use crate::store::Store;
use crate::tier::Tier;

async fn filled(store: Store, options: TierOptions, codec: Codec) -> (Tier, TieredPartition, Vec<Segment>) {
    let tier = Tier::with_store(store, options);
    let partition = partition(&tier);
    let history = epochs(&[(0, 0), (2, 150)]);
    partition.refresh(view(&history)).await.unwrap();
    // The middle one is larger than a part, so both ways to upload are taken.
    let segments = vec![
        Segment::of(0, 10, 10, 50, codec),
        Segment::of(100, 30, 10, 200, codec),
        Segment::of(400, 5, 4, 900, codec),
    ];
    for segment in &segments {
        let tiered = partition.upload(segment.to_upload(&history)).await.unwrap();
        assert!(tiered.created);
    }
    (tier, partition, segments)
}

pub async fn stores() -> Vec<(Store, Option<TempDirectory>)> {
    let directory = TempDirectory::new();
    vec![(Store::memory(), None), (Store::directory(&directory.0).unwrap(), Some(directory))]
}

/// A directory that goes with its value.
pub struct TempDirectory(pub std::path::PathBuf);

impl TempDirectory {
    pub fn new() -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("firn-tiering-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for TempDirectory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[tokio::test]
async fn every_offset_reads_back_from_every_store() {
    for (store, _directory) in stores().await {
        let (_tier, partition, segments) = filled(store, small(), Codec::None).await;
        assert_eq!(partition.tiered_range(), Some((0, 420)));
        assert_eq!(partition.verified_end(0, 0), 420);
        for segment in &segments {
            for offset in segment.base_offset..=segment.last_offset {
                for max_bytes in [1, 700, 5_000, 100_000] {
                    let bytes = partition.read(offset, max_bytes, true).await.unwrap();
                    assert_eq!(
                        bytes,
                        segment.expected(offset, max_bytes),
                        "offset {offset}, {max_bytes} bytes"
                    );
                }
            }
        }
        for outside in [-1, 420, i64::MAX] {
            let error = partition.read(outside, 100, true).await.unwrap_err();
            assert!(matches!(error, ReadError::NotTiered { range: Some((0, 420)), .. }), "{error}");
        }
        assert_eq!(partition.read(5, 10, false).await.unwrap(), Bytes::new(), "the first batch is larger");
    }
}

#[tokio::test]
async fn a_reader_walks_across_objects_and_a_new_broker_reads_the_same() {
    let store = Store::memory();
    let (_, first, segments) = filled(store.clone(), small(), Codec::Zstd).await;
    let restarted = partition(&Tier::with_store(store, small()));
    let listing = restarted.refresh(view(&epochs(&[(0, 0), (2, 150)]))).await.unwrap();
    assert_eq!((listing.range, listing.segments, listing.garbage), (Some((0, 420)), 3, 0));
    assert_eq!(
        restarted.verified_end(0, 0),
        0,
        "nothing counts for local deletion before it has been read back"
    );
    assert_eq!(restarted.verify(0, 0).await.unwrap(), 420);
    for partition in [first, restarted] {
        let mut offset = 0;
        let mut walked = Vec::new();
        while offset < 420 {
            let bytes = partition.read(offset, 3_000, true).await.unwrap();
            let last = firn_records::batch::batches(&bytes).last().unwrap().unwrap();
            offset = last.0.next_offset();
            walked.extend_from_slice(&bytes);
        }
        let whole: Vec<u8> = segments.iter().flat_map(|segment| segment.log.to_vec()).collect();
        assert!(walked == whole);
    }
}

#[tokio::test]
async fn timestamps_lead_to_exact_records() {
    for codec in [Codec::None, Codec::Lz4] {
        let (_tier, partition, _) = filled(Store::memory(), small(), codec).await;
        for offset in 0..420 {
            for timestamp in [timestamp_of(offset), timestamp_of(offset) - 9] {
                let found = partition.offset_for_timestamp(timestamp, 0).await.unwrap();
                assert_eq!(found, Some((offset, timestamp_of(offset))), "{timestamp}");
            }
        }
        assert_eq!(partition.offset_for_timestamp(0, 0).await.unwrap(), Some((0, timestamp_of(0))));
        assert_eq!(partition.offset_for_timestamp(timestamp_of(420), 0).await.unwrap(), None);
        assert_eq!(partition.max_timestamp(0).await.unwrap(), Some((419, timestamp_of(419))));
    }
}

/// The youngest record is the first: where it is deleted, or another object serves it, the next youngest counts.
#[tokio::test]
async fn the_largest_timestamp_is_one_of_a_record_that_is_served() {
    for records in [1, 10] {
        let partition = partition(&Tier::with_store(Store::memory(), small()));
        let history = epochs(&[(0, 0)]);
        partition.refresh(view(&history)).await.unwrap();
        let timestamps: Vec<i64> = (0..10).map(|offset| if offset == 0 { 1_000 } else { 500 }).collect();
        let upload = Segment::at_times(0, records, &timestamps).to_upload(&history);
        partition.upload(SegmentToUpload { max_timestamp: 1_000, ..upload }).await.unwrap();
        assert_eq!(partition.max_timestamp(0).await.unwrap(), Some((0, 1_000)));
        assert_eq!(
            partition.max_timestamp(5).await.unwrap(),
            Some((5, 500)),
            "the caller knows of a later start"
        );
        assert_eq!(partition.offset_for_timestamp(0, 5).await.unwrap(), Some((5, 500)));
        let trimmed = PartitionView { log_start_offset: 5, ..view(&history) };
        partition.follow(trimmed);
        assert_eq!(partition.max_timestamp(0).await.unwrap(), Some((5, 500)));
        let shorter = PartitionView { log_start_offset: 5, log_end_offset: 8, ..view(&history) };
        partition.follow(shorter);
        assert_eq!(partition.max_timestamp(8).await.unwrap(), None);
    }
}

/// Ten batches of five records, all of one time but for the first record of each of the first two batches.
fn early_peaks(base: i64, first: i64, second: i64) -> SegmentToUpload {
    let mut log = BytesMut::new();
    for index in 0..10 {
        let mut builder = BatchBuilder::at_offset(BatchOptions::default(), base + index * 5);
        for record in 0..5 {
            let timestamp = match (index, record) {
                (0, 0) => first,
                (1, 0) => second,
                _ => 500,
            };
            builder.push(timestamp, None, Some(b"value"), &[]);
        }
        log.extend_from_slice(&builder.build().unwrap());
    }
    let segment = Segment {
        base_offset: base,
        last_offset: base + 49,
        log: log.freeze(),
        offset_index: Bytes::new(),
        time_index: Bytes::new(),
    };
    SegmentToUpload { max_timestamp: first.max(second), ..segment.to_upload(&epochs(&[(0, 0)])) }
}

#[tokio::test]
async fn the_greatest_timestamp_is_of_a_record_that_is_still_there() {
    let tier = Tier::with_store(Store::memory(), small());
    let partition = partition(&tier);
    partition.upload(early_peaks(0, 900, 700)).await.unwrap();
    partition.upload(early_peaks(50, 600, 700)).await.unwrap();
    for (log_start, expected) in
        [(0, (0, 900)), (1, (5, 700)), (5, (5, 700)), (6, (55, 700)), (56, (56, 500)), (99, (99, 500))]
    {
        assert_eq!(partition.max_timestamp(log_start).await.unwrap(), Some(expected), "from {log_start} on");
    }
}

#[tokio::test]
async fn history_and_snapshot_come_with_the_objects() {
    let (_tier, partition, _) = filled(Store::memory(), small(), Codec::None).await;
    assert_eq!(partition.leader_epochs_at(50).await.unwrap(), epochs(&[(0, 0)]));
    assert_eq!(partition.leader_epochs_at(399).await.unwrap(), epochs(&[(0, 0), (2, 150)]));
    assert_eq!(partition.leader_epochs_at(419).await.unwrap(), epochs(&[(2, 150)]));
    assert_eq!(partition.producer_snapshot_at(0).await.unwrap(), Bytes::from_static(b"producers"));
    assert!(partition.transaction_indexes(0, 420).await.unwrap().is_empty());
}

#[tokio::test]
async fn readers_of_one_chunk_share_one_get() {
    use crate::faults::{FaultPlan, FaultyStore};
    let plan = FaultPlan { latency_max: std::time::Duration::from_millis(2), ..FaultPlan::NONE };
    let (faulty, store) = FaultyStore::wrap(Store::memory(), 1, plan);
    let (_, _, segments) = filled(store.clone(), small(), Codec::None).await;
    let partition = partition(&Tier::with_store(store, small()));
    partition.refresh(view(&epochs(&[(0, 0), (2, 150)]))).await.unwrap();
    let before = faulty.calls().all;
    let reads = (0..64).map(|_| partition.read(3, 100, true));
    for bytes in futures_util::future::join_all(reads).await {
        assert_eq!(bytes.unwrap(), segments[0].expected(3, 100));
    }
    let calls = faulty.calls().all - before;
    assert!(calls <= 4, "{calls} calls: a footer, an index, a chunk, and one ahead");
}

#[tokio::test]
async fn the_cache_stays_within_its_bytes_and_reads_ahead() {
    let options = TierOptions { cache_bytes_max: 64 << 10, ..small() };
    let (tier, partition, segments) = filled(Store::memory(), options, Codec::None).await;
    let mut offset = 100;
    while offset < 400 {
        let bytes = partition.read(offset, 2_500, true).await.unwrap();
        assert_eq!(bytes, segments[1].expected(offset, 2_500));
        offset = firn_records::batch::batches(&bytes).last().unwrap().unwrap().0.next_offset();
        tokio::task::yield_now().await;
        let cached = tier.metrics().cache_bytes;
        assert!(cached <= 64 << 10, "{cached}");
    }
    let metrics = tier.metrics();
    assert!(metrics.read_ahead_chunks > 5, "{metrics:?}");
    assert!(metrics.cache_hits > metrics.cache_misses, "{metrics:?}");
}

/// Readers side by side, each a quarter of a chunk at a time, with a cache for four chunks each: the proportions of
/// one broker's defaults and four partitions. And more readers, with a cache that holds no chunk of full size for each.
#[tokio::test]
async fn sequential_readers_side_by_side_fetch_little_more_than_they_read() {
    for (readers, cache_bytes_max) in [(4, 816 << 10), (20, 960 << 10)] {
        read_side_by_side(readers, cache_bytes_max).await;
    }
}

async fn read_side_by_side(readers: i64, cache_bytes_max: u64) {
    let options = TierOptions {
        cache_bytes_max,
        chunk_bytes: 48 << 10,
        block_bytes: 12 << 10,
        read_ahead_bytes_max: 384 << 10,
        ..small()
    };
    let store = Store::memory();
    let tier = Tier::with_store(store, options);
    let partition = partition(&tier);
    let epochs = epochs(&[(0, 0)]);
    let mut log_bytes = 0;
    for reader in 0..readers {
        let segment = Segment::of(reader * 14_000, 1_400, 10, 40, Codec::None);
        log_bytes += segment.log.len() as u64;
        partition.upload(segment.to_upload(&epochs)).await.unwrap();
    }
    let before = tier.metrics().traffic.remote_fetch_bytes;
    let mut offsets: Vec<i64> = (0..readers).map(|reader| reader * 14_000).collect();
    for _ in 0..400 {
        for (reader, offset) in (0..readers).zip(&mut offsets) {
            if *offset < (reader + 1) * 14_000 {
                let bytes = partition.read(*offset, 13_000, true).await.unwrap();
                *offset = firn_records::batch::batches(&bytes).last().unwrap().unwrap().0.next_offset();
            }
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(offsets, (1..=readers).map(|end| end * 14_000).collect::<Vec<_>>(), "all were read");
    let fetched = tier.metrics().traffic.remote_fetch_bytes - before;
    assert!(fetched * 10 <= log_bytes * 12, "{fetched} bytes fetched for {log_bytes}");
}
