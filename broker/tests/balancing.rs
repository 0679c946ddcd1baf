//! Brokers in one process, among which leaders and replicas are kept even; which are emptied, and which are lost and replaced: under
//! load, and nothing that was acknowledged is missing then.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brokers::{Cluster, controller, stop_all, wait_for};
use firn::node::Node;
use firn_client::configs::{self, Resource};
use firn_metadata::image::Partition;
use firn_records::batch::{HEADER_LENGTH, batches};
use firn_records::record::records;
use replicas::{TOPIC, produce_to};
use tokio::task::JoinHandle;
use topics::create_replicated;
use uuid::Uuid;

const PARTITIONS: i32 = 6;

/// All partitions of a topic, as this broker knows them.
fn partitions(node: &Node, topic: &str) -> Vec<Partition> {
    let image = node.context.controller.image();
    let partitions = image.topic(topic).map(|topic| topic.partitions.clone()).unwrap_or_default();
    partitions.iter().map(|partition| Partition::clone(partition)).collect()
}

fn known(node: &Node) -> Vec<Partition> {
    partitions(node, TOPIC)
}

/// Writes to all partitions, whoever leads, and keeps what was acknowledged.
struct Load {
    ended: Arc<AtomicBool>,
    writing: JoinHandle<BTreeMap<(i32, i64), String>>,
}

impl Load {
    async fn begin(cluster: &Cluster, brokers: &[i32], topic: Uuid) -> Load {
        let mut clients = Vec::new();
        for id in brokers {
            clients.push(cluster.connect(*id as usize).await);
        }
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let writing = tokio::spawn(async move {
            let (mut acknowledged, mut leads) = (BTreeMap::new(), [0; PARTITIONS as usize]);
            for number in 0.. {
                let (partition, value) = (number % PARTITIONS, format!("record {number}"));
                let turn = &mut leads[partition as usize];
                let told = produce_to(&clients[*turn], topic, partition, -1, &value).await;
                match told.error_code {
                    0 => drop(acknowledged.insert((partition, told.base_offset), value)),
                    _ => *turn = (*turn + 1) % clients.len(),
                }
                if until.load(Ordering::Acquire) {
                    break;
                }
            }
            acknowledged
        });
        Load { ended, writing }
    }

    async fn end(self) -> BTreeMap<(i32, i64), String> {
        self.ended.store(true, Ordering::Release);
        self.writing.await.unwrap()
    }
}

/// Waits until these brokers, each of what it has a replica of, have all of this.
async fn all_have(nodes: &[Node], acknowledged: &BTreeMap<(i32, i64), String>) {
    for node in nodes {
        let id = node.context.node_id;
        let here: Vec<i32> = (0..)
            .zip(known(node))
            .filter(|(_, now)| now.replicas.contains(&id))
            .map(|(index, _)| index)
            .collect();
        let has_all = || {
            let found: BTreeMap<_, _> = here.iter().flat_map(|index| contents(node, *index)).collect();
            let mut expected = acknowledged.iter().filter(|((index, _), _)| here.contains(index));
            expected.all(|(place, value)| found.get(place) == Some(value)).then_some(())
        };
        wait_for("all that was acknowledged", has_all).await;
    }
}

fn contents(node: &Node, index: i32) -> BTreeMap<(i32, i64), String> {
    let Ok(partition) = node.context.partitions.by_name(TOPIC, index) else { return BTreeMap::new() };
    let bytes = partition.with_log(|log| {
        let slice = log.read(log.log_start_offset(), log.end_offset(), 64 << 20, true).unwrap();
        slice.read().unwrap()
    });
    let mut found = BTreeMap::new();
    for batch in batches(&bytes.unwrap_or_default()) {
        let (header, batch) = batch.unwrap();
        for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            found.insert((index, header.base_offset + i64::from(record.offset_delta)), value);
        }
    }
    found
}

/// Until no partition has a replica on this broker, every one has as many as this, and all of them are in sync.
async fn whole_without(nodes: &[Node], gone: i32, topics: &[(&str, usize)]) {
    let node = &nodes[0];
    let is_so = || {
        let whole = |now: &Partition, factor: usize| {
            !now.replicas.contains(&gone) && now.replicas.len() == factor && now.isr.len() == factor
        };
        let mut all = topics.iter();
        all.all(|(topic, factor)| partitions(node, topic).iter().all(|now| whole(now, *factor))).then_some(())
    };
    wait_for("all replicas elsewhere", is_so).await;
}

async fn set(cluster: &Cluster, by: usize, broker: i32, name: &str, value: Option<&str>) {
    let client = cluster.connect(by).await;
    let resource = Resource::Broker(broker.to_string());
    let change = (name.to_owned(), value.map(str::to_owned));
    configs::alter(&client, &resource, &[change]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_leads_again_what_it_is_to_lead() {
    let mut cluster = Cluster::new(3);
    cluster.more = "leader.imbalance.check.interval.seconds=1\n".to_owned();
    let mut nodes = cluster.start_all().await;
    create_replicated(&cluster.connect(0).await, TOPIC, PARTITIONS, 3, &[]).await;
    let gone = nodes.remove(2);
    let id = gone.context.node_id;
    gone.stop().await;
    let others_lead = || {
        let now = known(&nodes[0]);
        (now.len() == 6 && now.iter().all(|now| now.leader != id && !now.isr.contains(&id))).then_some(())
    };
    wait_for("the others lead", others_lead).await;
    nodes.push(cluster.start(id as usize, &[0, 1, 2]).await.unwrap());
    for node in &nodes {
        let leads = || known(node).iter().all(|now| now.leader == now.replicas[0]).then_some(());
        wait_for("preferred leaders", leads).await;
        assert_eq!(known(node).iter().filter(|now| now.leader == id).count(), 2);
    }
    stop_all(nodes).await;
}

/// One copy at a time, so that it takes a while; another broker comes to be the controller meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_is_emptied_while_it_is_written_to_and_taken_out() {
    let mut cluster = Cluster::new(4);
    cluster.more = "firn.replica.moves.max=1\n".to_owned();
    let mut nodes = cluster.start_all().await;
    let leads = controller(&nodes).await as i32;
    let gone = (leads + 1) % 4;
    let stay: Vec<i32> = (0..4).filter(|id| *id != gone).collect();
    let client = cluster.connect(stay[0] as usize).await;
    let topic = create_replicated(&client, TOPIC, PARTITIONS, 2, &[("min.insync.replicas", "2")]).await;
    let load = Load::begin(&cluster, &stay, topic).await;
    let had = known(&nodes[0]).iter().filter(|now| now.replicas.contains(&gone)).count();
    assert!(had > 1, "{had} replicas");
    set(&cluster, stay[0] as usize, gone, "firn.broker.drain", Some("true")).await;
    let begun = || known(&nodes[0]).iter().any(|now| now.removing_replicas.contains(&gone)).then_some(());
    wait_for("the first move", begun).await;
    nodes[leads as usize].context.membership.hand_over().await;
    // What is created now is created elsewhere.
    create_replicated(&client, "ice", PARTITIONS, 3, &[]).await;
    whole_without(&nodes, gone, &[(TOPIC, 2), ("ice", 3)]).await;
    let gone_at = nodes.iter().position(|node| node.context.node_id == gone).unwrap();
    nodes.remove(gone_at).stop().await;
    let unregistered = || async {
        firn_client::brokers::unregister(&client, gone).await.is_ok()
            || nodes[0].context.controller.image().broker(gone).is_none()
    };
    while !unregistered().await {
        tokio::task::yield_now().await;
    }
    for node in &nodes {
        let is_out = || {
            let image = node.context.controller.image();
            (image.broker(gone).is_none() && !image.is_draining(gone)).then_some(())
        };
        wait_for("its end, and that of the mark", is_out).await;
    }
    let acknowledged = load.end().await;
    assert!(acknowledged.len() > 20, "{} records were written meanwhile", acknowledged.len());
    all_have(&nodes, &acknowledged).await;
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lost_broker_had_is_created_anew_once_it_is_put_out() {
    let cluster = Cluster::new(4);
    let mut nodes = cluster.start_all().await;
    let stay = [0, 1, 2];
    let client = cluster.connect(0).await;
    let topic = create_replicated(&client, TOPIC, PARTITIONS, 3, &[("min.insync.replicas", "2")]).await;
    let load = Load::begin(&cluster, &stay, topic).await;
    let before = known(&nodes[0]);
    let had = before.iter().filter(|now| now.replicas.contains(&3)).count();
    assert!(had > 1, "{had} replicas");
    nodes.pop().unwrap().stop().await;
    wait_for("its absence", || {
        nodes[0].context.controller.image().broker(3).is_none_or(|one| one.fenced).then_some(())
    })
    .await;
    // For as long as it may come back, its replicas stay its own.
    assert!(known(&nodes[0]).iter().zip(&before).all(|(now, before)| now.replicas == before.replicas));
    let asked = async || firn_client::brokers::unregister(&client, 3).await.is_ok();
    while !asked().await && nodes[0].context.controller.image().broker(3).is_some() {
        tokio::task::yield_now().await;
    }
    whole_without(&nodes, 3, &[(TOPIC, 3)]).await;
    let acknowledged = load.end().await;
    assert!(acknowledged.len() > 20, "{} records were written meanwhile", acknowledged.len());
    all_have(&nodes, &acknowledged).await;
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_cordoned_gets_nothing_and_then_its_share() {
    let mut cluster = Cluster::new(4);
    cluster.more = "firn.replica.rebalance.check.interval.seconds=1\n\
                    firn.replica.imbalance.percentage=0\n\
                    leader.imbalance.check.interval.seconds=1\n"
        .to_owned();
    let all = [0, 1, 2, 3];
    let nodes = cluster.start_all().await;
    set(&cluster, 0, 3, "cordoned.log.dirs", Some("*")).await;
    let topic = create_replicated(&cluster.connect(0).await, TOPIC, PARTITIONS, 2, &[]).await;
    assert!(known(&nodes[0]).iter().all(|now| !now.replicas.contains(&3)));
    let load = Load::begin(&cluster, &all, topic).await;
    set(&cluster, 0, 3, "cordoned.log.dirs", None).await;
    let are_even = || {
        let now = known(&nodes[0]);
        let settled = now.iter().all(|now| !now.is_reassigning() && now.isr.len() == 2);
        let count = |of: &dyn Fn(&Partition, i32) -> bool| -> BTreeSet<usize> {
            all.iter().map(|id| now.iter().filter(|now| of(now, *id)).count()).collect()
        };
        let replicas = count(&|now, id| now.replicas.contains(&id));
        let leaders = count(&|now, id| now.leader == id);
        let even = |counts: &BTreeSet<usize>| counts.last().unwrap() - counts.first().unwrap() <= 1;
        (settled && even(&replicas) && even(&leaders)).then_some(())
    };
    wait_for("as many replicas and leaders everywhere", are_even).await;
    let acknowledged = load.end().await;
    assert!(acknowledged.len() > 20, "{} records were written meanwhile", acknowledged.len());
    all_have(&nodes, &acknowledged).await;
    stop_all(nodes).await;
}
