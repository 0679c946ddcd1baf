//! The Firn broker: one binary that speaks Kafka, keeps hot segments on disk and cold ones in an object store.
