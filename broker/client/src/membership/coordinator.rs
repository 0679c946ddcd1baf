//! The coordinator of a group, wherever it is: found when first needed, and found again when it has moved.

use std::sync::Arc;
use std::time::Duration;

use firn_protocol::library::protocol::Request;
use tokio::sync::Mutex;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::Error;
use crate::retry::Retry;

use super::state::passes;

/// About a minute, in which a broker starts again or another one takes the group over.
const PATIENCE: Retry =
    Retry { attempts: 60, first: Duration::from_millis(100), longest: Duration::from_secs(1) };

#[derive(Debug)]
pub(crate) struct Coordinator {
    cluster: Arc<Cluster>,
    group: String,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Coordinator {
    pub(crate) fn new(cluster: Arc<Cluster>, group: String) -> Self {
        Self { cluster, group, connection: Mutex::default() }
    }

    /// Asks the coordinator until it answers what `accept` takes, or refuses for good, or is out of reach for too long.
    ///
    /// Each attempt may go to another broker: `question` sees over which connection.
    pub(crate) async fn ask<R: Request>(
        &self,
        deadline: Duration,
        question: impl Fn(&Connection) -> Result<R, Error>,
        accept: impl Fn(&R::Response) -> Result<(), Error>,
    ) -> Result<R::Response, Error> {
        let mut failed = 0;
        loop {
            let answer = self.attempt(deadline, &question, &accept).await;
            if !answer.as_ref().is_err_and(passes) || failed + 1 >= PATIENCE.attempts {
                return answer;
            }
            self.forget().await;
            PATIENCE.pause(failed).await;
            failed += 1;
        }
    }

    async fn attempt<R: Request>(
        &self,
        deadline: Duration,
        question: impl Fn(&Connection) -> Result<R, Error>,
        accept: impl Fn(&R::Response) -> Result<(), Error>,
    ) -> Result<R::Response, Error> {
        let connection = self.connection().await?;
        let answer = connection.call_within(&question(&connection)?, deadline).await?;
        accept(&answer)?;
        Ok(answer)
    }

    /// Makes the next question find the coordinator anew.
    pub(crate) async fn forget(&self) {
        *self.connection.lock().await = None;
    }

    async fn connection(&self) -> Result<Arc<Connection>, Error> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = kept.as_ref().filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.cluster.own_coordinator(&self.group).await?);
        *kept = Some(Arc::clone(&connection));
        Ok(connection)
    }
}
