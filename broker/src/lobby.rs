//! What connections work with from the first moment: other brokers are answered while this one is still opening its logs
//! (it could not come to know the metadata otherwise), and clients wait here until it has.

use std::sync::Arc;
use std::time::Duration;

use firn_model::broker_config::BrokerConfig;
use firn_telemetry::metrics::{Metrics, MetricsError};
use tokio::sync::watch;

use crate::context::Context;
use crate::environment::Environment;
use crate::peers::Peers;
use crate::peers::membership::Membership;
use crate::record_memory::RecordMemory;
use crate::registration::own_endpoints;
use crate::request_memory::RequestMemory;

/// How long a client waits here.
const WAIT_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct Lobby {
    /// As the file has it.
    from_file: Arc<BrokerConfig>,
    pub metrics: Arc<Metrics>,
    pub request_memory: Arc<RequestMemory>,
    pub record_memory: Arc<RecordMemory>,
    pub open_files_max: usize,
    pub membership: Arc<Membership>,
    opened: watch::Sender<Option<Arc<Context>>>,
}

impl Lobby {
    /// `ports` are those that the listeners were bound to, those for brokers alone last.
    pub fn new(
        config: &BrokerConfig,
        environment: &Environment,
        ports: &[u16],
    ) -> Result<Self, MetricsError> {
        let from_file = Arc::new(config.clone());
        let endpoints = own_endpoints(config, environment.network.as_ref(), ports);
        let peers = Peers::new(config, &endpoints, environment.network.clone());
        let membership = Membership::new(from_file.clone(), environment.random.clone(), peers, endpoints);
        Ok(Self {
            metrics: Arc::new(Metrics::new()?),
            request_memory: RequestMemory::new(config.network.queued_max_request_bytes),
            record_memory: RecordMemory::new(config.network.fetch_records_bytes),
            open_files_max: environment.open_files_max,
            membership: Arc::new(membership),
            opened: watch::Sender::new(None),
            from_file,
        })
    }

    /// Whether other brokers come in by this listener: by one of their own, if they have one.
    pub fn is_for_brokers(&self, listener: &str) -> bool {
        let is_for_them =
            self.from_file.controller_listeners.is_empty() || self.is_for_brokers_alone(listener);
        is_for_them && !self.membership.peers().is_alone()
    }

    /// Whether no client comes in by this listener.
    pub fn is_for_brokers_alone(&self, listener: &str) -> bool {
        self.from_file.controller_listeners.iter().any(|own| own.name == listener)
    }

    /// The broker is open: clients are served from now on.
    pub fn open(&self, context: Arc<Context>) {
        self.opened.send_replace(Some(context));
    }

    /// The open broker. Waits for it, but not for ever: whoever has left meanwhile would hold a connection.
    pub async fn context(&self) -> Option<Arc<Context>> {
        if let Some(context) = self.opened() {
            return Some(context);
        }
        let mut opened = self.opened.subscribe();
        let waiting = tokio::time::timeout(WAIT_MAX, opened.wait_for(Option::is_some)).await;
        waiting.ok()?.ok()?.clone()
    }

    /// The broker, if it is open.
    pub fn opened(&self) -> Option<Arc<Context>> {
        self.opened.borrow().clone()
    }

    /// The broker's configuration; until it is open, that of its file.
    pub fn config(&self) -> Arc<BrokerConfig> {
        self.opened.borrow().as_ref().map_or_else(|| self.from_file.clone(), |context| context.config())
    }
}
