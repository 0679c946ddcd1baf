//! The hot log: disk, segments, indexes, recovery, producers, retention, compaction.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod check;
mod checkpoint;
mod checksum;
pub mod directory;
mod file_names;
mod index;
mod leftovers;
mod offset_map;
mod open_files;
mod rebuild;
mod recent;
mod recovery;
mod residency;
mod rewrite;
mod roll;
#[cfg(test)]
mod sample;
mod scan;
mod segment;
mod sound;
mod task_gate;

pub mod append;
pub mod cleaner;
pub mod cleaner_limits;
pub mod cold_compaction;
pub mod compaction;
pub mod disk;
pub mod epochs;
pub mod error;
pub mod flush;
pub mod identity;
mod incarnations;
pub mod kept_files;
pub mod local_start;
pub mod log_dir;
pub mod mend;
pub mod partition_log;
mod producer_snapshot;
pub mod producers;
pub mod read;
pub mod real_disk;
pub mod retention;
pub mod simulated;
pub mod tier_handover;
pub mod times;
pub mod truncate;
pub mod txn_index;
