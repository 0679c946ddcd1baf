//! A Kafka client: connections, routing, producing, consuming, administration.
