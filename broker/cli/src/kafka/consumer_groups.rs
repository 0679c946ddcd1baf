//! `kafka-consumer-groups`: list, describe, move and delete consumer groups.
//!
//! As Kafka's tool, it tells what the cluster refused on standard output, and ends with 0.

mod describe;
mod reset;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use clap::{ArgGroup, Args};
use firn_client::cluster::Cluster;
use firn_client::error::Error;
use firn_client::groups::{self, Listed};

use super::client_properties::CommandConfig;
use super::exceptions::{exception, is_refusal, message};
use crate::command::{Failure, cluster_with};

/// The least widths of columns that names are in.
const NAME: usize = 15;

#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("action").required(true)
    .args(["list", "describe", "delete", "delete_offsets", "reset_offsets"]))]
#[command(group = ArgGroup::new("scenario").requires("reset_offsets")
    .args(["to_earliest", "to_latest", "to_current", "to_offset", "shift_by", "to_datetime", "by_duration", "from_file"]))]
#[command(group = ArgGroup::new("scope").multiple(true).args(["all_topics", "topic"]))]
#[command(group = ArgGroup::new("groups").args(["group", "all_groups"]))]
pub struct Arguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_server: String,
    #[command(flatten)]
    client: CommandConfig,
    /// List all consumer groups.
    #[arg(long)]
    list: bool,
    /// Show groups, and how far they are behind.
    #[arg(long, requires = "groups")]
    describe: bool,
    /// Delete groups without members.
    #[arg(long, requires = "groups")]
    delete: bool,
    /// Delete what a group has committed in topics that it does not read.
    #[arg(long, requires_all = ["group", "topic"])]
    delete_offsets: bool,
    /// Move groups without members to other offsets.
    #[arg(long, requires_all = ["groups", "scenario"])]
    reset_offsets: bool,
    /// A group; may be repeated.
    #[arg(long)]
    group: Vec<String>,
    /// All groups.
    #[arg(long)]
    all_groups: bool,
    /// A topic, or some of its partitions as topic:0,1,2; may be repeated.
    #[arg(long)]
    topic: Vec<String>,
    /// All topics in which the group has committed.
    #[arg(long, requires = "reset_offsets")]
    all_topics: bool,
    /// Describe the members.
    #[arg(long, requires = "describe")]
    members: bool,
    /// Describe the offsets, which is what is done unless something else is asked for.
    #[arg(long, requires = "describe", conflicts_with_all = ["members", "state"])]
    offsets: bool,
    /// Describe the state, or list the groups with it; those in the states named alone.
    #[arg(long, num_args = 0..=1, default_missing_value = "", value_name = "STATES", conflicts_with = "members")]
    state: Option<String>,
    /// List the groups with their type; those of the types named alone.
    #[arg(long = "type", num_args = 0..=1, default_missing_value = "", value_name = "TYPES", requires = "list")]
    group_type: Option<String>,
    /// Describe more.
    #[arg(long, requires = "describe")]
    verbose: bool,
    /// How long the cluster may take to answer. [default: 30000]
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    #[command(flatten)]
    reset: reset::Move,
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let mut options = arguments.client.options()?;
    if let Some(timeout) = arguments.timeout {
        options.deadline = Duration::from_millis(timeout);
    }
    let cluster = cluster_with(&arguments.bootstrap_server, options);
    match act(&cluster, &arguments).await {
        Err(failure) => match failure.downcast::<Error>() {
            Ok(error) if is_refusal(&error) => {
                let told = exception(&error);
                Ok(format!("\nError: Executing consumer group command failed due to {told}\n"))
            }
            Ok(error) => Err(error),
            Err(failure) => Err(failure),
        },
        said => said,
    }
}

async fn act(cluster: &Cluster, arguments: &Arguments) -> Result<String, Failure> {
    if arguments.list {
        let (state, group_type) = (arguments.state.as_deref(), arguments.group_type.as_deref());
        return listed(consumer_groups(cluster).await?, state, group_type);
    }
    let named = match arguments.all_groups {
        true => consumer_groups(cluster).await?.into_iter().map(|listed| listed.group).collect(),
        false => arguments.group.clone(),
    };
    let named: Vec<String> = named.into_iter().collect::<BTreeSet<_>>().into_iter().collect();
    if arguments.describe {
        let what = match (arguments.members, &arguments.state) {
            (true, _) => describe::What::Members,
            (false, Some(_)) => describe::What::State,
            (false, None) => describe::What::Offsets,
        };
        return describe::run(cluster, &named, what, arguments.verbose).await;
    }
    if arguments.delete {
        return delete(cluster, &named).await;
    }
    if arguments.delete_offsets {
        return delete_offsets(cluster, &named, &arguments.topic).await;
    }
    let scope = (!arguments.all_topics).then_some(arguments.topic.as_slice());
    reset::run(cluster, &named, scope, &arguments.reset).await
}

/// Groups of the consumer protocol, and those that only commit.
async fn consumer_groups(cluster: &Cluster) -> Result<Vec<Listed>, Error> {
    let mut found = groups::list(cluster).await?;
    found.retain(|listed| matches!(listed.protocol_type.as_str(), "consumer" | ""));
    Ok(found)
}

fn listed(mut found: Vec<Listed>, states: Option<&str>, types: Option<&str>) -> Result<String, Failure> {
    if states.is_none() && types.is_none() {
        return Ok(found.iter().map(|listed| format!("{}\n", listed.group)).collect());
    }
    let wanted = |names: Option<&str>, known: &[&str], what: &str| {
        let names = names.unwrap_or_default().to_lowercase();
        let names: Vec<String> =
            names.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
        match names.iter().all(|name| known.iter().any(|known| known.eq_ignore_ascii_case(name))) {
            true => Ok(names),
            false => Err(format!(
                "Invalid {what} list '{}'. Valid {what}s are: {}",
                names.join(","),
                known.join(", ")
            )),
        }
    };
    let known =
        ["Reconciling", "PreparingRebalance", "Assigning", "CompletingRebalance", "Empty", "Dead", "Stable"];
    let wanted_states = wanted(states, &known, "state")?;
    let wanted_types = wanted(types, &["Classic", "Consumer"], "type")?;
    let is_in = |names: &[String], name: &str| {
        names.is_empty() || names.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
    };
    found.retain(|listed| is_in(&wanted_states, &listed.state) && is_in(&wanted_types, &listed.group_type));
    let width = found.iter().map(|listed| listed.group.chars().count()).fold(NAME, usize::max) + 10;
    let line = |group: &str, group_type: &str, state: &str| {
        let mut line = format!("{group:<width$}");
        if types.is_some() {
            line.push_str(&format!(" {:<20}", capitalized(group_type)));
        }
        if states.is_some() {
            line.push_str(&format!(" {state:<20}"));
        }
        line + "\n"
    };
    let lines = found.iter().map(|listed| line(&listed.group, &listed.group_type, &listed.state));
    Ok(std::iter::once(line("GROUP", "TYPE", "STATE")).chain(lines).collect())
}

/// Brokers write `classic`, and Kafka's tool `Classic`.
fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

async fn delete(cluster: &Cluster, named: &[String]) -> Result<String, Failure> {
    let (mut deleted, mut failed) = (Vec::new(), String::new());
    for group in named {
        match groups::delete(cluster, group).await {
            Ok(()) => deleted.push(format!("'{group}'")),
            Err(error) if is_refusal(&error) => {
                let told = exception(&error);
                failed.push_str(&format!("* Group '{group}' could not be deleted due to: {told}\n"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let deleted = deleted.join(", ");
    Ok(match (failed.is_empty(), deleted.is_empty()) {
        (true, _) => format!("Deletion of requested consumer groups ({deleted}) was successful.\n"),
        (false, true) => format!("\nError: Deletion of some consumer groups failed:\n{failed}"),
        (false, false) => format!(
            "\nError: Deletion of some consumer groups failed:\n{failed}\n\
             These consumer groups were deleted successfully: {deleted}\n"
        ),
    })
}

async fn delete_offsets(cluster: &Cluster, named: &[String], topics: &[String]) -> Result<String, Failure> {
    let [group] = named else { return Err("--delete-offsets takes one group".into()) };
    let mut places = Vec::new();
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for topic in topics {
        match reset::partitions_of(cluster, topic).await {
            Ok(found) => places.extend(found),
            Err(error) if is_refusal(&error) => {
                rows.push((topic.clone(), "-".to_owned(), format!("Error: {}", exception(&error))));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let mut head = format!("Request succeeded for deleting offsets from group {group}.");
    // Without any partition, too: the coordinator then tells whether there is such a group.
    match groups::delete_offsets(cluster, group, &places).await {
        Ok(ended) => {
            for ((topic, partition), ended) in ended {
                let status = match ended {
                    Ok(()) => "Successful".to_owned(),
                    Err(error) => {
                        head = "\nError: Encountered some partition-level error, see the follow-up details."
                            .to_owned();
                        format!("Error: {}", exception(&error))
                    }
                };
                rows.push((topic, partition.to_string(), status));
            }
        }
        Err(error) if is_refusal(&error) => {
            head = format!("\nError: {}", message(&error));
            let failed = format!("Error: {}", exception(&error));
            let places = places.into_iter();
            rows.extend(places.map(|(topic, index)| (topic, index.to_string(), failed.clone())));
        }
        Err(error) => return Err(error.into()),
    }
    let width = rows.iter().map(|(topic, ..)| topic.chars().count()).fold(NAME, usize::max);
    let mut said = format!("{head}\n\n{:<width$} {:<10} {:<15}\n", "TOPIC", "PARTITION", "STATUS");
    for (topic, partition, status) in rows {
        said.push_str(&format!("{topic:<width$} {partition:<10} {status:<15}\n"));
    }
    Ok(said)
}

fn by_topic<'a>(places: impl IntoIterator<Item = &'a (String, i32)>) -> BTreeMap<&'a str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in places {
        topics.entry(topic).or_default().push(*partition);
    }
    topics
}

/// Says something beside the answer, on standard error; where that is closed, nobody reads it.
fn remark(text: &str) {
    io::Write::write_all(&mut io::stderr(), format!("{text}\n").as_bytes()).ok();
}

#[cfg(test)]
mod tests;
