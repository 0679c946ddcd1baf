//! What a partition lets readers see, as its leader with and without followers, as a follower, and of a log that recovery could
//! not make durable.

use std::path::Path;
use std::time::Duration;

use firn_metadata::image;
use firn_model::broker_config::BrokerConfig;
use firn_model::broker_config::settings::ReplicaSettings;
use firn_model::ids::TopicId;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::directory::LogDirOptions;
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::simulated::{Faults, SimulatedDisk};
use firn_telemetry::metrics::Metrics;

use super::*;
use crate::disk_guard::DiskGuard;

const ROOT: &str = "/data";

fn open(disk: &SimulatedDisk) -> Result<(LogDir, PartitionLog), StorageError> {
    let identity =
        Identity { cluster_id: "cluster".to_owned(), node_id: 1, directory_id: "directory".to_owned() };
    let dir = LogDir::open(Arc::new(disk.clone()), Path::new(ROOT), &identity, LogDirOptions::default())?;
    let id = TopicId(uuid::Uuid::from_u128(1));
    let log = dir.open_log(&TopicPartition::new("snow", 0), id, Arc::new(TopicConfig::default()), 0)?;
    Ok((dir, log))
}

fn append(log: &mut PartitionLog, epoch: i32) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1, None, Some(b"flake"), &[]);
    let batches = ValidatedBatches::trusted(builder.build().unwrap()).unwrap();
    log.append(&batches.bytes, &batches.headers, epoch, AppendOrigin::Client, 1).unwrap();
}

/// A disk as a killed broker leaves it: one record is durable, and another is not.
fn left_by_a_killed_broker() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let (_dir, mut log) = open(&disk).unwrap();
    append(&mut log, 0);
    let flushed = log.checkpoint_task().unwrap().unwrap().run().unwrap();
    log.flushed(flushed);
    log.start_epoch(1);
    append(&mut log, 1);
    disk
}

/// The same, opened again while the disk is full, as far as that keeps recovery from syncing what it finds.
fn opened_on_a_full_disk() -> (SimulatedDisk, LogDir, PartitionLog) {
    for operation in 1..100 {
        let disk = left_by_a_killed_broker();
        let full_at = Some(disk.operations() + operation);
        disk.set_faults(Faults { full_at, ..Faults::default() });
        if let Ok((dir, log)) = open(&disk)
            && log.flushed_offset() < log.end_offset()
        {
            return (disk, dir, log);
        }
    }
    panic!("recovery syncs everything, whatever is short: this test has lost its ground");
}

#[tokio::test]
async fn what_recovery_could_not_sync_is_committed_once_it_is_flushed() {
    let (disk, dir, log) = opened_on_a_full_disk();
    let (flushed, end) = (log.flushed_offset(), log.end_offset());
    assert!(flushed < end);
    let partition = replica(1, &disk, dir, log);
    partition.turn(&assigned(1, 1, &[1], &[1]));
    assert_eq!(partition.offsets().unwrap().high_watermark, flushed, "a power cut may still take the rest");
    disk.set_faults(Faults::default());
    partition.flush_if_due(1);
    let committed = async {
        while partition.offsets().unwrap().high_watermark < end {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), committed).await.unwrap();
}

#[tokio::test]
async fn who_does_not_lead_takes_and_gives_nothing_until_it_leads_again() {
    let disk = SimulatedDisk::new();
    let (dir, log) = open(&disk).unwrap();
    let partition = replica(1, &disk, dir, log);
    partition.turn(&assigned(1, 3, &[1], &[1]));
    let append = || partition.append(&flake(), AppendOrigin::Client, Acks::All, 1);
    append().unwrap();
    partition.turn(&assigned(2, 4, &[2, 1], &[2]));
    assert!(matches!(append(), Err(PartitionError::NotLeader)));
    let read = || partition.read(ReadAs::Leader, 0, Isolation::ReadUncommitted, 1_000, true);
    assert!(matches!(read(), Err(PartitionError::NotLeader)));
    partition.turn(&assigned(1, 5, &[1], &[1]));
    assert_eq!(append().unwrap().appended.last_offset, 1);
    assert!(read().is_ok());
    partition.turn(&assigned(2, 4, &[2, 1], &[2]));
    assert_eq!(partition.led_in(), Some(5), "what is older than what it obeys");
    let ends = partition.with_log(|log| [3, 5].map(|epoch| log.epoch_end_offset(epoch))).unwrap();
    assert_eq!(ends, [Some((3, 1)), Some((5, 2))]);
}

/// A replica on broker `node_id`, flushed before anything is acknowledged.
fn replica(node_id: i32, disk: &SimulatedDisk, dir: LogDir, log: PartitionLog) -> Arc<Partition> {
    let guard = DiskGuard::new(Arc::new(disk.clone()), ROOT.into(), 0);
    let traffic = Metrics::new().unwrap().topic(&Arc::from("snow"));
    let config = TopicConfig { flush_messages: 1, min_insync_replicas: 2, ..TopicConfig::default() };
    let replication = Arc::new(Replication::new(node_id, LAG_MAX, Duration::ZERO));
    replication.heard_since(Instant::now(), LAG_MAX);
    Partition::open(log, Arc::new(config), Arc::new(DataDir { dir, guard }), traffic, replication)
}

const LAG_MAX: Duration = Duration::from_secs(30);

pub(super) fn assigned(leader: i32, epoch: i32, replicas: &[i32], isr: &[i32]) -> image::Partition {
    image::Partition {
        replicas: replicas.to_vec(),
        adding_replicas: Vec::new(),
        removing_replicas: Vec::new(),
        isr: isr.to_vec(),
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader,
        leader_epoch: epoch,
        partition_epoch: epoch * 10,
    }
}

pub(super) fn flake() -> ValidatedBatches {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1, None, Some(b"flake"), &[]);
    ValidatedBatches::trusted(builder.build().unwrap()).unwrap()
}

/// Replicas 1, 2 and 3 on disks of their own.
pub(super) fn three() -> [Arc<Partition>; 3] {
    [1, 2, 3].map(|node_id| {
        let disk = SimulatedDisk::new();
        let (dir, log) = open(&disk).unwrap();
        replica(node_id, &disk, dir, log)
    })
}

pub(super) fn turn_all(replicas: &[Arc<Partition>], assigned: &image::Partition) {
    replicas.iter().for_each(|replica| replica.turn(assigned));
}

/// What the follower gets that asks its leader once, as a fetcher does.
pub(super) fn ask(leader: &Arc<Partition>, follower: &Arc<Partition>) -> ReplicaRead {
    let at = follower.position(leader.replication.node_id).unwrap();
    let fetch = ReplicaFetch {
        replica: follower.replication.node_id,
        broker_epoch: 0,
        leader_epoch: at.leader_epoch,
        from: at.offset,
        last_epoch: at.last_epoch,
        log_start: at.log_start,
    };
    leader.read_for_replica(fetch, 1_000, true).unwrap()
}

/// The same, and it takes in what it gets; true when it got records.
async fn fetch(leader: &Arc<Partition>, follower: &Arc<Partition>) -> bool {
    let at = follower.position(leader.replication.node_id).unwrap();
    let offsets = match ask(leader, follower) {
        ReplicaRead::Records(offsets, slice) => {
            let bytes = slice.read().unwrap();
            if let Some(awaited) = follower.append_fetched(at.leader_epoch, &bytes, 1).unwrap() {
                awaited.await.unwrap().unwrap();
            }
            let (committed, start) = (offsets.high_watermark, offsets.log_start);
            if let Some(start) = follower.follow_offsets(at.leader_epoch, committed, start).unwrap() {
                follower.follow_log_start(at.leader_epoch, start).unwrap();
            }
            return !bytes.is_empty();
        }
        ReplicaRead::Diverged(offsets, parts_at) => {
            follower.cut(at.leader_epoch, parts_at).unwrap();
            offsets
        }
        ReplicaRead::OutOfRange(offsets) => {
            follower.begin_at(at.leader_epoch, offsets.log_start).unwrap();
            offsets
        }
        ReplicaRead::InTier(offsets) => {
            let start = leader.local_start(at.leader_epoch).unwrap();
            follower.begin_at_local_start(at.leader_epoch, &start).unwrap();
            offsets
        }
        ReplicaRead::HeldBack(..) => return false,
    };
    assert!(offsets.log_end >= offsets.high_watermark);
    true
}

pub(super) async fn catch_up(leader: &Arc<Partition>, follower: &Arc<Partition>) {
    while fetch(leader, follower).await {}
}

pub(super) fn high_watermarks(replicas: &[Arc<Partition>]) -> Vec<i64> {
    replicas.iter().map(|replica| replica.offsets().unwrap().high_watermark).collect()
}

pub(super) fn contents(replica: &Partition) -> Vec<u8> {
    let slice = replica.with_log(|log| log.read(log.log_start_offset(), log.end_offset(), 100_000, true));
    slice.unwrap().unwrap().read().unwrap().to_vec()
}

#[tokio::test]
async fn records_are_committed_once_all_in_sync_have_them_on_their_disks() {
    let replicas = three();
    let [one, two, three] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
    let all = one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap().awaited.unwrap();
    let own = one.append(&flake(), AppendOrigin::Client, Acks::Leader, 1).unwrap().awaited.unwrap();
    assert!(one.append(&flake(), AppendOrigin::Client, Acks::None, 1).unwrap().awaited.is_none());
    own.await.unwrap().unwrap();
    catch_up(one, two).await;
    assert_eq!(high_watermarks(&replicas), [0, 0, 0]);
    catch_up(one, three).await;
    all.await.unwrap().unwrap();
    assert_eq!(high_watermarks(&replicas), [3, 0, 3]);
    fetch(one, two).await;
    assert_eq!(high_watermarks(&replicas), [3, 3, 3]);
    assert_eq!(contents(one), contents(two));
    assert_eq!(contents(one), contents(three));
    let read = two.read(ReadAs::Leader, 0, Isolation::ReadUncommitted, 1_000, true);
    assert!(matches!(read, Err(PartitionError::NotLeader)));
}

#[tokio::test]
async fn with_too_few_in_sync_nothing_is_taken_that_all_are_to_have() {
    let replicas = three();
    let [one, two, _] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1]));
    let refused = one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap_err();
    assert!(matches!(refused, PartitionError::NotEnoughReplicas { in_sync: 1, wanted: 2 }), "{refused}");
    let own = one.append(&flake(), AppendOrigin::Client, Acks::Leader, 1).unwrap().awaited.unwrap();
    own.await.unwrap().unwrap();
    assert_eq!(high_watermarks(&replicas), [0, 0, 0], "one disk may be lost");
    catch_up(one, two).await;
    let may_join = |replica| replica == (2, 0);
    let (leader_epoch, partition_epoch, report) = one.in_sync_report(may_join).unwrap();
    assert_eq!((leader_epoch, partition_epoch, report.isr), (1, 10, vec![(1, -1), (2, 0)]));
    one.turn(&image::Partition { partition_epoch: 11, ..assigned(1, 1, &[1, 2, 3], &[1, 2]) });
    assert!(one.in_sync_report(may_join).is_none());
    assert_eq!(high_watermarks(&replicas)[0], 1);
    one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
}

/// Another may lead by then, whose records it does not have.
#[tokio::test]
async fn a_leader_that_is_out_of_touch_with_the_controller_takes_and_gives_nothing() {
    let replicas = three();
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
    let append = || replicas[0].append(&flake(), AppendOrigin::Client, Acks::Leader, 1);
    append().unwrap();
    replicas[0].replication.heard_since(Instant::now(), Duration::ZERO);
    assert!(matches!(append(), Err(PartitionError::NotLeader)));
    assert!(matches!(
        replicas[0].read(ReadAs::Leader, 0, Isolation::ReadUncommitted, 1_000, true),
        Err(PartitionError::NotLeader)
    ));
    assert_eq!(replicas[0].led_in(), None);
    replicas[0].replication.heard_since(Instant::now(), LAG_MAX);
    append().unwrap();
}

#[tokio::test]
async fn who_lacks_more_than_the_leader_has_begins_anew_at_its_start() {
    let replicas = three();
    let [one, two, _] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 3]));
    for _ in 0..3 {
        let awaited = one.append(&flake(), AppendOrigin::Client, Acks::Leader, 1).unwrap().awaited;
        awaited.unwrap().await.unwrap().unwrap();
    }
    catch_up(one, &replicas[2]).await;
    fetch(one, two).await;
    one.with_log(|log| log.delete_records_before(2)).unwrap().unwrap();
    two.with_log(|log| log.truncate_to(0)).unwrap().unwrap();
    catch_up(one, two).await;
    assert_eq!(two.offsets().unwrap(), one.offsets().unwrap());
    one.with_log(|log| log.delete_records_before(3)).unwrap().unwrap();
    fetch(one, two).await;
    assert_eq!(two.offsets().unwrap().log_start, 3, "it follows");
}

#[tokio::test]
async fn a_fetch_of_another_epoch_or_of_no_replica_counts_for_nothing() {
    let replicas = three();
    turn_all(&replicas, &assigned(1, 5, &[1, 2], &[1, 2]));
    let right =
        ReplicaFetch { replica: 2, broker_epoch: 0, leader_epoch: 5, from: 0, last_epoch: -1, log_start: 0 };
    let refused = |fetch| replicas[0].read_for_replica(fetch, 1_000, true).unwrap_err();
    let old = refused(ReplicaFetch { leader_epoch: 4, ..right });
    assert!(matches!(old, PartitionError::FencedLeaderEpoch { ours: 5, theirs: 4 }), "{old}");
    let new = refused(ReplicaFetch { leader_epoch: 6, ..right });
    assert!(matches!(new, PartitionError::UnknownLeaderEpoch { ours: 5, theirs: 6 }), "{new}");
    let other = refused(ReplicaFetch { replica: 3, ..right });
    assert!(matches!(other, PartitionError::NotReplica(3)), "{other}");
    let not_leading = replicas[1].read_for_replica(right, 1_000, true).unwrap_err();
    assert!(matches!(not_leading, PartitionError::NotLeader), "{not_leading}");
}

#[tokio::test]
async fn what_arrived_damaged_is_not_kept() {
    let replicas = three();
    let [one, two, _] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2], &[1, 2]));
    one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
    let mut bytes = contents(one);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let damaged = two.append_fetched(1, &bytes.into(), 1).unwrap_err();
    assert!(matches!(damaged, PartitionError::Fetched(_)), "{damaged}");
    assert_eq!(two.offsets().unwrap().log_end, 0);
}

/// What an earlier leader has sent may be on the disk and not flushed when the next one is followed, which has other records
/// there.
#[tokio::test]
async fn what_lies_at_the_same_offsets_and_is_of_another_leader_goes() {
    let replicas = three();
    let [one, two, three] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
    one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
    catch_up(one, two).await;
    catch_up(one, three).await;
    one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
    let only = one.with_log(|log| log.read(1, 2, 1_000, true)).unwrap().unwrap().read().unwrap();
    // Nobody waits for its flush, which has not even begun.
    drop(two.append_fetched(1, &only, 1).unwrap());
    turn_all(&replicas, &assigned(3, 2, &[1, 2, 3], &[3, 2]));
    for _ in 0..2 {
        three.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
    }
    let all = contents(three);
    let at = two.position(3).unwrap();
    assert_eq!((at.offset, at.last_epoch), (1, 1), "it vouches for what is flushed");
    let newer = three.with_log(|log| log.read(1, 3, 1_000, true)).unwrap().unwrap().read().unwrap();
    two.append_fetched(2, &newer, 1).unwrap().unwrap().await.unwrap().unwrap();
    assert_eq!(contents(two), all);
    // Again, as after an answer that came late: nothing is new.
    assert!(two.append_fetched(2, &newer, 1).unwrap().is_none());
    assert_eq!(contents(two), all);
}

/// By the time that an answer is sent, the leader that was asked may be another one's follower.
#[tokio::test]
async fn records_of_a_later_leader_are_not_taken_from_an_earlier_one() {
    let replicas = three();
    let [one, two, _] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2], &[1, 2]));
    one.turn(&assigned(1, 2, &[1, 2], &[1]));
    one.append(&flake(), AppendOrigin::Client, Acks::Leader, 1).unwrap();
    let late = two.append_fetched(1, &contents(one).into(), 1).unwrap_err();
    assert!(matches!(late, PartitionError::FencedLeaderEpoch { .. }), "{late}");
}

#[tokio::test]
async fn a_follower_begins_within_a_batch_where_the_leader_does() {
    let replicas = three();
    let [one, two, _] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2], &[1]));
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for _ in 0..10 {
        builder.push(1, None, Some(b"flake"), &[]);
    }
    let ten = ValidatedBatches::trusted(builder.build().unwrap()).unwrap();
    let awaited = one.append(&ten, AppendOrigin::Client, Acks::Leader, 1).unwrap().awaited;
    awaited.unwrap().await.unwrap().unwrap();
    one.with_log(|log| log.delete_records_before(5)).unwrap().unwrap();
    catch_up(one, two).await;
    assert_eq!(two.offsets().unwrap().log_start, 5);
    assert_eq!(two.offsets().unwrap().log_end, 10);
    let whole = |partition: &Partition| {
        let slice = partition.with_log(|log| log.read(5, 10, 1_000, true)).unwrap().unwrap();
        (slice.base_offset, slice.read().unwrap())
    };
    assert_eq!(whole(one), whole(two));
}

#[tokio::test]
async fn records_are_deleted_once_every_replica_in_sync_has_done_so() {
    let replicas = three();
    let [one, two, three] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
    one.append(&flake(), AppendOrigin::Client, Acks::All, 1).unwrap();
    for follower in [two, three, two, three] {
        catch_up(one, follower).await;
    }
    let mut deleted = one.delete_before(1).unwrap().unwrap();
    for follower in [two, three, two] {
        fetch(one, follower).await;
    }
    assert!(deleted.try_recv().is_err(), "the leader has not heard of one of them");
    fetch(one, three).await;
    deleted.await.unwrap().unwrap();
    assert_eq!([two, three].map(|follower| follower.offsets().unwrap().log_start), [1, 1]);
    assert!(one.delete_before(1).unwrap().is_none());
}

#[tokio::test]
async fn a_leader_holds_back_a_throttled_follower_that_is_out_of_sync_and_no_other() {
    let replicas = three();
    let one = &replicas[0];
    turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2]));
    one.append(&flake(), AppendOrigin::Client, Acks::None, 1).unwrap();
    one.append(&flake(), AppendOrigin::Client, Acks::None, 1).unwrap();
    let read = |replica, from| {
        let last_epoch = if from == 0 { -1 } else { 1 };
        let fetch =
            ReplicaFetch { replica, broker_epoch: 0, leader_epoch: 1, from, last_epoch, log_start: 0 };
        one.read_for_replica(fetch, 1, true).unwrap()
    };
    let gets = |replica, from| match read(replica, from) {
        ReplicaRead::Records(_, slice) => Ok(slice.len),
        ReplicaRead::HeldBack(_, until) => Err(until),
        other => panic!("{other:?}"),
    };
    let throttle = |throttled: &[(i32, i32)]| {
        let throttled = throttled.iter().copied().collect();
        let config =
            TopicConfig { leader_replication_throttled_replicas: throttled, ..one.config().as_ref().clone() };
        one.update_config(Arc::new(config));
    };
    let set_rate = |leader_throttled_rate| {
        let settings = ReplicaSettings { leader_throttled_rate, ..BrokerConfig::default().replica };
        one.replication.throttles.set(&settings);
    };
    let began = Instant::now();
    set_rate(1);
    throttle(&[(0, 2), (0, 3), (1, 1)]);
    let batch = gets(3, 0).unwrap();
    assert_eq!((gets(3, 1), gets(2, 0)), (Ok(batch), Ok(batch)), "throttled is what other brokers lead");
    assert_eq!(one.replication.throttles.leader.bytes(), 0);

    throttle(&[(0, 1)]);
    assert_eq!(gets(3, 0), Ok(batch), "the first goes, though it is more than a second's worth");
    let wait = Duration::from_secs(batch as u64);
    let until = gets(3, 1).unwrap_err();
    assert!((began + wait..=Instant::now() + wait).contains(&until), "a byte a second");
    assert_eq!((gets(2, 0), gets(2, 1)), (Ok(batch), Ok(batch)), "it is in sync");
    assert_eq!(one.replication.throttles.leader.bytes(), 3 * batch as u64);
    assert_eq!(gets(3, 2), Ok(0), "there is nothing to hold back");
    assert!(gets(3, 1).is_err());
    set_rate(2);
    assert_eq!(gets(3, 1), Ok(batch), "by another rate nothing is owed");
    assert!(gets(3, 1).is_err());
    throttle(&[]);
    assert_eq!(gets(3, 1), Ok(batch), "it is throttled no more");
}

/// It has begun anew perhaps, or a client asks it that has not heard of its successor.
#[tokio::test]
async fn a_follower_that_lacks_an_offset_sends_its_readers_to_the_leader() {
    let replicas = three();
    let [one, two, _] = &replicas;
    turn_all(&replicas, &assigned(1, 1, &[1, 2], &[1, 2]));
    let read = |of: &Arc<Partition>| of.read(ReadAs::Replica, 5, Isolation::ReadUncommitted, 1 << 20, true);
    assert!(matches!(read(two), Err(PartitionError::NotLeader)));
    let known = read(one).unwrap_err();
    assert!(matches!(known, PartitionError::Read(ReadError::OffsetOutOfRange { .. })), "{known}");
}
