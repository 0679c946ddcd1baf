//! What an operator watches: metrics under the names Kafka dashboards expect, health, logs.

pub mod disk_io;
pub mod exposition;
pub mod http;
pub mod logging;
pub mod metrics;
