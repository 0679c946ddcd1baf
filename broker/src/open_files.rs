//! How the descriptors that a process may have are shared out between logs, clients and the rest.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Most files of logs that are kept open, however many there may be.
const OF_LOGS_MAX: usize = 8192;
/// For what is neither a log's file nor a client's connection: the store's connections, checkpoints, HTTP.
const OTHERS: usize = 256;

/// How many the process may have open.
pub fn limit() -> usize {
    let soft = getrlimit(Resource::Nofile).current;
    soft.map_or(usize::MAX, |soft| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// Raises the limit as far as the process may by itself, as the JVM does: shells and init systems start processes
/// with 1,024, which is for programs that use select.
pub fn raise() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "the limit on open files stays {:?}", limit.current);
    }
}

/// Files of logs that are kept open, of `limit` descriptors.
pub fn of_logs(limit: usize) -> usize {
    (limit / 4).clamp(1, OF_LOGS_MAX)
}

/// Connections of clients that may be open, of `limit` descriptors.
pub fn of_clients(limit: usize) -> usize {
    limit.saturating_sub(of_logs(limit)).saturating_sub(OTHERS.min(limit / 4)).max(1)
}
