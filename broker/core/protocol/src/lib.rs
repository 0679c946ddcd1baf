//! The Kafka wire protocol: frames, versions, bounds before decoding, and the codecs that the library lacks.
//!
//! Messages are the `kafka-protocol` library's; no other crate names it. Its decoders make room for as many elements as
//! a length on the wire claims, so every request is walked by `bounds` first.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod bounds;
pub mod fetch_response;
pub mod frame;
pub mod legacy;
pub mod response;
pub mod schemas;
pub mod versions;

/// The library's messages, error codes and primitive types.
pub mod library {
    pub use kafka_protocol::{error, messages, protocol};
}
