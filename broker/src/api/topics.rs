//! Topics come, grow and go: CreateTopics, CreatePartitions, DeleteTopics. The decisions are `firn_metadata`'s.

use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::DecisionError;
use firn_metadata::decide::create_partitions::{MorePartitions, create_partitions as decide_partitions};
use firn_metadata::decide::create_topics::{CreatedTopic, NewTopic};
use firn_metadata::decide::delete_topics::{Deletion, TopicSelector, delete_topics as decide_deletion};
use firn_metadata::image::Image;
use firn_model::config_entry::{ConfigEntry, describe_topic};
use firn_model::ids::TopicId;
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_partitions_response::CreatePartitionsTopicResult;
use firn_protocol::library::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use firn_protocol::library::messages::delete_topics_response::DeletableTopicResult;
use firn_protocol::library::messages::{
    ApiKey, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_protocol::response;
use uuid::Uuid;

use crate::api::errors::Failure;
use crate::api::{Answer, ApiError, reply};
use crate::context::Context;
use crate::creation;
use crate::milliseconds::milliseconds;
use crate::net::Chunk;
use crate::peers::ask_error::AskError;
use crate::peers::wire::{ControllerAsk, ControllerTold};
use firn_quorum::quorum::ProposeError;

pub async fn create(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let create: CreateTopicsRequest = request.decode(ApiKey::CreateTopics)?;
    let names: Vec<String> = create.topics.iter().map(|topic| topic.name.to_string()).collect();
    let topics: Vec<NewTopic> = create
        .topics
        .into_iter()
        .map(|topic| NewTopic {
            name: topic.name.to_string(),
            num_partitions: topic.num_partitions,
            replication_factor: topic.replication_factor,
            assignments: topic
                .assignments
                .iter()
                .map(|one| (one.partition_index, one.broker_ids.iter().map(|id| id.0).collect()))
                .collect(),
            configs: topic
                .configs
                .iter()
                .map(|config| (config.name.to_string(), config.value.as_ref().map(|value| value.to_string())))
                .collect(),
        })
        .collect();
    let created = match room_for_logs(context) {
        Ok(()) => create_topics(context, &topics, create.validate_only).await.map_err(Failure::from),
        Err(full) => Err(full),
    };
    let results = match created {
        Ok(created) => created.into_iter().map(|(name, one)| created_result(context, name, one)).collect(),
        Err(failure) => {
            names.into_iter().map(|name| created_result(context, name, Err(failure.clone()))).collect()
        }
    };
    let body = CreateTopicsResponse::default().with_topics(results);
    let bytes = response::encode_with_legacy(ApiKey::CreateTopics, &request.header, &body)?;
    Ok(Answer::Now(vec![Chunk::Bytes(bytes)]))
}

/// Refuses new partitions while every directory is at its reserve: that is for what deletes and for what goes on.
fn room_for_logs(context: &Context) -> Result<(), Failure> {
    let mut last = Ok(());
    for dir in context.log_dirs.all() {
        match dir.guard.admit(0) {
            Ok(()) => return Ok(()),
            Err(full) => last = Err(Failure::new(ResponseError::KafkaStorageError, full.to_string())),
        }
    }
    last
}

/// How long topics that a broker wants may take: elections may come in between.
const WANTED_PATIENCE: Duration = Duration::from_secs(30);

/// Has the controller create topics that this broker wants, and waits until they are known here. Tells what became of each.
pub async fn ask_for_topics(
    context: &Context,
    topics: Vec<NewTopic>,
) -> Result<Vec<(String, Result<(), DecisionError>)>, AskError> {
    let ask = ControllerAsk::CreateTopics(topics);
    let ControllerTold::CreatedTopics(created) =
        context.membership.ask_controller(&ask, WANTED_PATIENCE).await?
    else {
        return Err(ProposeError::NotController.into());
    };
    let exists = |created: &Result<(), DecisionError>| {
        matches!(created, Ok(()) | Err(DecisionError::TopicAlreadyExists(_)))
    };
    let names = created.iter().filter(|(_, created)| exists(created)).map(|(name, _)| name.as_str());
    let names: Vec<&str> = names.collect();
    context.controller.wait_until(|now| names.iter().all(|name| now.image.topic(name).is_some())).await;
    Ok(created)
}

async fn create_topics(
    context: &Context,
    topics: &[NewTopic],
    validate_only: bool,
) -> Result<Vec<(String, Result<CreatedTopic, Failure>)>, ProposeError> {
    let (config, random) = (context.config(), context.environment.random.as_ref());
    let decide = |image: &Image| Ok(creation::create(image, topics, validate_only, &config, random));
    let created = context.controller.propose(decide).await?;
    Ok(created.into_iter().map(|(name, one)| (name, one.map_err(Failure::from))).collect())
}

fn created_result(
    context: &Context,
    name: String,
    created: Result<CreatedTopic, Failure>,
) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(TopicName(StrBytes::from_string(name)));
    match created {
        Ok(created) => result
            .with_topic_id(created.topic_id.0)
            .with_num_partitions(created.num_partitions)
            .with_replication_factor(created.replication_factor)
            .with_configs(Some(
                describe_topic(&created.overrides, &context.config()).iter().map(created_config).collect(),
            )),
        Err(failure) => result
            .with_error_code(failure.code.code())
            .with_error_message(failure.text())
            .with_num_partitions(-1)
            .with_replication_factor(-1),
    }
}

fn created_config(entry: &ConfigEntry) -> CreatableTopicConfigs {
    CreatableTopicConfigs::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_value(entry.value.clone().map(StrBytes::from_string))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.code())
        .with_is_sensitive(entry.sensitive)
}

pub async fn create_partitions(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let create: CreatePartitionsRequest = request.decode(ApiKey::CreatePartitions)?;
    let topics: Vec<MorePartitions> = create
        .topics
        .iter()
        .map(|topic| MorePartitions {
            name: topic.name.to_string(),
            count: topic.count,
            assignments: topic.assignments.as_ref().map(|assignments| {
                assignments.iter().map(|one| one.broker_ids.iter().map(|id| id.0).collect()).collect()
            }),
        })
        .collect();
    let config = context.config();
    let decided = match room_for_logs(context) {
        Ok(()) => {
            let decide = |image: &_| Ok(decide_partitions(image, &topics, create.validate_only, &config));
            context.controller.propose(decide).await.map_err(Failure::from)
        }
        Err(full) => Err(full),
    };
    let results: Vec<(String, Result<(), Failure>)> = match decided {
        Ok(results) => results.into_iter().map(|(name, one)| (name, one.map_err(Failure::from))).collect(),
        Err(failure) => topics.into_iter().map(|topic| (topic.name, Err(failure.clone()))).collect(),
    };
    let results = results.into_iter().map(|(name, result)| {
        let row = CreatePartitionsTopicResult::default().with_name(TopicName(StrBytes::from_string(name)));
        match result {
            Ok(()) => row,
            Err(failure) => row.with_error_code(failure.code.code()).with_error_message(failure.text()),
        }
    });
    let body = CreatePartitionsResponse::default().with_results(results.collect());
    reply(ApiKey::CreatePartitions, &request.header, &body)
}

/// How long a deletion's answer waits until the groups have forgotten the topics. Then they go on without it.
const FORGET_PATIENCE: Duration = Duration::from_secs(5);

pub async fn delete(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let delete: DeleteTopicsRequest = request.decode(ApiKey::DeleteTopics)?;
    let by_state = delete.topics.iter().map(|topic| match (&topic.name, topic.topic_id.is_nil()) {
        (Some(name), true) => TopicSelector::Name(name.to_string()),
        (None, false) => TopicSelector::Id(TopicId(topic.topic_id)),
        (name, _) => {
            let name = name.as_ref().map(|name| name.to_string());
            TopicSelector::Unclear { name, id: TopicId(topic.topic_id) }
        }
    });
    let by_name = delete.topic_names.iter().map(|name| TopicSelector::Name(name.to_string()));
    let selectors: Vec<TopicSelector> = by_state.chain(by_name).collect();
    let config = context.config();
    let decided = context.controller.propose(|image| Ok(decide_deletion(image, &selectors, &config))).await;
    let results: Vec<DeletableTopicResult> = match decided {
        Ok(deletions) => {
            // Before the client is told, as a rule. Nobody mistakes them for offsets of a topic of that name later.
            let patience = milliseconds(delete.timeout_ms).min(FORGET_PATIENCE);
            tokio::time::timeout(patience, context.deleted_topics.forgotten()).await.ok();
            deletions.into_iter().map(deleted_result).collect()
        }
        Err(error) => {
            let failure = Failure::from(error);
            selectors.into_iter().map(|selector| not_deleted(&selector, &failure)).collect()
        }
    };
    let body = DeleteTopicsResponse::default().with_responses(results);
    let bytes = response::encode_with_legacy(ApiKey::DeleteTopics, &request.header, &body)?;
    Ok(Answer::Now(vec![Chunk::Bytes(bytes)]))
}

fn deleted_result(deletion: Deletion) -> DeletableTopicResult {
    match deletion.outcome {
        Ok((name, id)) => DeletableTopicResult::default()
            .with_name(Some(TopicName(StrBytes::from_string(name.to_string()))))
            .with_topic_id(id.0),
        Err(error) => not_deleted(&deletion.selector, &error.into()),
    }
}

fn not_deleted(selector: &TopicSelector, failure: &Failure) -> DeletableTopicResult {
    let (name, id) = match selector {
        TopicSelector::Name(name) => (Some(name.clone()), Uuid::nil()),
        TopicSelector::Id(id) => (None, id.0),
        TopicSelector::Unclear { name, id } => (name.clone(), id.0),
    };
    DeletableTopicResult::default()
        .with_name(name.map(|name| TopicName(StrBytes::from_string(name))))
        .with_topic_id(id)
        .with_error_code(failure.code.code())
        .with_error_message(failure.text())
}
