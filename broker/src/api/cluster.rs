//! What the cluster is: ApiVersions, Metadata, DescribeCluster, DescribeTopicPartitions, DescribeLogDirs, InitProducerId.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use firn_metadata::decide::create_topics::{BROKER_DEFAULT, NewTopic};
use firn_metadata::image::{Broker, Image, NO_LEADER, Topic};
use firn_model::ids::{TopicId, is_internal_topic};
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::describe_cluster_response::DescribeClusterBroker;
use firn_protocol::library::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use firn_protocol::library::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use firn_protocol::library::messages::metadata_request::MetadataRequestTopic;
use firn_protocol::library::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use firn_protocol::library::messages::{
    ApiKey, ApiVersionsRequest, BrokerId, DescribeClusterRequest, DescribeClusterResponse,
    DescribeLogDirsRequest, DescribeLogDirsResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, InitProducerIdRequest, InitProducerIdResponse, MetadataRequest,
    MetadataResponse, ProducerId, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_protocol::{response, versions};

use crate::api::authorized::{Resource, operations};
use crate::api::distinct::distinct;
use crate::api::errors::{Failure, missing};
use crate::api::topics::ask_for_topics;
use crate::api::{Answer, ApiError, reply};
use crate::connection::Peer;
use crate::context::Context;
use crate::net::Chunk;
use crate::peers::ask_error::AskError;

/// What DescribeCluster may ask for (KIP-919): brokers, or controllers.
const ENDPOINTS_OF_BROKERS: i8 = 1;
const ENDPOINTS_OF_CONTROLLERS: i8 = 2;

pub fn api_versions(request: Request) -> Result<Answer, ApiError> {
    let asked: ApiVersionsRequest = request.decode(ApiKey::ApiVersions)?;
    tracing::debug!(
        client = %asked.client_software_name.as_str(),
        version = %asked.client_software_version.as_str(),
        "a client asks for the versions"
    );
    reply(ApiKey::ApiVersions, &request.header, &versions::api_versions_response(false))
}

/// A client that is newer than this broker learns the versions in the oldest layout (KIP-511).
pub fn api_versions_unsupported(correlation_id: i32) -> Result<Answer, ApiError> {
    let body = versions::api_versions_response(true);
    Ok(Answer::Now(vec![Chunk::Bytes(response::encode_at(ApiKey::ApiVersions, 0, correlation_id, &body)?)]))
}

/// Host and port of a broker, for a client that came in as this one did.
fn endpoint(broker: &Broker, peer: &Peer) -> (StrBytes, i32) {
    broker.endpoint(&peer.listener).map_or((StrBytes::default(), -1), |endpoint| {
        (StrBytes::from_string(endpoint.host.clone()), i32::from(endpoint.port))
    })
}

pub async fn metadata(context: &Arc<Context>, peer: &Peer, request: Request) -> Result<Answer, ApiError> {
    let asked: MetadataRequest = request.decode(ApiKey::Metadata)?;
    let version = request.header.api_version;
    let (asks_of_cluster, asks_of_topics) =
        (asked.include_cluster_authorized_operations, asked.include_topic_authorized_operations);
    // Topics have ids from version 10 on, and are asked for by them from version 12 on (KIP-516).
    let by_id = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_nil();
    if version < 12 && asked.topics.iter().flatten().any(by_id) {
        let refused = asked.topics.into_iter().flatten().map(|topic| {
            MetadataResponseTopic::default()
                .with_error_code(ResponseError::InvalidRequest.code())
                .with_name(Some(topic.name.unwrap_or_default()))
        });
        let body = MetadataResponse::default().with_topics(refused.collect());
        return reply(ApiKey::Metadata, &request.header, &body);
    }
    let mut image = context.controller.image();
    // Version 0 has no null: there, no topics means all of them.
    let all = asked.topics.as_ref().is_none_or(|topics| version == 0 && topics.is_empty());
    let mut topics: Vec<MetadataResponseTopic> = if all {
        image.topics().map(|topic| described(topic, version)).collect()
    } else {
        let asked_topics =
            distinct(asked.topics.unwrap_or_default(), |topic| (topic.name.clone(), topic.topic_id));
        let names = asked_topics.iter().filter_map(|topic| topic.name.as_ref());
        let missing: Vec<String> =
            names.filter(|name| image.topic(name).is_none()).map(|name| name.to_string()).collect();
        let may_create = version < 4 || asked.allow_auto_topic_creation;
        if may_create && context.config().topics.auto_create_enable && !missing.is_empty() {
            auto_create(context, &missing).await;
            image = context.controller.image();
        }
        asked_topics
            .into_iter()
            .map(|asked| match asked.name {
                Some(name) => match image.topic(&name) {
                    Some(topic) => described(topic, version),
                    None => unknown_name(name),
                },
                None => match image.topic_by_id(TopicId(asked.topic_id)) {
                    Some(topic) => described(topic, version),
                    None => MetadataResponseTopic::default()
                        .with_error_code(ResponseError::UnknownTopicId.code())
                        .with_name(None)
                        .with_topic_id(asked.topic_id),
                },
            })
            .collect()
    };
    for topic in topics.iter_mut().filter(|topic| version >= 8 && topic.error_code == 0) {
        topic.topic_authorized_operations = operations(Resource::Topic, asks_of_topics);
    }
    let brokers = image.brokers().filter(|broker| !broker.fenced).map(|broker| {
        let (host, port) = endpoint(broker, peer);
        let row = MetadataResponseBroker::default()
            .with_node_id(BrokerId(broker.id))
            .with_host(host)
            .with_port(port);
        if version >= 1 { row.with_rack(broker.rack.clone().map(StrBytes::from_string)) } else { row }
    });
    let mut body = MetadataResponse::default().with_brokers(brokers.collect()).with_topics(topics);
    if version >= 1 {
        body = body.with_controller_id(BrokerId(controller_id(context, &image)));
    }
    if version >= 2 {
        body = body.with_cluster_id(Some(StrBytes::from_string(context.cluster_id.clone())));
    }
    if (8..=10).contains(&version) {
        body = body.with_cluster_authorized_operations(operations(Resource::Cluster, asks_of_cluster));
    }
    reply(ApiKey::Metadata, &request.header, &body)
}

/// The controller, if clients know it as a broker; otherwise this broker, which passes on what is for it.
fn controller_id(context: &Context, image: &Image) -> i32 {
    let is_known = |id: &i32| image.broker(*id).is_some_and(|broker| !broker.fenced);
    context.controller.progress().leader.filter(is_known).unwrap_or(context.node_id)
}

fn described(topic: &Topic, version: i16) -> MetadataResponseTopic {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
    let partitions = (0i32..).zip(&topic.partitions).map(|(index, partition)| {
        let leaderless = partition.leader == NO_LEADER;
        let error = if leaderless { ResponseError::LeaderNotAvailable.code() } else { 0 };
        let row = MetadataResponsePartition::default()
            .with_error_code(error)
            .with_partition_index(index)
            .with_leader_id(BrokerId(partition.leader))
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr));
        if version >= 7 { row.with_leader_epoch(partition.leader_epoch) } else { row }
    });
    let mut row = MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_partitions(partitions.collect());
    if version >= 1 {
        row = row.with_is_internal(is_internal_topic(&topic.name));
    }
    if version >= 10 {
        row = row.with_topic_id(topic.id.0);
    }
    row
}

fn unknown_name(name: TopicName) -> MetadataResponseTopic {
    MetadataResponseTopic::default().with_error_code(missing(&name).code()).with_name(Some(name))
}

/// Creates topics that a client asked about, as `auto.create.topics.enable` promises. What cannot be created is answered
/// as unknown.
async fn auto_create(context: &Context, names: &[String]) {
    let topics: Vec<NewTopic> = names
        .iter()
        .filter(|name| !is_internal_topic(name))
        .map(|name| NewTopic {
            name: name.clone(),
            num_partitions: BROKER_DEFAULT,
            replication_factor: BROKER_DEFAULT as i16,
            ..NewTopic::default()
        })
        .collect();
    match ask_for_topics(context, topics).await {
        Ok(created) => {
            for (topic, result) in created {
                match result {
                    Ok(()) => tracing::info!(%topic, "created on first use (auto.create.topics.enable)"),
                    Err(reason) => tracing::debug!(%topic, %reason, "not created on first use"),
                }
            }
        }
        Err(error) => tracing::warn!(%error, "topics cannot be created on first use"),
    }
}

pub fn describe_cluster(context: &Arc<Context>, peer: &Peer, request: Request) -> Result<Answer, ApiError> {
    let asked: DescribeClusterRequest = request.decode(ApiKey::DescribeCluster)?;
    if request.header.api_version >= 1 && asked.endpoint_type != ENDPOINTS_OF_BROKERS {
        let (error, message) = match asked.endpoint_type {
            ENDPOINTS_OF_CONTROLLERS => (
                ResponseError::MismatchedEndpointType,
                "this listener is for clients of brokers, and the request is for controllers; use --bootstrap-server"
                    .to_owned(),
            ),
            other => (ResponseError::UnsupportedEndpointType, format!("endpoint type {other} is unknown")),
        };
        let refusal = DescribeClusterResponse::default()
            .with_error_code(error.code())
            .with_error_message(Some(StrBytes::from_string(message)));
        return reply(ApiKey::DescribeCluster, &request.header, &refusal);
    }
    let image = context.controller.image();
    let shown = image.brokers().filter(|broker| asked.include_fenced_brokers || !broker.fenced);
    let brokers = shown.map(|broker| {
        let (host, port) = endpoint(broker, peer);
        let row = DescribeClusterBroker::default()
            .with_broker_id(BrokerId(broker.id))
            .with_host(host)
            .with_port(port)
            .with_rack(broker.rack.clone().map(StrBytes::from_string));
        if request.header.api_version >= 2 { row.with_is_fenced(broker.fenced) } else { row }
    });
    let mut body = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(context.cluster_id.clone()))
        .with_controller_id(BrokerId(controller_id(context, &image)))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations(
            Resource::Cluster,
            asked.include_cluster_authorized_operations,
        ));
    if request.header.api_version >= 1 {
        body = body.with_endpoint_type(asked.endpoint_type);
    }
    reply(ApiKey::DescribeCluster, &request.header, &body)
}

/// Topics in the order of their names, from the cursor on, until the reply has as many partitions as it may (KIP-966).
pub fn describe_topic_partitions(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: DescribeTopicPartitionsRequest = request.decode(ApiKey::DescribeTopicPartitions)?;
    let image = context.controller.image();
    let limit = asked.response_partition_limit.min(context.config().network.max_request_partition_size_limit);
    let mut left = usize::try_from(limit).unwrap_or(0).max(1);
    let (from_topic, from_partition) = match &asked.cursor {
        Some(cursor) => match usize::try_from(cursor.partition_index) {
            Ok(index) => (cursor.topic_name.to_string(), index),
            Err(_) => {
                let refused = asked.topics.into_iter().map(|topic| {
                    DescribeTopicPartitionsResponseTopic::default()
                        .with_error_code(ResponseError::InvalidRequest.code())
                        .with_name(Some(topic.name))
                });
                let body = DescribeTopicPartitionsResponse::default().with_topics(refused.collect());
                return reply(ApiKey::DescribeTopicPartitions, &request.header, &body);
            }
        },
        None => (String::new(), 0),
    };
    let mut topics = Vec::new();
    let mut next_cursor = None;
    for name in names_from(&image, &asked, &from_topic) {
        let first = if name == from_topic { from_partition } else { 0 };
        if left == 0 {
            next_cursor = Some(cursor(&name, first));
            break;
        }
        let Some(topic) = image.topic(&name) else {
            let missing =
                DescribeTopicPartitionsResponseTopic::default().with_error_code(missing(&name).code());
            topics.push(missing.with_name(Some(TopicName(StrBytes::from_string(name)))));
            continue;
        };
        let taken = left.min(topic.partitions.len().saturating_sub(first));
        topics.push(described_partitions(topic, first, taken));
        left -= taken;
        if first + taken < topic.partitions.len() {
            next_cursor = Some(cursor(&name, first + taken));
            break;
        }
    }
    let body = DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(next_cursor);
    reply(ApiKey::DescribeTopicPartitions, &request.header, &body)
}

fn names_from(image: &Image, asked: &DescribeTopicPartitionsRequest, from: &str) -> Vec<String> {
    let mut names: Vec<String> = if asked.topics.is_empty() {
        image.topics().map(|topic| topic.name.to_string()).collect()
    } else {
        asked.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    names.sort_unstable();
    names.dedup();
    names.retain(|name| name.as_str() >= from);
    names
}

fn cursor(topic: &str, partition: usize) -> Cursor {
    Cursor::default()
        .with_topic_name(TopicName(StrBytes::from_string(topic.to_owned())))
        .with_partition_index(i32::try_from(partition).unwrap_or(i32::MAX))
}

fn described_partitions(topic: &Topic, first: usize, count: usize) -> DescribeTopicPartitionsResponseTopic {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect::<Vec<_>>();
    let partitions = (0i32..).zip(&topic.partitions).skip(first).take(count).map(|(index, partition)| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(partition.leader))
            .with_leader_epoch(partition.leader_epoch)
            .with_replica_nodes(ids(&partition.replicas))
            .with_isr_nodes(ids(&partition.isr))
            .with_eligible_leader_replicas(Some(ids(&partition.elr)))
            .with_last_known_elr(Some(ids(&partition.last_known_elr)))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(topic.id.0)
        .with_is_internal(is_internal_topic(&topic.name))
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations(Resource::Topic, true))
}

pub fn describe_log_dirs(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: DescribeLogDirsRequest = request.decode(ApiKey::DescribeLogDirs)?;
    let named: Option<HashSet<(&str, i32)>> = asked.topics.as_ref().map(|topics| {
        topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(|index| (topic.topic.as_str(), *index)))
            .collect()
    });
    let wanted = |name: &str, index: i32| named.as_ref().is_none_or(|named| named.contains(&(name, index)));
    let partitions = context.partitions.all();
    let results = context.log_dirs.all().iter().map(|dir| {
        let mut topics: BTreeMap<String, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
        for partition in
            partitions.iter().filter(|partition| partition.data_dir().dir.path() == dir.dir.path())
        {
            if let Ok(size) = partition.with_log(|log| log.size_bytes())
                && wanted(&partition.name.topic, partition.name.partition)
            {
                let row = DescribeLogDirsPartition::default()
                    .with_partition_index(partition.name.partition)
                    .with_partition_size(i64::try_from(size).unwrap_or(i64::MAX));
                topics.entry(partition.name.topic.to_string()).or_default().push(row);
            }
        }
        let topics = topics.into_iter().map(|(name, partitions)| {
            let name = TopicName(StrBytes::from_string(name));
            DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions)
        });
        let failed = dir.dir.failed().is_some();
        let row = DescribeLogDirsResult::default()
            .with_error_code(if failed { ResponseError::KafkaStorageError.code() } else { 0 })
            .with_log_dir(StrBytes::from_string(dir.dir.path().display().to_string()))
            .with_topics(topics.collect());
        match dir.dir.space() {
            Ok(space) if request.header.api_version >= 4 => row
                .with_total_bytes(i64::try_from(space.total).unwrap_or(i64::MAX))
                .with_usable_bytes(i64::try_from(space.free).unwrap_or(i64::MAX)),
            _ => row,
        }
    });
    let body = DescribeLogDirsResponse::default().with_results(results.collect());
    reply(ApiKey::DescribeLogDirs, &request.header, &body)
}

/// Of what may pass, producers know that they are to ask again by this code alone.
fn no_producer_id(error: AskError) -> Failure {
    match error.may_pass() {
        true => Failure::new(ResponseError::CoordinatorLoadInProgress, error.to_string()),
        false => error.into(),
    }
}

/// Producer ids for idempotent producers (KIP-98, KIP-360). Transactions have no coordinator yet and are refused.
pub async fn init_producer_id(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: InitProducerIdRequest = request.decode(ApiKey::InitProducerId)?;
    let given = match &asked.transactional_id {
        Some(id) => Err(Failure::new(
            ResponseError::InvalidRequest,
            format!(
                "transactional.id '{}': transactions are not served yet, idempotent producers are",
                id.as_str()
            ),
        )),
        // An id that is kept comes with its epoch (KIP-360). Before version 3 there is neither, which is -1 and -1.
        None if (asked.producer_id.0 == -1) != (asked.producer_epoch == -1) => Err(Failure::new(
            ResponseError::InvalidRequest,
            format!(
                "producer id {} and epoch {} do not go together: both are -1, or neither",
                asked.producer_id.0, asked.producer_epoch
            ),
        )),
        None => context.producer_ids.next(&context.membership, context.node_id).await.map_err(no_producer_id),
    };
    let body = match given {
        Ok(id) => InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(0),
        Err(failure) => {
            tracing::info!(reason = %failure.message, "refused a producer id");
            InitProducerIdResponse::default()
                .with_error_code(failure.code.code())
                .with_producer_id(ProducerId(-1))
                .with_producer_epoch(-1)
        }
    };
    reply(ApiKey::InitProducerId, &request.header, &body)
}
