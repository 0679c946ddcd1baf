//! Tens of thousands of calls, one in ten of which goes wrong: no wrong byte, no upload that cannot be read back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn_records::batch::{Codec, batches};

use super::fixture::{Segment, TOPIC_ID, epochs, partition, small, view};
use super::reads::TempDirectory;
use crate::error::{Failure, ReadError, TierError};
use crate::faults::{FaultPlan, FaultyStore};
use crate::metrics::{Operation, OperationSnapshot};
use crate::options::TierOptions;
use crate::segment::{SegmentSource, SegmentToUpload};
use crate::store::Store;
use crate::tier::Tier;

/// The name of an upload under way.
const STAGED: &str = "00000000000000000100-00000000000000000149-0-1-77.seg.0123456789abcdef.part";

const TEN_PERCENT: FaultPlan =
    FaultPlan { faults: 0.1, latency_max: Duration::from_millis(20), ..FaultPlan::NONE };

/// A small cache, so that most reads reach the store.
fn options(seed: u64) -> TierOptions {
    TierOptions { cache_bytes_max: 16 << 10, read_ahead_bytes_max: 8 << 10, seed, ..small() }
}

/// Runs uploads, reads and collections until the store has seen `calls_min` calls. Returns (reads, failed reads).
async fn run(seed: u64, calls_min: u64) -> (u64, u64) {
    let (faulty, store) = FaultyStore::wrap(Store::memory(), seed, TEN_PERCENT);
    let tier = Tier::with_store(store.clone(), options(seed));
    let history = epochs(&[(0, 0)]);
    let partition = partition(&tier);
    let mut segments: Vec<Segment> = Vec::new();
    let mut random = seed;
    let (mut reads, mut failed) = (0u64, 0u64);
    for round in 0.. {
        if faulty.calls().all >= calls_min {
            break;
        }
        if segments.len() < 24 {
            let base = segments.last().map_or(0, |segment| segment.last_offset + 1);
            let segment = Segment::of(base, 10 + round % 30, 5, 150, Codec::None);
            // As the broker does: again at the next tick, for as long as it takes.
            while let Err(error) = partition.upload(segment.to_upload(&history)).await {
                assert!(
                    !matches!(error, TierError::InvalidSegment { .. } | TierError::Different { .. }),
                    "{error}"
                );
            }
            segments.push(segment);
        }
        let end = segments.last().map_or(0, |segment| segment.last_offset + 1);
        for _ in 0..200 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let offset = ((random >> 33) as i64) % end;
            let segment = &segments[segments.partition_point(|segment| segment.last_offset < offset)];
            let max_bytes = 500 + (random >> 50) as usize;
            reads += 1;
            match partition.read(offset, max_bytes, true).await {
                Ok(bytes) => assert_eq!(bytes, segment.expected(offset, max_bytes), "offset {offset}"),
                Err(ReadError::Store(_) | ReadError::Corrupt { .. }) => failed += 1,
                Err(error) => panic!("{error}"),
            }
        }
        if let Ok(listing) = partition.refresh(view(&history)).await {
            assert_eq!(listing.range, Some((0, end)), "a stale listing took something away");
        }
    }
    // Budget: what is sent is at most 1.2 times what was asked, and the burst.
    let metrics = tier.metrics();
    let calls: u64 = metrics.operations.iter().map(|operation| operation.calls).sum();
    let attempts: u64 = metrics.operations.iter().map(|operation| operation.attempts).sum();
    assert!(attempts as f64 <= calls as f64 * 1.2 + 100.0, "{attempts} attempts for {calls} calls");
    // All that was reported uploaded is there for another broker, with the store whole again.
    faulty.set_plan(FaultPlan::NONE);
    let other = super::fixture::partition(&Tier::with_store(store, small()));
    let end = segments.last().map_or(0, |segment| segment.last_offset + 1);
    assert_eq!(other.refresh(view(&history)).await.unwrap().range, Some((0, end)));
    assert_eq!(other.verify(0, 0).await.unwrap(), end);
    for segment in &segments {
        let bytes = other.read(segment.base_offset, usize::MAX, true).await.unwrap();
        assert_eq!(bytes, segment.log);
    }
    (reads, failed)
}

#[tokio::test(start_paused = true)]
async fn a_hundred_thousand_calls_with_ten_percent_faults_give_no_wrong_byte() {
    let (mut reads, mut failed) = (0, 0);
    for seed in 1..=4 {
        let (more, lost) = run(seed, 26_000).await;
        reads += more;
        failed += lost;
    }
    println!("{reads} reads, {failed} of them ended in an error");
    assert!(failed * 100 < reads, "{failed} of {reads} reads failed in spite of retries");
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_itself() {
    assert_eq!(run(9, 2_000).await, run(9, 2_000).await);
}

/// What another process uploaded is known from listings alone. One that lags must not take it away again: without the
/// newest object the one that it replaced would serve again what compaction took away.
#[tokio::test(start_paused = true)]
async fn a_listing_that_lags_forgets_nothing_that_an_earlier_one_had() {
    let (faulty, store) = FaultyStore::wrap(Store::memory(), 5, FaultPlan::NONE);
    let history = epochs(&[(0, 0)]);
    let uploader = partition(&Tier::with_store(store.clone(), options(5)));
    for base_offset in [0, 20, 40] {
        let segment = Segment::of(base_offset, 4, 5, 50, Codec::None);
        uploader.upload(segment.to_upload(&history)).await.unwrap();
        // The store's clock tells which is the newest.
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let partition = partition(&Tier::with_store(store, options(6)));
    partition.refresh(view(&history)).await.unwrap();
    assert_eq!(partition.tiered_range(), Some((0, 60)));
    faulty.set_plan(FaultPlan { faults: 0.5, ..FaultPlan::NONE });
    let mut listed = 0;
    while listed < 100 {
        if partition.refresh(view(&history)).await.is_ok() {
            listed += 1;
        }
        assert_eq!(partition.tiered_range(), Some((0, 60)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_outage_is_an_error_in_time_and_ends_with_the_outage() {
    let (faulty, store) = FaultyStore::wrap(Store::memory(), 3, FaultPlan::NONE);
    let tier = Tier::with_store(store, options(3));
    let history = epochs(&[(0, 0)]);
    let partition = partition(&tier);
    let segment = Segment::of(0, 40, 5, 150, Codec::None);
    partition.upload(segment.to_upload(&history)).await.unwrap();
    faulty.set_plan(FaultPlan { outage: true, ..FaultPlan::NONE });
    let before = (faulty.calls().all, tokio::time::Instant::now());
    for round in 0..300 {
        let next = Segment::of(200, 4, 5, 150, Codec::None);
        assert!(matches!(partition.upload(next.to_upload(&history)).await, Err(TierError::Store(_))));
        let started = tokio::time::Instant::now();
        assert!(matches!(partition.read(150 + round % 3, 100, true).await, Err(ReadError::Store(_))));
        assert!(started.elapsed() <= Duration::from_secs(61), "no call outlives its deadline");
    }
    let sent = faulty.calls().all - before.0;
    assert!(sent < 3_000, "{sent} calls: retries end when their budget does");
    assert!(tier.metrics().retries_refused > 0);
    assert_eq!(partition.tiered_range(), Some((0, 200)), "an outage takes nothing away");
    faulty.set_plan(FaultPlan::NONE);
    assert_eq!(partition.read(0, usize::MAX, true).await.unwrap(), segment.log);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_is_given_up_by_the_deadline_and_named() {
    let hang = FaultPlan { latency_max: Duration::ZERO, ..TEN_PERCENT };
    let (faulty, store) = FaultyStore::wrap(Store::memory(), 5, FaultPlan { faults: 0.0, ..hang });
    let tier = Tier::with_store(store, options(5));
    let partition = partition(&tier);
    faulty.set_plan(FaultPlan { latency_max: Duration::from_secs(100_000), ..FaultPlan::NONE });
    let started = tokio::time::Instant::now();
    let error = partition.refresh(view(&epochs(&[(0, 0)]))).await.unwrap_err();
    assert!(started.elapsed() <= Duration::from_secs(61));
    let TierError::Store(error) = error else { panic!("{error}") };
    assert_eq!(error.operation, Operation::List);
    assert!(matches!(error.failure, Failure::Timeout), "{error}");
    let timeouts: u64 = tier.metrics().operations.iter().map(|operation| operation.timeouts).sum();
    assert!(timeouts > 1);
}

/// A local segment that cannot be read, just when the store stops answering.
#[derive(Debug)]
struct Unreadable(FaultyStore);

impl SegmentSource for Unreadable {
    fn length(&self) -> io::Result<u64> {
        Ok(1 << 20)
    }

    fn read_at(&self, _position: u64, _length: usize) -> io::Result<Bytes> {
        self.0.set_plan(FaultPlan { hung: Some(".seg"), ..FaultPlan::NONE });
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn impatient() -> TierOptions {
    TierOptions {
        attempt_timeout: Duration::from_millis(20),
        call_deadline: Duration::from_millis(50),
        ..small()
    }
}

/// What waits for ever would keep the partition from being cooled for ever.
async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("it has a deadline")
}

fn numbers(tier: &Tier, operation: Operation) -> OperationSnapshot {
    let all = tier.metrics().operations;
    all.into_iter().find(|numbers| numbers.operation == operation).unwrap()
}

#[tokio::test]
async fn giving_up_an_upload_has_a_deadline_too() {
    let directory = TempDirectory::new();
    let store = Store::directory(&directory.0).unwrap();
    let (faulty, store) = FaultyStore::wrap(store, 5, FaultPlan::NONE);
    let tier = Tier::with_store(store, impatient());
    let upload = Segment::of(0, 40, 5, 150, Codec::None).to_upload(&epochs(&[(0, 0)]));
    let upload = SegmentToUpload { log: Arc::new(Unreadable(faulty)), ..upload };
    let error = Box::pin(in_time(partition(&tier).upload(upload))).await.unwrap_err();
    assert!(matches!(error, TierError::LocalRead(_)), "{error}");
    let aborts = numbers(&tier, Operation::AbortMultipart);
    assert_eq!((aborts.calls, aborts.attempts, aborts.timeouts), (1, 1, 1));
}

/// The store's own directory is looked at past the store: here, too, a mount that hangs is given up.
#[test]
fn files_that_the_store_does_not_show_are_looked_for_with_a_deadline() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let (go_on, hung) = std::sync::mpsc::channel::<()>();
    let directory = TempDirectory::new();
    let topic = directory.0.join("cluster/topics/cold.topic.AAAAAAAAAAAAAAAAAAAAAA");
    let left_behind = topic.join("3").join(format!("{STAGED}#1"));
    std::fs::create_dir_all(topic.join("3")).unwrap();
    std::fs::write(&left_behind, b"cut off").unwrap();
    runtime.block_on(async {
        // The only thread for files waits for a disk that does not answer.
        let waiting = tokio::task::spawn_blocking(move || hung.recv());
        let store = Store { directory: Some(directory.0.clone()), ..Store::memory() };
        let tier = Tier::with_store(store, impatient());
        let history = epochs(&[(0, 0)]);
        let collected =
            Box::pin(in_time(partition(&tier).collect_garbage(view(&history), i64::MAX, &[], 0, 0))).await;
        assert!(matches!(collected.unwrap_err(), TierError::Store(_)));
        let deleted = in_time(tier.delete_topic("cluster", "cold.topic", TOPIC_ID)).await;
        assert!(matches!(deleted.unwrap_err(), TierError::Store(_)));
        assert!(numbers(&tier, Operation::List).timeouts > 1);
        assert!(left_behind.exists());
        drop(go_on);
        assert!(waiting.await.unwrap().is_err());
        assert_eq!(tier.delete_topic("cluster", "cold.topic", TOPIC_ID).await.unwrap(), 1);
        let deletes = numbers(&tier, Operation::Delete);
        assert_eq!((deletes.calls, deletes.errors), (1, 0));
        assert!(!left_behind.exists());
    });
}

#[tokio::test(start_paused = true)]
async fn whole_batches_only() {
    let tier = Tier::with_store(Store::memory(), small());
    let partition = partition(&tier);
    let segment = Segment::of(0, 40, 5, 150, Codec::None);
    partition.upload(segment.to_upload(&epochs(&[(0, 0)]))).await.unwrap();
    let bytes = partition.read(7, 4_000, true).await.unwrap();
    let mut walk = batches(&bytes);
    assert!(walk.by_ref().all(|batch| batch.is_ok()));
    assert!(walk.remainder().is_empty());
}
