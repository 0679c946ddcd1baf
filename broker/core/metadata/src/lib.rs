//! The cluster's metadata: the image, the records that change it, and the decisions that write them.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod apply;
pub mod decide;
pub mod image;
pub mod incarnations;
pub mod invariants;
pub mod leadership;
pub mod leases;
pub mod reassignment;
pub mod record;
