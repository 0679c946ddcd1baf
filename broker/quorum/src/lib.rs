//! The metadata quorum: every change of the metadata is an entry of one log, of which a majority of the voters has a copy
//! before it counts (Raft), and the [`Image`](firn_metadata::image::Image) is what the entries say.
//!
//! Consensus is openraft's; this crate alone names it. What is ours is where it keeps things: entries lie in a
//! [`PartitionLog`](firn_storage::partition_log::PartitionLog) like any other, one batch and one offset each, so that an
//! entry's index is its offset and its term its leader epoch; votes in `quorum-state`; snapshots in KIP-630's files.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod electorate;
pub mod entry;
pub mod error;
mod flushing;
mod kept_snapshots;
pub mod log_store;
pub mod machine;
pub mod members;
pub mod network;
pub mod quorum;
mod quorum_state;
pub mod registrations;
pub mod snapshot;
pub mod types;
pub mod wire;
