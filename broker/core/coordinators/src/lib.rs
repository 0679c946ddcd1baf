//! Group coordination as a pure state machine, and the records of __consumer_offsets.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod config;
pub mod effect;
pub mod error;
mod group;
pub mod partitioning;
pub mod records;
pub mod requests;
pub mod shard;
mod timers;
mod wire;
