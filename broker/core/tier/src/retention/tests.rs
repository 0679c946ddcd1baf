//! How far retention moves the start, as a table.

use super::*;
use crate::names::ObjectName;

fn link(from: i64, to: i64, max_timestamp: i64, log_bytes: u64) -> Link {
    let name =
        ObjectName { base_offset: from, last_offset: to - 1, leader_epoch: 0, max_timestamp, log_bytes };
    Link { name, from, to }
}

#[test]
fn whole_segments_go_oldest_first() {
    let chain = [link(0, 10, 100, 50), link(10, 20, 200, 50), link(20, 30, 150, 50)];
    let by = |retention_ms, retention_bytes, bytes_after, now_ms| {
        retained_start(&chain, bytes_after, &Retention { retention_ms, retention_bytes }, now_ms)
    };
    assert_eq!(by(-1, -1, 0, i64::MAX), None, "no limits");
    assert_eq!(by(100, -1, 0, 200), None, "just young enough");
    assert_eq!(by(100, -1, 0, 201), Some(10));
    assert_eq!(by(100, -1, 0, 251), Some(10), "the third is old, but the second stays before it");
    assert_eq!(by(0, -1, 0, 1_000), Some(30));
    assert_eq!(by(-1, 149, 0, 0), None, "without the first, less than the limit would stay");
    assert_eq!(by(-1, 100, 0, 0), Some(10));
    assert_eq!(by(-1, 100, 75, 0), Some(20));
    assert_eq!(by(-1, 0, 0, 0), Some(30));
}

#[test]
fn a_segment_without_timestamps_is_not_old() {
    let chain = [link(0, 10, -1, 50)];
    assert_eq!(retained_start(&chain, 0, &Retention { retention_ms: 0, retention_bytes: -1 }, 1_000), None);
}
