//! A Kafka client: connections, routing, producing, consuming, and the administration of topics, groups and configs.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod brokers;
pub mod cluster;
pub mod configs;
pub mod connection;
pub mod consumer;
pub mod error;
pub mod groups;
pub mod membership;
pub mod partitioner;
pub mod producer;
mod retry;
#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod scripted;
pub mod topics;
