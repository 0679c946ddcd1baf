//! Record batches: format v2 and the two before it, validation, compression. Pure: bytes in, bytes out.

pub mod batch;
pub mod builder;
pub mod compaction;
pub mod compression;
pub mod control;
pub mod legacy;
pub mod lookup;
mod lz4;
pub mod record;
mod shape;
pub mod validate;
pub mod varint;
