//! `firn config`: describe, set and delete the configs of topics and brokers.

use clap::{ArgGroup, Args, Subcommand};
use firn_client::cluster::Cluster;
use firn_client::configs::{self, Config, Resource};

use crate::command::{Failure, To, cluster};
use crate::output::{Output, json, table};
use crate::values::key_value;

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Show configs; those that nobody changed are left out unless --all is given.
    Describe {
        #[command(flatten)]
        whose: Whose,
        /// The defaults, too.
        #[arg(long)]
        all: bool,
    },
    /// Set configs, for example: firn config set --topic orders retention.ms=60000
    Set {
        #[command(flatten)]
        whose: Whose,
        /// What to set.
        #[arg(required = true, value_name = "KEY=VALUE", value_parser = key_value)]
        configs: Vec<(String, String)>,
    },
    /// Take configs back to their defaults.
    Delete {
        #[command(flatten)]
        whose: Whose,
        /// What to take back.
        #[arg(required = true, value_name = "KEY")]
        keys: Vec<String>,
    },
}

#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("whose").required(true).args(["topic", "broker", "all_brokers"]))]
struct Whose {
    /// A topic by name.
    #[arg(long)]
    topic: Option<String>,
    /// A broker by id.
    #[arg(long)]
    broker: Option<String>,
    /// What every broker obeys that has no value of its own: the default of the cluster.
    #[arg(long)]
    all_brokers: bool,
}

impl Whose {
    fn resource(self) -> Resource {
        match self.topic {
            Some(topic) => Resource::Topic(topic),
            // Kafka's name for the default of all brokers is no name.
            None => Resource::Broker(self.broker.unwrap_or_default()),
        }
    }
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let cluster = cluster(&arguments.to.bootstrap);
    let (resource, changes): (_, Vec<(String, Option<String>)>) = match arguments.action {
        Action::Describe { whose, all } => {
            let mut found = describe(&cluster, &whose.resource()).await?;
            found.retain(|config| all || config.source.starts_with("DYNAMIC"));
            return described(arguments.to.output, &found);
        }
        Action::Set { whose, configs } => {
            (whose.resource(), configs.into_iter().map(|(key, value)| (key, Some(value))).collect())
        }
        Action::Delete { whose, keys } => {
            // A broker takes what is not there for deleted, and a slip of the pen would go unseen.
            let resource = whose.resource();
            let known = describe(&cluster, &resource).await?;
            if let Some(key) = keys.iter().find(|key| known.iter().all(|config| config.name != **key)) {
                let title = resource.title();
                return Err(format!("{title} has no config '{key}': --all shows those that there are").into());
            }
            (resource, keys.into_iter().map(|key| (key, None)).collect())
        }
    };
    configs::alter(&*cluster.any().await?, &resource, &changes).await?;
    let keys: Vec<String> = changes.into_iter().map(|(key, _)| key).collect();
    Ok(match arguments.to.output {
        Output::Table => format!("Changed {}.\n", keys.join(", ")),
        Output::Json => json(&serde_json::json!({ "changed": keys }))?,
    })
}

async fn describe(cluster: &Cluster, resource: &Resource) -> Result<Vec<Config>, Failure> {
    let missing = || format!("{} is not there: firn cluster describe lists those that are", resource.title());
    let connection = configs::connection_for(cluster, resource).await?.ok_or_else(missing)?;
    Ok(configs::describe(&connection, resource).await?)
}

fn described(output: Output, configs: &[Config]) -> Result<String, Failure> {
    if output == Output::Json {
        let rows: Vec<_> = configs
            .iter()
            .map(|config| {
                serde_json::json!({
                    "name": config.name, "value": config.value, "source": config.source,
                    "sensitive": config.sensitive, "read_only": config.read_only,
                    "documentation": config.documentation,
                })
            })
            .collect();
        return json(&rows);
    }
    let rows: Vec<_> = configs
        .iter()
        .map(|config| {
            let hidden = if config.sensitive { "(hidden)" } else { "" };
            let value = config.value.clone().unwrap_or_else(|| hidden.to_owned());
            vec![config.name.clone(), value, config.source.to_owned()]
        })
        .collect();
    Ok(table(&["CONFIG", "VALUE", "SOURCE"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_stay_hidden() {
        let config = |name: &str, value: Option<&str>, sensitive| Config {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            source: "DYNAMIC_TOPIC_CONFIG",
            sensitive,
            read_only: false,
            documentation: None,
            synonyms: Vec::new(),
        };
        let configs = [config("retention.ms", Some("5"), false), config("secret", None, true)];
        let expected = "CONFIG        VALUE     SOURCE\n\
                        retention.ms  5         DYNAMIC_TOPIC_CONFIG\n\
                        secret        (hidden)  DYNAMIC_TOPIC_CONFIG\n";
        assert_eq!(described(Output::Table, &configs).unwrap(), expected);
    }
}
