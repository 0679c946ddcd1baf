//! What operators do while everything else happens: move partitions, have preferred leaders lead again, empty a broker for a while,
//! give votes on the metadata and take them.

use std::fmt::Debug;
use std::rc::Rc;
use std::time::Duration;

use firn_protocol::library::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use firn_protocol::library::messages::describe_quorum_request::{PartitionData, TopicData};
use firn_protocol::library::messages::describe_quorum_response::ReplicaState;
use firn_protocol::library::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use firn_protocol::library::messages::{
    AddRaftVoterRequest, AlterPartitionReassignmentsRequest, BrokerId, DescribeQuorumRequest,
    ElectLeadersRequest, IncrementalAlterConfigsRequest, RemoveRaftVoterRequest, TopicName,
};
use firn_protocol::library::protocol::Request;

use crate::client::{Client, Target};
use crate::shared::{PARTITIONS, Shared, TOPIC, text};
use crate::story::About;

const TIMEOUT_MS: i32 = 3_000;
/// Kafka's number for the configs of a broker.
const OF_BROKER: i8 = 4;
/// Kafka's numbers for what is done with a config.
const SET: i8 = 0;
const REMOVE: i8 = 1;
/// Fewer brokers are not left with a vote.
const VOTERS_MIN: usize = 3;

struct Operator {
    client: Client,
    random: fastrand::Rng,
    shared: Rc<Shared>,
    /// A broker that is to be emptied.
    draining: Option<usize>,
}

/// Operates until the run is over.
pub async fn operate(shared: Rc<Shared>, random: fastrand::Rng) {
    shared.topic().await;
    let client = Client::new("operator".to_owned(), About::Run, Target::Any, shared.clone());
    let mut operator = Operator { client, random, shared: shared.clone(), draining: None };
    while !shared.over.get() {
        let pause = operator.random.u64(500..6_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        match operator.random.u8(..8) {
            0..=3 => operator.move_partition().await,
            4 => operator.elect_preferred().await,
            5 => operator.drain().await,
            _ => operator.change_votes().await,
        }
    }
}

impl Operator {
    /// Asks once; it may or may not have been done.
    async fn ask<R: Request>(&mut self, what: &str, request: &R) -> Option<R::Response>
    where
        R::Response: Debug,
    {
        let told = self.client.ask(request).await;
        match told {
            Ok(told) => {
                self.client.note(format_args!("{what}: {told:?}"));
                Some(told)
            }
            Err(error) => {
                self.client.note(format_args!("{what}: {error}"));
                None
            }
        }
    }

    fn any_broker(&mut self) -> usize {
        self.random.usize(..self.shared.brokers.len())
    }

    async fn move_partition(&mut self) {
        let mut brokers: Vec<i32> = (0..self.shared.brokers.len() as i32).collect();
        self.random.shuffle(&mut brokers);
        brokers.truncate(self.shared.replication_factor);
        let what = format!("moves to {brokers:?}");
        let replicas = brokers.into_iter().map(BrokerId).collect();
        let partition = ReassignablePartition::default()
            .with_partition_index(self.random.i32(..PARTITIONS))
            .with_replicas(Some(replicas));
        let topic =
            ReassignableTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![partition]);
        let request = AlterPartitionReassignmentsRequest::default()
            .with_timeout_ms(TIMEOUT_MS)
            .with_topics(vec![topic]);
        self.ask(&what, &request).await;
    }

    async fn elect_preferred(&mut self) {
        let request = ElectLeadersRequest::default().with_topic_partitions(None).with_timeout_ms(TIMEOUT_MS);
        self.ask("has preferred leaders lead", &request).await;
    }

    /// Begins to empty a broker, or lets it be.
    async fn drain(&mut self) {
        let (broker, operation, value) = match self.draining.take() {
            Some(broker) => (broker, REMOVE, None),
            None => (self.any_broker(), SET, Some(text("true"))),
        };
        let config = AlterableConfig::default()
            .with_name(text("firn.broker.drain"))
            .with_config_operation(operation)
            .with_value(value);
        let resource = AlterConfigsResource::default()
            .with_resource_type(OF_BROKER)
            .with_resource_name(text(&broker.to_string()))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let what = if operation == SET { "empties" } else { "lets be" };
        let is_told = self.ask(&format!("{what} broker {broker}"), &request).await.is_some();
        // What may not have been taken back is, the next time.
        self.draining = Some(broker).filter(|_| operation == SET || !is_told);
    }

    async fn change_votes(&mut self) {
        let metadata = PartitionData::default().with_partition_index(0);
        let metadata = TopicData::default()
            .with_topic_name(TopicName(text("__cluster_metadata")))
            .with_partitions(vec![metadata]);
        let request = DescribeQuorumRequest::default().with_topics(vec![metadata]);
        let Some(mut told) = self.ask("looks who has a vote", &request).await else { return };
        let Some(found) = told.topics.pop().and_then(|mut topic| topic.partitions.pop()) else { return };
        let (voters, observers) = (found.current_voters, found.observers);
        let any = |random: &mut fastrand::Rng, of: &[ReplicaState]| of[random.usize(..of.len())].clone();
        if !observers.is_empty() && (voters.len() <= VOTERS_MIN || self.random.bool()) {
            let one = any(&mut self.random, &observers);
            let request = AddRaftVoterRequest::default()
                .with_cluster_id(None)
                .with_timeout_ms(TIMEOUT_MS)
                .with_voter_id(one.replica_id.0)
                .with_voter_directory_id(one.replica_directory_id);
            self.ask(&format!("gives {} a vote", one.replica_id.0), &request).await;
        } else if voters.len() > VOTERS_MIN {
            let one = any(&mut self.random, &voters);
            let request = RemoveRaftVoterRequest::default()
                .with_cluster_id(None)
                .with_voter_id(one.replica_id.0)
                .with_voter_directory_id(one.replica_directory_id);
            self.ask(&format!("takes the vote of {}", one.replica_id.0), &request).await;
        }
    }
}
