//! `firn cluster`: its brokers, and what lies on their disks.

use clap::{Args, Subcommand};
use firn_client::cluster::{Description, Replica};

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
    /// List the brokers.
    Describe,
    /// Show how many bytes each partition takes on each broker's disks.
    LogDirs,
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let cluster = cluster(&arguments.to.bootstrap);
    match arguments.action {
        Action::Describe => described(arguments.to.output, &cluster.describe().await?),
        Action::LogDirs => kept(arguments.to.output, &cluster.replicas().await?),
    }
}

fn described(output: Output, found: &Description) -> Result<String, Failure> {
    if output == Output::Json {
        let brokers: Vec<_> = found
            .brokers
            .iter()
            .map(|broker| {
                serde_json::json!({ "id": broker.id, "address": broker.address, "rack": broker.rack })
            })
            .collect();
        let cluster =
            serde_json::json!({ "id": found.id, "controller": found.controller, "brokers": brokers });
        return json(&cluster);
    }
    let rows: Vec<_> = found
        .brokers
        .iter()
        .map(|broker| {
            let rack = broker.rack.clone().unwrap_or_else(|| "-".to_owned());
            let role = if found.controller == Some(broker.id) { "controller" } else { "" };
            vec![broker.id.to_string(), broker.address.clone(), rack, role.to_owned()]
        })
        .collect();
    let id = found.id.as_deref().unwrap_or("without an id");
    Ok(format!("Cluster {id}\n{}", table(&["BROKER", "ADDRESS", "RACK", "ROLE"], &rows)))
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
    use firn_client::cluster::Broker;

    use super::*;

    #[test]
    fn the_controller_is_told_from_the_rest() {
        let broker = |id, rack: Option<&str>| Broker {
            id,
            address: format!("h{id}:9092"),
            rack: rack.map(str::to_owned),
        };
        let brokers = vec![broker(0, None), broker(1, Some("b"))];
        let found = Description { id: Some("x".to_owned()), controller: Some(1), brokers };
        let expected = "Cluster x\n\
                        BROKER  ADDRESS  RACK  ROLE\n\
                        0       h0:9092  -\n\
                        1       h1:9092  b     controller\n";
        assert_eq!(described(Output::Table, &found).unwrap(), expected);
    }
}
