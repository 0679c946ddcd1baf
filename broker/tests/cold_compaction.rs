//! Compacted topics whose beginning is in the object store: whoever reads from the beginning gets each key's last value,
//! and no value whose tombstone is gone comes back, whatever the store and the broker do meanwhile.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared with the tests of the tier")]
mod cold_world;

use std::collections::BTreeMap;
use std::time::Duration;

use cold_world::{DEADLINE, Ground, TOPIC, World, wait_until};
use firn_records::batch::{HEADER_LENGTH, batches};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::record::records;
use firn_storage::cleaner_limits::CleanerLimits;
use firn_tiering::faults::FaultPlan;
use tokio::time::Instant;

const VALUE_BYTES: usize = 180_000;
/// Tombstones go at the first chance, so that a value that outlives one is seen.
const COMPACTED: [(&str, &str); 4] = [
    ("cleanup.policy", "compact"),
    ("min.cleanable.dirty.ratio", "0"),
    ("delete.retention.ms", "0"),
    // Which local.retention.ms follows: what stays on the disk is a matter of bytes.
    ("retention.ms", "-1"),
];
const EAGER: &str = "log.cleaner.backoff.ms=10\n";

type Values = BTreeMap<u8, u64>;

/// What was written, and what it must read as.
struct History {
    world: World,
    random: u64,
    written: u64,
    expected: Values,
}

impl History {
    async fn start(ground: Ground, configs: &[(&'static str, &'static str)], seed: u64) -> Self {
        let world = World::with_topic(ground, EAGER, FaultPlan::NONE, configs).await;
        Self { world, random: seed, written: 0, expected: Values::new() }
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % limit
    }

    async fn write(&mut self, key: u8, is_value: bool) {
        self.written += 1;
        let mut value = vec![0; VALUE_BYTES];
        value[..8].copy_from_slice(&self.written.to_be_bytes());
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(1_000, Some(&[key]), is_value.then_some(value.as_slice()), &[]);
        self.world.produce_batch(0, builder.build().unwrap()).await;
        if is_value {
            self.expected.insert(key, self.written);
        } else {
            self.expected.remove(&key);
        }
    }

    /// Values and tombstones of a few keys; keys of 200 and more are written again and again, the rest rarely.
    async fn write_some(&mut self, count: u64) {
        for _ in 0..count {
            let key = if self.below(3) > 0 { 200 + self.below(3) } else { self.below(40) };
            let is_value = self.below(4) > 0;
            self.write(u8::try_from(key).unwrap(), is_value).await;
        }
    }

    /// Every record from the log's start on: key, and the number of its value.
    async fn read(&self) -> Vec<(i64, u8, Option<u64>)> {
        let deadline = Instant::now() + DEADLINE;
        let (mut rows, mut offset) = (Vec::new(), 0);
        let end = self.world.offsets(0).high_watermark;
        while offset < end {
            assert!(Instant::now() < deadline, "stuck at offset {offset} of {end}");
            let fetched = self.world.fetch(&[(0, offset)], 1_000).await.remove(0);
            if fetched.error_code != 0 {
                // The store has its faults; a client asks again.
                continue;
            }
            for batch in batches(&fetched.records.unwrap_or_default()) {
                let (header, batch) = batch.unwrap();
                for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
                    let record = record.unwrap();
                    let at = header.base_offset + i64::from(record.offset_delta);
                    let value = record.value.map(|value| u64::from_be_bytes(*value.first_chunk().unwrap()));
                    if at >= offset {
                        rows.push((at, record.key.unwrap()[0], value));
                    }
                }
                offset = header.next_offset().max(offset);
            }
        }
        assert!(rows.windows(2).all(|pair| pair[0].0 < pair[1].0), "offsets rise");
        rows
    }

    /// A reader that a tombstone escaped, because it went while the reader passed, reads again, as Kafka asks of whoever
    /// takes longer than `delete.retention.ms`, which is none here.
    async fn check(&self) {
        let mut found = Values::new();
        for _ in 0..4 {
            found.clear();
            for (_, key, value) in self.read().await {
                match value {
                    Some(value) => found.insert(key, value),
                    None => found.remove(&key),
                };
            }
            if found == self.expected {
                return;
            }
        }
        assert_eq!(found, self.expected);
    }

    /// Writes on until nothing below the first local offset is superseded, and no tombstone is left there.
    async fn settle(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            for _ in 0..6 {
                self.write(255, true).await;
            }
            let cold_end = self.world.offsets(0).local_start;
            let rows = self.read().await;
            let cold: Vec<_> = rows.iter().filter(|row| row.0 < cold_end && row.1 != 255).collect();
            let clean = cold.iter().all(|row| row.2.is_some() && row.2 == self.expected.get(&row.1).copied());
            let hot = rows.iter().filter(|row| row.0 >= cold_end && row.1 != 255).count();
            if clean && hot == 0 && !cold.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "the cold part is not clean: {cold:?}, {hot} more are hot");
        }
    }
}

/// Segments stay on the disk for a while after they went to the store, and are compacted there again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_uploaded_before_its_last_compaction_is_no_reason_to_leave_the_disk() {
    let configs = [&COMPACTED[..], &[("local.retention.bytes", "3000000")]].concat();
    let mut history = History::start(Ground::new(), &configs, 11).await;
    for _ in 0..20 {
        history.write_some(10).await;
        let partition = history.world.node.context.partitions.by_name(TOPIC, 0).unwrap();
        wait_until("all but the last segments are in the store", || {
            let (tiered, end) =
                partition.with_log(|log| (log.tiered_end_offset(), log.end_offset())).unwrap();
            end - tiered <= 8
        })
        .await;
        history.check().await;
    }
    history.settle().await;
    history.check().await;
    history.world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_log_stays_compacted_where_it_is_cold() {
    let mut history = History::start(Ground::new(), &COMPACTED, 7).await;
    for _ in 0..8 {
        history.write_some(30).await;
        history.check().await;
    }
    assert!(history.world.offsets(0).local_start > 0, "nothing is cold");
    history.settle().await;
    history.check().await;
    // Neighbours that are small are merged, and the objects of old passes collected.
    let enough = 2 * history.expected.len() * VALUE_BYTES / (1 << 20) + 2;
    let deadline = Instant::now() + DEADLINE;
    let mut objects = history.world.ground.segments().await.len();
    for round in 1.. {
        if objects <= enough {
            break;
        }
        assert!(Instant::now() < deadline, "{objects} objects where {enough} suffice");
        if round % 50 == 0 {
            history.write(255, true).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        objects = history.world.ground.segments().await.len();
    }
    history.check().await;
    history.world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_store_and_restarts_bring_nothing_back() {
    let failing = FaultPlan { faults: 0.6, latency_max: Duration::from_millis(5), ..FaultPlan::NONE };
    let away = FaultPlan { outage: true, ..FaultPlan::NONE };
    for (seed, local_bytes) in [(1, "1"), (2, "2500000"), (3, "5000000")] {
        let ground = Ground { call_deadline: Duration::from_millis(40), ..Ground::new() };
        let configs = [&COMPACTED[..], &[("local.retention.bytes", local_bytes)]].concat();
        let mut history = History::start(ground, &configs, seed).await;
        for _ in 0..4 {
            for plan in [failing, away, failing, FaultPlan::NONE] {
                history.world.faults.set_plan(plan);
                history.write_some(8).await;
            }
            history.check().await;
            history.world.faults.set_plan(failing);
            history.write_some(10).await;
            let world = history.world.start_again(EAGER, FaultPlan::NONE).await;
            history = History { world, ..history };
            history.check().await;
        }
        history.settle().await;
        history.check().await;
        history.world.node.stop().await;
    }
}

/// A value is cold and its tombstone is not, and nothing can be put into the store: the tombstone has to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tombstone_waits_for_the_cold_values_that_it_buries() {
    let ground = Ground { call_deadline: Duration::from_millis(40), ..Ground::new() };
    let mut history = History::start(ground, &COMPACTED, 5).await;
    for key in 0..20 {
        history.write(key, true).await;
    }
    wait_until("the values are cold", || history.world.offsets(0).local_start >= 10).await;
    history.world.faults.set_plan(FaultPlan { read_only: true, ..FaultPlan::NONE });
    for key in 0..5 {
        history.write(key, false).await;
    }
    for _ in 0..3 {
        let tried = history.world.faults.calls().faulty;
        for _ in 0..12 {
            history.write(255, true).await;
        }
        wait_until("a put was tried", || history.world.faults.calls().faulty >= tried + 10).await;
        history.check().await;
    }
    history.world.faults.set_plan(FaultPlan::NONE);
    history.settle().await;
    history.check().await;
    history.world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_becomes_compacted_is_cleaned_where_it_was_cold_before() {
    let kept = [("retention.ms", "-1"), ("delete.retention.ms", "0"), ("min.cleanable.dirty.ratio", "0.1")];
    let mut history = History::start(Ground::new(), &kept, 3).await;
    history.write_some(80).await;
    let deadline = Instant::now() + DEADLINE;
    while history.world.offsets(0).local_start < 40 {
        assert!(Instant::now() < deadline, "it does not get cold");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(history.read().await.len(), 80);
    history.world.alter(&[("cleanup.policy", "compact")]).await;
    history.settle().await;
    history.check().await;
    history.world.node.stop().await;
}

/// Compaction ends in the middle of a segment that was uploaded before, and the topic is compacted no more: the copy in
/// the store still has a value whose tombstone is gone, and the one on the disk has to take its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_is_clean_in_part_leaves_the_disk_once_the_store_has_it_so() {
    let configs = [
        ("retention.ms", "-1"),
        ("delete.retention.ms", "0"),
        ("min.cleanable.dirty.ratio", "0"),
        ("local.retention.bytes", "100000000"),
    ];
    let cleaner = "log.cleaner.enable=false\n";
    let world = World::with_topic(Ground::new(), cleaner, FaultPlan::NONE, &configs).await;
    let write = async |key: u8, value: Option<&[u8]>| {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(1_000, Some(&[key]), value, &[]);
        world.produce_batch(0, builder.build().unwrap()).await;
    };
    let value = vec![7; 6_000];
    write(0, Some(&value)).await;
    write(0, None).await;
    // Some 170 fill a segment; the smallest memory holds some 60 keys.
    for key in 1..250 {
        write(key, Some(&value)).await;
    }
    let partition = world.node.context.partitions.by_name(TOPIC, 0).unwrap();
    let tiered_end = || partition.with_log(|log| log.tiered_end_offset()).unwrap();
    wait_until("the first segment is in the store", || tiered_end() > 120).await;
    let first_end = tiered_end();
    world.alter(&[("cleanup.policy", "compact")]).await;
    wait_until("the topic is compacted", || partition.config().cleanup_policy.compact).await;
    for pass in 1..=2 {
        let now_ms = world.node.context.now_ms() + pass * 10_000;
        partition.compact(now_ms, CleanerLimits::of_memory(0)).unwrap().unwrap();
    }
    let cleaned = partition.with_log(|log| log.cleaned_offset()).unwrap();
    assert!(0 < cleaned && cleaned < first_end, "{cleaned} of {first_end}");
    world.alter(&[("cleanup.policy", "delete"), ("local.retention.bytes", "1")]).await;
    for _ in 0..400 {
        write(255, Some(&value)).await;
    }
    wait_until("the first segment has left the disk", || {
        partition.offsets().unwrap().local_start >= first_end
    })
    .await;
    let history = History { world, random: 0, written: 0, expected: Values::new() };
    let keys: Vec<u8> = history.read().await.into_iter().map(|row| row.1).filter(|key| *key < 255).collect();
    assert_eq!(keys, (1..250).collect::<Vec<u8>>(), "a deleted value came back");
    history.world.node.stop().await;
}
