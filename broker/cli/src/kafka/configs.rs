//! `kafka-configs`: configs of topics and brokers.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{ArgGroup, Args, ValueEnum};
use firn_client::cluster::Cluster;
use firn_client::configs::{self, Config, Resource};
use firn_client::error::Error;
use firn_client::topics;

use super::client_properties::CommandConfig;
use super::exceptions::UNKNOWN_TOPIC;
use crate::command::{Failure, cluster_with};

#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("action").required(true).args(["describe", "alter"]))]
#[command(group = ArgGroup::new("whose").required(true).args(["entity_type", "topic", "broker", "broker_defaults"]))]
#[command(group = ArgGroup::new("change").multiple(true).requires("alter").args(["add_config", "add_config_file", "delete_config"]))]
pub struct Arguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_server: String,
    #[command(flatten)]
    client: CommandConfig,
    /// List configs.
    #[arg(long)]
    describe: bool,
    /// Change configs.
    #[arg(long, requires = "change")]
    alter: bool,
    /// Whose configs: of topics or of brokers.
    #[arg(long, value_enum)]
    entity_type: Option<EntityType>,
    /// The topic's name, or the broker's id.
    #[arg(long, requires = "entity_type")]
    entity_name: Option<String>,
    /// The default of all brokers.
    #[arg(long, requires = "entity_type", conflicts_with = "entity_name")]
    entity_default: bool,
    /// As --entity-type topics --entity-name TOPIC.
    #[arg(long)]
    topic: Option<String>,
    /// As --entity-type brokers --entity-name ID.
    #[arg(long)]
    broker: Option<String>,
    /// As --entity-type brokers --entity-default.
    #[arg(long)]
    broker_defaults: bool,
    /// Those that nobody changed, too.
    #[arg(long, requires = "describe")]
    all: bool,
    /// k1=v1,k2=[v1,v2]: brackets group values that hold commas.
    #[arg(long, value_name = "CONFIGS")]
    add_config: Option<String>,
    /// A properties file of configs to set.
    #[arg(long, value_name = "FILE", conflicts_with = "add_config")]
    add_config_file: Option<PathBuf>,
    /// Keys, comma separated.
    #[arg(long, value_name = "KEYS")]
    delete_config: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EntityType {
    Topics,
    Brokers,
}

impl Arguments {
    /// The one resource that is named; none: all of its type.
    fn resource(&self) -> (EntityType, Option<Resource>) {
        let broker = |id: &String| Resource::Broker(id.clone());
        match (self.entity_type, &self.topic, &self.broker) {
            (Some(EntityType::Topics), ..) => {
                (EntityType::Topics, self.entity_name.clone().map(Resource::Topic))
            }
            (Some(EntityType::Brokers), ..) if self.entity_default => {
                (EntityType::Brokers, Some(Resource::Broker(String::new())))
            }
            (Some(EntityType::Brokers), ..) => (EntityType::Brokers, self.entity_name.as_ref().map(broker)),
            (None, Some(topic), _) => (EntityType::Topics, Some(Resource::Topic(topic.clone()))),
            (None, None, id) => (EntityType::Brokers, Some(Resource::Broker(id.clone().unwrap_or_default()))),
        }
    }
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let cluster = cluster_with(&arguments.bootstrap_server, arguments.client.options()?);
    let (kind, named) = arguments.resource();
    if arguments.describe {
        return describe(&cluster, kind, named, arguments.all).await;
    }
    let Some(resource) = named else {
        let kind = if kind == EntityType::Topics { "topics" } else { "brokers" };
        return Err(format!("An entity name must be specified with --alter of {kind}").into());
    };
    let changes = changes(&arguments)?;
    configs::alter(&*cluster.any().await?, &resource, &changes).await?;
    Ok(match &resource {
        Resource::Broker(id) if id.is_empty() => {
            "Completed updating default config for brokers in the cluster.\n".to_owned()
        }
        Resource::Broker(id) => format!("Completed updating config for broker {id}.\n"),
        Resource::Topic(name) => format!("Completed updating config for topic {name}.\n"),
    })
}

fn changes(arguments: &Arguments) -> Result<Vec<(String, Option<String>)>, Failure> {
    let mut changes = match (&arguments.add_config, &arguments.add_config_file) {
        (Some(text), _) => assignments(text)?,
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            lines.map(assignment).collect::<Result<Vec<_>, _>>()?
        }
        (None, None) => Vec::new(),
    };
    let deleted = arguments.delete_config.iter().flat_map(|keys| keys.split(',')).map(str::trim);
    changes.extend(deleted.filter(|key| !key.is_empty()).map(|key| (key.to_owned(), None)));
    Ok(changes)
}

/// `k1=v1,k2=[v1,v2]`: a comma inside brackets belongs to the value.
fn assignments(text: &str) -> Result<Vec<(String, Option<String>)>, Failure> {
    let mut parts = vec![String::new()];
    let mut inside = false;
    for letter in text.chars() {
        match letter {
            '[' => inside = true,
            ']' => inside = false,
            ',' if !inside => parts.push(String::new()),
            _ => {
                if let Some(part) = parts.last_mut() {
                    part.push(letter);
                }
            }
        }
    }
    parts.iter().map(|part| part.trim()).filter(|part| !part.is_empty()).map(assignment).collect()
}

fn assignment(text: &str) -> Result<(String, Option<String>), Failure> {
    let (key, value) = text.split_once('=').filter(|(key, _)| !key.trim().is_empty()).ok_or_else(|| {
        format!("Invalid entity config: {text}; all configs to be added must be in the format key=val")
    })?;
    Ok((key.trim().to_owned(), Some(value.trim().to_owned())))
}

async fn describe(
    cluster: &Cluster,
    kind: EntityType,
    named: Option<Resource>,
    all: bool,
) -> Result<String, Failure> {
    let resources = match named {
        Some(resource) => vec![resource],
        None if kind == EntityType::Topics => {
            let found = topics::describe(&*cluster.any().await?, None).await?;
            found.into_iter().map(|topic| Resource::Topic(topic.name)).collect()
        }
        None => {
            let brokers = cluster.describe().await?.brokers;
            let ids = brokers.iter().map(|broker| broker.id.to_string()).chain([String::new()]);
            ids.map(Resource::Broker).collect()
        }
    };
    let mut said = String::new();
    for resource in resources {
        let Some(connection) = configs::connection_for(cluster, &resource).await? else {
            let (Resource::Broker(name) | Resource::Topic(name)) = &resource;
            return Err(format!("The broker '{name}' doesn't exist and doesn't have dynamic config.").into());
        };
        let found = match configs::describe(&connection, &resource).await {
            Err(Error::Refused { code: UNKNOWN_TOPIC, .. }) => {
                if let Resource::Topic(name) = &resource {
                    writeln!(said, "The topic '{name}' doesn't exist and doesn't have dynamic config.")?;
                }
                continue;
            }
            found => found?,
        };
        said.push_str(&described(&resource, &found, all)?);
    }
    Ok(said)
}

fn described(resource: &Resource, configs: &[Config], all: bool) -> Result<String, Failure> {
    let kind = if all { "All" } else { "Dynamic" };
    let (mut said, dynamic) = match resource {
        Resource::Topic(name) => (format!("{kind} configs for topic {name} are:\n"), "DYNAMIC_TOPIC_CONFIG"),
        Resource::Broker(id) if id.is_empty() => {
            ("Default configs for brokers in the cluster are:\n".to_owned(), "DYNAMIC_DEFAULT_BROKER_CONFIG")
        }
        Resource::Broker(id) => (format!("{kind} configs for broker {id} are:\n"), "DYNAMIC_BROKER_CONFIG"),
    };
    let null_or = |value: &Option<String>| value.clone().unwrap_or_else(|| "null".to_owned());
    for config in configs.iter().filter(|config| all || config.source == dynamic) {
        let synonyms = config
            .synonyms
            .iter()
            .map(|synonym| format!("{}:{}={}", synonym.source, synonym.name, null_or(&synonym.value)))
            .collect::<Vec<_>>()
            .join(", ");
        let (name, value, sensitive) = (&config.name, null_or(&config.value), config.sensitive);
        writeln!(said, "  {name}={value} sensitive={sensitive} synonyms={{{synonyms}}}")?;
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use firn_client::configs::Synonym;

    use super::*;

    #[test]
    fn brackets_keep_commas_together() {
        let set = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        assert_eq!(
            assignments("retention.ms=5,cleanup.policy=[compact,delete], a=").unwrap(),
            [set("retention.ms", "5"), set("cleanup.policy", "compact,delete"), set("a", "")]
        );
        assert!(assignments("a").is_err() && assignments("=b").is_err());
    }

    #[test]
    fn configs_are_printed_with_their_synonyms() {
        let synonym =
            |source, name: &str| Synonym { name: name.to_owned(), value: Some("5".to_owned()), source };
        let config = |name: &str, source, value: Option<&str>| Config {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            source,
            sensitive: value.is_none(),
            read_only: false,
            documentation: None,
            synonyms: vec![synonym(source, name), synonym("DEFAULT_CONFIG", "log.a")],
        };
        let configs = [config("a", "DYNAMIC_TOPIC_CONFIG", Some("5")), config("b", "DEFAULT_CONFIG", None)];
        let topic = Resource::Topic("t".to_owned());
        let expected = "Dynamic configs for topic t are:\n  \
            a=5 sensitive=false synonyms={DYNAMIC_TOPIC_CONFIG:a=5, DEFAULT_CONFIG:log.a=5}\n";
        assert_eq!(described(&topic, &configs, false).unwrap(), expected);
        assert!(described(&topic, &configs, true).unwrap().contains("\n  b=null sensitive=true "));
    }
}
