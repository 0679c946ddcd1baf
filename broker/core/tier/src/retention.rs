//! How far the log start offset moves by `retention.ms` and `retention.bytes`, over the cold part of a log.

use crate::select::Link;

/// A topic's retention. Limits are Kafka's: negative means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub retention_ms: i64,
    pub retention_bytes: i64,
}

/// The log start offset that retention asks for: the end of the last link that goes, or `None` if none does.
///
/// `chain` is the cold log in the order of offsets; `bytes_after` the size of what lies behind it (the local log from
/// the chain's end on). As in Kafka, whole segments go, oldest first, and the first that may stay ends the search. A
/// segment none of whose records has a timestamp is kept by time: nothing says that it is old.
pub fn retained_start(chain: &[Link], bytes_after: u64, retention: &Retention, now_ms: i64) -> Option<i64> {
    let mut total: u64 = chain.iter().map(served_bytes).fold(bytes_after, u64::saturating_add);
    let limit = u64::try_from(retention.retention_bytes).ok();
    let mut start = None;
    for link in chain {
        let bytes = served_bytes(link);
        // Kafka deletes by size only while what stays is still at least the limit.
        let over_size = limit.is_some_and(|limit| total.saturating_sub(bytes) >= limit);
        let over_time = retention.retention_ms >= 0
            && link.name.max_timestamp >= 0
            && now_ms.saturating_sub(link.name.max_timestamp) > retention.retention_ms;
        if !over_size && !over_time {
            break;
        }
        start = Some(link.to);
        total = total.saturating_sub(bytes);
    }
    start
}

/// An estimate by offsets where only a part of the object serves.
fn served_bytes(link: &Link) -> u64 {
    let whole = link.name.end_offset().saturating_sub(link.name.base_offset).max(1);
    let served = link.to.saturating_sub(link.from).max(0);
    let bytes = u128::from(link.name.log_bytes) * u128::from(served.unsigned_abs())
        / u128::from(whole.unsigned_abs());
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "retention/tests.rs"]
mod tests;
