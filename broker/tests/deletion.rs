//! Topics that are deleted, and created again: nothing of one is left to the next, whatever happens meanwhile.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared by several suites")]
mod world;

use std::io::IoSlice;
use std::path::Path;

use firn_model::ids::TopicId;
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_storage::disk::{Disk, OpenMode};
use firn_storage::simulated::{Faults, PowerCut, SimulatedDisk};
use uuid::Uuid;

use world::{TOPIC, World, batch_of, create, create_topic, delete, produce_to, start_on, try_start_on};

/// Checkpoints are taken all the time, of many partitions, while a topic whose start has moved is deleted and created
/// again: the new one must not inherit where the old one began.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_created_again_inherits_no_start_of_its_namesake() {
    const AGAIN: &str = "again";
    let world = World::start_with("log.flush.offset.checkpoint.interval.ms=1\n").await;
    let busy = create_topic(&world.client, "busy", 40, &[]).await;
    let three = || {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        (0..3).for_each(|_| builder.push(1, None, Some(b"v"), &[]));
        builder.build().unwrap()
    };
    for _ in 0..200 {
        let topic_id = create(&world.client, AGAIN).await;
        assert_eq!(produce_to(&world.client, topic_id, &[0], three()).await, [0]);
        let partition = world.node.context.partitions.by_name(AGAIN, 0).unwrap();
        partition.with_log(|log| log.delete_records_before(3)).unwrap().unwrap();
        let all: Vec<i32> = (0..40).collect();
        produce_to(&world.client, busy, &all, three()).await;
        assert_eq!(delete(&world.client, AGAIN).await, 0);
        let topic_id = create(&world.client, AGAIN).await;
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(1, None, Some(b"kept"), &[]);
        assert_eq!(produce_to(&world.client, topic_id, &[0], builder.build().unwrap()).await, [0]);
        for dir in world.node.context.log_dirs.all() {
            dir.dir.checkpoint().unwrap();
        }
        let starts = world.disk.open(Path::new("/data/log-start-offset-checkpoint"), OpenMode::Read).unwrap();
        let mut text = vec![0; starts.len().unwrap() as usize];
        starts.read_at(&mut text, 0).unwrap();
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains(AGAIN), "a start of another topic: {text}");
        assert_eq!(delete(&world.client, AGAIN).await, 0);
    }
    world.node.stop().await;
}

const DELETED_TOPIC: &str = "deleted";

fn directories(disk: &SimulatedDisk) -> Vec<String> {
    let entries = disk.read_dir(Path::new("/data")).unwrap();
    entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()
}

/// Deletes a topic while the power goes at the operation of that number, as counted from the deletion's first. The world
/// before it and the number of operations that the deletion takes when nothing fails.
async fn deletion_cut_at(operation: Option<u64>) -> (World, u64) {
    let mut world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["kept"])).await.error_code, 0);
    let kept = world.topic_id;
    world.topic_id = create(&world.client, DELETED_TOPIC).await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["old", "older"])).await.error_code, 0);
    world.topic_id = kept;
    let before = world.disk.operations();
    let power_off_at = operation.map(|operation| before + operation);
    world.disk.set_faults(Faults { power_off_at, ..Faults::default() });
    let _answer = delete(&world.client, DELETED_TOPIC).await;
    let operations = world.disk.operations() - before;
    (world, operations)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_cut_short_anywhere_leaves_its_topics_name_free() {
    let (world, operations) = deletion_cut_at(None).await;
    world.node.stop().await;
    let (mut set_aside, mut undone) = (0, 0);
    for operation in 1..=operations {
        for cut in [PowerCut::DropUnsynced, PowerCut::KeepAll, PowerCut::Some { seed: operation }] {
            let world = deletion_cut_at(Some(operation)).await.0.after(cut).await;
            let strays = directories(&world.disk).iter().filter(|name| name.ends_with("-stray")).count();
            assert_eq!(world.node.context.log_dirs.strays(), strays);
            set_aside += strays;
            if world.node.context.controller.image().topic(DELETED_TOPIC).is_some() {
                undone += 1;
                assert_eq!(delete(&world.client, DELETED_TOPIC).await, 0, "operation {operation}, {cut:?}");
            }
            let new = World { topic_id: create(&world.client, DELETED_TOPIC).await, ..world };
            let done = new.produce(batch_of(Producer::NONE, &["new"])).await;
            assert_eq!(
                (done.error_code, done.base_offset),
                (0, 0),
                "operation {operation}, {cut:?}: {:?}",
                directories(&new.disk)
            );
            assert_eq!(new.values().await, [(0, "new".to_owned())]);
            // What was set aside is left alone by the next start, and the new topic is as it was.
            let again = new.after(PowerCut::DropUnsynced).await;
            assert_eq!(again.values().await, [(0, "new".to_owned())]);
            assert_eq!(again.node.context.log_dirs.strays(), strays);
            again.node.stop().await;
        }
    }
    assert!(set_aside > 0 && undone > 0, "{set_aside} set aside, {undone} undone: no cut fell in between");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namesake_of_another_topic_is_set_aside_with_all_its_bytes() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["treasure"])).await.error_code, 0);
    let disk = world.disk.clone();
    let log = Path::new("/data/ledger-0/00000000000000000000.log");
    let treasure = disk.contents(log).unwrap();
    world.node.stop().await;
    // As a deletion and a new creation leave it, when the power fails between the first's record and its rename.
    let identity = Path::new("/data/ledger-0/partition.metadata");
    let file = disk.open(identity, OpenMode::CreateEmpty).unwrap();
    let other = format!("version: 0\ntopic_id: {}", TopicId(Uuid::from_u128(77)));
    file.write_vectored_at(&[IoSlice::new(other.as_bytes())], 0).unwrap();
    let (node, client) = start_on(disk.clone()).await;
    let world = World { disk: disk.clone(), node, client, topic_id: world.topic_id };
    assert_eq!(world.values().await, [], "the partition is there, and empty");
    assert_eq!(world.produce(batch_of(Producer::NONE, &["new"])).await.base_offset, 0);
    let stray = directories(&disk).into_iter().find(|name| name.ends_with("-stray")).unwrap();
    assert!(stray.starts_with("ledger-0."), "{stray}");
    let kept = disk.contents(&Path::new("/data").join(stray).join("00000000000000000000.log")).unwrap();
    assert_eq!(kept, treasure);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_metadata_nothing_is_a_stray() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["kept"])).await.error_code, 0);
    let disk = world.disk.clone();
    world.node.stop().await;
    let metadata = Path::new("/data/__cluster_metadata-0");
    for file in disk.files(metadata).unwrap() {
        disk.remove_file(&file).unwrap();
    }
    disk.remove_file(Path::new("/data/recovery-point-offset-checkpoint")).unwrap();
    let meta_properties = Path::new("/data/meta.properties");
    for _ in 0..2 {
        let error = try_start_on(disk.clone()).await.unwrap_err().to_string();
        assert!(error.contains("ledger-0") && error.contains("no metadata"), "{error}");
    }
    disk.remove_file(meta_properties).unwrap();
    for _ in 0..2 {
        let error = try_start_on(disk.clone()).await.unwrap_err().to_string();
        assert!(error.contains("meta.properties"), "{error}");
    }
    assert!(directories(&disk).contains(&"ledger-0".to_owned()));
}

/// A log that is damaged cannot be opened, and its topic can be deleted and created again all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_log_cannot_be_opened_leaves_its_name_free() {
    let world = World::start().await;
    let batch = batch_of(Producer::NONE, &["lost"]);
    assert_eq!(world.produce(batch.clone()).await.error_code, 0);
    world.node.context.partitions.by_name(TOPIC, 0).unwrap().checkpoint().unwrap();
    world.node.context.log_dirs.first().dir.checkpoint().unwrap();
    // Below the recovery point nothing may be wrong, and after a crash it is read.
    let disk = world.disk.after_power_cut(PowerCut::KeepAll);
    assert!(disk.flip_bit(Path::new("/data/ledger-0/00000000000000000000.log"), 17, 0));
    let (node, client) = start_on(disk.clone()).await;
    assert!(node.context.partitions.by_name(TOPIC, 0).is_err(), "it was opened");
    assert_eq!(delete(&client, TOPIC).await, 0);
    let topic_id = create(&client, TOPIC).await;
    assert_eq!(produce_to(&client, topic_id, &[0], batch).await, [0]);
    assert!(directories(&disk).iter().any(|name| name.ends_with("-stray")), "its bytes are still there");
    node.stop().await;
    world.node.stop().await;
}
