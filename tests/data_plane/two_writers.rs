//! Two writers of one object on a real S3 server: one object comes of it, whole, whoever was first.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use firn_model::ids::{TopicId, TopicPartition};
use firn_records::batch::batches;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_tests::store::Minio;
use firn_tier::lineage::{Compaction, EpochStart, LeaderEpochs};
use firn_tiering::options::TierOptions;
use firn_tiering::partition::{PartitionView, TieredPartition};
use firn_tiering::segment::SegmentToUpload;
use firn_tiering::store::{StoreUrl, StoreVariables};
use firn_tiering::tier::Tier;

/// The least that S3 takes for a part that is not the last.
const PART_BYTES: u32 = 5 << 20;
const BATCH_RECORDS: i64 = 16;

/// A sealed segment of about `bytes`.
fn segment(base_offset: i64, bytes: usize) -> SegmentToUpload {
    let mut log = BytesMut::new();
    let mut offset = base_offset;
    while log.len() < bytes {
        let mut builder = BatchBuilder::at_offset(BatchOptions::default(), offset);
        for record in offset..offset + BATCH_RECORDS {
            let value = record.to_be_bytes().repeat(4_000);
            builder.push(record, None, Some(&value), &[]);
        }
        log.extend_from_slice(&builder.build().expect("a batch"));
        offset += BATCH_RECORDS;
    }
    SegmentToUpload {
        base_offset,
        last_offset: offset - 1,
        max_timestamp: offset - 1,
        compaction: Compaction::NONE,
        uploader_epoch: 0,
        leader_epochs: epochs(),
        log: Arc::new(log.freeze()),
        offset_index: Bytes::new(),
        time_index: Bytes::new(),
        transaction_index: Bytes::new(),
        producer_snapshot: Bytes::new(),
    }
}

fn epochs() -> LeaderEpochs {
    LeaderEpochs::new(vec![EpochStart { epoch: 0, start_offset: 0 }]).expect("one epoch")
}

/// A writer with memory, cache and random numbers of its own, as another broker has them.
async fn writer(minio: &Minio) -> TieredPartition {
    let options = TierOptions { part_bytes: PART_BYTES, ..TierOptions::default() };
    let url = StoreUrl::parse(&minio.url()).expect("a URL");
    let variables: StoreVariables = minio.environment().into_iter().collect();
    let tier = Tier::open(&url, &variables, options).await.expect("MinIO answers");
    tier.partition("cluster", &TopicPartition::new("contested", 0), TopicId::ZERO)
}

async fn race(minio: &Minio, base_offset: i64, bytes: usize) -> i64 {
    let (first, second) = (writer(minio).await, writer(minio).await);
    let segment = segment(base_offset, bytes);
    let uploads = [first, second].map(|writer| {
        let segment = segment.clone();
        tokio::spawn(async move { writer.upload(segment).await })
    });
    let mut created = 0;
    for upload in uploads {
        let uploaded = upload.await.expect("no panic").expect("both learn that it is there");
        created += usize::from(uploaded.created);
    }
    assert_eq!(created, 1, "one of them has written it, and knows");

    let reader = writer(minio).await;
    let view = PartitionView { leader_epochs: epochs(), log_start_offset: 0, log_end_offset: i64::MAX };
    let listing = reader.refresh(view).await.expect("a listing");
    assert_eq!((listing.garbage, listing.staged, listing.damaged, listing.foreign), (0, 0, 0, 0));
    assert_eq!(listing.range.map(|(_, end)| end), Some(segment.last_offset + 1));
    let mut offset = base_offset;
    let mut position = 0;
    while offset <= segment.last_offset {
        let bytes = reader.read(offset, 4 << 20, true).await.expect("a cold read");
        assert!(bytes == segment.log.read_at(position, bytes.len()).expect("as much"), "at offset {offset}");
        position += bytes.len() as u64;
        offset = batches(&bytes).last().expect("a batch").expect("whole").0.next_offset();
    }
    segment.last_offset + 1
}

#[test]
fn of_two_uploads_of_one_segment_one_is_created_and_nothing_is_left_of_the_other() {
    let minio = Minio::start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let races = async {
        let mut offset = 0;
        for number in 0..24 {
            // By one request, and in three parts.
            let bytes = if number % 2 == 0 { 1 << 20 } else { 2 * PART_BYTES as usize + (1 << 20) };
            offset = race(&minio, offset, bytes).await;
        }
    };
    let all = async { tokio::time::timeout(Duration::from_secs(120), races).await };
    runtime.expect("a runtime").block_on(all).expect("in time");
    let segments = minio.objects();
    assert_eq!(segments.len(), 24, "{segments:?}");
    assert_eq!(minio.unfinished_uploads(), 0);
}
