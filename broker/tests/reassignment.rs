//! Brokers in one process whose partitions move from one to the other while they are written to, and come to be led by whom an
//! operator names: nothing that was acknowledged is lost, unless he says so.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod topics;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use brokers::{Cluster, controller, stop_all, wait_for, wait_for_answer};
use bytes::Bytes;
use firn::node::Node;
use firn_client::connection::Connection;
use firn_metadata::image::Partition;
use firn_model::ids::TopicId;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::elect_leaders_request::TopicPartitions;
use firn_protocol::library::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::produce_response::PartitionProduceResponse;
use firn_protocol::library::messages::update_features_request::FeatureUpdateKey;
use firn_protocol::library::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, DeleteTopicsRequest, ElectLeadersRequest,
    ListPartitionReassignmentsRequest, ProduceRequest, TopicName, UnregisterBrokerRequest,
    UpdateFeaturesRequest,
};
use firn_protocol::library::protocol::StrBytes;
use firn_records::batch::{HEADER_LENGTH, batches};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::record::records;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use topics::create_replicated;
use uuid::Uuid;

const TOPIC: &str = "snow";
const DEADLINE: Duration = Duration::from_secs(60);

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str(TOPIC))
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(0, None, Some(value.as_bytes()), &[]);
    builder.build().unwrap()
}

async fn produce(client: &Connection, topic: Uuid, value: &str) -> PartitionProduceResponse {
    let data = PartitionProduceData::default().with_records(Some(batch(value)));
    let data = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![data]);
    client.call(&request).await.unwrap().responses.remove(0).partition_responses.remove(0)
}

/// The partition, as this broker knows it.
fn known(node: &Node) -> Partition {
    let image = node.context.controller.image();
    Partition::clone(image.topic(TOPIC).unwrap().partition(0).unwrap())
}

/// Asks as clients do: again, while there is no controller.
async fn answered(mut ask: impl AsyncFnMut() -> i16) -> i16 {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match ask().await {
            code if code != ResponseError::NotController.code() => return code,
            _ => assert!(Instant::now() < deadline, "no controller"),
        }
    }
}

/// Moves the partition, or, to nowhere, gives its move up.
async fn reassign(client: &Connection, replicas: Option<&[i32]>) -> i16 {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect();
    let partition = ReassignablePartition::default().with_replicas(replicas.map(ids));
    let topic = ReassignableTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
    answered(async || {
        let told = client.call(&request).await.unwrap();
        match told.error_code {
            0 => told.responses[0].partitions[0].error_code,
            refused => refused,
        }
    })
    .await
}

/// Replicas, adding and removing, of the partition, if it moves.
async fn moving(client: &Connection, named: Option<Vec<i32>>) -> Option<[Vec<i32>; 3]> {
    let named = named.map(|indexes| {
        let topic = ListPartitionReassignmentsTopics::default().with_name(topic());
        vec![topic.with_partition_indexes(indexes)]
    });
    let request = ListPartitionReassignmentsRequest::default().with_topics(named);
    let told = client.call(&request).await.unwrap();
    assert_eq!(told.error_code, 0);
    let partition = told.topics.first()?.partitions.first()?;
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.0).collect();
    Some([ids(&partition.replicas), ids(&partition.adding_replicas), ids(&partition.removing_replicas)])
}

async fn elect(client: &Connection, election: i8) -> i16 {
    let named = TopicPartitions::default().with_topic(topic()).with_partitions(vec![0]);
    let request =
        ElectLeadersRequest::default().with_election_type(election).with_topic_partitions(Some(vec![named]));
    answered(async || {
        let told = client.call(&request).await.unwrap();
        match told.error_code {
            0 => told.replica_election_results[0].partition_result[0].error_code,
            refused => refused,
        }
    })
    .await
}

/// Writes, whoever leads, and keeps what was acknowledged.
struct Load {
    ended: Arc<AtomicBool>,
    writing: JoinHandle<BTreeMap<i64, String>>,
}

impl Load {
    async fn begin(cluster: &Cluster, brokers: usize, topic: Uuid) -> Load {
        let mut clients = Vec::new();
        for id in 0..brokers {
            clients.push(cluster.connect(id).await);
        }
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let writing = tokio::spawn(async move {
            let mut acknowledged = BTreeMap::new();
            let mut leads = 0;
            for number in 0u64.. {
                let value = format!("record {number}");
                let told = produce(&clients[leads], topic, &value).await;
                match told.error_code {
                    0 => drop(acknowledged.insert(told.base_offset, value)),
                    _ => leads = (leads + 1) % clients.len(),
                }
                if until.load(Ordering::Acquire) {
                    break;
                }
            }
            acknowledged
        });
        Load { ended, writing }
    }

    async fn end(self) -> BTreeMap<i64, String> {
        self.ended.store(true, Ordering::Release);
        self.writing.await.unwrap()
    }
}

/// What a broker has of the partition.
fn contents(node: &Node) -> BTreeMap<i64, String> {
    let partition = node.context.partitions.by_name(TOPIC, 0).unwrap();
    let bytes = partition.with_log(|log| {
        let slice = log.read(log.log_start_offset(), log.end_offset(), 64 << 20, true).unwrap();
        slice.read().unwrap()
    });
    let mut found = BTreeMap::new();
    for batch in batches(&bytes.unwrap()) {
        let (header, batch) = batch.unwrap();
        for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
            let record = record.unwrap();
            let value = String::from_utf8(record.value.unwrap().to_vec()).unwrap();
            found.insert(header.base_offset + i64::from(record.offset_delta), value);
        }
    }
    found
}

/// Until the partition is on these brokers, all in sync, and on no other, neither in memory nor on disk.
async fn settled(cluster: &Cluster, nodes: &[Node], replicas: &[i32]) {
    for node in nodes {
        let is_there = || {
            let now = known(node);
            let holds =
                now.replicas == replicas && now.isr.len() == replicas.len() && now.adding_replicas.is_empty();
            holds.then_some(())
        };
        wait_for("the partition where it is to be", is_there).await;
        let id = node.context.node_id;
        if replicas.contains(&id) {
            continue;
        }
        let is_gone = || {
            let dirs = cluster.disks[id as usize].files(Path::new("/data")).unwrap();
            let has = dirs.iter().any(|path| path.to_string_lossy().contains("/snow-0"));
            (node.context.partitions.by_name(TOPIC, 0).is_err() && !has).then_some(())
        };
        wait_for("nothing of it on the others", is_gone).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_moves_while_it_is_written_to_and_nothing_is_lost() {
    let cluster = Cluster::new(4);
    let nodes = cluster.start_all().await;
    let client = cluster.connect(3).await;
    let topic = create_replicated(&client, TOPIC, 1, 2, &[("min.insync.replicas", "2")]).await;
    let load = Load::begin(&cluster, 4, topic).await;
    let mut epoch = known(&nodes[0]).leader_epoch;
    for target in [[2, 3], [0, 1], [1, 2], [2, 1], [3, 0]] {
        assert_eq!(reassign(&client, Some(&target)).await, 0);
        settled(&cluster, &nodes, &target).await;
        assert_eq!(moving(&client, None).await, None);
        let now = known(&nodes[0]);
        assert!(target.contains(&now.leader) && now.leader_epoch >= epoch, "{now:?}");
        epoch = now.leader_epoch;
    }
    let acknowledged = load.end().await;
    assert!(acknowledged.len() > 20, "{} records were written meanwhile", acknowledged.len());
    for id in [3, 0] {
        let has_all = || {
            let found = contents(&nodes[id]);
            acknowledged.iter().all(|(offset, value)| found.get(offset) == Some(value)).then_some(())
        };
        wait_for("all that was acknowledged", has_all).await;
    }
    stop_all(nodes).await;
}

/// A partition of one replica gets three, and can be written to all the while, though two have to be in sync in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_gets_more_replicas_and_fewer() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let topic = create_replicated(&client, TOPIC, 1, 1, &[("min.insync.replicas", "2")]).await;
    let leader = known(&nodes[0]).leader;
    let others: Vec<i32> = (0..3).filter(|id| *id != leader).collect();
    let writer = cluster.connect(leader as usize).await;
    assert_eq!(produce(&writer, topic, "alone").await.error_code, 0);
    // One of the others is away: the move waits for it, and writers do not.
    let away = nodes.iter().position(|node| node.context.node_id == others[1]).unwrap();
    nodes.remove(away).stop().await;
    let reached = others[0] as usize;
    let client = cluster.connect(reached).await;
    let all = [leader, others[0], others[1]];
    assert_eq!(reassign(&client, Some(&all)).await, 0);
    let begun = moving(&client, Some(vec![0])).await.unwrap();
    assert_eq!(begun, [all.to_vec(), others.clone(), Vec::new()]);
    assert_eq!(moving(&client, Some(vec![1, 7])).await, None, "others are asked about");
    assert_eq!(produce(&writer, topic, "on the way").await.error_code, 0);
    wait_for("two in sync", || (known(&nodes[0]).isr.len() == 2).then_some(())).await;
    assert_eq!(produce(&writer, topic, "two have it").await.error_code, 0);
    nodes.push(cluster.start(others[1] as usize, &[0, 1, 2]).await.unwrap());
    settled(&cluster, &nodes, &all).await;
    assert_eq!(contents(&nodes[2]).len(), 3);
    // And fewer again: at once, for all are in sync.
    assert_eq!(reassign(&client, Some(&[others[1]])).await, 0);
    assert_eq!(moving(&client, None).await, None);
    settled(&cluster, &nodes, &[others[1]]).await;
    assert_eq!(known(&nodes[0]).leader, others[1]);
    let writer = cluster.connect(others[1] as usize).await;
    let wrote = async || produce(&writer, topic, "alone again").await.error_code == 0;
    while !wrote().await {}
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_is_given_up_replaced_and_ended_by_deletion() {
    let cluster = Cluster::new(4);
    let mut nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let topic = create_replicated(&client, TOPIC, 1, 2, &[]).await;
    let before = known(&nodes[0]).replicas;
    let spare: Vec<i32> = (0..4).filter(|id| !before.contains(id)).collect();
    let code = |error: ResponseError| error.code();
    assert_eq!(reassign(&client, None).await, code(ResponseError::NoReassignmentInProgress));
    for nonsense in [&[][..], &[0, 0], &[9]] {
        let refused = reassign(&client, Some(nonsense)).await;
        assert_eq!(refused, code(ResponseError::InvalidReplicaAssignment), "{nonsense:?}");
    }
    // Whoever it is to move to is away, so that it does not end.
    let away = nodes.iter().position(|node| node.context.node_id == spare[0]).unwrap();
    nodes.remove(away).stop().await;
    let client = cluster.connect(before[0] as usize).await;
    assert_eq!(reassign(&client, Some(&[spare[0], spare[1]])).await, 0);
    wait_for("one of the two in sync", || known(&nodes[0]).isr.contains(&spare[1]).then_some(())).await;
    assert!(moving(&client, None).await.is_some());
    assert_eq!(reassign(&client, None).await, 0);
    settled(&cluster, &nodes, &before).await;
    assert_eq!(reassign(&client, Some(&[spare[0], before[0]])).await, 0);
    assert_eq!(reassign(&client, Some(&[spare[1], before[0]])).await, 0);
    settled(&cluster, &nodes, &[spare[1], before[0]]).await;
    assert_eq!(reassign(&client, Some(&[spare[0]])).await, 0);
    let named = DeleteTopicState::default().with_topic_id(topic).with_name(None);
    let deleted = client.call(&DeleteTopicsRequest::default().with_topics(vec![named])).await.unwrap();
    assert_eq!(deleted.responses[0].error_code, 0);
    assert_eq!(moving(&client, None).await, None);
    assert_eq!(reassign(&client, None).await, code(ResponseError::UnknownTopicOrPartition));
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_preferred_leader_leads_again_when_it_is_asked_for() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &[]).await;
    let preferred = known(&nodes[0]).replicas[0];
    let client = cluster.connect(((preferred + 1) % 3) as usize).await;
    assert_eq!(elect(&client, 0).await, ResponseError::ElectionNotNeeded.code());
    let away = nodes.iter().position(|node| node.context.node_id == preferred).unwrap();
    nodes.remove(away).stop().await;
    assert_eq!(elect(&client, 0).await, ResponseError::PreferredLeaderNotAvailable.code());
    assert_eq!(elect(&client, 1).await, ResponseError::ElectionNotNeeded.code());
    nodes.push(cluster.start(preferred as usize, &[0, 1, 2]).await.unwrap());
    wait_for("three in sync", || (known(&nodes[0]).isr.len() == 3).then_some(())).await;
    assert_ne!(known(&nodes[0]).leader, preferred);
    assert_eq!(elect(&client, 0).await, 0);
    for node in &nodes {
        wait_for("the preferred leader", || (known(node).leader == preferred).then_some(())).await;
    }
    let all = ElectLeadersRequest::default().with_election_type(0).with_topic_partitions(None);
    let told = client.call(&all).await.unwrap();
    assert_eq!((told.error_code, told.replica_election_results.len()), (0, 0));
    let unknown = ElectLeadersRequest::default().with_election_type(7).with_topic_partitions(None);
    assert_eq!(client.call(&unknown).await.unwrap().error_code, ResponseError::InvalidRequest.code());
    stop_all(nodes).await;
}

/// The replica that has everything is away, and whoever is there leads because an operator gives up what only the other has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unclean_leader_leads_if_an_operator_asks_for_it() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let topic = create_replicated(&cluster.connect(0).await, TOPIC, 1, 2, &[]).await;
    let replicas = known(&nodes[0]).replicas;
    let (first, second) = (replicas[0], replicas[1]);
    let third = (0..3).find(|id| !replicas.contains(id)).unwrap();
    let take = |nodes: &mut Vec<Node>, id: i32| {
        let place = nodes.iter().position(|node| node.context.node_id == id).unwrap();
        nodes.remove(place)
    };
    wait_for("a leader", || nodes.iter().find(|node| node.context.led(TOPIC, 0).is_ok()).map(drop)).await;
    let writer = cluster.connect(first as usize).await;
    assert_eq!(produce(&writer, topic, "both have it").await.error_code, 0);
    take(&mut nodes, second).stop().await;
    wait_for("one in sync", || (known(&nodes[0]).isr == [first]).then_some(())).await;
    assert_eq!(produce(&writer, topic, "one has it").await.error_code, 0);
    take(&mut nodes, first).stop().await;
    nodes.push(cluster.start(second as usize, &[0, 1, 2]).await.unwrap());
    let client = cluster.connect(third as usize).await;
    assert_eq!(known(&nodes[1]).leader, -1);
    assert_eq!(elect(&client, 0).await, ResponseError::PreferredLeaderNotAvailable.code());
    assert_eq!(elect(&client, 1).await, 0);
    let now = known(&nodes[0]);
    assert_eq!((now.leader, &*now.isr, &*now.elr), (second, &[second][..], &[][..]));
    let counted: u64 = nodes.iter().map(|node| node.context.metrics.unclean_elections.get()).sum();
    assert_eq!(counted, 1);
    let writer = cluster.connect(second as usize).await;
    // It learns a moment later than others that it leads.
    let written = async || {
        let told = produce(&writer, topic, "in its place").await;
        (told.error_code == 0).then_some(told.base_offset)
    };
    assert_eq!(wait_for_answer("a leader that takes records", written).await, 1);
    nodes.push(cluster.start(first as usize, &[0, 1, 2]).await.unwrap());
    wait_for("both in sync", || (known(&nodes[0]).isr.len() == 2).then_some(())).await;
    let expected = BTreeMap::from([(0, "both have it".to_owned()), (1, "in its place".to_owned())]);
    assert_eq!(contents(&nodes[2]), expected);
    stop_all(nodes).await;
}

/// What a partition had is gone with its only broker: it moves, is led uncleanly, and the broker is unregistered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_gone_for_good_is_put_out_and_may_come_back() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let topic = create_replicated(&cluster.connect(0).await, TOPIC, 1, 1, &[]).await;
    let gone = known(&nodes[0]).leader;
    let client = cluster.connect(((gone + 1) % 3) as usize).await;
    let unregister = async |id: i32| {
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
        answered(async || client.call(&request).await.unwrap().error_code).await
    };
    assert_eq!(unregister(gone).await, ResponseError::InvalidRequest.code(), "it is running");
    assert_eq!(unregister(7).await, ResponseError::BrokerIdNotRegistered.code());
    let place = nodes.iter().position(|node| node.context.node_id == gone).unwrap();
    nodes.remove(place).stop().await;
    assert_eq!(unregister(gone).await, ResponseError::InvalidRequest.code(), "it alone has the records");
    let heir = (gone + 1) % 3;
    assert_eq!(reassign(&client, Some(&[heir])).await, 0);
    assert_eq!(elect(&client, 1).await, 0);
    settled(&cluster, &nodes, &[heir]).await;
    assert_eq!(unregister(gone).await, 0);
    assert_eq!(unregister(gone).await, ResponseError::BrokerIdNotRegistered.code());
    for node in &nodes {
        let is_out = || node.context.controller.image().broker(gone).is_none().then_some(());
        wait_for("its end, everywhere", is_out).await;
    }
    let voters = |node: &Node| {
        let members = node.context.controller.members()?;
        Some(members.voters.iter().map(|known| known.member.broker_id).collect::<Vec<_>>())
    };
    let leads = controller(&nodes).await;
    assert!(!voters(&nodes[leads]).unwrap().contains(&gone));
    let epoch = nodes[0].context.controller.image().last_broker_epoch(gone).unwrap();
    // It was not gone, after all.
    nodes.push(cluster.start(gone as usize, &[0, 1, 2]).await.unwrap());
    let back = nodes[2].context.controller.image().broker(gone).cloned().unwrap();
    assert_eq!((back.epoch, back.fenced), (epoch + 1, false));
    let leads = controller(&nodes).await;
    assert!(voters(&nodes[leads]).unwrap().contains(&gone));
    assert_eq!(reassign(&client, Some(&[gone, heir])).await, 0);
    settled(&cluster, &nodes, &[gone, heir]).await;
    assert!(nodes[2].context.partitions.by_id(TopicId(topic), 0).is_ok());
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_is_no_feature_to_switch() {
    let cluster = Cluster::new(1);
    let nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let update = async |level, upgrade_type| {
        let update = FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str("metadata.version"))
            .with_max_version_level(level)
            .with_upgrade_type(upgrade_type);
        let request = UpdateFeaturesRequest::default().with_feature_updates(vec![update]);
        client.call(&request).await.unwrap().error_code
    };
    assert_eq!(update(25, 1).await, ResponseError::InvalidUpdateVersion.code());
    assert_eq!(update(0, 3).await, 0, "it is off");
    stop_all(nodes).await;
}
