//! What DescribeConfigs says of a config: its value, who set it, and what would count if they had not.

use std::collections::BTreeMap;

use crate::broker_config::BrokerConfig;
use crate::broker_config::definitions as broker;
use crate::broker_config::layers::ConfigSource;
use crate::broker_config::listeners::Listener;
use crate::config_definition::{ConfigDefinition, ConfigType, Update};
use crate::topic_config::definitions as topic;

/// One config of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: &'static str,
    /// `None`: not set and without a default, or a secret.
    pub value: Option<String>,
    pub source: ConfigSource,
    pub read_only: bool,
    pub sensitive: bool,
    /// Whoever set it, the strongest first; the first is the one that counts.
    pub synonyms: Vec<ConfigSynonym>,
    pub config_type: ConfigType,
    pub documentation: &'static str,
}

/// A value that somebody set, under the name they set it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: &'static str,
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// All configs of a topic that has these overrides.
pub fn describe_topic(overrides: &BTreeMap<String, String>, broker: &BrokerConfig) -> Vec<ConfigEntry> {
    topic::definitions().iter().map(|definition| topic_entry(definition, overrides, broker)).collect()
}

/// All configs that a broker obeys.
pub fn describe_broker(config: &BrokerConfig) -> Vec<ConfigEntry> {
    let entry = |definition: &'static ConfigDefinition| {
        let synonyms = broker_synonyms(definition.name, config);
        let entry = entry(definition, synonyms, definition.update == Update::ReadOnly);
        match entry.source {
            ConfigSource::Default => {
                ConfigEntry { value: derived(definition.name, config).or(entry.value), ..entry }
            }
            _ => entry,
        }
    };
    broker::definitions().iter().map(entry).collect()
}

/// The value of a config that nobody set, where other configs decide it.
fn derived(name: &str, config: &BrokerConfig) -> Option<String> {
    let shown =
        |listeners: &[Listener]| listeners.iter().map(Listener::to_string).collect::<Vec<_>>().join(",");
    match name {
        "node.id" | "broker.id" => Some(config.node_id.to_string()),
        "listeners" => Some(shown(&config.listeners)),
        "advertised.listeners" => Some(shown(&config.advertised_listeners)),
        "firn.http.port" => Some(config.http.as_ref().map_or(-1, |http| i32::from(http.port)).to_string()),
        "remote.log.storage.system.enable" => Some(config.tier.enabled.to_string()),
        _ => None,
    }
}

/// What is set as the default of all brokers (resource name "").
pub fn describe_cluster_default(config: &BrokerConfig) -> Vec<ConfigEntry> {
    let set = config.layers.cluster_default.iter().filter_map(|(name, value)| {
        let definition = broker::definition(name).ok()?;
        let synonym = ConfigSynonym {
            name: definition.name,
            value: shown(definition, value),
            source: ConfigSource::DynamicDefaultBroker,
        };
        Some(entry(definition, vec![synonym], false))
    });
    set.collect()
}

fn topic_entry(
    definition: &'static ConfigDefinition,
    overrides: &BTreeMap<String, String>,
    broker: &BrokerConfig,
) -> ConfigEntry {
    let own = overrides.get(definition.name).map(|text| ConfigSynonym {
        name: definition.name,
        value: shown(definition, text),
        source: ConfigSource::DynamicTopic,
    });
    let inherited: Vec<_> =
        definition.synonyms.iter().flat_map(|synonym| broker_synonyms(synonym.name, broker)).collect();
    // Synonyms keep the units of their own names, but the value is the topic's.
    let counts = own.as_ref().map(|own| own.value.clone()).unwrap_or_else(|| {
        let set = inherited.iter().find(|synonym| synonym.source != ConfigSource::Default)?;
        let factor = definition.synonyms.iter().find(|synonym| synonym.name == set.name)?.factor;
        scaled(set.value.as_deref()?, factor)
    });
    let default = || definition.default.and_then(|text| shown(definition, text));
    let mut synonyms: Vec<_> = own.into_iter().chain(by_layer(inherited)).collect();
    // A default that goes by another unit would only confuse: Kafka leaves it out, too.
    synonyms.retain(|synonym| synonym.source != ConfigSource::Default || same_unit(definition, synonym.name));
    let source = synonyms.first().map_or(ConfigSource::Default, |synonym| synonym.source);
    ConfigEntry { value: counts.or_else(default), source, ..entry(definition, synonyms, false) }
}

fn same_unit(definition: &ConfigDefinition, name: &str) -> bool {
    definition.synonyms.iter().any(|synonym| synonym.name == name && synonym.factor == 1)
}

/// The broker's own precedence is by name before layer (log.retention.ms before log.retention.hours); defaults come last.
fn by_layer(mut synonyms: Vec<ConfigSynonym>) -> Vec<ConfigSynonym> {
    synonyms.sort_by_key(|synonym| synonym.source == ConfigSource::Default);
    synonyms
}

fn scaled(text: &str, factor: i64) -> Option<String> {
    match text.parse::<i64>() {
        Ok(number) if factor != 1 && number < 0 => Some("-1".to_owned()),
        Ok(number) if factor != 1 => Some(number.saturating_mul(factor).to_string()),
        _ => Some(text.to_owned()),
    }
}

fn broker_synonyms(name: &'static str, config: &BrokerConfig) -> Vec<ConfigSynonym> {
    let Ok(definition) = broker::definition(name) else { return Vec::new() };
    let default = definition.default.map(|text| (text, ConfigSource::Default));
    let layers = config.layers.all(name).into_iter().chain(default);
    layers.map(|(text, source)| ConfigSynonym { name, value: shown(definition, text), source }).collect()
}

fn entry(
    definition: &'static ConfigDefinition,
    synonyms: Vec<ConfigSynonym>,
    read_only: bool,
) -> ConfigEntry {
    let first = synonyms.first();
    ConfigEntry {
        name: definition.name,
        value: first.and_then(|synonym| synonym.value.clone()),
        source: first.map_or(ConfigSource::Default, |synonym| synonym.source),
        read_only,
        sensitive: definition.sensitive(),
        synonyms,
        config_type: definition.config_type,
        documentation: definition.doc,
    }
}

/// The value in Kafka's spelling, unless it is a secret.
fn shown(definition: &ConfigDefinition, text: &str) -> Option<String> {
    if definition.sensitive() {
        return None;
    }
    Some(definition.parse(text).map_or_else(|_| text.to_owned(), |value| value.to_string()))
}

#[cfg(test)]
#[path = "config_entry_tests.rs"]
mod tests;
