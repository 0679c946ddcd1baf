//! The partitions that this broker has replicas of, by name and by topic id.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicName};
use parking_lot::RwLock;

use crate::partition::Partition;

/// Those of a topic's partitions that this broker has replicas of, by their index.
#[derive(Debug, Clone)]
pub struct Topic {
    pub name: TopicName,
    pub id: TopicId,
    pub partitions: Arc<BTreeMap<i32, Arc<Partition>>>,
}

#[derive(Debug, Default)]
struct Tables {
    by_name: HashMap<TopicName, Topic>,
    names: HashMap<TopicId, TopicName>,
}

/// Every partition of this broker. Lookups take a shared lock for as long as a map lookup lasts.
#[derive(Debug, Default)]
pub struct Partitions {
    tables: RwLock<Tables>,
}

/// Why there is no such partition here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoSuchPartition {
    #[error("topic '{0}' does not exist here")]
    Topic(String),
    #[error("no topic has the id {0}")]
    TopicId(TopicId),
    #[error("topic '{topic}' has no partition {partition} here")]
    Partition { topic: TopicName, partition: i32 },
    #[error("{topic}-{partition} is led by broker {leader} (-1: by nobody)")]
    Elsewhere { topic: TopicName, partition: i32, leader: i32 },
}

impl Partitions {
    pub fn topic(&self, name: &str) -> Option<Topic> {
        self.tables.read().by_name.get(name).cloned()
    }

    pub fn by_name(&self, name: &str, partition: i32) -> Result<Arc<Partition>, NoSuchPartition> {
        let tables = self.tables.read();
        let topic = tables.by_name.get(name).ok_or_else(|| NoSuchPartition::Topic(name.to_owned()))?;
        topic.partition(partition)
    }

    pub fn by_id(&self, id: TopicId, partition: i32) -> Result<Arc<Partition>, NoSuchPartition> {
        let tables = self.tables.read();
        let topic = tables.names.get(&id).and_then(|name| tables.by_name.get(name));
        topic.ok_or(NoSuchPartition::TopicId(id))?.partition(partition)
    }

    /// Every partition, topic by topic. A snapshot: what comes or goes meanwhile is not in it.
    pub fn all(&self) -> Vec<Arc<Partition>> {
        self.tables.read().by_name.values().flat_map(|topic| topic.partitions.values().cloned()).collect()
    }

    pub fn topics(&self) -> Vec<Topic> {
        self.tables.read().by_name.values().cloned().collect()
    }

    /// Puts a topic in place, or adds partitions behind those that it has.
    pub fn add(&self, name: &TopicName, id: TopicId, added: Vec<Arc<Partition>>) {
        let mut tables = self.tables.write();
        let mut partitions =
            tables.by_name.get(name).map_or_else(BTreeMap::new, |topic| (*topic.partitions).clone());
        partitions.extend(added.into_iter().map(|partition| (partition.name.partition, partition)));
        tables.names.insert(id, name.clone());
        tables
            .by_name
            .insert(name.clone(), Topic { name: name.clone(), id, partitions: Arc::new(partitions) });
    }

    /// Takes a partition out: from here on no request finds it.
    pub fn remove(&self, id: TopicId, index: i32) -> Option<Arc<Partition>> {
        let mut tables = self.tables.write();
        let name = tables.names.get(&id)?.clone();
        let topic = tables.by_name.get_mut(&name)?;
        Arc::make_mut(&mut topic.partitions).remove(&index)
    }

    /// Takes a topic out: from here on no request finds it.
    pub fn remove_by_id(&self, id: TopicId) -> Option<Topic> {
        let mut tables = self.tables.write();
        let name = tables.names.remove(&id)?;
        tables.by_name.remove(&name)
    }
}

impl Topic {
    fn partition(&self, index: i32) -> Result<Arc<Partition>, NoSuchPartition> {
        let missing = || NoSuchPartition::Partition { topic: self.name.clone(), partition: index };
        self.partitions.get(&index).cloned().ok_or_else(missing)
    }
}
