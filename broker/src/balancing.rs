//! Keeps the cluster even, while this broker is the controller. What is to be done is `firn_metadata`'s to decide.

use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::partitions::Rules;
use firn_metadata::decide::preferred_leaders::give_back;
use firn_metadata::image::Image;
use firn_quorum::quorum::ProposeError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::milliseconds::milliseconds;

/// How often it is looked whether something is due.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// The most partitions that one change gives back to their preferred leaders, as in Kafka.
const ELECTIONS_MAX: usize = 1000;

/// Balances until `shutdown`.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut term = None;
    while shutdown.run_until_cancelled(tokio::time::sleep(LOOK_PERIOD)).await.is_some() {
        let progress = context.controller.progress();
        if !progress.leads {
            term = None;
            continue;
        }
        let now = Instant::now();
        let balancing = match term.as_mut() {
            Some((known, balancing)) if *known == progress.term => balancing,
            // Others may have just come back: a new controller waits for a whole period.
            _ => &mut term.insert((progress.term, Balancing { leaders_looked_at: now })).1,
        };
        if shutdown.run_until_cancelled(balancing.look(&context, now)).await.is_none() {
            return;
        }
    }
}

/// When the controller of a term did what for the last time.
#[derive(Debug)]
struct Balancing {
    leaders_looked_at: Instant,
}

impl Balancing {
    async fn look(&mut self, context: &Context, now: Instant) {
        let settings = context.config().balance.clone();
        let period = milliseconds(settings.leader_check_interval_seconds.saturating_mul(1000));
        if settings.leaders && now.duration_since(self.leaders_looked_at) >= period {
            match give_leaders_back(context).await {
                // There may be more.
                Ok(given) if given == ELECTIONS_MAX => {}
                Ok(_) => self.leaders_looked_at = now,
                Err(ProposeError::NotController) => {}
                Err(error) => {
                    tracing::warn!(%error, "partitions are not given back to their preferred leaders yet");
                    self.leaders_looked_at = now;
                }
            }
        }
    }
}

async fn give_leaders_back(context: &Context) -> Result<usize, ProposeError> {
    let config = context.config();
    let decide = |image: &Image| Ok(give_back(image, Rules { config: &config }, ELECTIONS_MAX));
    let given = context.controller.propose(decide).await?;
    if given > 0 {
        tracing::info!(partitions = given, "given back to their preferred leaders");
    }
    Ok(given)
}
