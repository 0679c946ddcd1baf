//! The cluster's metadata: the image, the records that change it, and the decisions that write them.

pub mod apply;
pub mod decide;
pub mod image;
pub mod incarnations;
pub mod invariants;
pub mod leadership;
pub mod leases;
pub mod reassignment;
pub mod record;
