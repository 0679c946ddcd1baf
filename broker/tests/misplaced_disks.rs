//! Disks that are not what a broker takes them for: another cluster's, a copy from before, a copy beside the original, one
//! that was wiped, one whose metadata have rotted. Whoever has one is refused, or begins anew; the others go on, and lose nothing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;
mod votes;

use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::time::Duration;

use brokers::{Cluster, NOT_CONTROLLER, controller, free_ports, stop_all, wait_for, wait_for_answer};
use firn::node::{Node, StartError, Stopped};
use firn_records::batch::batches;
use firn_storage::disk::{Disk, OpenMode};
use firn_storage::simulated::{PowerCut, SimulatedDisk};
use replicas::{TOPIC, leader, produce, replicated, state};
use topics::create_replicated;
use uuid::Uuid;
use votes::{directory, give, members, set, take_vote};

const ALL: [usize; 3] = [0, 1, 2];
const SECOND: &str = "/more";
const METADATA: &str = "/data/__cluster_metadata-0";

fn copy(disk: &SimulatedDisk) -> SimulatedDisk {
    disk.after_power_cut(PowerCut::KeepAll)
}

fn take(nodes: &mut Vec<Node>, id: usize) -> Node {
    let at = nodes.iter().position(|node| node.context.node_id == id as i32).unwrap();
    nodes.remove(at)
}

/// Why a broker does not start.
fn refusal(started: Result<Node, StartError>) -> String {
    started.err().unwrap().to_string()
}

/// Writes one record with acks=all to whoever leads.
async fn write(cluster: &Cluster, nodes: &[Node], topic: Uuid, value: &str) -> i64 {
    let leads = leader(nodes, topic).await;
    let client = cluster.connect(nodes[leads].context.node_id as usize).await;
    let told = produce(&client, topic, -1, value).await;
    assert_eq!(told.error_code, 0, "{:?}", told.error_message);
    told.base_offset
}

async fn in_sync(nodes: &[Node], topic: Uuid, count: usize) {
    let look = || state(&nodes[0], topic).filter(|now| now.isr.len() == count);
    wait_for("replicas in sync", look).await;
}

async fn replicated_topic(cluster: &Cluster) -> Uuid {
    create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &[("min.insync.replicas", "2")]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_another_cluster_is_refused() {
    let mut cluster = Cluster::new(3);
    let other = Cluster::new(3);
    stop_all(other.start_all().await).await;
    let mut nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    assert_eq!(write(&cluster, &nodes, topic, "before").await, 0);
    take(&mut nodes, 1).stop().await;
    let own = std::mem::replace(&mut cluster.disks[1], copy(&other.disks[1]));
    let error = refusal(cluster.start(1, &ALL).await);
    assert!(error.contains("is of the cluster") && error.contains("log.dirs"), "{error}");
    assert_eq!(write(&cluster, &nodes, topic, "meanwhile").await, 1);
    cluster.disks[1] = own;
    nodes.push(cluster.start(1, &ALL).await.unwrap());
    replicated(&nodes, 2).await;
    in_sync(&nodes, topic, 3).await;
    stop_all(nodes).await;
}

/// It was stopped in an orderly way when it was copied, so nothing on it says that anything is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_from_before_is_refused_although_it_was_the_last_in_sync() {
    let mut cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    assert_eq!(write(&cluster, &nodes, topic, "in the copy").await, 0);
    replicated(&nodes, 1).await;
    assert_eq!(take(&mut nodes, 2).stop().await, Stopped::Cleanly);
    let old = copy(&cluster.disks[2]);
    nodes.push(cluster.start(2, &ALL).await.unwrap());
    in_sync(&nodes, topic, 3).await;
    assert_eq!(write(&cluster, &nodes, topic, "not in the copy").await, 1);
    replicated(&nodes, 2).await;
    // The one whose disk is replaced goes last.
    for id in [0, 1, 2] {
        assert_eq!(take(&mut nodes, id).stop().await, Stopped::Cleanly);
    }
    let own = std::mem::replace(&mut cluster.disks[2], old);
    let (zero, one) = tokio::join!(cluster.start(0, &ALL), cluster.start(1, &ALL));
    let mut nodes = vec![zero.unwrap(), one.unwrap()];
    let error = refusal(cluster.start(2, &ALL).await);
    assert!(error.contains("/data") && error.contains("from before"), "{error}");
    // The other that had all of it leads.
    wait_for("another leader", || state(&nodes[0], topic).filter(|now| now.leader == 1)).await;
    cluster.disks[2] = own;
    nodes.push(cluster.start(2, &ALL).await.unwrap());
    in_sync(&nodes, topic, 3).await;
    replicated(&nodes, 2).await;
    assert_eq!(write(&cluster, &nodes, topic, "after").await, 2);
    stop_all(nodes).await;
}

fn empty(disk: &SimulatedDisk, directory: &str) {
    for file in disk.files(Path::new(directory)).unwrap() {
        disk.remove_file(&file).unwrap();
    }
}

/// The metadata lie in the other one of two, which is what it should be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_one_directory_is_refused_and_an_empty_one_is_not() {
    let mut cluster = Cluster::new(3);
    cluster.more = format!("log.dirs=/data,{SECOND}\n");
    let mut nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    assert_eq!(write(&cluster, &nodes, topic, "in the copy").await, 0);
    take(&mut nodes, 1).stop().await;
    let old = copy(&cluster.disks[1]);
    nodes.push(cluster.start(1, &ALL).await.unwrap());
    in_sync(&nodes, topic, 3).await;
    assert_eq!(write(&cluster, &nodes, topic, "not in the copy").await, 1);
    take(&mut nodes, 1).stop().await;
    let disk = &cluster.disks[1];
    empty(disk, SECOND);
    for file in old.files(Path::new(SECOND)).unwrap() {
        let bytes = old.contents(&file).unwrap();
        let copied = disk.open(&file, OpenMode::CreateEmpty).unwrap();
        assert_eq!(copied.write_vectored_at(&[IoSlice::new(&bytes)], 0).unwrap(), bytes.len());
        copied.sync_data().unwrap();
    }
    let error = refusal(cluster.start(1, &ALL).await);
    assert!(error.contains(SECOND) && error.contains("from before"), "{error}");
    empty(disk, SECOND);
    nodes.push(cluster.start(1, &ALL).await.unwrap());
    in_sync(&nodes, topic, 3).await;
    replicated(&nodes, 2).await;
    stop_all(nodes).await;
}

/// It was taken while the broker ran, of the same incarnation. What the broker had acknowledged of the metadata since gives it away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_broker_vouches_for_nothing_until_it_has_caught_up() {
    let mut cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    assert_eq!(write(&cluster, &nodes, topic, "in the copy").await, 0);
    let copied = (controller(&nodes).await + 1) % 3;
    let copied = nodes[copied].context.node_id as usize;
    let old = copy(&cluster.disks[copied]);
    create_replicated(&cluster.connect(0).await, "later", 1, 3, &[]).await;
    assert_eq!(write(&cluster, &nodes, topic, "not in the copy").await, 1);
    replicated(&nodes, 2).await;
    take(&mut nodes, copied).stop().await;
    cluster.disks[copied] = old;
    let node = cluster.start(copied, &ALL).await.unwrap();
    assert!(node.context.membership.places().is_robbed());
    assert_ne!(state(&node, topic).unwrap().leader, copied as i32);
    nodes.push(node);
    in_sync(&nodes, topic, 3).await;
    replicated(&nodes, 2).await;
    stop_all(nodes).await;
}

/// All lose their power at the same time. One comes back with a copy that was taken while it ran, of the same incarnation, and nobody
/// remembers what it had acknowledged: its marks give it away, before it leads and the other cuts its log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_of_a_running_broker_costs_nothing_although_nobody_remembers_it() {
    let mut cluster = Cluster::new(3);
    cluster.more = "firn.log.dir.mark.interval.ms=50\n".to_owned();
    let nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    let marked = async |more_than: u64| {
        let marks = |node: &Node| node.context.controller.image().broker(2).map(|broker| broker.marks);
        let known = || nodes.iter().filter_map(marks).min().filter(|marks| *marks > more_than);
        wait_for("a mark that all know of", known).await
    };
    assert_eq!(write(&cluster, &nodes, topic, "in the copy").await, 0);
    let before = marked(0).await;
    let old = copy(&cluster.disks[2]);
    assert_eq!(write(&cluster, &nodes, topic, "not in the copy").await, 1);
    replicated(&nodes, 2).await;
    marked(before).await;
    let disks: Vec<_> =
        cluster.disks.iter().map(|disk| disk.after_power_cut(PowerCut::DropUnsynced)).collect();
    stop_all(nodes).await;
    cluster.disks = disks;
    cluster.disks[2] = old;
    // The others leave the replicas in sync until they have caught up: the last to come is the last in sync.
    let (zero, one) = tokio::join!(cluster.start(0, &ALL), cluster.start(1, &ALL));
    let nodes = vec![zero.unwrap(), one.unwrap(), cluster.start(2, &ALL).await.unwrap()];
    assert!(nodes[2].context.membership.places().is_robbed());
    in_sync(&nodes, topic, 3).await;
    assert_eq!(write(&cluster, &nodes, topic, "after").await, 2, "what was acknowledged is before it");
    replicated(&nodes, 3).await;
    stop_all(nodes).await;
}

/// What the copy lacks only one other has. It is not to give its vote to the third, which lacks it, too, although all three start at the
/// same time, and nobody knows of a controller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_from_before_is_refused_when_all_start_at_once() {
    let mut cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    assert_eq!(write(&cluster, &nodes, topic, "everywhere").await, 0);
    replicated(&nodes, 1).await;
    take(&mut nodes, 2).stop().await;
    take(&mut nodes, 1).stop().await;
    let old = copy(&cluster.disks[1]);
    nodes.push(cluster.start(1, &ALL).await.unwrap());
    in_sync(&nodes, topic, 2).await;
    assert_eq!(write(&cluster, &nodes, topic, "on two").await, 1);
    create_replicated(&cluster.connect(0).await, "known-to-two", 1, 2, &[]).await;
    stop_all(nodes).await;
    let own = std::mem::replace(&mut cluster.disks[1], old);
    let starts = tokio::join!(cluster.start(1, &ALL), cluster.start(2, &ALL), cluster.start(0, &ALL));
    let error = refusal(starts.0);
    assert!(error.contains("/data") && error.contains("from before"), "{error}");
    let mut nodes = vec![starts.1.unwrap(), starts.2.unwrap()];
    assert!(nodes.iter().all(|node| node.context.controller.image().topic("known-to-two").is_some()));
    in_sync(&nodes, topic, 2).await;
    assert_eq!(write(&cluster, &nodes, topic, "after").await, 2);
    cluster.disks[1] = own;
    nodes.push(cluster.start(1, &ALL).await.unwrap());
    in_sync(&nodes, topic, 3).await;
    replicated(&nodes, 3).await;
    stop_all(nodes).await;
}

/// Votes have moved to brokers that are not listed. Of these one other has what the copy lacks; those that are listed, and the third that
/// votes, were away. So nobody of them may be believed that nothing is known against the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_from_before_is_refused_by_those_that_have_the_votes_now() {
    let mut cluster = Cluster::new(6);
    let mut nodes = cluster.start_listed(&ALL).await;
    let client = cluster.connect(5).await;
    for id in 3..6 {
        assert_eq!(give(&client, id, directory(&nodes[id as usize])).await, (0, String::new()));
    }
    for id in 0..3 {
        // The controller that has lost its vote before may be handing its part over.
        let answered = async || {
            let (code, _) = take_vote(&client, id, directory(&nodes[id as usize])).await;
            (code != NOT_CONTROLLER).then_some(())
        };
        wait_for_answer("a controller", answered).await;
        members(&nodes, (id + 1..6).collect(), (0..=id).collect()).await;
    }
    for id in [0, 1, 2, 5, 4] {
        take(&mut nodes, id).stop().await;
    }
    let old = copy(&cluster.disks[4]);
    nodes.push(cluster.start(4, &ALL).await.unwrap());
    create_replicated(&cluster.connect(3).await, "known-to-two", 1, 1, &[]).await;
    stop_all(nodes).await;
    let own = std::mem::replace(&mut cluster.disks[4], old);
    let mut copied = Box::pin(cluster.start(4, &ALL));
    let away = [0, 1, 2, 5].map(|id| cluster.start(id, &ALL));
    let mut away = Box::pin(futures_util::future::join_all(away));
    let elected = async {
        tokio::select! {
            _ = &mut copied => "the copy",
            _ = &mut away => "the others",
        }
    };
    let elected = tokio::time::timeout(Duration::from_secs(2), elected).await;
    assert!(elected.is_err(), "started, or ended, without the only one that knows: {elected:?}");
    let (copied, away, last) = tokio::join!(copied, away, cluster.start(3, &ALL));
    let error = refusal(copied);
    assert!(error.contains("/data") && error.contains("from before"), "{error}");
    let mut nodes: Vec<Node> = away.into_iter().chain([last]).map(Result::unwrap).collect();
    assert!(nodes.iter().all(|node| node.context.controller.image().topic("known-to-two").is_some()));
    cluster.disks[4] = own;
    nodes.push(cluster.start(4, &ALL).await.unwrap());
    members(&nodes, set([3, 4, 5]), set([0, 1, 2])).await;
    stop_all(nodes).await;
}

/// It has the vote of the original, and hears nothing of what the original is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_beside_the_original_is_refused() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    assert_eq!(write(&cluster, &nodes, topic, "before").await, 0);
    let epoch = nodes[1].context.replication.broker_epoch();
    let port = free_ports(1)[0];
    let error = refusal(cluster.start_at(1, &ALL, port, &copy(&cluster.disks[1])).await);
    assert!(error.contains("broker 1") && error.contains("another process"), "{error}");
    assert_eq!(write(&cluster, &nodes, topic, "after").await, 1);
    assert_eq!(nodes[1].context.replication.broker_epoch(), epoch);
    in_sync(&nodes, topic, 3).await;
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_of_one_broker_id_is_refused() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    let port = free_ports(1)[0];
    let error = refusal(cluster.start_at(1, &ALL, port, &SimulatedDisk::new()).await);
    assert!(error.contains("node.id") && error.contains("another process"), "{error}");
    assert_eq!(write(&cluster, &nodes, topic, "after").await, 0);
    in_sync(&nodes, topic, 3).await;
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_disk_vouches_for_nothing_and_is_filled_again() {
    let mut cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    for number in 0..3 {
        assert_eq!(write(&cluster, &nodes, topic, "kept").await, number);
    }
    let wiped = leader(&nodes, topic).await;
    let wiped = nodes[wiped].context.node_id as usize;
    take(&mut nodes, wiped).stop().await;
    cluster.disks[wiped] = SimulatedDisk::new();
    let node = cluster.start(wiped, &ALL).await.unwrap();
    let now = state(&node, topic).unwrap();
    assert_ne!(now.leader, wiped as i32, "{now:?}");
    nodes.push(node);
    in_sync(&nodes, topic, 3).await;
    replicated(&nodes, 3).await;
    assert_eq!(write(&cluster, &nodes, topic, "after").await, 3);
    stop_all(nodes).await;
}

/// Three that vote, and one that observes, of a topic that all of them have.
async fn with_an_observer() -> (Cluster, Vec<Node>, Uuid) {
    let cluster = Cluster::new(4);
    let nodes = cluster.start_listed(&ALL).await;
    let client = cluster.connect(0).await;
    let topic = create_replicated(&client, TOPIC, 1, 4, &[("min.insync.replicas", "2")]).await;
    assert_eq!(write(&cluster, &nodes, topic, "before").await, 0);
    replicated(&nodes, 1).await;
    (cluster, nodes, topic)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_with_a_wiped_disk_is_another_member_and_is_filled_again() {
    let (mut cluster, mut nodes, topic) = with_an_observer().await;
    let before = directory(&nodes[3]);
    take(&mut nodes, 3).stop().await;
    assert_eq!(write(&cluster, &nodes, topic, "meanwhile").await, 1);
    cluster.disks[3] = SimulatedDisk::new();
    let node = cluster.start(3, &ALL).await.unwrap();
    let now = directory(&node);
    assert_ne!(now, before);
    let has_all = || {
        let is_in_sync = state(&nodes[0], topic)?.isr.contains(&3);
        // Whatever the controller counts it as, it has.
        let end_offset = replicas::replica(&node).with_log(|log| log.end_offset()).unwrap();
        assert!(!is_in_sync || end_offset == 2, "in sync with {end_offset} of 2 records");
        is_in_sync.then_some(())
    };
    wait_for("it has caught up", has_all).await;
    nodes.push(node);
    members(&nodes, set([0, 1, 2]), set([3])).await;
    let leads = controller(&nodes).await;
    let observers = nodes[leads].context.controller.members().unwrap().observers;
    let now = firn_model::ids::TopicId(now).to_string();
    assert!(observers.iter().all(|known| known.member.directory_id == now), "{observers:?} {now}");
    replicated(&nodes, 2).await;
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_with_a_disk_of_another_cluster_is_refused() {
    let (mut cluster, mut nodes, topic) = with_an_observer().await;
    let (other, others, _) = with_an_observer().await;
    stop_all(others).await;
    take(&mut nodes, 3).stop().await;
    let own = std::mem::replace(&mut cluster.disks[3], copy(&other.disks[3]));
    let error = refusal(cluster.start(3, &ALL).await);
    assert!(error.contains("is of the cluster") && error.contains("log.dirs"), "{error}");
    assert_eq!(write(&cluster, &nodes, topic, "meanwhile").await, 1);
    cluster.disks[3] = own;
    nodes.push(cluster.start(3, &ALL).await.unwrap());
    in_sync(&nodes, topic, 4).await;
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_with_a_copy_from_before_is_refused() {
    let (mut cluster, mut nodes, topic) = with_an_observer().await;
    assert_eq!(take(&mut nodes, 3).stop().await, Stopped::Cleanly);
    let old = copy(&cluster.disks[3]);
    nodes.push(cluster.start(3, &ALL).await.unwrap());
    in_sync(&nodes, topic, 4).await;
    assert_eq!(write(&cluster, &nodes, topic, "not in the copy").await, 1);
    assert_eq!(take(&mut nodes, 3).stop().await, Stopped::Cleanly);
    let own = std::mem::replace(&mut cluster.disks[3], old);
    let error = refusal(cluster.start(3, &ALL).await);
    assert!(error.contains("/data") && error.contains("from before"), "{error}");
    cluster.disks[3] = own;
    nodes.push(cluster.start(3, &ALL).await.unwrap());
    in_sync(&nodes, topic, 4).await;
    replicated(&nodes, 2).await;
    stop_all(nodes).await;
}

/// It knows of the same incarnation, and is at another address.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_beside_an_observer_is_refused() {
    let (cluster, nodes, topic) = with_an_observer().await;
    let epoch = nodes[3].context.replication.broker_epoch();
    let port = free_ports(1)[0];
    let error = refusal(cluster.start_at(3, &ALL, port, &copy(&cluster.disks[3])).await);
    let place = format!("broker 3 at 127.0.0.1:{}", cluster.port(3));
    assert!(error.contains(&place) && error.contains("node.id"), "{error}");
    assert_eq!(write(&cluster, &nodes, topic, "after").await, 1);
    replicated(&nodes, 2).await;
    assert_eq!(nodes[3].context.replication.broker_epoch(), epoch);
    stop_all(nodes).await;
}

fn metadata_segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let files = disk.files(Path::new(METADATA)).unwrap();
    files.into_iter().filter(|path| path.extension().is_some_and(|found| found == "log")).collect()
}

/// Flips a bit in the middle of the metadata log, of what an entry's checksum covers.
fn rot(disk: &SimulatedDisk) {
    let segment = metadata_segments(disk).into_iter().max_by_key(|path| disk.contents(path).unwrap().len());
    let segment = segment.unwrap();
    let bytes = disk.contents(&segment).unwrap();
    let mut ends = batches(&bytes).scan(0, |end, batch| {
        *end += batch.unwrap().1.len();
        Some(*end)
    });
    let end = ends.find(|end| *end > bytes.len() / 2).unwrap();
    assert!(disk.flip_bit(&segment, end as u64 - 2, 3));
}

/// A cluster of which one broker has stopped, in an orderly way or not, and its metadata have rotted meanwhile.
async fn with_rotten_metadata(cleanly: bool) -> (Cluster, Vec<Node>, usize, Uuid) {
    let mut cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let topic = replicated_topic(&cluster).await;
    assert_eq!(write(&cluster, &nodes, topic, "before").await, 0);
    replicated(&nodes, 1).await;
    let rotten = (controller(&nodes).await + 1) % 3;
    let rotten = nodes[rotten].context.node_id as usize;
    let killed = copy(&cluster.disks[rotten]);
    take(&mut nodes, rotten).stop().await;
    if !cleanly {
        cluster.disks[rotten] = killed;
    }
    rot(&cluster.disks[rotten]);
    (cluster, nodes, rotten, topic)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotten_metadata_stop_their_broker_alone() {
    let (mut cluster, mut nodes, rotten, topic) = with_rotten_metadata(true).await;
    let error = refusal(cluster.start(rotten, &ALL).await);
    assert!(error.contains("metadata log") && error.contains("empty directory"), "{error}");
    assert_eq!(write(&cluster, &nodes, topic, "meanwhile").await, 1);
    cluster.disks[rotten] = SimulatedDisk::new();
    nodes.push(cluster.start(rotten, &ALL).await.unwrap());
    in_sync(&nodes, topic, 3).await;
    replicated(&nodes, 2).await;
    stop_all(nodes).await;
}

/// After a kill the log is cut where it is not whole, as a torn end is: what was there comes back from the controller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_that_were_cut_come_back_and_the_controller_goes_on() {
    let (cluster, mut nodes, rotten, topic) = with_rotten_metadata(false).await;
    let leads = controller(&nodes).await;
    let term = nodes[leads].context.controller.progress().term;
    nodes.push(cluster.start(rotten, &ALL).await.unwrap());
    in_sync(&nodes, topic, 3).await;
    assert_eq!(write(&cluster, &nodes, topic, "after").await, 1);
    replicated(&nodes, 2).await;
    let now = nodes[leads].context.controller.progress();
    assert!(now.leads && now.term == term, "the controller goes on: {now:?}");
    assert!(nodes[2].context.membership.places().is_robbed(), "it knows that it had more");
    let image = nodes[leads].context.controller.image();
    wait_for("the same metadata everywhere", || {
        nodes.iter().all(|node| node.context.controller.image() == image).then_some(())
    })
    .await;
    stop_all(nodes).await;
}
