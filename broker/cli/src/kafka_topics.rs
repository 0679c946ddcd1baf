//! Kafka's `kafka-topics` for the flags that its users know, in the layout that their scripts read.

use std::fmt::Write;

use clap::{ArgGroup, Args};
use firn_client::topics::{self, NewTopic, Topic};

use crate::command::{connect, key_value};
use crate::output::ids;

#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("action").required(true).args(["create", "list", "describe", "delete"]))]
pub struct Arguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_server: String,
    /// Create a topic.
    #[arg(long, requires = "topic")]
    create: bool,
    /// List topics.
    #[arg(long)]
    list: bool,
    /// Show the partitions of a topic, or of all.
    #[arg(long)]
    describe: bool,
    /// Delete a topic.
    #[arg(long, requires = "topic")]
    delete: bool,
    #[arg(long)]
    topic: Option<String>,
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    #[arg(long, value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// A topic config; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    configs: Vec<(String, String)>,
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Box<dyn std::error::Error>> {
    let connection = connect(&arguments.bootstrap_server).await?;
    let names = arguments.topic.map(|name| vec![name]);
    if arguments.list || arguments.describe {
        let found = topics::describe(&connection, names.as_deref()).await?;
        return Ok(if arguments.list { listed(&found) } else { described(&found)? });
    }
    let configs: std::collections::BTreeMap<_, _> = arguments.configs.into_iter().collect();
    let mut said = String::new();
    for name in names.into_iter().flatten() {
        if arguments.delete {
            topics::delete(&connection, &name).await?;
            continue;
        }
        let (partitions, replication_factor) = (arguments.partitions, arguments.replication_factor);
        let topic = NewTopic { name, partitions, replication_factor, configs: configs.clone() };
        topics::create(&connection, &topic).await?;
        writeln!(said, "Created topic {}.", topic.name)?;
    }
    Ok(said)
}

fn listed(topics: &[Topic]) -> String {
    topics.iter().map(|topic| format!("{}\n", topic.name)).collect()
}

/// The lines of partitions; Kafka's line of the topic itself needs its configs.
fn described(topics: &[Topic]) -> Result<String, std::fmt::Error> {
    let mut lines = String::new();
    for topic in topics {
        for partition in &topic.partitions {
            let leader = partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
            let (replicas, in_sync) = (ids(&partition.replicas), ids(&partition.in_sync));
            writeln!(
                lines,
                "\tTopic: {}\tPartition: {}\tLeader: {leader}\tReplicas: {replicas}\tIsr: {in_sync}",
                topic.name, partition.index
            )?;
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use firn_client::topics::Partition;

    use super::*;

    #[test]
    fn prints_partitions_with_the_tabs_of_kafka() {
        let partition = Partition { index: 0, leader: Some(1), replicas: vec![1, 2], in_sync: vec![1] };
        let (name, id) = ("my-topic".to_owned(), String::new());
        let topics = [Topic { name, id, internal: false, partitions: vec![partition] }];
        let expected = "\tTopic: my-topic\tPartition: 0\tLeader: 1\tReplicas: 1,2\tIsr: 1\n";
        assert_eq!(described(&topics).unwrap(), expected);
        assert_eq!(listed(&topics), "my-topic\n");
    }
}
