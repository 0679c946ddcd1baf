//! The faces people type: topic, produce, consume, group, config, cluster.
