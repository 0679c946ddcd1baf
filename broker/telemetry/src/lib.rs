//! What an operator watches: metrics under the names Kafka dashboards expect, health, logs.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod disk_io;
pub mod exposition;
pub mod http;
pub mod logging;
pub mod metrics;
