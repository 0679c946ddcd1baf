//! The names of objects: a listing of names is all a reader needs to plan.
//!
//! `<cluster-id>/topics/<topic>.<topic-id>/<partition>/<base:020>-<last:020>-<epoch>-<max-ts>-<bytes>.seg`, below
//! whatever prefix the store's URL carries. Parsing accepts exactly what formatting writes, so that two spellings can
//! never name one object. A name that is not ours is foreign: counted, never touched, never an error.

use std::fmt;

use firn_model::ids::{TopicId, TopicPartition, validate_topic_name};

/// End of a segment's name.
pub const SEGMENT_SUFFIX: &str = ".seg";
/// End of the name of an upload that has not been put in its place yet.
pub const STAGED_SUFFIX: &str = ".part";

/// Where one partition's objects live, for the whole life of its topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionPath {
    pub cluster_id: String,
    pub topic_partition: TopicPartition,
    pub topic_id: TopicId,
}

impl PartitionPath {
    /// Reads `<cluster-id>/topics/<topic>.<topic-id>/<partition>`, as [`fmt::Display`] writes it.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let cluster_id = parts.next().filter(|id| !id.is_empty())?;
        if parts.next()? != "topics" {
            return None;
        }
        let (topic, topic_id) = parts.next()?.rsplit_once('.')?;
        validate_topic_name(topic).ok()?;
        let topic_id = TopicId::parse(topic_id)?;
        let partition = digits(parts.next()?)?;
        if parts.next().is_some() {
            return None;
        }
        Some(Self {
            cluster_id: cluster_id.to_owned(),
            topic_partition: TopicPartition::new(topic, i32::try_from(partition).ok()?),
            topic_id,
        })
    }
}

impl fmt::Display for PartitionPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster_id, topic_partition, topic_id } = self;
        let folder = topic_folder(cluster_id, &topic_partition.topic, *topic_id);
        write!(f, "{folder}/{}", topic_partition.partition)
    }
}

/// Where all partitions of a topic live.
pub fn topic_folder(cluster_id: &str, topic: &str, topic_id: TopicId) -> String {
    format!("{cluster_id}/topics/{topic}.{topic_id}")
}

/// True if a folder's name, below a topic's, is a partition's.
pub fn is_partition_folder(name: &str) -> bool {
    digits(name).is_some_and(|partition| i32::try_from(partition).is_ok())
}

/// What an object's name says. Two objects of one name hold the same log, because a record's offset and leader epoch
/// decide it and everything before it; compaction alone can take different records away, and then `log_bytes` differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// First offset that the object covers. Whether there is a record at it is another matter: compaction leaves holes.
    pub base_offset: i64,
    /// Last offset that the object covers, inclusive.
    pub last_offset: i64,
    /// Leader epoch in which `last_offset` was written: not the epoch of the uploader. That makes it the proof that
    /// the object lies on a branch: histories that agree on the epoch of one offset agree on all offsets before it.
    pub leader_epoch: i32,
    /// Greatest record timestamp in milliseconds, -1 if no record has one.
    pub max_timestamp: i64,
    /// Length of the log alone, without the sections behind it.
    pub log_bytes: u64,
}

impl ObjectName {
    /// Reads a file name. `None` for everything that [`fmt::Display`] would not have written.
    pub fn parse(file_name: &str) -> Option<Self> {
        let (base, rest) = file_name.strip_suffix(SEGMENT_SUFFIX)?.split_once('-')?;
        let (last, rest) = rest.split_once('-')?;
        let (epoch, rest) = rest.split_once('-')?;
        let (max_timestamp, bytes) = rest.rsplit_once('-')?;
        if base.len() != 20 || last.len() != 20 {
            return None;
        }
        let name = Self {
            base_offset: base.parse().ok()?,
            last_offset: last.parse().ok()?,
            leader_epoch: epoch.parse().ok()?,
            max_timestamp: max_timestamp.parse().ok()?,
            log_bytes: bytes.parse().ok()?,
        };
        // Signs, zeros in front and other spellings of the same number are not ours.
        (name.is_valid() && name.to_string() == file_name).then_some(name)
    }

    /// True if the fields can belong to a segment at all.
    pub fn is_valid(&self) -> bool {
        0 <= self.base_offset
            && self.base_offset <= self.last_offset
            && self.last_offset < i64::MAX
            && self.leader_epoch >= 0
            && self.max_timestamp >= -1
    }

    /// First offset after the object.
    pub fn end_offset(&self) -> i64 {
        self.last_offset.saturating_add(1)
    }

    pub fn covers(&self, offset: i64) -> bool {
        self.base_offset <= offset && offset <= self.last_offset
    }

    /// The beginning that names of this range share: a listing that starts after it finds them first.
    pub fn range_prefix(&self) -> String {
        format!("{:020}-{:020}-", self.base_offset, self.last_offset)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base_offset, last_offset, leader_epoch, max_timestamp, log_bytes } = self;
        write!(
            f,
            "{base_offset:020}-{last_offset:020}-{leader_epoch}-{max_timestamp}-{log_bytes}{SEGMENT_SUFFIX}"
        )
    }
}

/// What a file name in a partition's folder is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    Segment(ObjectName),
    /// An upload under way, or one that its uploader did not live to finish.
    Staged,
    Foreign,
}

/// Sorts a file name into ours, an upload's beginnings, and what others put there.
pub fn classify(file_name: &str) -> Found {
    if let Some(name) = ObjectName::parse(file_name) {
        return Found::Segment(name);
    }
    let staged = file_name
        .strip_suffix(STAGED_SUFFIX)
        .and_then(|rest| rest.rsplit_once('.'))
        .filter(|(_, token)| {
            token.len() == 16 && token.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        })
        .and_then(|(name, _)| ObjectName::parse(name));
    if staged.is_some() { Found::Staged } else { Found::Foreign }
}

/// The name under which `name` is written before it is put in its place; `token` tells attempts apart.
pub fn staged_name(name: &ObjectName, token: u64) -> String {
    format!("{name}.{token:016x}{STAGED_SUFFIX}")
}

fn digits(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
#[path = "names/tests.rs"]
mod tests;
