//! Words every other crate shares: names, ids, and the configs of topics and brokers.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod broker_config;
pub mod config_definition;
pub mod config_entry;
pub mod config_providers;
pub mod ids;
pub mod pace;
pub mod properties;
pub mod repeated;
pub mod throttled_replicas;
pub mod topic_config;
