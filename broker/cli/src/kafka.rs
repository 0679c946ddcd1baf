//! The faces of Kafka's own tools: their flags, their output, their exit codes, for the scripts that people have.

pub(crate) mod client_properties;
pub mod configs;
pub mod consumer_groups;
pub mod delete_records;
mod exceptions;
pub mod get_offsets;
mod patterns;
pub mod topics;
