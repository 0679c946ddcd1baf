//! Configs of topics and brokers: describe, and change one key at a time (KIP-339).

use std::sync::Arc;

use firn_protocol::library::messages::describe_configs_request::DescribeConfigsResource;
use firn_protocol::library::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use firn_protocol::library::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use firn_protocol::library::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::{Error, check};
use crate::topics::text;

/// `ConfigResource.Type` and `AlterConfigOp.OpType` on the wire.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET: i8 = 0;
const DELETE: i8 = 1;

/// Whose configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    Topic(String),
    /// A broker by id; empty for the default of all brokers.
    Broker(String),
}

impl Resource {
    fn wire(&self) -> (i8, &str) {
        match self {
            Self::Topic(name) => (TOPIC, name),
            Self::Broker(id) => (BROKER, id),
        }
    }

    /// As it is called in errors.
    pub fn title(&self) -> String {
        match self {
            Self::Topic(name) => format!("topic {name}"),
            Self::Broker(id) if id.is_empty() => "all brokers".to_owned(),
            Self::Broker(id) => format!("broker {id}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub name: String,
    /// None where it is secret, or has no value.
    pub value: Option<String>,
    /// As `ConfigEntry.ConfigSource` names it.
    pub source: &'static str,
    pub sensitive: bool,
    pub read_only: bool,
    /// What it does, in the broker's words; none where it has none.
    pub documentation: Option<String>,
    /// Where the value may come from, what counts first.
    pub synonyms: Vec<Synonym>,
}

/// One of the places from which a config takes its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synonym {
    pub name: String,
    pub value: Option<String>,
    pub source: &'static str,
}

/// `DescribeConfigsResponse.ConfigSource`.
fn source(code: i8) -> &'static str {
    match code {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

/// A connection to who knows the configs of this: those of a broker it alone does. `None` if that broker is not there.
pub async fn connection_for(
    cluster: &Cluster,
    resource: &Resource,
) -> Result<Option<Arc<Connection>>, Error> {
    match resource {
        Resource::Broker(id) if !id.is_empty() => {
            let brokers = cluster.describe().await?.brokers;
            match brokers.into_iter().find(|broker| broker.id.to_string() == *id) {
                Some(broker) => cluster.at(&broker.address).await.map(Some),
                None => Ok(None),
            }
        }
        _ => cluster.any().await.map(Some),
    }
}

/// All configs of a resource, by name. A broker's are known to itself: connect to it.
pub async fn describe(connection: &Connection, resource: &Resource) -> Result<Vec<Config>, Error> {
    let described = describe_all(connection, std::slice::from_ref(resource)).await?;
    Ok(described.into_iter().next().unwrap_or_default())
}

/// The configs of each of `resources`, in their order.
pub async fn describe_all(
    connection: &Connection,
    resources: &[Resource],
) -> Result<Vec<Vec<Config>>, Error> {
    let wanted = resources.iter().map(|resource| {
        let (kind, name) = resource.wire();
        DescribeConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text(name))
            .with_configuration_keys(None)
    });
    let request = DescribeConfigsRequest::default()
        .with_resources(wanted.collect())
        .with_include_synonyms(true)
        .with_include_documentation(true);
    let reply = connection.call(&request).await?;
    let mut described = Vec::new();
    for resource in resources {
        let (kind, name) = resource.wire();
        let mut configs = Vec::new();
        let ours = |result: &&DescribeConfigsResult| {
            result.resource_type == kind && result.resource_name.as_str() == name
        };
        if let Some(result) = reply.results.iter().find(ours) {
            let what = || format!("describe the configs of {}", resource.title());
            check(result.error_code, result.error_message.as_deref(), what)?;
            configs.extend(result.configs.iter().map(config));
        }
        configs.sort_by(|one, other| one.name.cmp(&other.name));
        described.push(configs);
    }
    Ok(described)
}

fn config(found: &DescribeConfigsResourceResult) -> Config {
    let synonyms = found.synonyms.iter().map(|synonym| Synonym {
        name: synonym.name.to_string(),
        value: synonym.value.as_ref().map(ToString::to_string),
        source: source(synonym.source),
    });
    Config {
        name: found.name.to_string(),
        value: found.value.as_ref().map(ToString::to_string),
        source: source(found.config_source),
        sensitive: found.is_sensitive,
        read_only: found.read_only,
        documentation: found.documentation.as_ref().map(ToString::to_string),
        synonyms: synonyms.collect(),
    }
}

/// Sets each key to its value, or takes it back to its default where there is none.
pub async fn alter(
    connection: &Connection,
    resource: &Resource,
    changes: &[(String, Option<String>)],
) -> Result<(), Error> {
    let (kind, name) = resource.wire();
    let configs = changes.iter().map(|(key, value)| {
        AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(if value.is_some() { SET } else { DELETE })
            .with_value(value.as_deref().map(text))
    });
    let wanted = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(name))
        .with_configs(configs.collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![wanted]);
    for result in connection.call(&request).await?.responses {
        let what = || format!("change the configs of {}", resource.title());
        check(result.error_code, result.error_message.as_deref(), what)?;
    }
    Ok(())
}
