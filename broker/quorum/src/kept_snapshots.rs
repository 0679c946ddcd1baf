//! The snapshots that lie beside the quorum's log.

use firn_storage::partition_log::PartitionLog;

use crate::error::QuorumError;
use crate::snapshot::{self, CHECKPOINT, Content, SnapshotId};

/// Every snapshot, the oldest first.
pub(crate) fn snapshots(log: &PartitionLog) -> Result<Vec<SnapshotId>, QuorumError> {
    let names = log.kept_files(CHECKPOINT)?;
    let mut ids: Vec<_> = names.iter().filter_map(|name| SnapshotId::parse(name)).collect();
    ids.sort();
    Ok(ids)
}

/// The newest one that is whole.
pub(crate) fn newest_snapshot(log: &PartitionLog) -> Result<Option<(SnapshotId, Content)>, QuorumError> {
    for id in snapshots(log)?.into_iter().rev() {
        let name = id.file_name();
        let bytes = log.kept_file(&name)?.unwrap_or_default();
        match snapshot::decode(&bytes) {
            Ok(content) => return Ok(Some((id, content))),
            Err(reason) => tracing::error!(name, reason, "this snapshot of the metadata is damaged"),
        }
    }
    Ok(None)
}
