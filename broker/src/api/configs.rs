//! What topics and brokers are configured with: DescribeConfigs, AlterConfigs, IncrementalAlterConfigs.

use std::collections::HashSet;
use std::sync::Arc;

use firn_metadata::decide::DecisionError;
use firn_metadata::decide::configs::{
    AlterOperation, ConfigChange, Outcomes, ResourceChanges, ResourceConfigs, alter_configs,
    incremental_alter_configs, resource_type,
};
use firn_model::config_entry::{ConfigEntry, describe_broker, describe_cluster_default, describe_topic};
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::alter_configs_response::AlterConfigsResourceResponse as AlteredResource;
use firn_protocol::library::messages::describe_configs_request::DescribeConfigsResource;
use firn_protocol::library::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use firn_protocol::library::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use firn_protocol::library::messages::{
    AlterConfigsRequest, AlterConfigsResponse, ApiKey, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};
use firn_protocol::library::protocol::StrBytes;

use crate::api::distinct::distinct;
use crate::api::errors::{Failure, missing};
use crate::api::{Answer, ApiError, reply};
use crate::context::Context;
use firn_quorum::quorum::ProposeError;

pub fn describe(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let describe: DescribeConfigsRequest = request.decode(ApiKey::DescribeConfigs)?;
    let resources =
        distinct(&describe.resources, |resource| (resource.resource_type, &resource.resource_name));
    let results = resources.into_iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match entries(context, resource) {
            Ok(entries) => {
                let keys: HashSet<&str> =
                    resource.configuration_keys.iter().flatten().map(|key| key.as_str()).collect();
                // To Kafka no keys are all of them, too.
                let wanted = |entry: &&ConfigEntry| keys.is_empty() || keys.contains(entry.name);
                let configs = entries.iter().filter(wanted).map(|entry| described(entry, &describe));
                result.with_configs(configs.collect())
            }
            Err(failure) => result.with_error_code(failure.code.code()).with_error_message(failure.text()),
        }
    });
    let body = DescribeConfigsResponse::default().with_results(results.collect());
    reply(ApiKey::DescribeConfigs, &request.header, &body)
}

fn entries(context: &Context, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, Failure> {
    let config = context.config();
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        resource_type::TOPIC => {
            let image = context.controller.image();
            if image.topic(name).is_none() {
                let message = format!("There is no topic '{name}'");
                return Err(Failure::new(missing(name), message));
            }
            Ok(describe_topic(image.topic_overrides(name), &config))
        }
        resource_type::BROKER if name.is_empty() => Ok(describe_cluster_default(&config)),
        resource_type::BROKER if name == context.node_id.to_string() => Ok(describe_broker(&config)),
        resource_type::BROKER => {
            let message = format!("This is broker {}, and broker '{name}' was asked for", context.node_id);
            Err(Failure::new(ResponseError::InvalidRequest, message))
        }
        // Kinds of resources for which nothing is configurable here have no configs.
        resource_type::BROKER_LOGGER | resource_type::CLIENT_METRICS | resource_type::GROUP => Ok(Vec::new()),
        other => {
            Err(Failure::new(ResponseError::InvalidRequest, format!("Resource type {other} is unknown")))
        }
    }
}

fn described(entry: &ConfigEntry, describe: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let text = |value: &Option<String>| value.clone().map(StrBytes::from_string);
    let synonyms = entry.synonyms.iter().filter(|_| describe.include_synonyms).map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(StrBytes::from_static_str(synonym.name))
            .with_value(text(&synonym.value))
            .with_source(synonym.source.code())
    });
    let documentation =
        describe.include_documentation.then(|| StrBytes::from_static_str(entry.documentation));
    DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(entry.name))
        .with_value(text(&entry.value))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.code())
        .with_is_sensitive(entry.sensitive)
        .with_synonyms(synonyms.collect())
        .with_config_type(entry.config_type.code())
        .with_documentation(documentation)
}

pub async fn incremental_alter(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let alter: IncrementalAlterConfigsRequest = request.decode(ApiKey::IncrementalAlterConfigs)?;
    let mut resources = Vec::with_capacity(alter.resources.len());
    let mut unknown = None;
    for resource in &alter.resources {
        let mut changes = Vec::with_capacity(resource.configs.len());
        for config in &resource.configs {
            let Some(operation) = AlterOperation::from_code(config.config_operation) else {
                unknown = Some(config.config_operation);
                continue;
            };
            let value = config.value.as_ref().map(ToString::to_string);
            changes.push(ConfigChange { name: config.name.to_string(), operation, value });
        }
        resources.push(ResourceChanges {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.to_string(),
            changes,
        });
    }
    let broker = context.config();
    let outcomes = match unknown {
        Some(code) => Err(refused(format!("Config operation {code} is unknown"))),
        None => {
            let decide =
                |image: &_| Ok(incremental_alter_configs(image, &resources, alter.validate_only, &broker));
            context.controller.propose(decide).await
        }
    };
    let rows =
        rows(outcomes, resources.len()).into_iter().zip(&alter.resources).map(|(failure, resource)| {
            let row = AlterConfigsResourceResponse::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match failure {
                None => row,
                Some(failure) => row.with_error_code(failure.code.code()).with_error_message(failure.text()),
            }
        });
    let body = IncrementalAlterConfigsResponse::default().with_responses(rows.collect());
    reply(ApiKey::IncrementalAlterConfigs, &request.header, &body)
}

pub async fn alter(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let alter: AlterConfigsRequest = request.decode(ApiKey::AlterConfigs)?;
    let resources: Vec<ResourceConfigs> = alter
        .resources
        .iter()
        .map(|resource| ResourceConfigs {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.to_string(),
            configs: resource
                .configs
                .iter()
                .map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)))
                .collect(),
        })
        .collect();
    let broker = context.config();
    let decide = |image: &_| Ok(alter_configs(image, &resources, alter.validate_only, &broker));
    let outcomes = context.controller.propose(decide).await;
    let rows =
        rows(outcomes, resources.len()).into_iter().zip(&alter.resources).map(|(failure, resource)| {
            let row = AlteredResource::default()
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name.clone());
            match failure {
                None => row,
                Some(failure) => row.with_error_code(failure.code.code()).with_error_message(failure.text()),
            }
        });
    let body = AlterConfigsResponse::default().with_responses(rows.collect());
    reply(ApiKey::AlterConfigs, &request.header, &body)
}

fn refused(message: String) -> ProposeError {
    ProposeError::Refused(DecisionError::InvalidRequest(message))
}

/// What became of each resource; a request that failed as a whole failed for each.
fn rows(outcomes: Result<Outcomes, ProposeError>, resources: usize) -> Vec<Option<Failure>> {
    match outcomes {
        Ok(outcomes) => outcomes.into_iter().map(|one| one.err().map(Failure::from)).collect(),
        Err(error) => {
            let failure = Failure::from(error);
            vec![Some(failure); resources]
        }
    }
}
