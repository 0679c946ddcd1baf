//! The counters of each API, looked up once.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_protocol::library::messages::ApiKey;
use firn_protocol::versions::SERVED;
use firn_telemetry::metrics::{Metrics, RequestTraffic};

#[derive(Debug)]
pub struct RequestMetrics {
    by_key: BTreeMap<i16, RequestTraffic>,
    /// Kafka counts fetches once more by who fetches, and dashboards ask for that. No other broker fetches from this one.
    consumer_fetches: RequestTraffic,
}

impl RequestMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        let one = |api: ApiKey| (api as i16, metrics.request(&format!("{api:?}")));
        Self {
            by_key: SERVED.iter().map(|served| one(served.api)).collect(),
            consumer_fetches: metrics.request("FetchConsumer"),
        }
    }

    /// A request was handled. An API that is not served is not counted.
    pub fn finished(&self, api: ApiKey, took: Duration) {
        if let Some(traffic) = self.by_key.get(&(api as i16)) {
            traffic.finished(took);
        }
        if api == ApiKey::Fetch {
            self.consumer_fetches.finished(took);
        }
    }
}
