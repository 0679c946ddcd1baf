//! The rules of the cold tier: object names, the footer, which object wins, what may go.

pub mod collect;
pub mod footer;
pub mod lineage;
pub mod names;
pub mod retention;
pub mod select;
