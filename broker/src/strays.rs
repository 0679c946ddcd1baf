//! Partitions' directories that no topic of the metadata owns, found at the start and set aside.
//!
//! A topic is removed from the metadata first and from the disk afterwards. A crash in between leaves directories that a
//! later topic of the same name would trip over. They are renamed, as Kafka does (`<topic>-<partition>.<id>-stray`), and
//! never deleted: what looks like a stray may be all that is left of somebody's records.
//!
//! What protects a directory that only looks like one: data directories of another cluster or node, and those that say
//! of nobody that they are his, are refused when they are opened; and without a single metadata record nothing is a
//! stray, because then the metadata are what is missing.

use firn_metadata::image::Image;
use firn_model::ids::TopicId;
use firn_storage::log_dir::FoundLog;

use crate::log_dirs::LogDirs;
use crate::node::StartError;

/// Refuses partitions of which there is no metadata record at all.
pub fn refuse_unknown(log_dirs: &LogDirs) -> Result<(), StartError> {
    match log_dirs.found()?.into_iter().next() {
        None => Ok(()),
        Some((path, found)) => {
            Err(StartError::UnknownPartition { path, partition: found.topic_partition.to_string() })
        }
    }
}

/// Sets the strays aside, before any log is opened. `unique` gives ids that were never given before.
pub fn set_aside(
    log_dirs: &LogDirs,
    image: &Image,
    node_id: i32,
    unique: impl Fn() -> TopicId,
) -> Result<(), StartError> {
    log_dirs.set_aside(|found| why_stray(image, node_id, found), unique)?;
    Ok(())
}

/// Why nothing will ever open this directory; `None` if something will.
fn why_stray(image: &Image, node_id: i32, found: &FoundLog) -> Option<&'static str> {
    let Some(topic) = image.topic(&found.topic_partition.topic) else {
        return Some("its topic was deleted");
    };
    // Without an id nothing in it was ever acknowledged, and the topic of that name may have it.
    if found.topic_id.is_some_and(|id| id != topic.id) {
        return Some("its topic was deleted, and another of the name created");
    }
    match topic.partition(found.topic_partition.partition) {
        None => Some("its topic has no such partition"),
        Some(partition) if !partition.replicas.contains(&node_id) => {
            Some("the partition is not assigned to this broker")
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use firn_metadata::record::{MetadataRecord, PartitionRecord, TopicRecord};
    use firn_model::ids::TopicPartition;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_stray_is_what_the_metadata_do_not_place_here() {
        let (kept, gone) = (TopicId(Uuid::from_u128(7)), TopicId(Uuid::from_u128(8)));
        let partition = |partition, replicas: &[i32]| {
            MetadataRecord::Partition(PartitionRecord {
                topic_id: kept,
                partition,
                replicas: replicas.to_vec(),
                adding_replicas: Vec::new(),
                removing_replicas: Vec::new(),
                isr: replicas.to_vec(),
                elr: Vec::new(),
                last_known_elr: Vec::new(),
                leader: replicas[0],
                leader_epoch: 0,
                partition_epoch: 0,
            })
        };
        let mut image = Image::default();
        let topic = MetadataRecord::Topic(TopicRecord { name: "kept".to_owned(), topic_id: kept });
        image.apply_all(&[topic, partition(0, &[3, 4]), partition(1, &[4])]).unwrap();
        let cases = [
            ("kept", 0, Some(kept), None),
            ("kept", 0, None, None),
            ("kept", 0, Some(gone), Some("another of the name")),
            ("kept", 1, Some(kept), Some("not assigned to this broker")),
            ("kept", 2, Some(kept), Some("no such partition")),
            ("gone", 0, Some(gone), Some("was deleted")),
            ("gone", 0, None, Some("was deleted")),
        ];
        for (topic, index, topic_id, expected) in cases {
            let found = FoundLog { topic_partition: TopicPartition::new(topic, index), topic_id };
            let why = why_stray(&image, 3, &found);
            assert_eq!(why.is_some(), expected.is_some(), "{found:?}: {why:?}");
            assert!(why.unwrap_or_default().contains(expected.unwrap_or_default()), "{found:?}: {why:?}");
        }
    }
}
