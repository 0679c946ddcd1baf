//! The counters of each API, looked up once.

use std::collections::BTreeMap;

use firn_protocol::library::messages::ApiKey;
use firn_protocol::versions::SERVED;
use firn_telemetry::metrics::{Metrics, RequestTraffic};

#[derive(Debug)]
pub struct RequestMetrics {
    by_key: BTreeMap<i16, RequestTraffic>,
}

impl RequestMetrics {
    pub fn new(metrics: &Metrics) -> Self {
        let one = |api: ApiKey| (api as i16, metrics.request(&format!("{api:?}")));
        Self { by_key: SERVED.iter().map(|served| one(served.api)).collect() }
    }

    /// `None` for an API that is not served.
    pub fn of(&self, api: ApiKey) -> Option<&RequestTraffic> {
        self.by_key.get(&(api as i16))
    }
}
