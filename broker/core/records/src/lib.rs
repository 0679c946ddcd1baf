//! Record batches: format v2 and the two before it, validation, compression. Pure: bytes in, bytes out.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod batch;
pub mod builder;
pub mod compaction;
pub mod compression;
pub mod control;
mod expand;
pub mod legacy;
pub mod lookup;
mod lz4;
mod payload;
mod pieces;
pub mod record;
mod shape;
mod stream_shape;
pub mod validate;
pub mod varint;
