//! What an operator watches: metrics under the names Kafka dashboards expect, health, logs.

pub mod logging;
