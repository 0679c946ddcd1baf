//! Replication's rules: what a leader makes of its followers' fetches, and a follower of its leader's answers.

pub mod follower;
pub mod leader;
