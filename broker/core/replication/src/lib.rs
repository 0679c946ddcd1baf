//! Replication's rules: what a leader makes of its followers' fetches, and a follower of its leader's answers; and how fast
//! throttled replicas are copied.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod follower;
pub mod leader;
pub mod throttle;
