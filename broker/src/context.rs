//! What the handlers of requests work with: handles, and nothing that decides.

use std::sync::Arc;

use firn_metadata::image::{Image, NO_LEADER, Topic};
use firn_model::broker_config::BrokerConfig;
use firn_model::ids::TopicId;
use firn_telemetry::metrics::Metrics;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cleaner_pace::SteadyPace;
use crate::cold::Cold;
use crate::controller::Controller;
use crate::coordinator_runtime::CoordinatorRuntime;
use crate::deleted_topics::DeletedTopics;
use crate::environment::Environment;
use crate::fetch_sessions::FetchSessions;
use crate::log_dirs::LogDirs;
use crate::partition::Partition;
use crate::partitions::{NoSuchPartition, Partitions};
use crate::peers::membership::Membership;
use crate::producer_ids::ProducerIds;
use crate::record_memory::RecordMemory;
use crate::replication::Replication;
use crate::replication::sessions::ReplicaSessions;
use crate::request_memory::RequestMemory;
use crate::request_metrics::RequestMetrics;

#[derive(Debug)]
pub struct Context {
    pub node_id: i32,
    pub cluster_id: String,
    pub environment: Environment,
    pub controller: Controller,
    pub membership: Arc<Membership>,
    pub partitions: Arc<Partitions>,
    pub replication: Arc<Replication>,
    pub log_dirs: Arc<LogDirs>,
    pub fetch_sessions: Mutex<FetchSessions>,
    pub replica_sessions: ReplicaSessions,
    pub producer_ids: ProducerIds,
    pub deleted_topics: Arc<DeletedTopics>,
    pub groups: Arc<CoordinatorRuntime>,
    pub cold: Arc<Cold>,
    pub cleaner_pace: Arc<SteadyPace>,
    pub metrics: Arc<Metrics>,
    pub requests: RequestMetrics,
    pub request_memory: Arc<RequestMemory>,
    pub record_memory: Arc<RecordMemory>,
    /// The broker's own configuration, with the dynamic configs laid over it.
    pub broker_config: watch::Receiver<Arc<BrokerConfig>>,
}

impl Context {
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.broker_config.borrow().clone()
    }

    /// A partition that this broker leads, or follows: what readers find here (KIP-392).
    pub fn readable(&self, topic: &str, index: i32) -> Result<Arc<Partition>, NoSuchPartition> {
        let found = self.partitions.by_name(topic, index);
        self.serving(found, Partition::is_readable, |image| image.topic(topic), index)
    }

    /// The same, by the topic's id.
    pub fn readable_by_id(&self, id: TopicId, index: i32) -> Result<Arc<Partition>, NoSuchPartition> {
        let found = self.partitions.by_id(id, index);
        self.serving(found, Partition::is_readable, |image| image.topic_by_id(id), index)
    }

    /// A partition that this broker has a replica of, whoever leads it.
    pub fn placed(&self, topic: &str, index: i32) -> Result<Arc<Partition>, NoSuchPartition> {
        let found = self.partitions.by_name(topic, index);
        self.serving(found, |_| true, |image| image.topic(topic), index)
    }

    /// The same, by the topic's id.
    pub fn placed_by_id(&self, id: TopicId, index: i32) -> Result<Arc<Partition>, NoSuchPartition> {
        let found = self.partitions.by_id(id, index);
        self.serving(found, |_| true, |image| image.topic_by_id(id), index)
    }

    /// A partition that this broker leads.
    pub fn led(&self, topic: &str, index: i32) -> Result<Arc<Partition>, NoSuchPartition> {
        let found = self.partitions.by_name(topic, index);
        self.serving(found, Partition::is_led_here, |image| image.topic(topic), index)
    }

    fn serving(
        &self,
        found: Result<Arc<Partition>, NoSuchPartition>,
        serves: impl FnOnce(&Partition) -> bool,
        topic: impl FnOnce(&Image) -> Option<&Arc<Topic>>,
        index: i32,
    ) -> Result<Arc<Partition>, NoSuchPartition> {
        let missing = match found {
            Ok(partition) if serves(&partition) => return Ok(partition),
            // It has just been told so.
            Ok(partition) => NoSuchPartition::Elsewhere {
                topic: partition.name.topic.clone(),
                partition: index,
                leader: NO_LEADER,
            },
            Err(missing) => missing,
        };
        let image = self.controller.image();
        let known =
            topic(&image).and_then(|topic| Some((topic.name.clone(), topic.partition(index)?.leader)));
        match known {
            Some((topic, leader)) if leader != self.node_id => {
                Err(NoSuchPartition::Elsewhere { topic, partition: index, leader })
            }
            _ => Err(missing),
        }
    }

    pub fn now_ms(&self) -> i64 {
        self.environment.clock.now_ms()
    }
}
