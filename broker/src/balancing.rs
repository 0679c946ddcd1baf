//! Keeps the cluster even, while this broker is the controller: empties brokers that are to be emptied and replaces lost ones, gives
//! partitions back to their preferred leaders, and spreads replicas evenly. What is to be done is `firn_metadata`'s to decide.
//!
//! Nothing of this is kept: what is under way is in the metadata, and so is what an operator has asked for. A controller that
//! follows another makes its plans anew, of the same image.

use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::balance::{Limits, LogSize, Plan, Sizes, begin, evacuate, even};
use firn_metadata::decide::partitions::Rules;
use firn_metadata::decide::preferred_leaders::give_back;
use firn_metadata::image::Image;
use firn_model::broker_config::settings::BalanceSettings;
use firn_model::ids::TopicId;
use firn_quorum::quorum::ProposeError;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::milliseconds::milliseconds;
use crate::partition::Partition;
use crate::peers::Line;
use crate::peers::wire::{Ask, Told};

/// How often it is looked whether something is due.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// The most partitions that one change gives back to their preferred leaders, as in Kafka.
const ELECTIONS_MAX: usize = 1000;
/// How long a broker may take to say how many bytes its logs have.
const SIZES_PATIENCE: Duration = Duration::from_secs(10);

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
            _ => &mut term.insert((progress.term, Balancing::since(now))).1,
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
    replicas_looked_at: Instant,
    /// The metadata that the last plan of replicas that have to go was made of, by where they ended.
    evacuated: Option<i64>,
    /// Partitions that could not be moved off then.
    stuck: usize,
    evening: Option<Evening>,
}

/// Replicas are being spread evenly.
#[derive(Debug)]
struct Evening {
    /// Of all partitions, unless a broker did not tell.
    sizes: Option<Arc<Sizes>>,
    /// The metadata that the last plan was made of, by where they ended.
    planned: Option<i64>,
}

impl Balancing {
    fn since(now: Instant) -> Self {
        Self { leaders_looked_at: now, replicas_looked_at: now, evacuated: None, stuck: 0, evening: None }
    }

    async fn look(&mut self, context: &Arc<Context>, now: Instant) {
        let settings = context.config().balance.clone();
        let seconds = |count: i64| milliseconds(count.saturating_mul(1000));
        let planned = self.evacuate(context, &settings).await;
        let period = seconds(settings.leader_check_interval_seconds);
        let looked = match settings.leaders && now.duration_since(self.leaders_looked_at) >= period {
            true => self.give_leaders_back(context, now).await,
            false => Ok(()),
        };
        let period = seconds(settings.replica_check_interval_seconds);
        if !settings.replicas {
            self.evening = None;
        } else if now.duration_since(self.replicas_looked_at) >= period {
            self.replicas_looked_at = now;
            self.evening = Some(Evening { sizes: sizes(context).await.map(Arc::new), planned: None });
        }
        let evened = self.even(context, &settings).await;
        for error in [planned, looked, evened].into_iter().filter_map(Result::err) {
            // Another one goes on.
            if !matches!(error, ProposeError::NotController | ProposeError::NoController) {
                tracing::warn!(%error, "replicas and leaders stay where they are for now");
            }
        }
    }

    /// Begins to move replicas off brokers that are to have none, as soon as there is something to move, or room for more.
    async fn evacuate(
        &mut self,
        context: &Arc<Context>,
        settings: &BalanceSettings,
    ) -> Result<(), ProposeError> {
        let end = context.controller.applied_to();
        if self.evacuated == Some(end) {
            return Ok(());
        }
        let (image, limits) = (context.controller.image(), limits(settings));
        let plan = firn_blocking::run(move || evacuate(&image, limits)).await;
        let was_stuck = std::mem::replace(&mut self.stuck, plan.stuck);
        if plan.stuck > was_stuck {
            tracing::warn!(
                partitions = plan.stuck,
                "cannot leave a broker that is to be emptied, or is lost: nobody leads them, or no other broker may take them"
            );
        }
        begin_moves(context, &plan, "leave brokers that are to be emptied, or are lost").await?;
        self.evacuated = Some(end);
        Ok(())
    }

    async fn give_leaders_back(&mut self, context: &Context, now: Instant) -> Result<(), ProposeError> {
        let config = context.config();
        let heard = context.membership.heard();
        let takes = |id: i32, topic: TopicId, index: i32| heard.takes(id, topic, index);
        let decide = |image: &Image| Ok(give_back(image, Rules { config: &config }, takes, ELECTIONS_MAX));
        let given = context.controller.propose(decide).await?;
        if given > 0 {
            tracing::info!(partitions = given, "given back to their preferred leaders");
        }
        // There may be more.
        if given < ELECTIONS_MAX {
            self.leaders_looked_at = now;
        }
        Ok(())
    }

    /// Goes on spreading replicas evenly, until there is nothing left to spread.
    async fn even(&mut self, context: &Arc<Context>, settings: &BalanceSettings) -> Result<(), ProposeError> {
        let Some(evening) = &mut self.evening else { return Ok(()) };
        let end = context.controller.applied_to();
        if evening.planned == Some(end) {
            return Ok(());
        }
        let (image, limits, leaders) = (context.controller.image(), limits(settings), settings.leaders);
        let sizes = evening.sizes.clone();
        let planned = firn_blocking::run(move || {
            let moves = image.topics().flat_map(|topic| &topic.partitions).any(|one| one.is_reassigning());
            (even(&image, limits, sizes.as_deref(), leaders), moves)
        });
        let (plan, moves) = planned.await;
        begin_moves(context, &plan, "are spread more evenly").await?;
        evening.planned = Some(end);
        if plan.moves.is_empty() && !moves {
            self.evening = None;
        }
        Ok(())
    }
}

fn limits(settings: &BalanceSettings) -> Limits {
    let count = |count: i32| usize::try_from(count).unwrap_or(0);
    Limits {
        moves_max: count(settings.moves_max),
        moves_per_broker_max: count(settings.moves_per_broker_max),
        imbalance_percentage: count(settings.imbalance_percentage),
    }
}

async fn begin_moves(context: &Context, plan: &Plan, why: &str) -> Result<(), ProposeError> {
    if plan.moves.is_empty() {
        return Ok(());
    }
    let config = context.config();
    let decide = |image: &Image| Ok(begin(image, Rules { config: &config }, &plan.moves));
    let begun = context.controller.propose(decide).await?;
    tracing::info!(partitions = begun, why, "replicas move");
    Ok(())
}

/// How many bytes each partition takes on a disk, as the brokers that are there say; nothing, if one of them says nothing.
async fn sizes(context: &Arc<Context>) -> Option<Sizes> {
    let image = context.controller.image();
    let mut asking = JoinSet::new();
    for broker in image.brokers().filter(|broker| !broker.fenced) {
        let (context, id) = (context.clone(), broker.id);
        asking.spawn(async move { sizes_of(&context, id).await });
    }
    let mut sizes = Sizes::new();
    for told in asking.join_all().await {
        for LogSize { topic_id, partition, bytes } in told? {
            // Replicas differ in what they have let go already.
            let known = sizes.entry((topic_id, partition)).or_default();
            *known = bytes.max(*known);
        }
    }
    Some(sizes)
}

async fn sizes_of(context: &Arc<Context>, broker_id: i32) -> Option<Vec<LogSize>> {
    if broker_id == context.node_id {
        return Some(log_sizes(context).await);
    }
    let peers = context.membership.peers();
    let why = match peers.ask(broker_id, Line::Controller, &Ask::LogSizes, &[], SIZES_PATIENCE).await {
        Ok((Told::LogSizes(sizes), _)) => return Some(sizes),
        Ok((told, _)) => told.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::info!(
        broker = broker_id,
        why,
        "does not say how many bytes its logs have: this time replicas are spread by their number alone"
    );
    None
}

/// How many bytes logs here have.
pub async fn log_sizes(context: &Arc<Context>) -> Vec<LogSize> {
    let partitions = context.partitions.all();
    let size = |partition: &Arc<Partition>| {
        let bytes = partition.with_log(|log| log.size_bytes()).ok()?;
        Some(LogSize { topic_id: partition.topic_id, partition: partition.name.partition, bytes })
    };
    firn_blocking::run(move || partitions.iter().filter_map(size).collect()).await
}
