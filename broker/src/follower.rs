//! Makes this broker's partitions follow the metadata: logs open, close, change their config and go.
//!
//! A log goes when its topic is deleted, and when its replica has moved to another broker. Both are agreed on before anything is
//! deleted here; what a crash in between leaves is a stray (`strays.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firn_metadata::image::{self, Image, Topic};
use firn_metadata::record::{MetadataRecord, ResourceKind};
use firn_model::broker_config::BrokerConfig;
use firn_model::ids::{TopicId, TopicName, TopicPartition};
use firn_model::topic_config::TopicConfig;
use firn_storage::error::StorageError;
use firn_telemetry::metrics::Metrics;
use tokio::sync::watch;

use crate::log_dirs::LogDirs;
use crate::partition::Partition;
use crate::partitions::Partitions;
use crate::peers::Peers;
use crate::replication::Replication;
use crate::replication::unreliable::{Log, Why};

/// This broker's side of the metadata.
#[derive(Debug, Clone)]
pub struct Follower {
    pub node_id: i32,
    pub peers: Peers,
    pub replication: Arc<Replication>,
    pub log_dirs: Arc<LogDirs>,
    pub partitions: Arc<Partitions>,
    pub metrics: Arc<Metrics>,
    /// The broker's own configuration, with the dynamic configs laid over it.
    pub config: watch::Sender<Arc<BrokerConfig>>,
    /// Some logs could not be opened for want of something that may come back.
    pub short: Arc<AtomicBool>,
}

impl Follower {
    /// Takes note of `records`, which have been applied and made `image`.
    pub fn follow(&self, image: &Image, records: &[MetadataRecord], now_ms: i64) {
        let mut opened: BTreeSet<TopicId> = BTreeSet::new();
        let mut configured: BTreeSet<String> = BTreeSet::new();
        let mut broker_configured = false;
        for record in records {
            match record {
                MetadataRecord::Partition(partition) => {
                    opened.insert(partition.topic_id);
                }
                MetadataRecord::PartitionChange(changed) => {
                    let is_open = self.turn(image, changed.topic_id, changed.partition);
                    if !is_open && changed.replicas.is_some() {
                        opened.insert(changed.topic_id);
                    }
                }
                MetadataRecord::RemoveTopic(removed) => self.delete(removed.topic_id),
                MetadataRecord::Broker(broker) => {
                    self.peers.learn_endpoint(broker.broker_id, &broker.endpoints);
                    self.replication.in_sync.look_at_all();
                }
                MetadataRecord::BrokerChange(change) if change.fenced.is_some() => {
                    self.replication.in_sync.look_at_all();
                }
                MetadataRecord::Config(config) => match config.resource.kind {
                    ResourceKind::Topic => {
                        configured.insert(config.resource.name.clone());
                    }
                    ResourceKind::Broker => broker_configured = true,
                },
                _ => {}
            }
        }
        if broker_configured {
            self.reconfigure_broker(image);
        }
        for topic in opened.iter().filter_map(|id| image.topic_by_id(*id)) {
            if let Err(error) = self.open(image, topic, now_ms) {
                tracing::error!(topic = %topic.name, %error, "cannot open the topic's logs: its partitions are offline here");
            }
        }
        for topic in configured.iter().filter_map(|name| image.topic(name)) {
            self.reconfigure(image, topic);
        }
    }

    /// Another leads a partition now, or none, or others are in sync, or are replicas. Whether its log was open here.
    fn turn(&self, image: &Image, topic: TopicId, index: i32) -> bool {
        let Ok(open) = self.partitions.by_id(topic, index) else { return false };
        if let Some(now) = image.partition_by_id(topic, index) {
            self.take_turn(image, &open, now);
        }
        true
    }

    fn take_turn(&self, image: &Image, open: &Arc<Partition>, now: &image::Partition) {
        match now.replicas.contains(&self.node_id) {
            true if self.replication.obeys(image, now) => open.turn(now),
            true => {}
            false => self.leave(open),
        }
    }

    /// Others have the partition now.
    fn leave(&self, open: &Arc<Partition>) {
        let name = &open.name;
        self.partitions.remove(open.topic_id, name.partition);
        self.delete_logs(std::slice::from_ref(open), &name.to_string());
        if let Err(error) = self.log_dirs.set_aside_unopened(|found| found == name, open.topic_id) {
            tracing::error!(partition = %name, %error, "the partition is on other brokers, but a log of it that could not be opened is still here");
        }
        tracing::info!(partition = %name, "the partition is on other brokers now: deleted here");
    }

    /// Makes this broker's partitions what `image` says, whatever they were.
    pub fn catch_up(&self, image: &Image, now_ms: i64) {
        for gone in self.partitions.topics().iter().filter(|topic| image.topic_by_id(topic.id).is_none()) {
            self.delete(gone.id);
        }
        self.peers.learn_all(image);
        self.reconfigure_broker(image);
        self.replication.in_sync.look_at_all();
        for topic in image.topics() {
            if let Err(error) = self.open_known(image, topic, now_ms) {
                tracing::error!(topic = %topic.name, %error, "cannot open the topic's logs: its partitions are offline here");
            }
        }
    }

    /// The same for a topic that is not new: where a log is missing though this broker is in sync, others have records that it
    /// has lost.
    pub fn open_known(&self, image: &Image, topic: &Topic, now_ms: i64) -> Result<(), StorageError> {
        for (index, partition) in (0i32..).zip(&topic.partitions) {
            let name = TopicPartition::new(topic.name.clone(), index);
            let is_open = self.partitions.by_id(topic.id, index).is_ok();
            let is_relied_on = partition.relies_on(self.node_id) && partition.others_vouch(self.node_id);
            // Before the first change the broker may have ended between the creation of the topic and that of the log.
            let had_one = is_relied_on && partition.partition_epoch > 0;
            if had_one && !is_open && !self.log_dirs.has_unopened(&name) {
                tracing::error!(partition = %name, "there is no log of the partition here, though the broker had one");
                let (why, leader_epoch) = (Why::Unopened, partition.leader_epoch);
                self.replication.unreliable.add((topic.id, index), Log { name, why, leader_epoch });
            }
        }
        self.open(image, topic, now_ms)
    }

    /// Opens the logs of `topic` that are to be here and are not open yet, and tells each whether it leads. Those that cannot be
    /// opened stay offline; the first error is returned.
    pub fn open(&self, image: &Image, topic: &Topic, now_ms: i64) -> Result<(), StorageError> {
        let config = self.topic_config(image, topic);
        let open = self.partitions.topic(&topic.name);
        let mut added = Vec::new();
        let mut failed = None;
        for (index, partition) in (0i32..).zip(&topic.partitions) {
            if let Some(known) = open.as_ref().and_then(|open| open.partitions.get(&index)) {
                self.take_turn(image, known, partition);
                continue;
            }
            if !partition.replicas.contains(&self.node_id) {
                continue;
            }
            let (key, unreliable) = ((topic.id, index), &self.replication.unreliable);
            if unreliable.contains(&key) {
                continue;
            }
            let name = TopicPartition::new(topic.name.clone(), index);
            match self.log_dirs.open_log(&name, topic.id, config.clone(), now_ms) {
                Ok((log, dir)) => {
                    let traffic = self.metrics.topic(&topic.name);
                    let opened = Partition::open(log, config.clone(), dir, traffic, self.replication.clone());
                    self.take_turn(image, &opened, partition);
                    added.push(opened);
                }
                Err(error) => {
                    tracing::error!(partition = %name, %error, "cannot open the log");
                    self.short.fetch_or(error.is_shortage(), Ordering::Relaxed);
                    if matches!(error, StorageError::Corrupt { .. }) {
                        let (why, leader_epoch) = (Why::Unopened, partition.leader_epoch);
                        unreliable.add(key, Log { name, why, leader_epoch });
                    }
                    failed.get_or_insert(error);
                }
            }
        }
        self.partitions.add(&topic.name, topic.id, added);
        failed.map_or(Ok(()), Err)
    }

    /// What could not be opened can be, from now on.
    pub fn open_anew(&self) {
        self.short.store(true, Ordering::Relaxed);
    }

    /// Tries once more to open what could not be opened because room or file descriptors were short.
    pub fn open_what_is_missing(&self, image: &Image, now_ms: i64) {
        if !self.short.swap(false, Ordering::Relaxed) {
            return;
        }
        for topic in image.topics() {
            match self.open(image, topic, now_ms) {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(topic = %topic.name, %error, "the topic's logs are still offline")
                }
            }
        }
    }

    fn topic_config(&self, image: &Image, topic: &Topic) -> Arc<TopicConfig> {
        let broker = self.config.borrow().clone();
        let (config, left_out) = TopicConfig::of_existing(image.topic_overrides(&topic.name), &broker);
        // Overrides are checked before they are written; a broker default that changed since may still contradict one.
        if let Err(error) = config.check(broker.tier.enabled) {
            tracing::warn!(topic = %topic.name, %error, "the topic's configs contradict each other or the broker's: what was set on the topic is obeyed as it stands");
        }
        for error in left_out {
            tracing::error!(topic = %topic.name, %error, "a config of the topic is not obeyed");
        }
        Arc::new(config)
    }

    fn reconfigure(&self, image: &Image, topic: &Topic) {
        let Some(open) = self.partitions.topic(&topic.name) else { return };
        let config = self.topic_config(image, topic);
        for partition in open.partitions.values() {
            partition.update_config(config.clone());
        }
    }

    fn reconfigure_broker(&self, image: &Image) {
        let from_file = self.config.borrow().clone();
        match image.broker_config(&from_file) {
            Ok(config) => {
                self.replication.throttles.set(&config.replica);
                self.config.send_replace(Arc::new(config));
            }
            Err(error) => {
                tracing::warn!(%error, "a dynamic broker config cannot be obeyed and is left alone")
            }
        }
        for topic in image.topics() {
            self.reconfigure(image, topic);
        }
    }

    fn delete(&self, id: TopicId) {
        let Some(topic) = self.partitions.remove_by_id(id) else { return };
        let name: TopicName = topic.name.clone();
        self.metrics.forget_topic(&name);
        let partitions: Vec<_> = topic.partitions.values().cloned().collect();
        self.delete_logs(&partitions, &name);
        if let Err(error) = self.log_dirs.set_aside_unopened(|found| found.topic == name, id) {
            tracing::error!(topic = %name, %error, "the topic is deleted, but a log of it that could not be opened still has its name");
        }
    }

    fn delete_logs(&self, partitions: &[Arc<Partition>], what: &str) {
        for dir in self.log_dirs.all() {
            let logs: Vec<_> = partitions
                .iter()
                .filter(|partition| partition.data_dir().dir.path() == dir.dir.path())
                .filter_map(|partition| partition.close())
                .collect();
            let count = logs.len();
            if let Err(error) = dir.dir.delete_logs(logs) {
                tracing::error!(%what, %error, "deleted, but some files of it are left");
            }
            self.log_dirs.forget(dir.dir.path(), count);
        }
    }
}
