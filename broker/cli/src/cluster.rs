//! `firn cluster`: its brokers, and what lies on their disks.

use clap::{Args, Subcommand};
use firn_client::brokers::{self, Registered};
use firn_client::cluster::{Broker, Cluster, Description, Replica};
use firn_client::configs::{self, Config, Resource};
use firn_client::error::Error;
use firn_client::topics;
use firn_model::broker_config::definitions::{CORDONED, DRAIN};

use crate::command::{Failure, To, cluster};
use crate::output::{Output, json, table};

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// List the brokers: which are there, which are lost, being emptied or get no more replicas, who is the controller and who votes on
    /// the metadata, and how many partitions each leads and has.
    Describe,
    /// Show how many bytes each partition takes on each broker's disks.
    LogDirs,
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let cluster = cluster(&arguments.to.bootstrap);
    match arguments.action {
        Action::Describe => described(arguments.to.output, &look(&cluster).await?),
        Action::LogDirs => kept(arguments.to.output, &cluster.replicas().await?),
    }
}

/// What there is to say of a cluster.
struct Seen {
    description: Description,
    brokers: Vec<Row>,
}

/// One broker.
struct Row {
    registered: Registered,
    /// Whether it has a vote on the metadata; `None` where nobody can tell: that takes a controller.
    votes: Option<bool>,
    is_draining: bool,
    is_cordoned: bool,
    leads: usize,
    replicas: usize,
}

async fn look(cluster: &Cluster) -> Result<Seen, Error> {
    let description = cluster.describe().await?;
    let connection = cluster.any().await?;
    let registered = match brokers::registered(&connection).await {
        // Older than Kafka 2.8.
        Err(Error::Unsupported { .. }) => {
            let there = |broker: &Broker| Registered { broker: broker.clone(), is_fenced: false };
            description.brokers.iter().map(there).collect()
        }
        found => found?,
    };
    let voters = brokers::voters(&connection).await.ok();
    let topics = topics::describe(&connection, None).await?;
    let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
    let mut rows = Vec::new();
    for one in registered {
        let id = one.broker.id;
        let configs = own_configs(cluster, &one).await;
        let value = |name: &str| {
            let found = configs.iter().find(|config| config.name == name);
            found.and_then(|config| config.value.clone()).unwrap_or_default()
        };
        rows.push(Row {
            votes: voters.as_ref().map(|voters| voters.contains(&id)),
            is_draining: value(DRAIN) == "true",
            is_cordoned: !value(CORDONED).is_empty(),
            leads: partitions().filter(|partition| partition.leader == Some(id)).count(),
            replicas: partitions().filter(|partition| partition.replicas.contains(&id)).count(),
            registered: one,
        });
    }
    Ok(Seen { description, brokers: rows })
}

/// A broker's configs, which it alone knows; none of one that does not say.
async fn own_configs(cluster: &Cluster, of: &Registered) -> Vec<Config> {
    if of.is_fenced {
        return Vec::new();
    }
    let Ok(connection) = cluster.at(&of.broker.address).await else { return Vec::new() };
    configs::describe(&connection, &Resource::Broker(of.broker.id.to_string())).await.unwrap_or_default()
}

impl Row {
    fn state(&self) -> &'static str {
        match self {
            Row { registered: Registered { is_fenced: true, .. }, .. } => "fenced",
            Row { is_draining: true, .. } => "draining",
            Row { is_cordoned: true, .. } => "cordoned",
            _ => "up",
        }
    }

    fn role(&self, controller: Option<i32>) -> &'static str {
        match self.votes {
            _ if controller == Some(self.registered.broker.id) => "controller",
            Some(true) => "voter",
            Some(false) => "observer",
            None => "-",
        }
    }
}

fn described(output: Output, seen: &Seen) -> Result<String, Failure> {
    let Seen { description, brokers } = seen;
    let controller = description.controller;
    if output == Output::Json {
        let brokers: Vec<_> = brokers
            .iter()
            .map(|row| {
                let Broker { id, address, rack } = &row.registered.broker;
                serde_json::json!({
                    "id": id, "address": address, "rack": rack, "state": row.state(),
                    "role": row.role(controller), "leads": row.leads, "replicas": row.replicas,
                })
            })
            .collect();
        let cluster =
            serde_json::json!({ "id": description.id, "controller": controller, "brokers": brokers });
        return json(&cluster);
    }
    let rows: Vec<_> = brokers
        .iter()
        .map(|row| {
            let Broker { id, address, rack } = &row.registered.broker;
            let rack = rack.clone().unwrap_or_else(|| "-".to_owned());
            let (state, role) = (row.state().to_owned(), row.role(controller).to_owned());
            let (leads, replicas) = (row.leads.to_string(), row.replicas.to_string());
            vec![id.to_string(), address.clone(), rack, state, role, leads, replicas]
        })
        .collect();
    let id = description.id.as_deref().unwrap_or("without an id");
    let without = match controller {
        Some(_) => "",
        None => " has no controller: more than half of those that have a vote on the metadata have to run",
    };
    let columns = ["BROKER", "ADDRESS", "RACK", "STATE", "ROLE", "LEADS", "REPLICAS"];
    Ok(format!("Cluster {id}{without}\n{}", table(&columns, &rows)))
}

fn kept(output: Output, replicas: &[Replica]) -> Result<String, Failure> {
    if output == Output::Json {
        let rows: Vec<_> = replicas
            .iter()
            .map(|kept| {
                serde_json::json!({
                    "broker": kept.broker, "directory": kept.directory, "topic": kept.topic,
                    "partition": kept.partition, "bytes": kept.size,
                })
            })
            .collect();
        return json(&rows);
    }
    let rows: Vec<_> = replicas
        .iter()
        .map(|kept| {
            let (broker, partition) = (kept.broker.to_string(), kept.partition.to_string());
            vec![broker, kept.topic.clone(), partition, kept.size.to_string(), kept.directory.clone()]
        })
        .collect();
    Ok(table(&["BROKER", "TOPIC", "PARTITION", "BYTES", "DIRECTORY"], &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_away_and_who_votes_is_told_of_each_broker() {
        let row = |id, is_fenced, votes| Row {
            registered: Registered {
                broker: Broker { id, address: format!("h{id}:9092"), rack: (id > 0).then(|| "b".to_owned()) },
                is_fenced,
            },
            votes,
            is_draining: id > 1,
            is_cordoned: id == 1,
            leads: 2,
            replicas: 12,
        };
        let brokers = vec![
            row(0, false, Some(true)),
            row(1, false, Some(true)),
            row(2, false, Some(false)),
            row(3, true, None),
        ];
        let description = Description { id: Some("x".to_owned()), controller: Some(1), brokers: Vec::new() };
        let mut seen = Seen { description, brokers };
        let expected = "Cluster x\n\
                        BROKER  ADDRESS  RACK  STATE     ROLE        LEADS  REPLICAS\n\
                        0       h0:9092  -     up        voter       2      12\n\
                        1       h1:9092  b     cordoned  controller  2      12\n\
                        2       h2:9092  b     draining  observer    2      12\n\
                        3       h3:9092  b     fenced    -           2      12\n";
        assert_eq!(described(Output::Table, &seen).unwrap(), expected);
        seen.description.controller = None;
        let said = described(Output::Table, &seen).unwrap();
        assert!(said.starts_with("Cluster x has no controller: "), "{said}");
    }
}
