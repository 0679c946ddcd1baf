//! The names of a log directory's files and folders, which are Kafka's.

use firn_model::ids::{TopicId, TopicPartition};

pub(crate) const LOG: &str = ".log";
pub(crate) const INDEX: &str = ".index";
pub(crate) const TIME_INDEX: &str = ".timeindex";
pub(crate) const TXN_INDEX: &str = ".txnindex";
pub(crate) const SNAPSHOT: &str = ".snapshot";
/// Every kind of file that belongs to one segment.
pub(crate) const SEGMENT_SUFFIXES: [&str; 5] = [LOG, INDEX, TIME_INDEX, TXN_INDEX, SNAPSHOT];

/// Waits for `file.delete.delay.ms` to be removed.
pub(crate) const DELETED: &str = ".deleted";
/// Half-written output of the cleaner.
pub(crate) const CLEANED: &str = ".cleaned";
/// Whole output of the cleaner, about to replace what it was made from.
pub(crate) const SWAP: &str = ".swap";
/// A checkpoint that is being written.
pub(crate) const TEMPORARY: &str = ".tmp";

pub(crate) const LEADER_EPOCHS: &str = "leader-epoch-checkpoint";
pub(crate) const PARTITION_METADATA: &str = "partition.metadata";
pub(crate) const RECOVERY_POINTS: &str = "recovery-point-offset-checkpoint";
pub(crate) const LOG_START_OFFSETS: &str = "log-start-offset-checkpoint";
pub(crate) const HIGH_WATERMARKS: &str = "replication-offset-checkpoint";
pub(crate) const CLEANER_OFFSETS: &str = "cleaner-offset-checkpoint";
pub(crate) const META_PROPERTIES: &str = "meta.properties";
pub(crate) const CLEAN_SHUTDOWN: &str = ".kafka_cleanshutdown";
pub(crate) const INCARNATIONS: &str = "firn-incarnations";
pub(crate) const DIRECTORY_LOCK: &str = ".lock";

/// Ends the name of a partition's directory that is being removed.
const DELETE_DIR: &str = "-delete";
/// Ends the name of a partition's directory that was set aside because nothing in the metadata owns it.
const STRAY_DIR: &str = "-stray";
/// Longest file name of the usual file systems.
const NAME_LENGTH_MAX: usize = 255;

/// `<offset:020><suffix>`, as in `00000000000000000042.log`.
pub(crate) fn segment_file(base_offset: i64, suffix: &str) -> String {
    format!("{base_offset:020}{suffix}")
}

/// Reads `<offset:020><suffix>`; the suffix keeps its dot and may have several parts (`.log.deleted`).
pub(crate) fn parse_segment_file(name: &str) -> Option<(i64, &str)> {
    let (digits, suffix) = name.split_at_checked(20)?;
    if !suffix.starts_with('.') || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    Some((digits.parse().ok()?, suffix))
}

/// Reads a partition directory's name, `<topic>-<partition>`.
pub(crate) fn parse_partition_dir(name: &str) -> Option<TopicPartition> {
    let (topic, partition) = name.rsplit_once('-')?;
    if partition.is_empty() || !partition.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    firn_model::ids::validate_topic_name(topic).ok()?;
    Some(TopicPartition::new(topic, partition.parse().ok()?))
}

/// The name under which a partition's directory waits for its removal. The topic's id makes it unique.
pub(crate) fn delete_dir(partition: &TopicPartition, topic_id: TopicId) -> String {
    dir_out_of_the_way(partition, topic_id, DELETE_DIR)
}

pub(crate) fn is_delete_dir(name: &str) -> bool {
    name.ends_with(DELETE_DIR) && name.contains('.')
}

/// The name under which a stray partition's directory is kept; `unique` was never used before.
pub(crate) fn stray_dir(partition: &TopicPartition, unique: TopicId) -> String {
    dir_out_of_the_way(partition, unique, STRAY_DIR)
}

pub(crate) fn is_stray_dir(name: &str) -> bool {
    name.ends_with(STRAY_DIR) && name.contains('.')
}

/// A long topic name is cut so that the whole still fits.
fn dir_out_of_the_way(partition: &TopicPartition, unique: TopicId, end: &str) -> String {
    let suffix = format!("-{}.{}{end}", partition.partition, unique.0.simple());
    let room = NAME_LENGTH_MAX - suffix.len();
    let topic = partition.topic.get(..room).unwrap_or(&partition.topic);
    format!("{topic}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn names_are_kafkas() {
        assert_eq!(segment_file(42, LOG), "00000000000000000042.log");
        assert_eq!(parse_segment_file("00000000000000000042.log"), Some((42, ".log")));
        assert_eq!(
            parse_segment_file("09223372036854775807.index.deleted"),
            Some((i64::MAX, ".index.deleted"))
        );
        for bad in ["42.log", "0000000000000000004x.log", "00000000000000000042", "99999999999999999999.log"]
        {
            assert_eq!(parse_segment_file(bad), None, "{bad}");
        }
        assert_eq!(parse_partition_dir("a-b-7"), Some(TopicPartition::new("a-b", 7)));
        for bad in ["a", "-1", "a-", "a-x", "a--1x", "a-99999999999", "a-0.ab12-delete"] {
            assert_eq!(parse_partition_dir(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_directory_out_of_the_way_fits_a_file_name_and_is_known_as_such() {
        let long = TopicPartition::new("t".repeat(249), 123);
        let id = TopicId(Uuid::from_u128(7));
        for (name, deleted) in [(delete_dir(&long, id), true), (stray_dir(&long, id), false)] {
            assert_eq!(name.len(), 255);
            assert_eq!((is_delete_dir(&name), is_stray_dir(&name)), (deleted, !deleted), "{name}");
            assert_eq!(parse_partition_dir(&name), None);
        }
        assert!(!is_delete_dir("my-delete-0") && !is_stray_dir("my-stray-0"));
    }
}
