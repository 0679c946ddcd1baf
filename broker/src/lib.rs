//! The broker: serves the Kafka protocol over logs on disk and segments in an object store.

pub mod api;
pub mod blocking;
pub mod cold;
pub mod commands;
pub mod connection;
pub mod context;
pub mod controller;
pub mod coordinator_runtime;
pub mod disk_guard;
pub mod environment;
pub mod fetch_sessions;
pub mod follower;
pub mod housekeeping;
pub mod log_dirs;
pub mod metadata_log;
pub mod metadata_snapshot;
pub mod net;
pub mod node;
pub mod observed;
pub mod partition;
pub mod partitions;
pub mod producer_ids;
pub mod request_metrics;
pub mod server;
pub mod strays;
