//! AlterConfigs and IncrementalAlterConfigs (KIP-339) of topics, of one broker, and of all brokers by default.
//!
//! A resource's changes are taken together or not at all: what the resource would then have is checked as a whole.

use std::collections::BTreeSet;

use firn_model::broker_config::{BrokerConfig, definitions as broker_configs, not_obeyed};
use firn_model::config_definition::{ConfigDefinition, ConfigType, split_list};
use firn_model::config_entry::describe_topic;
use firn_model::repeated::repeated;
use firn_model::topic_config::{TopicConfig, definitions as topic_configs};

use super::partitions::{Rules, min_isr_changes};
use super::{Decision, DecisionError};
use crate::image::{Image, Topic};
use crate::record::{ConfigRecord, ConfigResource, MetadataRecord, Overrides, ResourceKind};

pub(super) const MIN_ISR: &str = "min.insync.replicas";

/// Kafka's `ConfigResource.Type` on the wire.
pub mod resource_type {
    pub const TOPIC: i8 = 2;
    pub const BROKER: i8 = 4;
    pub const BROKER_LOGGER: i8 = 8;
    pub const CLIENT_METRICS: i8 = 16;
    pub const GROUP: i8 = 32;
}

/// What to do with one config. On the wire: 0, 1, 2, 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlterOperation {
    Set,
    Delete,
    /// Adds items to a list.
    Append,
    /// Takes items out of a list.
    Subtract,
}

impl AlterOperation {
    /// Reads the wire's number.
    pub fn from_code(code: i8) -> Option<Self> {
        Some(match code {
            0 => AlterOperation::Set,
            1 => AlterOperation::Delete,
            2 => AlterOperation::Append,
            3 => AlterOperation::Subtract,
            _ => return None,
        })
    }
}

/// One config of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    pub name: String,
    pub operation: AlterOperation,
    pub value: Option<String>,
}

/// What a request asks for one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceChanges {
    /// One of `resource_type`.
    pub resource_type: i8,
    pub resource_name: String,
    pub changes: Vec<ConfigChange>,
}

/// The whole of what one resource is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceConfigs {
    /// One of `resource_type`.
    pub resource_type: i8,
    pub resource_name: String,
    pub configs: Vec<(String, Option<String>)>,
}

/// What became of each resource, in the order of the request.
pub type Outcomes = Vec<Result<(), DecisionError>>;

/// Decides on an IncrementalAlterConfigs request. `broker` has its dynamic configs laid over it.
pub fn incremental_alter_configs(
    image: &Image,
    resources: &[ResourceChanges],
    validate_only: bool,
    broker: &BrokerConfig,
) -> Decision<Outcomes> {
    let keys = resources.iter().map(|resource| (resource.resource_type, resource.resource_name.as_str()));
    decide(image, keys, validate_only, broker, |index, resource, current| {
        let changes = resources.get(index).map_or(&[][..], |resource| &resource.changes);
        refuse_duplicates(changes.iter().map(|change| change.name.as_str()))?;
        let mut next = current.clone();
        for change in changes {
            alter(&mut next, change, resource, broker)?;
        }
        Ok(next)
    })
}

/// Decides on an AlterConfigs request, which replaces all that a resource has.
pub fn alter_configs(
    image: &Image,
    resources: &[ResourceConfigs],
    validate_only: bool,
    broker: &BrokerConfig,
) -> Decision<Outcomes> {
    let keys = resources.iter().map(|resource| (resource.resource_type, resource.resource_name.as_str()));
    decide(image, keys, validate_only, broker, |index, resource, _| {
        let configs = resources.get(index).map_or(&[][..], |resource| &resource.configs);
        refuse_duplicates(configs.iter().map(|(name, _)| name.as_str()))?;
        let value = |(name, value): &(String, Option<String>)| {
            definition(resource, name)?;
            Ok((name.clone(), value.clone().ok_or_else(|| no_value(name))?))
        };
        configs.iter().map(value).collect()
    })
}

/// Works out, for each resource, what it is to have, checks it, and writes down what differs.
fn decide<'a>(
    image: &Image,
    keys: impl Iterator<Item = (i8, &'a str)> + Clone,
    validate_only: bool,
    broker: &BrokerConfig,
    next: impl Fn(usize, &ConfigResource, &Overrides) -> Result<Overrides, DecisionError>,
) -> Decision<Outcomes> {
    let twice = repeated(keys.clone());
    let mut decision = Decision { records: Vec::new(), reply: Vec::new() };
    for (index, key) in keys.enumerate() {
        let outcome = if twice.contains(&key) {
            Err(DecisionError::InvalidRequest(format!(
                "Resource '{}' is in the request more than once",
                key.1
            )))
        } else {
            find(image, key.0, key.1).and_then(|resource| {
                let current = image.overrides(&resource);
                let next = next(index, &resource, current)?;
                check(image, &resource, current, &next, broker)?;
                decision.records.extend(differences(&resource, current, &next));
                decision.records.extend(eligibility_changes(image, &resource, &next, broker));
                Ok(())
            })
        };
        decision.reply.push(outcome);
    }
    if validate_only {
        decision.records.clear();
    }
    decision
}

/// The resource that a request means, if it can be configured.
fn find(image: &Image, kind: i8, name: &str) -> Result<ConfigResource, DecisionError> {
    let refuse = |reason: String| Err(DecisionError::InvalidRequest(reason));
    match kind {
        resource_type::TOPIC if image.topic(name).is_some() => Ok(ConfigResource::topic(name)),
        resource_type::TOPIC => {
            Err(DecisionError::UnknownTopicOrPartition(format!("The topic '{name}' does not exist.")))
        }
        resource_type::BROKER if name.is_empty() => Ok(ConfigResource::cluster_default()),
        resource_type::BROKER => match name.parse::<i32>() {
            Ok(id) if image.broker(id).is_some() => Ok(ConfigResource::broker(id)),
            Ok(id) => refuse(format!("Broker {id} is not registered")),
            Err(_) => refuse(format!(
                "A broker is named by its number, or by nothing for all of them, not by '{name}'"
            )),
        },
        resource_type::BROKER_LOGGER => refuse(
            "Levels of the broker's log cannot be changed while it runs: start it with RUST_LOG set"
                .to_owned(),
        ),
        resource_type::CLIENT_METRICS => refuse("Client metrics (KIP-714) are not served yet".to_owned()),
        resource_type::GROUP => {
            refuse("Configs of groups are not served yet: set the broker's group.* configs".to_owned())
        }
        other => {
            refuse(format!("There is no kind {other} of resources: allowed are topics (2) and brokers (4)"))
        }
    }
}

fn refuse_duplicates<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), DecisionError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(DecisionError::InvalidRequest(format!(
                "The configuration {name} is in the request more than once"
            )));
        }
    }
    Ok(())
}

fn no_value(name: &str) -> DecisionError {
    DecisionError::InvalidRequest(format!("The configuration {name} has no value: delete it instead"))
}

/// A name that is not known is an invalid config of a topic, and an invalid request to a broker, as in Kafka.
fn definition(resource: &ConfigResource, name: &str) -> Result<&'static ConfigDefinition, DecisionError> {
    match resource.kind {
        ResourceKind::Topic => {
            topic_configs::definition(name).map_err(|error| DecisionError::InvalidConfig(error.to_string()))
        }
        ResourceKind::Broker => broker_configs::find(name)
            .ok_or_else(|| DecisionError::InvalidRequest(not_obeyed(name, None).to_string())),
    }
}

fn alter(
    overrides: &mut Overrides,
    change: &ConfigChange,
    resource: &ConfigResource,
    broker: &BrokerConfig,
) -> Result<(), DecisionError> {
    let name = &change.name;
    if change.operation == AlterOperation::Delete {
        // What is not there has gone already. A name that is not known may be there, from a newer version: it can go.
        overrides.remove(name);
        return Ok(());
    }
    let definition = definition(resource, name)?;
    let value = change.value.as_ref().ok_or_else(|| no_value(name))?;
    if change.operation == AlterOperation::Set {
        overrides.insert(name.clone(), value.clone());
        return Ok(());
    }
    if definition.config_type != ConfigType::List {
        return Err(DecisionError::InvalidConfig(format!(
            "The configuration {name} is not a list, so nothing can be appended to it or subtracted from it: set it"
        )));
    }
    let mut items = split_list(&current_value(overrides, definition, resource, broker));
    let given = split_list(value);
    if change.operation == AlterOperation::Append {
        for item in given {
            if !items.contains(&item) {
                items.push(item);
            }
        }
    } else {
        items.retain(|item| !given.contains(item));
    }
    overrides.insert(name.clone(), items.join(","));
    Ok(())
}

/// What counts for a resource before a change: its own value, or what it inherits.
fn current_value(
    overrides: &Overrides,
    definition: &ConfigDefinition,
    resource: &ConfigResource,
    broker: &BrokerConfig,
) -> String {
    let inherited = || match resource.kind {
        ResourceKind::Topic => {
            let entries = describe_topic(&Overrides::new(), broker);
            entries.into_iter().find(|entry| entry.name == definition.name).and_then(|entry| entry.value)
        }
        ResourceKind::Broker => broker.layers.get(definition.name).or(definition.default).map(str::to_owned),
    };
    overrides.get(definition.name).cloned().or_else(inherited).unwrap_or_default()
}

fn check(
    image: &Image,
    resource: &ConfigResource,
    current: &Overrides,
    next: &Overrides,
    broker: &BrokerConfig,
) -> Result<(), DecisionError> {
    if resource.kind == ResourceKind::Topic {
        return TopicConfig::resolve(next, broker)
            .map(|_| ())
            .map_err(|error| DecisionError::InvalidConfig(error.to_string()));
    }
    let invalid =
        |error: firn_model::config_definition::ConfigError| DecisionError::InvalidRequest(error.to_string());
    if !resource.name.is_empty() && next.contains_key(MIN_ISR) {
        return Err(DecisionError::InvalidConfig(format!(
            "{MIN_ISR} cannot be one broker's: the controller and every leader have to agree on it. Set it for all brokers, or for a topic"
        )));
    }
    for (name, value) in next.iter().filter(|(name, value)| current.get(*name) != Some(*value)) {
        BrokerConfig::check_dynamic(name, Some(value), resource.name.is_empty()).map_err(invalid)?;
    }
    let own = ConfigResource::broker(broker.node_id);
    let together = if resource.name.is_empty() {
        broker.with_dynamic(next, image.overrides(&own))
    } else if *resource == own {
        broker.with_dynamic(image.overrides(&ConfigResource::cluster_default()), next)
    } else {
        // Another broker's file is not known here.
        return Ok(());
    };
    together.map(|_| ()).map_err(invalid)
}

/// What follows for partitions where the change is one of `min.insync.replicas`.
fn eligibility_changes(
    image: &Image,
    resource: &ConfigResource,
    next: &Overrides,
    broker: &BrokerConfig,
) -> Vec<MetadataRecord> {
    let defaults = match (&resource.kind, resource.name.is_empty()) {
        (ResourceKind::Broker, true) => {
            broker.with_dynamic(next, image.overrides(&ConfigResource::broker(broker.node_id))).ok()
        }
        _ => None,
    };
    let defaults = defaults.as_ref().unwrap_or(broker);
    let config = |topic: &Topic| {
        let is_it = resource.kind == ResourceKind::Topic && resource.name == *topic.name;
        let overrides = if is_it { next } else { image.topic_overrides(&topic.name) };
        TopicConfig::of_existing(overrides, defaults).0
    };
    min_isr_changes(image, Rules { config: broker }, config)
}

/// The records from one set of overrides to the other, by name.
fn differences(resource: &ConfigResource, current: &Overrides, next: &Overrides) -> Vec<MetadataRecord> {
    let names: BTreeSet<&String> = current.keys().chain(next.keys()).collect();
    let changed = names.into_iter().filter(|name| current.get(*name) != next.get(*name));
    changed
        .map(|name| {
            MetadataRecord::Config(ConfigRecord {
                resource: resource.clone(),
                name: name.clone(),
                value: next.get(name).cloned(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests;
