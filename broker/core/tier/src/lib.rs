//! The rules of the cold tier: object names, the footer, which object wins, what may go.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod collect;
pub mod footer;
pub mod lineage;
pub mod names;
pub mod retention;
pub mod select;
