//! The faces people type: topics, records, groups, configs and clusters in our words, and Kafka's own tools for them.

pub mod broker;
pub mod cluster;
pub mod command;
pub mod config;
pub mod consume;
pub mod group;
pub mod kafka;
mod output;
pub mod produce;
mod progress;
pub mod topic;
mod values;
