//! `firn topic`: create, list, describe, grow and delete.

use clap::{Args, Subcommand};
use firn_client::connection::Connection;
use firn_client::error::Error;
use firn_client::topics::{self, NewTopic, Topic};
use serde::Serialize;

use crate::command::{To, connect, key_value};
use crate::output::{Output, ids, table};

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// Create a topic, for example: firn topic create orders --partitions 3 --config retention.ms=60000
    Create {
        name: String,
        /// The broker's num.partitions unless given.
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// The broker's default.replication.factor unless given.
        #[arg(long, value_parser = clap::value_parser!(i16).range(1..))]
        replication_factor: Option<i16>,
        /// A topic config; may be repeated.
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
        configs: Vec<(String, String)>,
    },
    /// List topics.
    List {
        /// The cluster's own topics, too.
        #[arg(long)]
        internal: bool,
    },
    /// Show where each partition of a topic lives.
    Describe { name: String },
    /// Give a topic more partitions; keys may then belong elsewhere.
    AddPartitions {
        name: String,
        /// How many there are to be in all.
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        total: i32,
    },
    /// Delete a topic with its data.
    Delete { name: String },
}

#[derive(Debug, Serialize)]
struct ListedJson<'a> {
    name: &'a str,
    id: &'a str,
    internal: bool,
    partitions: usize,
}

#[derive(Debug, Serialize)]
struct PartitionJson<'a> {
    topic: &'a str,
    partition: i32,
    leader: Option<i32>,
    replicas: &'a [i32],
    in_sync: &'a [i32],
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Box<dyn std::error::Error>> {
    let connection = connect(&arguments.to.bootstrap).await?;
    match arguments.action {
        Action::Create { name, partitions, replication_factor, configs } => {
            let configs = configs.into_iter().collect();
            let topic = NewTopic { name, partitions, replication_factor, assignments: Vec::new(), configs };
            topics::create(&connection, &topic).await?;
            done(arguments.to.output, "created", &topic.name)
        }
        Action::List { internal } => {
            let mut found = topics::describe(&connection, None).await?;
            found.retain(|topic| internal || !topic.internal);
            listed(arguments.to.output, &found)
        }
        Action::Describe { name } => described(arguments.to.output, &one(&connection, name).await?),
        Action::AddPartitions { name, total } => {
            topics::add_partitions(&connection, &name, total).await?;
            done(arguments.to.output, "extended", &name)
        }
        Action::Delete { name } => {
            topics::delete(&connection, &name).await?;
            done(arguments.to.output, "deleted", &name)
        }
    }
}

async fn one(connection: &Connection, name: String) -> Result<Vec<Topic>, Error> {
    topics::describe(connection, Some(&[name])).await
}

fn done(output: Output, verb: &str, name: &str) -> Result<String, Box<dyn std::error::Error>> {
    Ok(match output {
        Output::Table => format!("Topic {name} is {verb}.\n"),
        Output::Json => format!("{}\n", serde_json::json!({ verb: name })),
    })
}

fn listed(output: Output, topics: &[Topic]) -> Result<String, Box<dyn std::error::Error>> {
    if output == Output::Json {
        let rows: Vec<_> = topics
            .iter()
            .map(|topic| ListedJson {
                name: &topic.name,
                id: &topic.id,
                internal: topic.internal,
                partitions: topic.partitions.len(),
            })
            .collect();
        return Ok(serde_json::to_string(&rows)? + "\n");
    }
    let rows: Vec<_> =
        topics.iter().map(|topic| vec![topic.name.clone(), topic.partitions.len().to_string()]).collect();
    Ok(table(&["TOPIC", "PARTITIONS"], &rows))
}

fn described(output: Output, topics: &[Topic]) -> Result<String, Box<dyn std::error::Error>> {
    let partitions =
        topics.iter().flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)));
    if output == Output::Json {
        let rows: Vec<_> = partitions
            .map(|(topic, partition)| PartitionJson {
                topic: &topic.name,
                partition: partition.index,
                leader: partition.leader,
                replicas: &partition.replicas,
                in_sync: &partition.in_sync,
            })
            .collect();
        return Ok(serde_json::to_string(&rows)? + "\n");
    }
    let rows: Vec<_> = partitions
        .map(|(topic, partition)| {
            let leader = partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
            let index = partition.index.to_string();
            vec![topic.name.clone(), index, leader, ids(&partition.replicas), ids(&partition.in_sync)]
        })
        .collect();
    Ok(table(&["TOPIC", "PARTITION", "LEADER", "REPLICAS", "IN SYNC"], &rows))
}

#[cfg(test)]
mod tests;
