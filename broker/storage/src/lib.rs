//! The hot log: disk, segments, indexes, recovery, producers, retention, compaction.
