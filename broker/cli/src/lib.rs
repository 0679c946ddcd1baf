//! The faces people type: topics in our words, and Kafka's own tool for them.

pub mod command;
pub mod kafka_topics;
mod output;
pub mod topic;
