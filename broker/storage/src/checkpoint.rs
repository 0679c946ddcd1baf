//! Small files that are replaced whole: checkpoints, identities, markers.
//!
//! Order: write `<name>.tmp`, sync it, rename it over `<name>`, sync the directory. A crash leaves the old file or the
//! new one, and perhaps a `.tmp` that the next write empties. Callers that sync the directory anyway skip the last step.

use std::collections::BTreeMap;
use std::path::Path;

use firn_model::ids::TopicPartition;

use crate::checksum;
use crate::disk::{Disk, OpenMode, write_all_at};
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::TEMPORARY;
use crate::open_files::read_file;

/// Whether `replace` makes the new name durable itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DirSync {
    Now,
    /// The caller syncs the directory later, before anything depends on the new file.
    ByCaller,
}

/// Puts `bytes` at `directory/name`, in one step as far as any reader or crash can tell.
pub(crate) fn replace(
    disk: &dyn Disk,
    directory: &Path,
    name: &str,
    bytes: &[u8],
    dir_sync: DirSync,
) -> Result<(), StorageError> {
    let path = directory.join(name);
    let temporary = directory.join(format!("{name}{TEMPORARY}"));
    let file = disk.open(&temporary, OpenMode::CreateEmpty).map_err(failed_to("create", &temporary))?;
    if let Err(error) = write_all_at(file.as_ref(), bytes, 0) {
        // The half that is there takes room that others need more. If it stays, the next write empties it.
        disk.remove_file(&temporary).ok();
        return Err(failed_to("write", &temporary)(error));
    }
    file.sync_data().map_err(failed_to_sync(&temporary))?;
    disk.rename(&temporary, &path).map_err(failed_to("rename to", &path))?;
    if dir_sync == DirSync::Now {
        disk.sync_dir(directory).map_err(failed_to_sync(directory))?;
    }
    Ok(())
}

/// Offsets by partition, as Kafka's `OffsetCheckpointFile` spells them: a version, a count, then a line each.
pub(crate) fn encode_offsets(offsets: &BTreeMap<TopicPartition, i64>) -> Vec<u8> {
    encode(offsets.iter().map(|(name, offset)| format!("{} {} {offset}\n", name.topic, name.partition)))
}

/// A checkpoint of version 0, of a line for each entry.
pub(crate) fn encode(lines: impl ExactSizeIterator<Item = String>) -> Vec<u8> {
    let count = lines.len();
    let text = format!("0\n{count}\n{}", lines.collect::<String>());
    // Of no entries nothing else can be said, so that whatever else is said is wrong.
    if count == 0 { text.into_bytes() } else { checksum::with_blanks(&text).into_bytes() }
}

/// Reads what `encode_offsets` wrote. The error says which line is wrong.
pub(crate) fn parse_offsets(bytes: &[u8]) -> Result<BTreeMap<TopicPartition, i64>, String> {
    let mut offsets = BTreeMap::new();
    for fields in entries::<3>(bytes)? {
        let [topic, partition, offset] = fields;
        let partition = partition.parse().map_err(|_| format!("'{partition}' is not a partition"))?;
        let offset: i64 = offset.parse().map_err(|_| format!("'{offset}' is not an offset"))?;
        if offset < 0 {
            return Err(format!("offset {offset} is negative"));
        }
        offsets.insert(TopicPartition::new(topic, partition), offset);
    }
    Ok(offsets)
}

/// Splits a checkpoint of version 0 into its entries of `N` fields each, and checks its checksum and their count.
pub(crate) fn entries<const N: usize>(bytes: &[u8]) -> Result<Vec<[&str; N]>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    checksum::check_blanks(text)?;
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    if version != "0" {
        return Err(format!("version '{}' is unknown", version.chars().take(20).collect::<String>()));
    }
    let count = lines.next().unwrap_or_default();
    let count: usize = count.parse().map_err(|_| "the count of entries is missing".to_owned())?;
    let mut entries = Vec::new();
    for line in lines {
        let mut fields = line.split_ascii_whitespace();
        let entry: [&str; N] = std::array::from_fn(|_| fields.next().unwrap_or_default());
        if entry.last().is_some_and(|field| field.is_empty()) || fields.next().is_some() {
            return Err(format!("line {} does not have {N} fields", entries.len() + 3));
        }
        entries.push(entry);
    }
    if entries.len() != count {
        return Err(format!("it promises {count} entries and has {}", entries.len()));
    }
    Ok(entries)
}

/// Loads an offsets checkpoint; none there is an empty one.
pub(crate) fn load_offsets(
    disk: &dyn Disk,
    path: &Path,
) -> Result<BTreeMap<TopicPartition, i64>, StorageError> {
    match read_file(disk, path)? {
        None => Ok(BTreeMap::new()),
        Some(bytes) => parse_offsets(&bytes).map_err(|reason| StorageError::corrupt(path, reason)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_spelled_as_kafka_spells_them() {
        let offsets = BTreeMap::from([(TopicPartition::new("b", 1), 42), (TopicPartition::new("a-x", 0), 0)]);
        let bytes = encode_offsets(&offsets);
        assert_eq!(bytes.trim_ascii_end(), b"0\n2\na-x 0 0\nb 1 42");
        assert_eq!(parse_offsets(&bytes), Ok(offsets.clone()));
        assert_eq!(parse_offsets(b"0\n2\na-x 0 0\nb 1 42\n"), Ok(offsets), "as Kafka writes it");
        assert_eq!(parse_offsets(b"0\n0\n"), Ok(BTreeMap::new()));
    }

    #[test]
    fn damaged_checkpoints_are_refused() {
        for bad in [
            "",
            "1\n0\n",
            "0\n",
            "0\n1\n",
            "0\n1\na 0\n",
            "0\n1\na 0 1",
            "0\n1\na 0 1 \n",
            "0\n1\na 0 1 2\n",
            "0\n0\na 0 1\n",
            "0\n1\na x 1\n",
        ] {
            assert!(parse_offsets(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert!(parse_offsets(b"0\n1\na 0 -5\n").is_err());
        assert!(parse_offsets(&[0xff, 0xfe]).is_err());
    }
}
