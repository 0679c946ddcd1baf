//! The cold log: uploads, ranged reads through a cache, collection.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod bucket;
pub mod cache;
pub mod collect;
mod conditional;
pub mod error;
pub mod faults;
mod footers;
mod log_check;
mod lookup;
pub mod metrics;
pub mod options;
mod pace;
pub mod partition;
mod read;
mod read_ahead;
mod retry;
pub mod segment;
pub mod store;
pub mod tier;
pub mod traffic;
mod upload;
mod verify;
pub mod whole;

#[cfg(test)]
mod tests;
