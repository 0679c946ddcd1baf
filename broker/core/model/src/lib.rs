//! Words every other crate shares: names, ids, and the configs of topics and brokers.

pub mod ids;
pub mod topic_config;
