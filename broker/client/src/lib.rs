//! A Kafka client: connections, version negotiation, topic administration, partitioning.

pub mod connection;
pub mod error;
pub mod partitioner;
pub mod topics;
