//! `kafka-delete-records`: deletes what lies before an offset, by a JSON file of partitions.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use firn_client::topics;
use serde::Deserialize;

use super::client_properties::CommandConfig;
use super::exceptions::{exception, is_refusal};
use crate::command::{Failure, cluster_with};

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_server: String,
    #[command(flatten)]
    client: CommandConfig,
    /// The offsets: {"partitions": [{"topic": "orders", "partition": 0, "offset": 3}], "version": 1}; -1 for all records.
    #[arg(long, value_name = "FILE")]
    offset_json_file: PathBuf,
}

#[derive(Debug, Deserialize)]
struct File {
    partitions: Vec<Place>,
    #[serde(default = "first_version")]
    version: u32,
}

#[derive(Debug, Deserialize)]
struct Place {
    topic: String,
    partition: i32,
    offset: i64,
}

fn first_version() -> u32 {
    1
}

type Offsets = BTreeMap<String, BTreeMap<i32, i64>>;

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let path = arguments.offset_json_file;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| format!("Unable to read file {}: {error}", path.display()))?;
    let offsets = parse(&text)?;
    let cluster = cluster_with(&arguments.bootstrap_server, arguments.client.options()?);
    let mut said = "Executing records delete operation\nRecords delete operation completed:\n".to_owned();
    for (topic, before) in offsets {
        let ended = match topics::delete_records(&cluster, &topic, &before).await {
            Ok(ended) => ended,
            Err(error) if is_refusal(&error) => {
                for partition in before.keys() {
                    writeln!(said, "partition: {topic}-{partition}\terror: {}", exception(&error))?;
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        for (partition, ended) in ended {
            match ended {
                Ok(first) => writeln!(said, "partition: {topic}-{partition}\tlow_watermark: {first}")?,
                Err(error) => writeln!(said, "partition: {topic}-{partition}\terror: {}", exception(&error))?,
            }
        }
    }
    Ok(said)
}

fn parse(text: &str) -> Result<Offsets, Failure> {
    let file: File = serde_json::from_str(text).map_err(|error| format!("the offset file: {error}"))?;
    if file.version != 1 {
        return Err(format!("the offset file has version {}; 1 is known", file.version).into());
    }
    let mut offsets = Offsets::new();
    for Place { topic, partition, offset } in file.partitions {
        if offsets.entry(topic.clone()).or_default().insert(partition, offset).is_some() {
            return Err(
                format!("Offset json file contains duplicate topic partitions: {topic}-{partition}").into()
            );
        }
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_each_partition_once() {
        let place = |partition| format!("{{\"topic\": \"t\", \"partition\": {partition}, \"offset\": 3}}");
        let file = |places: &[String], version: u32| {
            format!("{{\"partitions\": [{}], \"version\": {version}}}", places.join(", "))
        };
        let offsets = parse(&file(&[place(0), place(1)], 1)).unwrap();
        assert_eq!(offsets, Offsets::from([("t".to_owned(), BTreeMap::from([(0, 3), (1, 3)]))]));
        let told = parse(&file(&[place(0), place(0)], 1)).unwrap_err().to_string();
        assert_eq!(told, "Offset json file contains duplicate topic partitions: t-0");
        assert!(parse(&file(&[], 2)).is_err());
        assert!(parse("{\"version\": 1}").unwrap_err().to_string().contains("partitions"));
    }
}
