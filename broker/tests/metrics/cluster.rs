//! Partitions, groups, the controller and the requests.

use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_topics_request::CreatableTopic;
use firn_protocol::library::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use firn_protocol::library::messages::{
    CreateTopicsRequest, FindCoordinatorRequest, GroupId, OffsetCommitRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_storage::simulated::Faults;

use crate::scrape::Scrape;
use crate::world::World;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_told_as_the_metadata_and_their_logs_have_them() {
    let world = World::start("").await;
    let id = world.create_topic("ledger", 2, &[("min.insync.replicas", "2")]).await;
    let zero = [("topic", "ledger"), ("partition", "0")];
    let one = [("topic", "ledger"), ("partition", "1")];
    let before = world.scrape().await;
    for _ in 0..3 {
        assert_eq!(world.produce(id, 1, 1000).await, 0);
    }
    let after = world.scrape().await;
    assert_eq!(after.get("kafka_topic_partitions", &[("topic", "ledger")]), 2.0);
    for (name, value) in [
        ("kafka_topic_partition_leader", 7.0),
        ("kafka_topic_partition_leader_is_preferred", 1.0),
        ("kafka_topic_partition_replicas", 1.0),
        ("kafka_topic_partition_in_sync_replica", 1.0),
        ("kafka_topic_partition_under_replicated_partition", 0.0),
        ("kafka_topic_partition_oldest_offset", 0.0),
        ("kafka_cluster_partition_replicascount", 1.0),
        ("kafka_cluster_partition_insyncreplicascount", 1.0),
        ("kafka_cluster_partition_underreplicated", 0.0),
        // Kafka asks for no more in-sync replicas than there are replicas.
        ("kafka_cluster_partition_underminisr", 0.0),
        ("kafka_cluster_partition_atminisr", 1.0),
        ("kafka_cluster_partition_laststableoffsetlag", 0.0),
        ("kafka_log_log_logstartoffset", 0.0),
        ("kafka_log_log_numlogsegments", 1.0),
    ] {
        assert_eq!(after.get(name, &one), value, "{name}");
    }
    for name in ["kafka_topic_partition_current_offset", "kafka_log_log_logendoffset"] {
        assert_eq!((before.get(name, &one), after.get(name, &one)), (0.0, 3.0), "{name}");
        assert_eq!(after.get(name, &zero), 0.0, "{name}");
    }
    assert_eq!(before.get("kafka_log_log_size", &one), 0.0);
    assert!(after.get("kafka_log_log_size", &one) > 3000.0);
    for (name, value) in [
        ("kafka_server_replicamanager_partitioncount", 2.0),
        ("kafka_server_replicamanager_leadercount", 2.0),
        ("kafka_server_replicamanager_underreplicatedpartitions", 0.0),
        ("kafka_server_replicamanager_underminisrpartitioncount", 0.0),
        ("kafka_server_replicamanager_atminisrpartitioncount", 2.0),
        ("kafka_server_replicamanager_offlinereplicacount", 0.0),
    ] {
        assert_eq!(after.single(name), value, "{name}");
    }
    world.delete_topic("ledger").await;
    assert_eq!(world.scrape().await.labelled("topic", "ledger"), 0, "the series end with the topic");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controller_is_told_as_it_is() {
    let world = World::start("").await;
    let before = world.scrape().await;
    world.create_topic("one", 3, &[]).await;
    let after = world.scrape().await;
    let rose = |name: &str| after.single(name) - before.single(name);
    assert_eq!(rose("kafka_controller_kafkacontroller_globaltopiccount"), 1.0);
    assert_eq!(rose("kafka_controller_kafkacontroller_globalpartitioncount"), 3.0);
    for (name, value) in [
        ("kafka_controller_kafkacontroller_activecontrollercount", 1.0),
        ("kafka_controller_kafkacontroller_activebrokercount", 1.0),
        ("kafka_controller_kafkacontroller_fencedbrokercount", 0.0),
        ("kafka_controller_kafkacontroller_offlinepartitionscount", 0.0),
        ("kafka_controller_kafkacontroller_preferredreplicaimbalancecount", 0.0),
        ("kafka_controller_controllerstats_uncleanleaderelections_total", 0.0),
        ("kafka_server_raftmetrics_current_leader", 7.0),
        ("kafka_server_raftmetrics_current_vote", 7.0),
        ("kafka_server_raftmetrics_current_epoch", 1.0),
        ("kafka_brokers", 1.0),
    ] {
        assert_eq!(after.single(name), value, "{name}");
    }
    assert_eq!(after.get("kafka_server_raftmetrics_current_state", &[("current_state", "leader")]), 1.0);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(after.get("kafka_exporter_build_info", &[("version", version)]), 1.0);
    let address = world.node.addresses[0].to_string();
    assert_eq!(after.get("kafka_broker_info", &[("id", "7"), ("address", &address)]), 1.0);
    assert_eq!(rose("kafka_server_raftmetrics_log_end_offset"), 1.0, "one change, whatever it holds");
    assert_eq!(
        rose("kafka_server_raftmetrics_high_watermark"),
        rose("kafka_server_raftmetrics_log_end_offset")
    );
    assert!(after.single("kafka_server_raftmetrics_append_records_rate") > 0.0);
    assert!(after.single("kafka_server_raftmetrics_commit_latency_avg") > 0.0);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_fails_shows_in_every_number_that_alerts_ask_for() {
    let world = World::start("").await;
    let id = world.create_topic("ledger", 2, &[]).await;
    assert_eq!(world.produce(id, 0, 10).await, 0);
    // The append is the next operation, its sync the one after.
    world.disk.set_faults(Faults { io_error_at: Some(world.disk.operations() + 2), ..Faults::default() });
    assert_ne!(world.produce(id, 0, 10).await, 0);
    world.disk.set_faults(Faults::default());
    let scrape = world.scrape().await;
    for (name, value) in [
        ("kafka_log_logmanager_offlinelogdirectorycount", 1.0),
        ("kafka_controller_kafkacontroller_offlinepartitionscount", 2.0),
        ("kafka_server_replicamanager_offlinereplicacount", 2.0),
    ] {
        assert_eq!(scrape.single(name), value, "{name}");
    }
    // The metadata lie in the same directory: the next change finds out that nobody controls any more.
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("refused")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    assert_ne!(world.client.call(&request).await.unwrap().topics[0].error_code, 0);
    let scrape = world.scrape().await;
    assert_eq!(scrape.single("kafka_controller_kafkacontroller_activecontrollercount"), 0.0);
    assert_eq!(scrape.single("kafka_server_raftmetrics_current_leader"), -1.0);
    assert_eq!(scrape.single("kafka_server_raftmetrics_current_vote"), -1.0);
    assert_eq!(scrape.find("kafka_server_raftmetrics_current_state", &[("current_state", "leader")]), None);
    world.node.stop().await;
}

/// A name with everything that a label has to escape.
const GROUP: &str = "night\"ly\\\n{x=\"1\"} 5";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lag_of_an_idle_group_follows_what_is_produced() {
    let world = World::start("").await;
    let id = world.create_topic("ledger", 2, &[]).await;
    for partition in [0, 0, 0, 1] {
        assert_eq!(world.produce(id, partition, 10).await, 0);
    }
    commit(&world, &[(0, 1), (1, 1)]).await;
    let scrape = world.scrape().await;
    let of = |name: &str, partition: &str| {
        scrape.get(name, &[("consumergroup", GROUP), ("topic", "ledger"), ("partition", partition)])
    };
    assert_eq!(of("kafka_consumergroup_current_offset", "0"), 1.0);
    assert_eq!((of("kafka_consumergroup_lag", "0"), of("kafka_consumergroup_lag", "1")), (2.0, 0.0));
    assert_eq!(scrape.get("kafka_consumergroup_members", &[("consumergroup", GROUP)]), 0.0);
    assert_eq!(world.produce(id, 1, 10).await, 0);
    let scrape = world.scrape().await;
    let by_topic = [("consumergroup", GROUP), ("topic", "ledger")];
    assert_eq!(scrape.get("kafka_consumergroup_lag_sum", &by_topic), 3.0);
    assert_eq!(scrape.get("kafka_consumergroup_current_offset_sum", &by_topic), 2.0);
    world.node.stop().await;
}

/// Commits offsets as one who is no member.
async fn commit(world: &World, offsets: &[(i32, i64)]) {
    let key = StrBytes::from_static_str(GROUP);
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![key.clone()]);
    world.client.call(&find).await.unwrap();
    let partitions = offsets.iter().map(|(partition, offset)| {
        OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
    });
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("ledger")))
        .with_partitions(partitions.collect());
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(key))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    loop {
        let answer = world.client.call(&request).await.unwrap().topics.remove(0).partitions.remove(0);
        match ResponseError::try_from_code(answer.error_code) {
            None => return,
            Some(ResponseError::CoordinatorLoadInProgress | ResponseError::NotCoordinator) => {
                tokio::task::yield_now().await;
            }
            Some(error) => panic!("{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_and_request_times_are_counted() {
    let world = World::start("").await;
    let id = world.create_topic("ledger", 1, &[]).await;
    assert_eq!(world.produce(id, 0, 1000).await, 0);
    assert_eq!(world.produce(id, 9, 1000).await, ResponseError::UnknownTopicOrPartition.code());
    let (error, bytes) = world.fetch(id, 0, 0).await;
    assert_eq!(error, 0);
    let scrape = world.scrape().await;
    let topic = |name: &str| {
        scrape.get(&format!("kafka_server_brokertopicmetrics_{name}_total"), &[("topic", "ledger")])
    };
    assert_eq!(topic("messagesin"), 1.0);
    assert!(topic("bytesin") > 1000.0);
    assert_eq!(topic("bytesout"), bytes as f64);
    assert_eq!(topic("totalfetchrequests"), 1.0);
    assert_eq!(topic("failedfetchrequests"), 0.0);
    for (request, count) in [
        ("Produce", 2.0),
        ("Fetch", 1.0),
        ("FetchConsumer", 1.0),
        ("CreateTopics", 1.0),
        ("DeleteTopics", 0.0),
    ] {
        let labels = [("request", request)];
        assert_eq!(scrape.get("kafka_network_requestmetrics_requests_total", &labels), count, "{request}");
        assert_eq!(scrape.get("kafka_network_requestmetrics_totaltimems_count", &labels), count, "{request}");
        let took = scrape.get("kafka_network_requestmetrics_totaltimems_sum", &labels);
        assert_eq!(took > 0.0, count > 0.0, "{request}");
    }
    let connections = |scrape: &Scrape| {
        scrape.get("kafka_server_socket_server_metrics_connection_count", &[("listener", "PLAINTEXT")])
    };
    assert_eq!(connections(&scrape), 1.0);
    world.fetch_elsewhere(id, 0, 0).await;
    world
        .scrape_until("the other connection is closed", |scrape| {
            connections(scrape) == 1.0
                && scrape.get("kafka_network_requestmetrics_requests_total", &[("request", "Fetch")]) == 2.0
        })
        .await;
    world.node.stop().await;
}
