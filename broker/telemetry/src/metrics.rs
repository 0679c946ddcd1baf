//! What is counted as it happens, under the names that the JMX exporter gives Kafka's numbers.
//!
//! A hot path holds its counters and adds to an atomic; labels are looked up when a topic's or an API's counters are
//! first asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};

/// Upper bounds of the buckets of request times, in milliseconds.
const REQUEST_TIME_BUCKETS_MS: [f64; 14] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0];

/// Why the metrics cannot be set up: two of one name, which is a fault of the program.
#[derive(Debug, thiserror::Error)]
#[error("the metrics cannot be registered: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// One topic's traffic (Kafka's BrokerTopicMetrics).
#[derive(Debug, Clone)]
pub struct TopicTraffic {
    pub messages_in: IntCounter,
    pub bytes_in: IntCounter,
    pub bytes_out: IntCounter,
    pub produce_requests: IntCounter,
    pub failed_produce_requests: IntCounter,
    pub fetch_requests: IntCounter,
    pub failed_fetch_requests: IntCounter,
}

/// One API's requests (Kafka's RequestMetrics).
#[derive(Debug, Clone)]
pub struct RequestTraffic {
    pub requests: IntCounter,
    pub total_time_ms: Histogram,
}

impl RequestTraffic {
    pub fn finished(&self, took: Duration) {
        self.requests.inc();
        self.total_time_ms.observe(took.as_secs_f64() * 1000.0);
    }
}

/// A listener's open connections.
#[derive(Debug, Clone)]
pub struct OpenConnections(IntGauge);

impl OpenConnections {
    pub fn opened(&self) {
        self.0.inc();
    }

    pub fn closed(&self) {
        self.0.dec();
    }
}

/// How long reads of cold records took.
#[derive(Debug, Clone)]
pub struct ColdReadTimes(Histogram);

impl ColdReadTimes {
    pub fn finished(&self, took: Duration) {
        self.0.observe(took.as_secs_f64() * 1000.0);
    }
}

/// What brokers copy from each other, and who falls out of sync meanwhile.
#[derive(Debug, Clone)]
pub struct ReplicationTraffic {
    pub bytes_in: IntCounter,
    pub bytes_out: IntCounter,
    pub isr_shrinks: IntCounter,
    pub isr_expands: IntCounter,
    pub failed_isr_updates: IntCounter,
}

impl ReplicationTraffic {
    fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes_in: IntCounter::new(
                "kafka_server_brokertopicmetrics_replicationbytesin_total",
                "Bytes fetched from leaders",
            )?,
            bytes_out: IntCounter::new(
                "kafka_server_brokertopicmetrics_replicationbytesout_total",
                "Bytes that followers fetched",
            )?,
            isr_shrinks: IntCounter::new(
                "kafka_server_replicamanager_isrshrinks_total",
                "Times that a partition led here had a follower leave its in-sync replicas",
            )?,
            isr_expands: IntCounter::new(
                "kafka_server_replicamanager_isrexpands_total",
                "Times that a partition led here had a follower join its in-sync replicas",
            )?,
            failed_isr_updates: IntCounter::new(
                "kafka_server_replicamanager_failedisrupdates_total",
                "Changes of in-sync replicas that the controller refused",
            )?,
        })
    }

    fn collectors(&self) -> [&IntCounter; 5] {
        [&self.bytes_in, &self.bytes_out, &self.isr_shrinks, &self.isr_expands, &self.failed_isr_updates]
    }
}

/// All that is counted as it happens.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    topics: Mutex<HashMap<Arc<str>, TopicTraffic>>,
    messages_in: IntCounterVec,
    bytes_in: IntCounterVec,
    bytes_out: IntCounterVec,
    produce_requests: IntCounterVec,
    failed_produce_requests: IntCounterVec,
    fetch_requests: IntCounterVec,
    failed_fetch_requests: IntCounterVec,
    requests: IntCounterVec,
    request_times: HistogramVec,
    pub cold_read_times: ColdReadTimes,
    pub replication: ReplicationTraffic,
    connections: IntGaugeVec,
    pub connections_refused: IntCounter,
    pub malformed_requests: IntCounter,
    pub unclean_elections: IntCounter,
}

impl Metrics {
    pub fn new() -> Result<Self, MetricsError> {
        let topic = |name: &str, help: &str| {
            let name = format!("kafka_server_brokertopicmetrics_{name}_total");
            IntCounterVec::new(Opts::new(name, help), &["topic"])
        };
        let times = HistogramOpts::new(
            "kafka_network_requestmetrics_totaltimems",
            "From a request's arrival to its reply, or to where only its reply waits, in milliseconds",
        )
        .buckets(REQUEST_TIME_BUCKETS_MS.to_vec());
        let cold_reads = HistogramOpts::new(
            "kafka_log_remote_remotelogmanager_remotelogreaderfetchrateandtimems",
            "Time of reads of cold records, in milliseconds",
        )
        .buckets(REQUEST_TIME_BUCKETS_MS.to_vec());
        let metrics = Self {
            registry: Registry::new(),
            topics: Mutex::default(),
            messages_in: topic("messagesin", "Records produced")?,
            bytes_in: topic("bytesin", "Bytes produced, as stored")?,
            bytes_out: topic("bytesout", "Bytes fetched by consumers")?,
            produce_requests: topic(
                "totalproducerequests",
                "Produce requests, by topic of a partition in them",
            )?,
            failed_produce_requests: topic("failedproducerequests", "Partitions whose records were refused")?,
            fetch_requests: topic("totalfetchrequests", "Partitions read by fetch requests")?,
            failed_fetch_requests: topic("failedfetchrequests", "Partitions that could not be read")?,
            requests: IntCounterVec::new(
                Opts::new("kafka_network_requestmetrics_requests_total", "Requests, by API"),
                &["request"],
            )?,
            request_times: HistogramVec::new(times, &["request"])?,
            cold_read_times: ColdReadTimes(Histogram::with_opts(cold_reads)?),
            replication: ReplicationTraffic::new()?,
            connections: IntGaugeVec::new(
                Opts::new("kafka_server_socket_server_metrics_connection_count", "Open connections"),
                &["listener"],
            )?,
            connections_refused: IntCounter::new(
                "firn_connections_refused_total",
                "Connections closed at once for max.connections or max.connections.per.ip",
            )?,
            malformed_requests: IntCounter::new(
                "firn_malformed_requests_total",
                "Connections closed because a client broke the protocol",
            )?,
            unclean_elections: IntCounter::new(
                "kafka_controller_controllerstats_uncleanleaderelections_total",
                "Leaders elected, upon request, that may lack acknowledged records",
            )?,
        };
        metrics.register()?;
        Ok(metrics)
    }

    fn register(&self) -> Result<(), prometheus::Error> {
        let all: [Box<dyn Collector>; 14] = [
            Box::new(self.messages_in.clone()),
            Box::new(self.bytes_in.clone()),
            Box::new(self.bytes_out.clone()),
            Box::new(self.produce_requests.clone()),
            Box::new(self.failed_produce_requests.clone()),
            Box::new(self.fetch_requests.clone()),
            Box::new(self.failed_fetch_requests.clone()),
            Box::new(self.requests.clone()),
            Box::new(self.request_times.clone()),
            Box::new(self.cold_read_times.0.clone()),
            Box::new(self.connections.clone()),
            Box::new(self.connections_refused.clone()),
            Box::new(self.malformed_requests.clone()),
            Box::new(self.unclean_elections.clone()),
        ];
        all.into_iter().try_for_each(|collector| self.registry.register(collector))?;
        for counter in self.replication.collectors() {
            self.registry.register(Box::new(counter.clone()))?;
        }
        self.registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
    }

    /// A topic's counters. Look them up once and keep them.
    pub fn topic(&self, name: &Arc<str>) -> TopicTraffic {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || TopicTraffic {
            messages_in: self.messages_in.with_label_values(&[name]),
            bytes_in: self.bytes_in.with_label_values(&[name]),
            bytes_out: self.bytes_out.with_label_values(&[name]),
            produce_requests: self.produce_requests.with_label_values(&[name]),
            failed_produce_requests: self.failed_produce_requests.with_label_values(&[name]),
            fetch_requests: self.fetch_requests.with_label_values(&[name]),
            failed_fetch_requests: self.failed_fetch_requests.with_label_values(&[name]),
        };
        topics.entry(name.clone()).or_insert_with(new).clone()
    }

    /// Forgets a topic that is deleted, so that its series end.
    pub fn forget_topic(&self, name: &str) {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
        let vectors = [
            &self.messages_in,
            &self.bytes_in,
            &self.bytes_out,
            &self.produce_requests,
            &self.failed_produce_requests,
            &self.fetch_requests,
            &self.failed_fetch_requests,
        ];
        for vector in vectors {
            // A topic that was never written to has no series to end.
            vector.remove_label_values(&[name]).ok();
        }
    }

    /// The connections of a listener. Look them up once and keep them.
    pub fn connections(&self, listener: &str) -> OpenConnections {
        OpenConnections(self.connections.with_label_values(&[listener]))
    }

    /// An API's counters. Look them up once and keep them.
    pub fn request(&self, api: &str) -> RequestTraffic {
        RequestTraffic {
            requests: self.requests.with_label_values(&[api]),
            total_time_ms: self.request_times.with_label_values(&[api]),
        }
    }

    /// Everything counted, in Prometheus' text format.
    pub fn text(&self) -> Result<String, MetricsError> {
        let mut bytes = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_appear_under_kafkas_names_and_end_with_their_topic() {
        let metrics = Metrics::new().unwrap();
        let name: Arc<str> = "orders".into();
        metrics.topic(&name).messages_in.inc_by(3);
        metrics.topic(&name).messages_in.inc();
        metrics.connections("PLAIN").opened();
        metrics.request("Produce").finished(Duration::from_micros(300));
        let text = metrics.text().unwrap();
        for line in [
            "kafka_server_brokertopicmetrics_messagesin_total{topic=\"orders\"} 4",
            "kafka_network_requestmetrics_requests_total{request=\"Produce\"} 1",
            "kafka_network_requestmetrics_totaltimems_bucket{request=\"Produce\",le=\"0.5\"} 1",
            "kafka_server_socket_server_metrics_connection_count{listener=\"PLAIN\"} 1",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(text.contains("process_open_fds"), "the process is watched too");
        metrics.forget_topic("orders");
        assert!(!metrics.text().unwrap().contains("orders"));
    }
}
