//! What the handlers of requests work with: handles, and nothing that decides.

use std::sync::Arc;

use firn_model::broker_config::BrokerConfig;
use firn_telemetry::metrics::Metrics;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::cleaner_pace::SteadyPace;
use crate::cold::Cold;
use crate::controller::Controller;
use crate::coordinator_runtime::CoordinatorRuntime;
use crate::environment::Environment;
use crate::fetch_sessions::FetchSessions;
use crate::log_dirs::LogDirs;
use crate::partitions::Partitions;
use crate::producer_ids::ProducerIds;
use crate::record_memory::RecordMemory;
use crate::request_memory::RequestMemory;
use crate::request_metrics::RequestMetrics;

#[derive(Debug)]
pub struct Context {
    pub node_id: i32,
    pub cluster_id: String,
    pub environment: Environment,
    pub controller: Controller,
    pub partitions: Arc<Partitions>,
    pub log_dirs: Arc<LogDirs>,
    pub fetch_sessions: Mutex<FetchSessions>,
    pub producer_ids: ProducerIds,
    pub groups: Arc<CoordinatorRuntime>,
    pub cold: Arc<Cold>,
    pub cleaner_pace: Arc<SteadyPace>,
    pub metrics: Arc<Metrics>,
    pub requests: RequestMetrics,
    pub request_memory: Arc<RequestMemory>,
    pub record_memory: Arc<RecordMemory>,
    /// The broker's own configuration, with the dynamic configs laid over it.
    pub broker_config: watch::Receiver<Arc<BrokerConfig>>,
}

impl Context {
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.broker_config.borrow().clone()
    }

    pub fn now_ms(&self) -> i64 {
        self.environment.clock.now_ms()
    }
}
