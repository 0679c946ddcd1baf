//! `firn topic`: create, list, describe, alter, trim and delete.

use std::collections::BTreeMap;

use clap::{ArgGroup, Args, Subcommand};
use firn_client::configs::{self, Resource};
use firn_client::connection::Connection;
use firn_client::error::Error;
use firn_client::topics::{self, NewTopic, Topic};
use serde::Serialize;

use crate::command::{Failure, Partly, To, TopicName, cluster};
use crate::output::{Output, ids, json, table};
use crate::progress::Progress;
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
    /// Create a topic, for example: firn topic create orders --partitions 3 --config retention.ms=60000
    Create {
        #[command(flatten)]
        name: TopicName,
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
    Describe {
        #[command(flatten)]
        name: TopicName,
    },
    /// Change partitions and configs, for example: firn topic alter orders --partitions 6 --config retention.ms=60000
    #[command(group = ArgGroup::new("change").required(true).multiple(true).args(["partitions", "configs", "resets"]))]
    Alter {
        #[command(flatten)]
        name: TopicName,
        /// How many partitions there are to be in all; keys may then belong elsewhere.
        #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
        partitions: Option<i32>,
        /// A topic config to set; may be repeated.
        #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
        configs: Vec<(String, String)>,
        /// A topic config to take back to its default; may be repeated.
        #[arg(long = "reset", value_name = "KEY")]
        resets: Vec<String>,
    },
    /// Delete the records before an offset, in some partitions or in all.
    #[command(group = ArgGroup::new("place").required(true).args(["before", "all"]))]
    Trim {
        #[command(flatten)]
        name: TopicName,
        /// This partition alone; may be repeated.
        #[arg(long = "partition", value_parser = clap::value_parser!(i32).range(0..))]
        partitions: Vec<i32>,
        /// The first offset that stays.
        #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
        before: Option<i64>,
        /// Delete all records that there are.
        #[arg(long)]
        all: bool,
    },
    /// Delete topics with their data.
    Delete {
        /// The topics.
        #[arg(value_name = "TOPIC", required_unless_present = "flagged")]
        names: Vec<String>,
        /// A topic, as Kafka's tools name it; may be repeated.
        #[arg(long = "topic", value_name = "TOPIC")]
        flagged: Vec<String>,
    },
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

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let To { bootstrap, output } = arguments.to;
    let cluster = cluster(&bootstrap);
    let connection = cluster.any().await?;
    match arguments.action {
        Action::Create { name, partitions, replication_factor, configs } => {
            let (name, configs) = (name.into_name(), configs.into_iter().collect());
            let topic = NewTopic { name, partitions, replication_factor, assignments: Vec::new(), configs };
            topics::create(&connection, &topic).await?;
            done(output, "created", &topic.name)
        }
        Action::List { internal } => {
            let mut found = topics::describe(&connection, None).await?;
            found.retain(|topic| internal || !topic.internal);
            listed(output, &found)
        }
        Action::Describe { name } => described(output, &one(&connection, name.into_name()).await?),
        Action::Alter { name, partitions, configs, resets } => {
            let name = name.into_name();
            if let Some(total) = partitions {
                topics::add_partitions(&connection, &name, total).await?;
            }
            let set = configs.into_iter().map(|(key, value)| (key, Some(value)));
            let changes: Vec<_> = set.chain(resets.into_iter().map(|key| (key, None))).collect();
            if !changes.is_empty() {
                configs::alter(&connection, &Resource::Topic(name.clone()), &changes).await?;
            }
            done(output, "altered", &name)
        }
        Action::Trim { name, partitions, before, all: _ } => {
            let name = name.into_name();
            let partitions = match partitions.is_empty() {
                true => cluster.find(&name, false).await?.leaders.into_keys().collect(),
                false => partitions,
            };
            // -1 stands for the high watermark.
            let before = before.unwrap_or(-1);
            let before = partitions.into_iter().map(|partition| (partition, before)).collect();
            trimmed(output, &name, topics::delete_records(&cluster, &name, &before).await?)
        }
        Action::Delete { mut names, flagged } => {
            names.extend(flagged);
            delete(&connection, output, &names).await
        }
    }
}

/// One that cannot be deleted keeps none of the others.
async fn delete(connection: &Connection, output: Output, names: &[String]) -> Result<String, Failure> {
    let progress = Progress::of_silent_work("topics", names.len() as u64);
    let mut ended = Vec::new();
    for (count, name) in (1..).zip(names) {
        ended.push((name.as_str(), topics::delete(connection, name).await));
        progress.at(count);
    }
    drop(progress);
    deleted(output, ended)
}

/// What was deleted is told on standard output, and each that was not on standard error.
fn deleted(output: Output, ended: Vec<(&str, Result<(), Error>)>) -> Result<String, Failure> {
    let (mut said, mut refused) = (String::new(), Vec::new());
    for (name, ended) in ended {
        match ended {
            Ok(()) => said.push_str(&done(output, "deleted", name)?),
            Err(error) => refused.push(error.to_string()),
        }
    }
    if refused.is_empty() {
        return Ok(said);
    }
    Err(Partly { said, refused }.into())
}

/// A partition that refuses makes the whole a failure, after the others are trimmed.
fn trimmed(output: Output, name: &str, ended: BTreeMap<i32, Result<i64, Error>>) -> Result<String, Failure> {
    let first: BTreeMap<i32, i64> =
        ended.into_iter().map(|(index, ended)| Ok((index, ended?))).collect::<Result<_, Error>>()?;
    if output == Output::Json {
        let rows = first.iter().map(|(partition, offset)| {
            serde_json::json!({ "topic": name, "partition": partition, "first_offset": offset })
        });
        return json(&rows.collect::<Vec<_>>());
    }
    let rows: Vec<_> = first
        .iter()
        .map(|(partition, offset)| vec![name.to_owned(), partition.to_string(), offset.to_string()])
        .collect();
    Ok(table(&["TOPIC", "PARTITION", "FIRST OFFSET"], &rows))
}

async fn one(connection: &Connection, name: String) -> Result<Vec<Topic>, Error> {
    topics::describe(connection, Some(&[name])).await
}

fn done(output: Output, verb: &str, name: &str) -> Result<String, Failure> {
    Ok(match output {
        Output::Table => format!("Topic {name} is {verb}.\n"),
        Output::Json => format!("{}\n", serde_json::json!({ verb: name })),
    })
}

fn listed(output: Output, topics: &[Topic]) -> Result<String, Failure> {
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
        return json(&rows);
    }
    let rows: Vec<_> =
        topics.iter().map(|topic| vec![topic.name.clone(), topic.partitions.len().to_string()]).collect();
    Ok(table(&["TOPIC", "PARTITIONS"], &rows))
}

fn described(output: Output, topics: &[Topic]) -> Result<String, Failure> {
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
        return json(&rows);
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
