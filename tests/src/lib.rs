//! Suites that cross processes: real clients and tools, real stores, real power cuts, benchmarks.

pub mod apache;
pub mod checker;
pub mod cluster;
pub mod faults;
pub mod history;
pub mod java;
pub mod ledger;
pub mod librdkafka;
pub mod process;
pub mod questions;
pub mod relay;
pub mod segments;
pub mod simulator;
pub mod store;
pub mod tools;
pub mod trio;
pub mod wire;
