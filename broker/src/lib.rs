//! The broker: serves the Kafka protocol over logs on disk and segments in an object store.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod anew;
pub mod api;
pub mod background;
pub mod balancing;
pub mod cleaner_pace;
pub mod closing;
pub mod cold;
pub mod commands;
pub mod connection;
pub mod context;
pub mod controller;
pub mod coordinator_runtime;
pub mod creation;
pub mod deleted_topics;
pub mod disk_guard;
pub mod environment;
pub mod fetch_sessions;
pub mod follower;
pub mod frame_buffer;
pub mod housekeeping;
pub mod lobby;
pub mod log_dirs;
mod marking;
pub mod mending;
pub mod milliseconds;
pub mod net;
pub mod node;
pub mod observed;
pub mod open_files;
pub mod opening;
pub mod partition;
pub mod partitions;
pub mod peers;
pub mod producer_ids;
pub mod record_memory;
pub mod registration;
pub mod replication;
pub mod request_memory;
pub mod request_metrics;
pub mod scrub;
pub mod server;
pub mod strays;
