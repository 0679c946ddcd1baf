//! How much is asked of the object store, by a broker whose limits change while it runs.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared with the tests of the tier")]
mod cold_world;

use std::time::Duration;

use cold_world::{BATCH_BYTES, BATCHES, World, bytes, wait_until};
use firn_tiering::faults::FaultPlan;
use tokio::time::Instant;

const FETCH_PACE: &str = "remote.log.manager.fetch.max.bytes.per.second";
const COPY_PACE: &str = "remote.log.manager.copy.max.bytes.per.second";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_reads_keep_to_their_pace_and_hot_ones_do_not_wait() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.cold(1).await;
    let slow = format!("remote.fetch.max.wait.ms=50\n{FETCH_PACE}=1\n");
    let world = world.start_again(&slow, FaultPlan::NONE).await;
    let first = world.fetch(&[(0, 0)], 10_000).await;
    assert!(bytes(&first[0]) > BATCH_BYTES, "the first goes at once");
    let began = Instant::now();
    let next = world.fetch(&[(1, 0)], 10_000).await;
    assert_eq!((next[0].error_code, bytes(&next[0])), (0, 0), "the next one waits for days");
    assert!(began.elapsed() < Duration::from_secs(5));
    let hot = world.fetch(&[(1, BATCHES - 1)], 10_000).await;
    assert!(bytes(&hot[0]) > BATCH_BYTES, "what is on the disk has no pace");

    world.alter_broker(&[(FETCH_PACE, "1000000000")]).await;
    let deadline = Instant::now() + cold_world::DEADLINE;
    while bytes(&world.fetch(&[(1, 0)], 1_000).await[0]) == 0 {
        assert!(Instant::now() < deadline, "the reads still wait");
    }
    assert!(!world.throttled().1.is_zero());
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_keep_to_their_pace() {
    let world = World::start(&format!("{COPY_PACE}=1\n"), FaultPlan::NONE).await;
    wait_until("the first segment is there", || {
        [0, 1].into_iter().any(|partition| world.offsets(partition).local_start > 0)
    })
    .await;
    assert_eq!(world.ground.segments().await.len(), 1, "every other waits for days");
    world.alter_broker(&[(COPY_PACE, "1000000000")]).await;
    world.cold(0).await;
    world.cold(1).await;
    assert!(!world.throttled().0.is_zero());
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_more_reader_is_one_more_read_at_a_time() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.cold(1).await;
    let hung = FaultPlan { hung: Some("/0/"), ..FaultPlan::NONE };
    let one = "remote.fetch.max.wait.ms=50\nremote.log.reader.threads=1\n";
    let world = world.start_again(one, FaultPlan::NONE).await;
    // Both are listed.
    for partition in 0..2 {
        assert_eq!(world.list_offset(partition, 1, 0).await.offset, 1);
    }
    world.faults.set_plan(hung);
    for partition in 0..2 {
        let fetched = world.fetch(&[(partition, 3)], 10_000).await;
        assert_eq!((fetched[0].error_code, bytes(&fetched[0])), (0, 0), "one read hangs, the other waits");
    }
    assert_eq!(world.node.context.cold.reads().queued(), 1);
    world.alter_broker(&[("remote.log.reader.threads", "2")]).await;
    let deadline = Instant::now() + cold_world::DEADLINE;
    while bytes(&world.fetch(&[(1, 3)], 1_000).await[0]) == 0 {
        assert!(Instant::now() < deadline, "the second reader does not begin");
    }
    world.node.stop().await;
}
