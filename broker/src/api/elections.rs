//! Who is to lead: ElectLeaders (KIP-460). The decisions are `firn_metadata`'s.
//!
//! An election that gives acknowledged records up takes place only because somebody asks for it. Before it those replicas are
//! asked how far their logs go that are there: whoever has the most leads.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::elections::{
    Elected, ElectionType, LogEnd, LogQuery, Logs, Outcome, elect_leaders,
};
use firn_metadata::decide::partitions::Rules;
use firn_metadata::image::{Image, NO_LEADER};
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use firn_protocol::library::messages::{ApiKey, ElectLeadersRequest, ElectLeadersResponse, TopicName};
use firn_protocol::library::protocol::StrBytes;
use tokio::task::JoinSet;

use crate::api::errors::Failure;
use crate::api::{Answer, ApiError, reply};
use crate::context::Context;
use crate::peers::Line;
use crate::peers::wire::{Ask, Told};

/// How long a replica may take to say how far its log goes.
const LOGS_PATIENCE: Duration = Duration::from_secs(2);

pub async fn elect(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: ElectLeadersRequest = request.decode(ApiKey::ElectLeaders)?;
    let named: Option<Vec<(String, i32)>> = asked.topic_partitions.as_ref().map(|topics| {
        let of = |topic: &TopicName, partitions: &[i32]| -> Vec<(String, i32)> {
            partitions.iter().map(|index| (topic.to_string(), *index)).collect()
        };
        topics.iter().flat_map(|topic| of(&topic.topic, &topic.partitions)).collect()
    });
    let outcomes = match asked.election_type {
        0 => elected(context, ElectionType::Preferred, named.as_deref()).await,
        1 => elected(context, ElectionType::Unclean, named.as_deref()).await,
        other => Err(Failure::new(ResponseError::InvalidRequest, format!("Unknown election type {other}"))),
    };
    let body = ElectLeadersResponse::default();
    let body = match outcomes {
        Ok(outcomes) => {
            let all = outcomes.into_iter().map(|Outcome { topic, partition, elected }| {
                (topic, partition, elected.map(drop).map_err(Failure::from))
            });
            body.with_replica_election_results(results(all))
        }
        Err(failure) if request.header.api_version >= 1 => body.with_error_code(failure.code.code()),
        // There is no other place for it.
        Err(failure) => {
            let all = named.into_iter().flatten();
            let refused = all.map(|(topic, partition)| (topic, partition, Err(failure.clone())));
            body.with_replica_election_results(results(refused))
        }
    };
    reply(ApiKey::ElectLeaders, &request.header, &body)
}

async fn elected(
    context: &Arc<Context>,
    election: ElectionType,
    named: Option<&[(String, i32)]>,
) -> Result<Vec<Outcome>, Failure> {
    let logs = match election {
        ElectionType::Preferred => Logs::new(),
        ElectionType::Unclean => logs_of_leaderless(context, named).await,
    };
    let config = context.config();
    let decide = |image: &Image| Ok(elect_leaders(image, Rules { config: &config }, election, named, &logs));
    let outcomes = context.controller.propose(decide).await?;
    for outcome in &outcomes {
        if let Outcome { topic, partition, elected: Ok(Elected { leader, lost }) } = outcome
            && !lost.is_empty()
        {
            context.metrics.unclean_elections.inc();
            tracing::warn!(
                topic, partition, leader, had_all = ?lost,
                "an unclean election, which was asked for: acknowledged records that only others have are lost"
            );
        }
    }
    Ok(outcomes)
}

/// How far the logs go of partitions that nobody leads, where brokers that are there have replicas of them.
async fn logs_of_leaderless(context: &Arc<Context>, named: Option<&[(String, i32)]>) -> Logs {
    let image = context.controller.image();
    let is_there = |id: i32| image.broker(id).is_some_and(|broker| !broker.fenced);
    let mut queries: BTreeMap<i32, Vec<LogQuery>> = BTreeMap::new();
    let mut look_at = |topic: &str, index: i32| {
        let Some(topic) = image.topic(topic) else { return };
        let Some(now) = topic.partition(index).filter(|now| now.leader == NO_LEADER) else { return };
        for id in now.replicas.iter().filter(|id| is_there(**id)) {
            queries.entry(*id).or_default().push(LogQuery { topic_id: topic.id, partition: index });
        }
    };
    match named {
        Some(named) => named.iter().for_each(|(topic, index)| look_at(topic, *index)),
        None => {
            for topic in image.topics() {
                (0i32..).zip(&topic.partitions).for_each(|(index, _)| look_at(&topic.name, index));
            }
        }
    }
    let mut logs = Logs::new();
    let mut asking = JoinSet::new();
    for (id, queries) in queries {
        let context = context.clone();
        asking.spawn(async move { (id, ask(&context, id, &queries).await, queries) });
    }
    for (id, ends, queries) in asking.join_all().await {
        for (query, end) in queries.into_iter().zip(ends) {
            let known = logs.entry((query.topic_id, query.partition)).or_default();
            known.extend(end.map(|end| (id, end)));
        }
    }
    logs
}

async fn ask(context: &Context, broker_id: i32, queries: &[LogQuery]) -> Vec<Option<LogEnd>> {
    if broker_id == context.node_id {
        return log_ends(context, queries);
    }
    let ask = Ask::Logs(queries.to_vec());
    let asked = context.membership.peers().ask(broker_id, Line::Signals, &ask, &[], LOGS_PATIENCE);
    let why = match asked.await {
        Ok((Told::Logs(ends), _)) => return ends,
        Ok((told, _)) => told.to_string(),
        Err(error) => error.to_string(),
    };
    tracing::warn!(broker = broker_id, why, "does not say how far its logs go");
    Vec::new()
}

/// How far logs here go.
pub fn log_ends(context: &Context, queries: &[LogQuery]) -> Vec<Option<LogEnd>> {
    let end = |query: &LogQuery| {
        let partition = context.partitions.by_id(query.topic_id, query.partition).ok()?;
        let end = partition.with_log(|log| {
            let end_offset = log.end_offset();
            let last_epoch = log.epoch_for_offset(end_offset - 1).unwrap_or(-1);
            LogEnd { last_epoch, end_offset }
        });
        end.ok()
    };
    queries.iter().map(end).collect()
}

/// What became of each partition, by topic.
fn results(outcomes: impl Iterator<Item = (String, i32, Result<(), Failure>)>) -> Vec<ReplicaElectionResult> {
    let mut topics: BTreeMap<String, Vec<PartitionResult>> = BTreeMap::new();
    for (topic, partition, elected) in outcomes {
        let row = PartitionResult::default().with_partition_id(partition);
        let row = match elected {
            Ok(()) => row.with_error_message(None),
            Err(failure) => row.with_error_code(failure.code.code()).with_error_message(failure.text()),
        };
        topics.entry(topic).or_default().push(row);
    }
    let named = topics.into_iter().map(|(topic, rows)| {
        let topic = TopicName(StrBytes::from_string(topic));
        ReplicaElectionResult::default().with_topic(topic).with_partition_result(rows)
    });
    named.collect()
}
