//! What `/metrics` says of a whole broker in this process: each number follows what happened, and the text is
//! Prometheus' own.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is how a failure is told")]

mod cluster;
mod scrape;
mod threads;
mod tier;
mod world;
