//! A broker's configuration, typed: read from `server.properties`, with what IncrementalAlterConfigs laid over it.

pub mod definitions;
mod kafka;
pub mod layers;
pub mod listeners;
pub mod quorum;
pub mod settings;
mod unused;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config_definition::{BrokerSynonym, ConfigError, ConfigValue, Update};
use crate::topic_config::{self, TopicConfig};
use definitions::{CORDONED, DRAIN, VOTER, definition, unknown};
use layers::ConfigLayers;
use listeners::Listener;
use quorum::QuorumSettings;
use settings::{
    BalanceSettings, GroupSettings, HttpSettings, LogFormat, LogSettings, NetworkSettings, OffsetsSettings,
    ReplicaSettings, TierSettings, TopicSettings, invalid,
};
use unused::Unused;

/// Everything that a broker obeys. Times are milliseconds and sizes bytes, unless a name says otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct BrokerConfig {
    /// As it was written, for DescribeConfigs.
    pub layers: ConfigLayers,
    pub node_id: i32,
    pub rack: Option<String>,
    /// What to bind.
    pub listeners: Vec<Listener>,
    /// What to bind beside, for the other brokers; no client is told of them.
    pub controller_listeners: Vec<Listener>,
    pub quorum: QuorumSettings,
    pub replica: ReplicaSettings,
    pub balance: BalanceSettings,
    /// What to tell clients, by the name of the listener they came in at.
    pub advertised_listeners: Vec<Listener>,
    pub log_dirs: Vec<PathBuf>,
    /// What a topic obeys that sets nothing itself.
    pub topic_defaults: TopicConfig,
    pub topics: TopicSettings,
    pub network: NetworkSettings,
    pub log: LogSettings,
    pub offsets: OffsetsSettings,
    pub groups: GroupSettings,
    pub tier: TierSettings,
    /// Where /metrics and the health checks are served; `None`: nowhere.
    pub http: Option<HttpSettings>,
    pub log_format: LogFormat,
}

/// A file that was read, and what its writer should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    pub config: BrokerConfig,
    /// Keys that were taken but lead to nothing, with the reason: one sentence each.
    pub warnings: Vec<String>,
}

impl BrokerConfig {
    /// Reads the properties of a `server.properties`. Keys that are not known, or that make no sense here, are warnings;
    /// a value that is not allowed, be it of a key of Kafka that has no effect here, is an error that names key, value and what is allowed.
    pub fn from_properties(properties: &BTreeMap<String, String>) -> Result<Parsed, ConfigError> {
        let mut warnings = Vec::new();
        let mut from_file = BTreeMap::new();
        for (name, text) in properties {
            match (definitions::find(name), unused::find(name)) {
                (Some(definition), _) => {
                    definition.parse(text)?;
                    from_file.insert(name.clone(), text.trim().to_owned());
                }
                (None, Some(Unused::Ignored(reason))) => {
                    if let Some(kafkas) = kafka::find(name) {
                        kafkas.parse(text)?;
                    }
                    warnings.push(format!("Configuration {name} has no effect: {reason}."));
                }
                (None, Some(Unused::Refused { harmless, reason })) => {
                    refuse_unsafe(name, text, harmless, reason)?
                }
                (None, None) => warnings.push(format!("{}; it has no effect.", unknown(name))),
            }
        }
        let layers = ConfigLayers { from_file, ..ConfigLayers::default() };
        let config = Self::from_layers(layers)?;
        warn(&config, &mut warnings)?;
        Ok(Parsed { config, warnings })
    }

    /// This configuration with the dynamic configs of the cluster (`cluster_default`) and of this broker (`own`) over
    /// what its file says. Replaces what was laid over it before.
    pub fn with_dynamic(
        &self,
        cluster_default: &BTreeMap<String, String>,
        own: &BTreeMap<String, String>,
    ) -> Result<BrokerConfig, ConfigError> {
        Self::from_layers(ConfigLayers {
            from_file: self.layers.from_file.clone(),
            cluster_default: cluster_default.clone(),
            own: own.clone(),
        })
    }

    /// Checks one dynamic change of a broker's config: that the name is known, may change while the broker runs, and that
    /// the value is allowed. `None` is a deletion.
    pub fn check_dynamic(name: &str, value: Option<&str>, cluster_default: bool) -> Result<(), ConfigError> {
        let definition = definitions::find(name).ok_or_else(|| not_obeyed(name, value))?;
        let shown = value.unwrap_or("");
        match (definition.update, cluster_default) {
            (Update::ReadOnly, _) => Err(definition.refuse(
                shown,
                "it cannot be changed while the broker runs: set it in the broker's file and restart",
            )),
            (Update::PerBroker, true) => Err(definition
                .refuse(shown, "it has no default for all brokers: set it for each broker by its id")),
            _ => value.map_or(Ok(()), |text| definition.parse(text).map(|_| ())),
        }
    }

    fn from_layers(layers: ConfigLayers) -> Result<Self, ConfigError> {
        let listeners = listeners::read(&layers)?;
        let node_id = node_id(&layers)?;
        check_roles(&layers)?;
        refuse_in_file(&layers)?;
        let quorum = quorum::quorum(&layers, node_id)?;
        let tier = settings::tier(&layers)?;
        let topic_defaults = topic_defaults(&layers)?;
        topic_defaults.check(tier.enabled)?;
        let network = settings::network(&layers)?;
        let config = Self {
            node_id,
            rack: layers.text("broker.rack")?,
            http: settings::http(&layers, &listeners.bound)?,
            // Without others there is nobody to use them.
            controller_listeners: match quorum.voters.is_empty() {
                true => Vec::new(),
                false => listeners.controllers,
            },
            quorum,
            replica: settings::replica(&layers)?,
            balance: settings::balance(&layers)?,
            listeners: listeners.bound,
            advertised_listeners: listeners.advertised,
            log_dirs: settings::log_dirs(&layers)?,
            topic_defaults,
            topics: settings::topics(&layers)?,
            network,
            log: settings::log(&layers)?,
            offsets: settings::offsets(&layers)?,
            groups: settings::groups(&layers)?,
            tier,
            log_format: match layers.text("firn.log.format")?.as_deref() {
                Some("json") => LogFormat::Json,
                _ => LogFormat::Human,
            },
            layers,
        };
        Ok(config)
    }
}

/// A broker on Kafka's defaults, as an empty `server.properties` gives it.
impl Default for BrokerConfig {
    fn default() -> Self {
        // The defaults are constants of this crate; a test reads them all.
        match Self::from_layers(ConfigLayers::default()) {
            Ok(config) => config,
            Err(error) => unreachable!("a default is not allowed: {error}"),
        }
    }
}

fn refuse_unsafe(name: &str, text: &str, harmless: &[&str], reason: &str) -> Result<(), ConfigError> {
    let text = text.trim();
    if text.is_empty() || harmless.contains(&text) {
        return Ok(());
    }
    Err(ConfigError::Invalid {
        name: name.to_owned(),
        value: text.chars().take(200).collect(),
        reason: reason.to_owned(),
    })
}

/// Why a config that is not in the table has no effect: one of Kafka's that makes no sense here, or an unknown one.
pub fn not_obeyed(name: &str, value: Option<&str>) -> ConfigError {
    let (Unused::Ignored(reason) | Unused::Refused { reason, .. }) = match unused::find(name) {
        Some(unused) => unused,
        None => return unknown(name),
    };
    ConfigError::Invalid {
        name: name.to_owned(),
        // It may be a secret of a protocol that is not served.
        value: value.map(|_| "[hidden]").unwrap_or_default().to_owned(),
        reason: format!("it would have no effect: {reason}"),
    }
}

/// Adds what is allowed but may surprise.
fn warn(config: &BrokerConfig, warnings: &mut Vec<String>) -> Result<(), ConfigError> {
    let layers = &config.layers;
    for listener in listeners::read(layers)?.controllers {
        if config.controller_listeners.contains(&listener) {
            continue;
        }
        warnings.push(format!(
            "Listener {} on port {} is not opened: it is for controllers, and the cluster is one node.",
            listener.name, listener.port
        ));
    }
    if layers.get("log.dirs").is_none() && layers.get("log.dir").is_none() {
        warnings.push(
            "log.dirs is not set: records go to /tmp/kafka-logs, which many systems empty at start."
                .to_owned(),
        );
    }
    for (old, new) in [
        ("port", "listeners"),
        ("host.name", "listeners"),
        ("advertised.host.name", "advertised.listeners"),
        ("advertised.port", "advertised.listeners"),
        ("log.dir", "log.dirs"),
    ] {
        if layers.get(old).is_some() && layers.get(new).is_some() {
            warnings.push(format!("Configuration {old} has no effect: {new} is set, and replaces it."));
        }
    }
    Ok(())
}

fn node_id(layers: &ConfigLayers) -> Result<i32, ConfigError> {
    let broker_id = layers.int("broker.id")?;
    let node_id = layers.value("node.id")?.as_ref().and_then(ConfigValue::int);
    match node_id {
        Some(node_id) if broker_id != -1 && broker_id != node_id => {
            Err(invalid("broker.id", broker_id, "it must be the same as node.id, or left out"))
        }
        Some(node_id) => Ok(node_id),
        None => Ok(broker_id.max(0)),
    }
}

/// Every node is a broker and keeps the metadata; what describes another cluster is refused, rather than split it in
/// silence.
fn check_roles(layers: &ConfigLayers) -> Result<(), ConfigError> {
    let roles = layers.list("process.roles")?;
    if !roles.iter().any(|role| role == "broker") {
        return Err(invalid(
            "process.roles",
            roles.join(","),
            "a node must be a broker: allowed are broker, and broker,controller",
        ));
    }
    let servers = layers.list("controller.quorum.bootstrap.servers")?;
    if servers.len() > 1 {
        let reason = "the brokers that a cluster is found by are named in controller.quorum.voters: allowed is one host:port, this node's, or nothing";
        return Err(invalid("controller.quorum.bootstrap.servers", servers.join(","), reason));
    }
    Ok(())
}

/// What the controller decides by is kept with the metadata, where it outlives brokers and controllers. Of files it knows nothing.
fn refuse_in_file(layers: &ConfigLayers) -> Result<(), ConfigError> {
    let found =
        [CORDONED, DRAIN, VOTER].into_iter().find_map(|name| Some((name, layers.from_file.get(name)?)));
    let Some((name, value)) = found else { return Ok(()) };
    match definition(name)?.parse(value)? {
        ConfigValue::Boolean(false) => Ok(()),
        ConfigValue::List(items) if items.is_empty() => Ok(()),
        ConfigValue::Text(text) if text.is_empty() => Ok(()),
        _ => Err(invalid(
            name,
            value,
            "it is kept with the cluster's metadata: set it by kafka-configs, or by firn broker drain, with the broker's id",
        )),
    }
}

/// What a topic that sets nothing obeys: each config from the first of its broker synonyms that is set.
fn topic_defaults(layers: &ConfigLayers) -> Result<TopicConfig, ConfigError> {
    let mut defaults = TopicConfig::default();
    for topic in topic_config::definitions::definitions() {
        for synonym in topic.synonyms {
            let Some(text) = layers.get(synonym.name) else { continue };
            let value = scaled(synonym, text)?;
            defaults
                .set(topic.name, &value)
                .ok_or_else(|| invalid(synonym.name, text, "it is out of range"))?;
            break;
        }
    }
    Ok(defaults)
}

fn scaled(synonym: &BrokerSynonym, text: &str) -> Result<ConfigValue, ConfigError> {
    let value = definition(synonym.name)?.parse(text)?;
    if !synonym.name.starts_with("log.retention.") || synonym.name == "log.retention.bytes" {
        return Ok(match value {
            ConfigValue::Integer(number) => ConfigValue::Integer(number.saturating_mul(synonym.factor)),
            other => other,
        });
    }
    // As in Kafka, any negative time is "for ever", and no time at all is a mistake.
    match value.long() {
        Some(0) => Err(invalid(synonym.name, text, "allowed is -1, for ever, or at least 1")),
        Some(number) if number < 0 => Ok(ConfigValue::Integer(-1)),
        Some(number) => Ok(ConfigValue::Integer(number.saturating_mul(synonym.factor))),
        None => Ok(value),
    }
}

#[cfg(test)]
mod obeyed_tests;
#[cfg(test)]
mod tests;
