//! The Kafka wire protocol: frames, versions, bounds before decoding, and the codecs that the library lacks.
