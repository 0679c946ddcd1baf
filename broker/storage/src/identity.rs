//! `meta.properties`: which cluster and node a log directory belongs to (KIP-631, KIP-858).

use std::path::Path;

use crate::checksum;
use crate::disk::Disk;
use crate::error::StorageError;
use crate::file_names::META_PROPERTIES;
use crate::open_files::read_file;

/// Tells a directory that Firn wrote from one of Apache Kafka's, whose logs may have holes between segments after
/// a crash, where Firn's never do. Kafka ignores keys that it does not know.
const WRITER: &str = "firn.version";
const WRITER_VERSION: &str = "1";
/// Begins the last line, which has the checksum of those before.
const CHECKSUM: &str = "firn.crc32c=";

/// Who owns a log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: i32,
    /// The directory's own id, in Kafka's spelling of a UUID. What an existing directory says of itself stays.
    pub directory_id: String,
}

pub(crate) fn encode(identity: &Identity) -> Vec<u8> {
    let text = format!(
        "#\ncluster.id={}\ndirectory.id={}\n{WRITER}={WRITER_VERSION}\nnode.id={}\nversion=1\n",
        identity.cluster_id, identity.directory_id, identity.node_id
    );
    checksum::with_line(&text, CHECKSUM).into_bytes()
}

/// Did Firn write this directory?
pub(crate) fn is_ours(bytes: &[u8]) -> bool {
    value_of(&String::from_utf8_lossy(bytes), WRITER).is_some()
}

/// The cluster that a log directory belongs to, if it has belonged to one.
pub fn cluster_id_of(disk: &dyn Disk, directory: &Path) -> Result<Option<String>, StorageError> {
    let path = directory.join(META_PROPERTIES);
    let Some(bytes) = read_file(disk, &path)? else { return Ok(None) };
    Ok(value_of(sound_text(&path, &bytes)?, "cluster.id"))
}

fn value_of(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.trim().split_once('=')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    })
}

/// Whoever went by a name that has rotted would join another cluster, or be another broker.
fn sound_text<'a>(path: &Path, bytes: &'a [u8]) -> Result<&'a str, StorageError> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned());
    let sound = text.and_then(|text| checksum::check_line(text, CHECKSUM).map(|_| text));
    sound.map_err(|reason| {
        let what_to_do = "restore it from a backup, or correct it, by other brokers' files and take its line firn.crc32c away";
        StorageError::corrupt(path, format!("{reason}; {what_to_do}"))
    })
}

/// Compares what the file says with who asks. `broker.id` is the name of old for `node.id`.
pub(crate) fn check(path: &Path, bytes: &[u8], wanted: &Identity) -> Result<Identity, StorageError> {
    let text = sound_text(path, bytes)?;
    let value = |key| value_of(text, key);
    let refuse = |key, found: String, wanted: String| {
        Err(StorageError::WrongOwner { path: path.to_owned(), key, found, wanted })
    };
    match value("version").as_deref() {
        Some("0" | "1") => {}
        other => {
            return Err(StorageError::corrupt(
                path,
                format!("version '{}' is unknown", other.unwrap_or_default()),
            ));
        }
    }
    let cluster_id = value("cluster.id").unwrap_or_default();
    if cluster_id != wanted.cluster_id {
        return refuse("cluster.id", cluster_id, wanted.cluster_id.clone());
    }
    let node_id = value("node.id").or_else(|| value("broker.id")).unwrap_or_default();
    if node_id != wanted.node_id.to_string() {
        return refuse("node.id", node_id, wanted.node_id.to_string());
    }
    Ok(Identity { directory_id: value("directory.id").unwrap_or_default(), ..wanted.clone() })
}
