//! A whole broker in this process over an object store that hangs, is away, or has more than it should.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared with the tests of compaction")]
mod cold_world;

use std::time::Duration;

use bytes::BytesMut;
use cold_world::{
    BATCH_BYTES, BATCHES, DEADLINE, Ground, TOPIC, World, bytes, start_once_unlocked, wait_until,
};
use firn::node::StartError;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::protocol::Encodable;
use firn_storage::disk::Disk;
use firn_storage::simulated::Faults;
use firn_tiering::faults::FaultPlan;
use firn_tiering::store::Store;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

const HUNG: FaultPlan = FaultPlan { hung: Some("/0/"), ..FaultPlan::NONE };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_uploads_hang_holds_up_no_other() {
    let world = World::start("", HUNG).await;
    world.cold(1).await;
    assert_eq!(world.offsets(0).local_start, 0);
    world.faults.set_plan(FaultPlan::NONE);
    world.cold(0).await;
    world.node.stop().await;
}

/// As when `firn.store.url` has a typing error: what is on the disk must not be spread over two stores.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_the_one_of_before_gets_nothing_and_nothing_is_deleted() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.cold(1).await;
    let local_start = world.offsets(0).local_start;
    let right = world.ground.store.clone();
    let ground = Ground { store: Store::memory(), ..world.ground.clone() };
    let world = World { ground, ..world }.start_again("", FaultPlan::NONE).await;
    for number in 0..2 * BATCHES {
        world.produce(0, BATCHES + number).await;
    }
    let listed = world.faults.calls().all;
    wait_until("it looks again and again", || world.faults.calls().all > listed + 5).await;
    assert_eq!(world.ground.segments().await, Vec::<String>::new());
    assert_eq!(world.offsets(0).local_start, local_start);

    let ground = Ground { store: right, ..world.ground.clone() };
    let world = World { ground, ..world }.start_again("", FaultPlan::NONE).await;
    wait_until("it goes on", || world.offsets(0).local_start > local_start).await;
    assert_eq!(world.offsets(0).log_start, 0);
    for offset in 0..3 * BATCHES {
        assert!(bytes(&world.fetch(&[(0, offset)], 10_000).await[0]) > BATCH_BYTES, "offset {offset}");
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_records_do_not_wait_for_cold_ones() {
    let world = World::start("remote.fetch.max.wait.ms=300\n", FaultPlan::NONE).await;
    world.cold(0).await;
    world.cold(1).await;
    let world = world.start_again("remote.fetch.max.wait.ms=10000\n", HUNG).await;
    let began = Instant::now();
    let fetched = world.fetch(&[(0, 0), (1, BATCHES - 1)], 10_000).await;
    assert!(began.elapsed() < Duration::from_secs(5), "it waited for the store");
    assert_eq!((fetched[0].error_code, bytes(&fetched[0])), (0, 0), "nothing yet, and no error");
    assert!(bytes(&fetched[1]) > BATCH_BYTES);
    assert_eq!(fetched[0].high_watermark, BATCHES);

    // The read is still under way: it needs no other request to reach its end once the store is back.
    world.faults.set_plan(FaultPlan::NONE);
    let fetched = world.fetch(&[(0, 0)], 10_000).await;
    assert!(bytes(&fetched[0]) > BATCH_BYTES);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_fetch_ends_when_its_wait_is_over_and_too_many_are_refused() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    let few =
        "remote.fetch.max.wait.ms=50\nremote.log.reader.threads=1\nremote.log.reader.max.pending.tasks=1\n";
    let world = world.start_again(few, HUNG).await;
    for (offset, expected) in [(0, 0), (1, 0), (0, 0), (2, ResponseError::KafkaStorageError.code())] {
        let began = Instant::now();
        let fetched = world.fetch(&[(0, offset)], 20_000).await;
        assert_eq!((fetched[0].error_code, bytes(&fetched[0])), (expected, 0), "at offset {offset}");
        assert!(began.elapsed() < Duration::from_secs(10), "remote.fetch.max.wait.ms is 50");
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_a_timestamp_up_gives_up_when_the_client_says_or_the_config() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    assert_eq!(world.list_offset(0, 1, 0).await.offset, 1);
    let world = world.start_again("remote.list.offsets.request.timeout.ms=50\n", HUNG).await;
    for timeout_ms in [0, 60] {
        let began = Instant::now();
        let found = world.list_offset(0, 1, timeout_ms).await;
        assert_eq!(found.error_code, ResponseError::RequestTimedOut.code());
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    let latest = world.list_offset(0, -1, 0).await;
    assert_eq!((latest.error_code, latest.offset), (0, BATCHES), "what needs no store gets its answer");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_records_with_the_greatest_timestamp_the_first_is_found_hot_or_cold() {
    let world = World::start("", FaultPlan::NONE).await;
    for _ in 0..BATCHES {
        world.produce(0, BATCHES).await;
    }
    let first = BATCHES;
    wait_until("the first of them is cold", || world.offsets(0).local_start > first).await;
    let found = world.list_offset(0, -3, 0).await;
    assert_eq!((found.offset, found.timestamp), (first, BATCHES));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_deleted_topic_go_though_the_store_was_away_and_the_broker_stopped() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.cold(1).await;
    let stranger = Path::from(format!("{}.txt", world.ground.segments().await[0]));
    world.ground.store.objects.put(&stranger, PutPayload::from_static(b"not Firn's")).await.unwrap();
    world.faults.set_plan(FaultPlan { outage: true, ..FaultPlan::NONE });
    world.delete_topic().await;
    let world = world.start_again("", FaultPlan { outage: true, ..FaultPlan::NONE }).await;
    assert!(!world.ground.segments().await.is_empty(), "the store was away");
    assert_eq!(world.node.context.controller.image().remote_deletes().count(), 1);

    world.faults.set_plan(FaultPlan::NONE);
    let marked = || world.node.context.controller.image().remote_deletes().count();
    wait_until("the deletion is over", || marked() == 0).await;
    assert_eq!(world.ground.segments().await, Vec::<String>::new());
    assert!(world.ground.store.objects.head(&stranger).await.is_ok(), "what is not ours stays");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_tiered_no_more_keeps_its_cold_records_or_loses_them_as_it_is_told() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.alter(&[("remote.storage.enable", "false")]).await;
    assert!(bytes(&world.fetch(&[(0, 0)], 1_000).await[0]) > BATCH_BYTES, "they stay readable");
    let cold = world.offsets(0).local_start;
    let world = world.start_again("", FaultPlan::NONE).await;
    assert_eq!((world.offsets(0).log_start, world.offsets(0).local_start), (0, cold));
    assert!(bytes(&world.fetch(&[(0, 0)], 1_000).await[0]) > BATCH_BYTES, "and after a restart");

    world.alter(&[("remote.log.delete.on.disable", "true")]).await;
    wait_until("the log begins where the disk does", || {
        let offsets = world.offsets(0);
        offsets.log_start == offsets.local_start && offsets.log_start > 0
    })
    .await;
    let deadline = Instant::now() + DEADLINE;
    while !world.ground.segments().await.is_empty() {
        assert!(Instant::now() < deadline, "the objects stay");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let start = world.offsets(0).log_start;
    let fetched = world.fetch(&[(0, 0)], 0).await;
    assert_eq!(fetched[0].error_code, ResponseError::OffsetOutOfRange.code());
    assert_eq!(world.list_offset(0, -5, 0).await.offset, -1, "nothing is tiered");

    // Switched on again while the store is away: nothing may leave the disk on the word of what was there once.
    world.faults.set_plan(FaultPlan { outage: true, ..FaultPlan::NONE });
    world.alter(&[("remote.storage.enable", "true")]).await;
    for number in 0..BATCHES {
        world.produce(0, BATCHES + number).await;
    }
    world.node.context.partitions.by_name(TOPIC, 0).unwrap().retain(i64::MAX / 2).unwrap();
    assert_eq!(world.offsets(0).local_start, start);
    world.faults.set_plan(FaultPlan::NONE);
    wait_until("it is cold again", || world.offsets(0).local_start > start).await;
    assert!(bytes(&world.fetch(&[(0, start)], 1_000).await[0]) > BATCH_BYTES);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_store_is_refused_and_costs_no_record() {
    let world = World::start("", FaultPlan::NONE).await;
    for partition in 0..2 {
        wait_until("all but the active segment is cold", || {
            world.offsets(partition).local_start == BATCHES - 1
        })
        .await;
    }
    let (ground, topic_id) = (world.ground.clone(), world.topic_id);
    let objects = ground.segments().await;
    world.node.stop().await;
    let started = start_once_unlocked(&Ground::config(""), ground.environment(), None).await;
    let refused = started.unwrap_err();
    assert!(matches!(&refused, StartError::NoStore { first, count: 1 } if first == TOPIC), "{refused}");
    let (faults, node, client) = ground.broker("", FaultPlan::NONE).await;
    let world = World { ground, faults, node, client, topic_id };
    assert!(bytes(&world.fetch(&[(0, 0)], 10_000).await[0]) > BATCH_BYTES);
    assert_eq!(world.ground.segments().await, objects);

    // Nor may it start once the topic is tiered no more: what was is in the store still.
    world.alter(&[("remote.storage.enable", "false")]).await;
    let ground = world.ground.clone();
    world.node.stop().await;
    let started = start_once_unlocked(&Ground::config(""), ground.environment(), None).await;
    let refused = started.unwrap_err();
    assert!(matches!(&refused, StartError::ColdWithoutStore { count: 2, .. }), "{refused}");
}

/// The directory of `firn dev` lies beside the logs: copies must leave the room that retention and deletions need.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_to_a_directory_keep_out_of_the_reserve() {
    const RESERVE: u64 = 1 << 20;
    let directory = std::env::temp_dir().join(format!("firn-cold-room-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let ground = Ground { store: Store::directory(&directory).unwrap(), ..Ground::new() };
    let outage = FaultPlan { outage: true, ..FaultPlan::NONE };
    let reserve = format!("firn.disk.reserve.bytes={RESERVE}\n");
    let world = World::with_topic(ground, &reserve, outage, &[("retention.ms", "-1")]).await;
    for number in 0..BATCHES {
        world.produce(0, number).await;
    }
    let used = (1u64 << 40) - world.ground.disk.space(std::path::Path::new("/data")).unwrap().free;
    let capacity_bytes = Some(used + RESERVE + BATCH_BYTES as u64);
    world.ground.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    world.faults.set_plan(FaultPlan::NONE);
    // Garbage is looked for in every pass: so there were some in which a copy could have been made.
    let calls = world.faults.calls().all;
    wait_until("passes of cooling", || world.faults.calls().all > calls + 5).await;
    assert_eq!(world.ground.segments().await, Vec::<String>::new());
    world.ground.disk.set_faults(Faults::default());
    world.cold(0).await;
    world.node.stop().await;
    std::fs::remove_dir_all(&directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_copying_is_disabled_retention_goes_on() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.alter(&[("remote.log.copy.disable", "true"), ("local.retention.bytes", "-2")]).await;
    for _ in 0..BATCHES {
        world.produce(0, 1).await;
    }
    assert_eq!(world.offsets(0).log_start, 0);
    world.alter(&[("retention.bytes", "1000000")]).await;
    wait_until("the log start has followed the retention", || world.offsets(0).log_start > BATCHES).await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_tiered_is_known_after_a_restart_before_anything_is_uploaded() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    let world = world.start_again("", HUNG).await;
    let local_start = world.offsets(0).local_start;
    assert_eq!(world.list_offset(0, -4, 0).await.offset, local_start, "where the disk begins");
    assert_eq!(world.list_offset(0, -5, 0).await.offset, local_start - 1, "the last that the store has");
    world.node.stop().await;
}

/// Clients that ask for cold records and do not read them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_reading_do_not_keep_the_memory_of_cold_records_from_others() {
    let scarce = "firn.fetch.records.bytes=1048576\nsocket.send.buffer.bytes=4096\n";
    let world = World::start(scarce, FaultPlan::NONE).await;
    world.cold(0).await;
    let mut frame = BytesMut::new();
    // Api key, version 13, correlation, no client's name, no tags.
    frame.extend_from_slice(&[0, 1, 0, 13, 0, 0, 0, 5, 0xff, 0xff, 0]);
    world.fetch_request(&[(0, 0)], 10_000).encode(&mut frame, 13).unwrap();
    let mut stopped = Vec::new();
    while !world.node.context.record_memory.is_short() {
        assert!(stopped.len() < 50, "their memory is not bounded");
        let mut stream = TcpStream::connect(world.node.addresses[0]).await.unwrap();
        stream.write_u32(frame.len() as u32).await.unwrap();
        stream.write_all(&frame).await.unwrap();
        // The reply has begun, or the wait for memory.
        let began = tokio::time::timeout(Duration::from_secs(1), stream.readable()).await;
        stopped.push((stream, began));
    }
    let deadline = Instant::now() + DEADLINE;
    while bytes(&world.fetch(&[(0, 0)], 1_000).await[0]) < BATCH_BYTES {
        assert!(Instant::now() < deadline, "it gets nothing");
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_nothing_can_be_written_to_the_store_retention_goes_on() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.faults.set_plan(FaultPlan { read_only: true, ..FaultPlan::NONE });
    for _ in 0..BATCHES {
        world.produce(0, 1).await;
    }
    let tried = world.faults.calls().faulty;
    wait_until("an upload was tried", || world.faults.calls().faulty > tried).await;
    world.alter(&[("retention.bytes", "3000000")]).await;
    wait_until("the log start has followed the retention", || world.offsets(0).log_start > 2).await;
    world.node.stop().await;
}
