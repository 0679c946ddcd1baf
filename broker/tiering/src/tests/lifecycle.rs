//! Uploads that meet other uploads, crashes and damage; deletion and collection.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use firn_model::ids::TopicId;
use firn_records::batch::Codec;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::fixture::{Segment, epochs, partition, small, view};
use super::reads::TempDirectory;
use crate::error::{ReadError, TierError};
use crate::partition::PartitionView;
use crate::segment::SegmentToUpload;
use crate::store::{Store, StoreUrl, StoreVariables};
use crate::tier::Tier;

const FOLDER: &str = "cluster/topics/cold.topic.AAAAAAAAAAAAAAAAAAAAAA/3";

fn large() -> Segment {
    Segment::of(0, 40, 5, 200, Codec::None)
}

#[tokio::test]
async fn an_upload_that_is_there_already_is_found_not_replaced() {
    for segment in [Segment::of(0, 5, 5, 100, Codec::None), large()] {
        let store = Store::memory();
        let history = epochs(&[(0, 0)]);
        let first = partition(&Tier::with_store(store.clone(), small()));
        let second = partition(&Tier::with_store(store.clone(), small()));
        assert!(first.upload(segment.to_upload(&history)).await.unwrap().created);
        // Another broker's indexes differ; the log is the same, and that is what counts.
        let mut again = segment.to_upload(&history);
        again.offset_index = Bytes::new();
        assert!(!second.upload(again).await.unwrap().created);
        assert_eq!(second.verified_end(0, 0), segment.last_offset + 1);
        let listing = second.refresh(view(&history)).await.unwrap();
        assert_eq!((listing.segments, listing.staged), (1, 0));
        assert_eq!(second.read(0, usize::MAX, true).await.unwrap(), segment.log);
    }
}

#[tokio::test]
async fn a_damaged_object_in_the_way_is_replaced() {
    for segment in [Segment::of(0, 5, 5, 100, Codec::None), large()] {
        let store = Store::memory();
        let history = epochs(&[(0, 0)]);
        let first = partition(&Tier::with_store(store.clone(), small()));
        let name = first.upload(segment.to_upload(&history)).await.unwrap().name;
        let path = Path::from(format!("{FOLDER}/{name}"));
        let mut bytes =
            BytesMut::from(store.objects.get(&path).await.unwrap().bytes().await.unwrap().as_ref());
        bytes[3] ^= 1;
        store.objects.put(&path, PutPayload::from_bytes(bytes.freeze())).await.unwrap();
        let second = partition(&Tier::with_store(store, small()));
        second.refresh(view(&history)).await.unwrap();
        let error = second.read(0, 100, true).await.unwrap_err();
        assert!(matches!(error, ReadError::Corrupt { .. }), "{error}");
        assert_eq!(second.verify(0, 0).await.unwrap(), 0, "it does not count as tiered");
        assert!(second.upload(segment.to_upload(&history)).await.unwrap().created);
        assert_eq!(second.verified_end(0, 0), segment.last_offset + 1);
        assert_eq!(second.read(0, usize::MAX, true).await.unwrap(), segment.log);
    }
}

#[tokio::test]
async fn a_rotten_local_segment_is_not_uploaded() {
    let tier = Tier::with_store(Store::memory(), small());
    let partition = partition(&tier);
    let history = epochs(&[(0, 0)]);
    let segment = large();
    let mut rotten = BytesMut::from(segment.log.as_ref());
    let middle = rotten.len() / 2;
    rotten[middle] ^= 1;
    let cut = segment.log.slice(..segment.log.len() - 1);
    for log in [rotten.freeze(), cut] {
        let mut upload = segment.to_upload(&history);
        upload.log = Arc::new(log);
        let error = partition.upload(upload).await.unwrap_err();
        assert!(matches!(error, TierError::InvalidSegment { .. }), "{error}");
    }
    let listing = partition.refresh(view(&history)).await.unwrap();
    assert_eq!((listing.range, listing.staged), (None, 0));
}

#[tokio::test]
async fn deletion_follows_the_log_start() {
    let tier = Tier::with_store(Store::memory(), small());
    let partition = partition(&tier);
    let history = epochs(&[(0, 0)]);
    for base in [0, 50, 100] {
        partition.upload(Segment::of(base, 10, 5, 50, Codec::None).to_upload(&history)).await.unwrap();
    }
    assert_eq!(partition.delete_below(49).await.unwrap(), 0);
    assert_eq!(partition.delete_below(70).await.unwrap(), 1);
    assert_eq!(partition.tiered_range(), Some((70, 150)));
    assert!(matches!(partition.read(60, 100, true).await, Err(ReadError::NotTiered { .. })));
    assert!(partition.read(70, 100, true).await.is_ok());
    assert_eq!(partition.delete_all().await.unwrap(), 2);
    assert_eq!(partition.tiered_range(), None);
}

/// A log that begins earlier may be the next leader's.
#[tokio::test]
async fn what_another_replica_has_not_deleted_yet_stays() {
    let tier = Tier::with_store(Store::memory(), small());
    let partition = partition(&tier);
    let history = epochs(&[(0, 0)]);
    for base in [0, 50, 100] {
        partition.upload(Segment::of(base, 10, 5, 50, Codec::None).to_upload(&history)).await.unwrap();
    }
    let ours = PartitionView { log_start_offset: 100, ..view(&history) };
    for now_ms in [0, 1_000] {
        let collected = partition.collect_garbage(ours.clone(), 50, &[], now_ms, 500).await.unwrap();
        assert_eq!(collected.deleted, usize::from(now_ms > 0), "the first alone");
    }
    partition.follow(ours.clone());
    assert_eq!(partition.delete_below(70).await.unwrap(), 0);
    assert_eq!(partition.refresh(view(&history)).await.unwrap().range, Some((50, 150)));
    partition.follow(ours);
    assert_eq!(partition.delete_below(100).await.unwrap(), 1);
}

/// Else local retention would take the copy that was compacted, and a value would come back without its tombstone.
#[tokio::test]
async fn what_the_log_has_compacted_in_part_is_safe_only_in_an_object_as_clean() {
    let tier = Tier::with_store(Store::memory(), small());
    let partition = partition(&tier);
    let history = epochs(&[(0, 0)]);
    let segment = Segment::of(0, 10, 5, 50, Codec::None);
    partition.upload(segment.to_upload(&history)).await.unwrap();
    assert_eq!(partition.verified_end(0, 0), 50, "as long as nothing was compacted");
    assert_eq!(partition.verified_end(0, 25), 0, "its first half has been, on the disk alone");
    let cleaned = SegmentToUpload { compaction: history.compaction(25), ..segment.to_upload(&history) };
    partition.upload(cleaned).await.unwrap();
    assert_eq!(partition.verified_end(0, 25), 50);
}

/// Epoch 1 compacted offsets 0 to 49 by records up to 80, and then a leader was elected that has none from 60 on.
#[tokio::test]
async fn what_was_compacted_by_lost_records_stands_in_for_nothing() {
    let store = Store::memory();
    let (before, after) = (epochs(&[(0, 0), (1, 55)]), epochs(&[(0, 0), (1, 55), (2, 60)]));
    let (written, cleaned) = (Segment::of(0, 10, 5, 50, Codec::None), Segment::of(0, 10, 5, 20, Codec::None));
    let first = partition(&Tier::with_store(store.clone(), small()));
    first.upload(written.to_upload(&before)).await.unwrap();
    let by_lost = SegmentToUpload { compaction: before.compaction(80), ..cleaned.to_upload(&before) };
    first.upload(by_lost).await.unwrap();
    assert_eq!(first.read(0, usize::MAX, true).await.unwrap(), cleaned.log);
    let collect = async |reach: i64| {
        first.collect_garbage(view(&before), i64::MAX, &[90..=90, reach..=reach], 0, 0).await.unwrap().deleted
    };
    assert_eq!(collect(60).await, 0, "a replica has no more than that");
    let next = partition(&Tier::with_store(store.clone(), small()));
    next.refresh(view(&after)).await.unwrap();
    assert_eq!(next.read(0, usize::MAX, true).await.unwrap(), written.log);
    assert_eq!(next.verify(0, 0).await.unwrap(), 50);
    assert_eq!(collect(80).await, 1, "all have what it was compacted by");
    let last = partition(&Tier::with_store(store, small()));
    last.refresh(view(&after)).await.unwrap();
    assert_eq!(last.read(0, usize::MAX, true).await.unwrap(), cleaned.log, "better than nothing");
    assert_eq!(last.verify(0, 0).await.unwrap(), 0, "the disk may have more");
    assert!(last.upload(written.to_upload(&after)).await.unwrap().created);
    assert_eq!(last.verified_end(0, 0), 50);
    assert_eq!(last.read(0, usize::MAX, true).await.unwrap(), written.log);
}

/// There was nothing to take away. Yet who has no such log to compare it with serves another, if there is one.
#[tokio::test]
async fn the_same_log_counts_though_it_was_compacted_by_lost_records() {
    let (before, after) = (epochs(&[(0, 0), (1, 55)]), epochs(&[(0, 0), (1, 55), (2, 60)]));
    let (written, cleaned) = (Segment::of(0, 10, 5, 50, Codec::None), Segment::of(0, 10, 5, 20, Codec::None));
    let ours = SegmentToUpload { compaction: after.compaction(40), ..cleaned.to_upload(&after) };
    for is_alone in [true, false] {
        let store = Store::memory();
        let first = partition(&Tier::with_store(store.clone(), small()));
        let by_lost = SegmentToUpload { compaction: before.compaction(80), ..cleaned.to_upload(&before) };
        first.upload(by_lost).await.unwrap();
        let next = partition(&Tier::with_store(store.clone(), small()));
        if !is_alone {
            next.upload(written.to_upload(&after)).await.unwrap();
        }
        next.refresh(view(&after)).await.unwrap();
        if !is_alone {
            let error = next.upload(ours.clone()).await.unwrap_err();
            assert!(matches!(error, TierError::Different { .. }), "{error}");
            assert_eq!(next.collect_garbage(view(&after), i64::MAX, &[], 0, 0).await.unwrap().deleted, 1);
        }
        assert_eq!(next.verified_end(0, 40), 0);
        assert_eq!(next.upload(ours.clone()).await.unwrap().created, !is_alone);
        assert_eq!(next.verified_end(0, 40), 50);
        assert_eq!(next.read(0, usize::MAX, true).await.unwrap(), cleaned.log);
    }
}

/// Others led meanwhile, to whom it may have been of use.
#[tokio::test]
async fn grace_begins_anew_with_each_leader_epoch() {
    let tier = Tier::with_store(Store::memory(), small());
    let partition = partition(&tier);
    let (first, third) = (epochs(&[(0, 0), (1, 100)]), epochs(&[(0, 0), (3, 100)]));
    for bytes in [20, 50] {
        let segment = Segment::of(0, 10, 5, bytes, Codec::None);
        partition.upload(segment.to_upload(&first)).await.unwrap();
    }
    for (history, now_ms, deleted) in
        [(&first, 0, 0), (&third, 1_000, 0), (&third, 1_400, 0), (&third, 1_500, 1)]
    {
        let collected = partition.collect_garbage(view(history), i64::MAX, &[], now_ms, 500).await.unwrap();
        assert_eq!(collected.deleted, deleted, "at {now_ms}");
    }
}

#[tokio::test]
async fn garbage_goes_after_its_grace_and_strangers_stay() {
    let directory = TempDirectory::new();
    for store in [Store::memory(), Store::directory(&directory.0).unwrap()] {
        let partition = partition(&Tier::with_store(store.clone(), small()));
        let lost = epochs(&[(0, 0), (1, 50)]);
        for base in [0, 50] {
            partition.upload(Segment::of(base, 10, 5, 50, Codec::None).to_upload(&lost)).await.unwrap();
        }
        // What an upload that did not live leaves behind, and what is none of ours.
        let staged = "00000000000000000100-00000000000000000149-0-1-77.seg.0123456789abcdef.part";
        for file_name in [staged, "README.txt"] {
            let path = Path::from(format!("{FOLDER}/{file_name}"));
            store.objects.put(&path, PutPayload::from_static(b"x")).await.unwrap();
        }
        if let Some(root) = &store.directory {
            std::fs::write(root.join(FOLDER).join(format!("{staged}#1")), b"cut off").unwrap();
        }
        let leftovers = 2 + usize::from(store.directory.is_some());
        let ours = PartitionView { log_start_offset: 0, ..view(&epochs(&[(0, 0), (2, 50)])) };
        let collected = partition.collect_garbage(ours.clone(), i64::MAX, &[], 1_000, 500).await.unwrap();
        assert_eq!((collected.deleted, collected.waiting), (0, leftovers));
        assert_eq!(partition.tiered_range(), Some((0, 50)), "the lost branch serves nothing at once");
        let collected = partition.collect_garbage(ours.clone(), i64::MAX, &[], 1_500, 500).await.unwrap();
        assert_eq!((collected.deleted, collected.waiting), (leftovers, 0));
        let listing = partition.refresh(ours).await.unwrap();
        assert_eq!((listing.segments, listing.garbage, listing.staged, listing.foreign), (1, 0, 0, 1));
    }
}

#[tokio::test]
async fn a_deleted_topic_leaves_nothing_but_strangers() {
    let directory = TempDirectory::new();
    for store in [Store::memory(), Store::directory(&directory.0).unwrap()] {
        let tier = Tier::with_store(store.clone(), small());
        let epochs = epochs(&[(0, 0)]);
        for base in [0, 50] {
            let segment = Segment::of(base, 10, 5, 50, Codec::None).to_upload(&epochs);
            partition(&tier).upload(segment).await.unwrap();
        }
        let topic = FOLDER.rsplit_once('/').unwrap().0;
        let segment = "00000000000000000000-00000000000000000049-0-1490-77.seg";
        let staged = format!("{segment}.0123456789abcdef.part");
        let other_topic = "cluster/topics/cold.topic.AAAAAAAAAAAAAAAAAAAAAQ";
        let ours = [format!("{topic}/11/{segment}"), format!("{topic}/11/{staged}")];
        let strangers = [
            format!("{topic}/README.txt"),
            format!("{topic}/11/README.txt"),
            format!("{topic}/notes/{segment}"),
            format!("{other_topic}/3/{segment}"),
        ];
        for key in ours.iter().chain(&strangers) {
            store.objects.put(&Path::from(key.as_str()), PutPayload::from_static(b"x")).await.unwrap();
        }
        if let Some(root) = &store.directory {
            std::fs::create_dir_all(root.join(topic).join("12")).unwrap();
            std::fs::write(root.join(topic).join("12").join(format!("{staged}#1")), b"cut off").unwrap();
        }
        let expected = 4 + usize::from(store.directory.is_some());
        let id = TopicId::ZERO;
        assert_eq!(tier.delete_topic("cluster", "cold.topic", id).await.unwrap(), expected);
        assert_eq!(tier.delete_topic("cluster", "cold.topic", id).await.unwrap(), 0);
        let left: Vec<_> = store.objects.list(None).try_collect().await.unwrap();
        let mut left: Vec<_> = left.into_iter().map(|meta| meta.location.to_string()).collect();
        left.sort();
        let mut expected = strangers.to_vec();
        expected.sort();
        assert_eq!(left, expected);
    }
}

#[tokio::test]
async fn a_deposed_leader_neither_uploads_nor_collects() {
    let store = Store::memory();
    let old = partition(&Tier::with_store(store.clone(), small()));
    let new = partition(&Tier::with_store(store, small()));
    let (before, after) = (epochs(&[(0, 0)]), epochs(&[(0, 0), (1, 20)]));
    new.upload(Segment::of(0, 10, 5, 50, Codec::None).to_upload(&after)).await.unwrap();
    let listing = old.refresh(view(&before)).await.unwrap();
    assert!(listing.deposed);
    let error = old.collect_garbage(view(&before), i64::MAX, &[], 0, 0).await.unwrap_err();
    assert!(matches!(error, TierError::Deposed { epoch: 1 }), "{error}");
    let error = old.upload(large().to_upload(&before)).await.unwrap_err();
    assert!(matches!(error, TierError::Deposed { epoch: 1 }), "{error}");
    assert!(old.delete_below(1_000).await.is_err());
}

#[tokio::test]
async fn the_log_of_an_object_is_its_first_bytes() {
    let directory = TempDirectory::new();
    let url = StoreUrl::parse(&format!("file://{}", directory.0.display())).unwrap();
    let tier = Tier::open(&url, &StoreVariables::default(), small()).await.unwrap();
    let segment = large();
    let tiered = partition(&tier).upload(segment.to_upload(&epochs(&[(0, 0)]))).await.unwrap();
    let file = std::fs::read(directory.0.join(FOLDER).join(tiered.name.to_string())).unwrap();
    assert_eq!(file.len() as u64, tiered.object_bytes);
    assert_eq!(file[..segment.log.len()], segment.log);
    assert_eq!(std::fs::read_dir(directory.0.join(FOLDER)).unwrap().count(), 1, "nothing staged is left");
}

#[test]
fn urls_are_read_or_refused_with_a_reason() {
    for (text, shown) in [
        ("file:///var/lib/firn", "file:///var/lib/firn"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
        ("memory:", "memory://"),
    ] {
        assert_eq!(StoreUrl::parse(text).unwrap().to_string(), shown);
    }
    for bad in ["", "/var", "file://relative", "s3:///x", "s3://b/p?region=x", "gs://b", "s3://user@b"] {
        assert!(matches!(StoreUrl::parse(bad), Err(TierError::InvalidUrl { .. })), "{bad}");
    }
}

#[tokio::test]
async fn an_endpoint_without_encryption_is_refused_before_anything_is_sent() {
    let url = StoreUrl::parse("s3://bucket").unwrap();
    for name in ["AWS_ENDPOINT", "AWS_ENDPOINT_URL"] {
        let variables = [(name, "http://127.0.0.1:1"), ("AWS_REGION", "here"), ("AWS_ACCESS_KEY_ID", "key")];
        let variables: StoreVariables =
            variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let error = Tier::open(&url, &variables, small()).await.unwrap_err();
        assert!(matches!(error, TierError::Unencrypted { .. }), "{error}");
        assert!(error.to_string().contains("AWS_ALLOW_HTTP=true"), "{error}");
    }
}
