//! `meta.properties`: which cluster and node a log directory belongs to (KIP-631, KIP-858).

use std::path::Path;

use crate::error::StorageError;

/// Tells a directory that Firn wrote from one of Apache Kafka's, whose logs may have holes between segments after
/// a crash, where Firn's never do. Kafka ignores keys that it does not know.
const WRITER: &str = "firn.version";
const WRITER_VERSION: &str = "1";

/// Who owns a log directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub cluster_id: String,
    pub node_id: i32,
    /// The directory's own id, in Kafka's spelling of a UUID. What an existing directory says of itself stays.
    pub directory_id: String,
}

pub(crate) fn encode(identity: &Identity) -> Vec<u8> {
    format!(
        "#\ncluster.id={}\ndirectory.id={}\n{WRITER}={WRITER_VERSION}\nnode.id={}\nversion=1\n",
        identity.cluster_id, identity.directory_id, identity.node_id
    )
    .into_bytes()
}

/// Did Firn write this directory?
pub(crate) fn is_ours(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines().any(|line| line.split_once('=').is_some_and(|(key, _)| key.trim() == WRITER))
}

/// Compares what the file says with who asks. `broker.id` is the name of old for `node.id`.
pub(crate) fn check(path: &Path, bytes: &[u8], wanted: &Identity) -> Result<Identity, StorageError> {
    let text = String::from_utf8_lossy(bytes);
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let (name, value) = line.trim().split_once('=')?;
            (name.trim() == key).then(|| value.trim().to_owned())
        })
    };
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
