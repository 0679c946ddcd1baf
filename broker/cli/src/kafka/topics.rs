//! `kafka-topics`: create, list, describe, grow and delete topics.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::{ArgGroup, Args};
use firn_client::cluster::Cluster;
use firn_client::configs::{self, Config, Resource};
use firn_client::error::Error;
use firn_client::topics::{self, NewTopic, Partition, Topic};

use super::client_properties::CommandConfig;
use super::exceptions::{TOPIC_EXISTS, message};
use super::patterns::TopicPattern;
use crate::command::{Failure, ToldOnOutput, cluster_with};
use crate::output::ids;
use crate::values::key_value;

#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("action").required(true).args(["create", "list", "describe", "delete", "alter"]))]
#[command(group = ArgGroup::new("filter").requires("describe").args([
    "topics_with_overrides",
    "under_replicated_partitions",
    "unavailable_partitions",
    "under_min_isr_partitions",
    "at_min_isr_partitions",
]))]
pub struct Arguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_server: String,
    #[command(flatten)]
    client: CommandConfig,
    /// Create a topic.
    #[arg(long, requires = "topic")]
    create: bool,
    /// List topics.
    #[arg(long)]
    list: bool,
    /// Show topics and their partitions.
    #[arg(long)]
    describe: bool,
    /// Delete topics.
    #[arg(long, requires = "topic")]
    delete: bool,
    /// Give topics more partitions.
    #[arg(long, requires = "topic")]
    alter: bool,
    /// A topic; or, but for --create, a regular expression for several.
    #[arg(long)]
    topic: Option<String>,
    /// The topic to describe, by its id.
    #[arg(long, requires = "describe", conflicts_with = "topic")]
    topic_id: Option<String>,
    /// How many partitions a topic has, or is to have in all.
    #[arg(long, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// On how many brokers each partition is kept.
    #[arg(long, requires = "create", value_parser = clap::value_parser!(i16).range(1..))]
    replication_factor: Option<i16>,
    /// For each partition its brokers: 1:2,2:3 for one on 1 and 2, and one on 2 and 3.
    #[arg(long, requires = "create", conflicts_with_all = ["partitions", "replication_factor"])]
    replica_assignment: Option<String>,
    /// A topic config; may be repeated.
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = key_value)]
    configs: Vec<(String, String)>,
    /// Do nothing where the topic exists.
    #[arg(long, requires = "create")]
    if_not_exists: bool,
    /// Do nothing where the topic does not exist.
    #[arg(long, conflicts_with_all = ["create", "list"])]
    if_exists: bool,
    /// Leave out the cluster's own topics.
    #[arg(long)]
    exclude_internal: bool,
    /// Only topics with configs of their own.
    #[arg(long)]
    topics_with_overrides: bool,
    /// Only partitions with replicas that are behind.
    #[arg(long)]
    under_replicated_partitions: bool,
    /// Only partitions that nobody leads.
    #[arg(long)]
    unavailable_partitions: bool,
    /// Only partitions with fewer replicas in sync than they need.
    #[arg(long)]
    under_min_isr_partitions: bool,
    /// Only partitions with just as many replicas in sync as they need.
    #[arg(long)]
    at_min_isr_partitions: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let cluster = cluster_with(&arguments.bootstrap_server, arguments.client.options()?);
    act(&cluster, &arguments).await.map_err(|failure| {
        let told = match failure.downcast_ref::<Error>() {
            Some(error) => message(error),
            None => failure.to_string(),
        };
        ToldOnOutput(format!("Error while executing topic command : {told}")).into()
    })
}

async fn act(cluster: &Cluster, arguments: &Arguments) -> Result<String, Failure> {
    check(arguments)?;
    if arguments.create {
        return create(cluster, arguments).await;
    }
    let found = matching(cluster, arguments).await?;
    let (named, what) = match (&arguments.topic, &arguments.topic_id) {
        (_, Some(id)) => (Some(id), "TopicId"),
        (topic, None) => (topic.as_ref(), "Topic"),
    };
    if let Some(named) = named
        && found.is_empty()
        && !arguments.if_exists
        && !arguments.list
    {
        return Err(format!("{what} '{named}' does not exist as expected").into());
    }
    if arguments.list {
        return Ok(found.iter().map(|topic| format!("{}\n", topic.name)).collect());
    }
    if arguments.describe {
        return describe(cluster, &found, arguments).await;
    }
    let connection = cluster.any().await?;
    for topic in &found {
        match arguments.partitions.filter(|_| arguments.alter) {
            Some(count) => topics::add_partitions(&connection, &topic.name, count).await?,
            None => topics::delete(&connection, &topic.name).await?,
        }
    }
    Ok(String::new())
}

/// What clap cannot say in Kafka's words.
fn check(arguments: &Arguments) -> Result<(), Failure> {
    if arguments.alter && !arguments.configs.is_empty() {
        return Err(
            "Option combination \"[alter],[config]\" can't be used with option \"[bootstrap-server]\" \
                    (the kafka-configs CLI supports altering topic configs with a --bootstrap-server option)"
                .into(),
        );
    }
    if !arguments.configs.is_empty() && !arguments.create {
        return Err("Option \"[config]\" can't be used without option \"[create]\"".into());
    }
    if arguments.alter && arguments.partitions.is_none() {
        return Err("Missing required argument \"[partitions]\"".into());
    }
    Ok(())
}

async fn create(cluster: &Cluster, arguments: &Arguments) -> Result<String, Failure> {
    let name = arguments.topic.clone().unwrap_or_default();
    let mut said = String::new();
    if name.contains(['.', '_']) {
        said.push_str(
            "WARNING: Due to limitations in metric names, topics with a period ('.') or underscore ('_') could collide. \
             To avoid issues it is best to use either, but not both.\n",
        );
    }
    let topic = NewTopic {
        name,
        partitions: arguments.partitions,
        replication_factor: arguments.replication_factor,
        assignments: arguments
            .replica_assignment
            .as_deref()
            .map(assignments)
            .transpose()?
            .unwrap_or_default(),
        configs: arguments.configs.iter().cloned().collect(),
    };
    match topics::create(&*cluster.any().await?, &topic).await {
        Err(Error::Refused { code: TOPIC_EXISTS, .. }) if arguments.if_not_exists => return Ok(said),
        created => created?,
    }
    writeln!(said, "Created topic {}.", topic.name)?;
    Ok(said)
}

/// `1:2,2:3`
fn assignments(text: &str) -> Result<Vec<Vec<i32>>, Failure> {
    let brokers = |partition: &str| partition.split(':').map(|broker| broker.trim().parse()).collect();
    let partitions = text.split(',').map(brokers).collect::<Result<Vec<Vec<i32>>, _>>();
    Ok(partitions.map_err(|_| format!("{text}: expected broker ids, for example 1:2,2:3"))?)
}

/// The topics that are meant, by name.
async fn matching(cluster: &Cluster, arguments: &Arguments) -> Result<Vec<Topic>, Failure> {
    let pattern = arguments.topic.as_deref().map(TopicPattern::new).transpose()?;
    let mut found = topics::describe(&*cluster.any().await?, None).await?;
    found.retain(|topic| {
        pattern.as_ref().is_none_or(|pattern| pattern.matches(&topic.name))
            && arguments.topic_id.as_ref().is_none_or(|id| topic.id == *id)
            && !(arguments.exclude_internal && topic.internal)
    });
    Ok(found)
}

async fn describe(cluster: &Cluster, found: &[Topic], arguments: &Arguments) -> Result<String, Failure> {
    let connection = cluster.any().await?;
    let names: Vec<String> = found.iter().map(|topic| topic.name.clone()).collect();
    if names.is_empty() {
        return Ok(String::new());
    }
    let resources: Vec<Resource> = names.iter().cloned().map(Resource::Topic).collect();
    let configs = configs::describe_all(&connection, &resources).await?;
    let full = topics::describe_in_full(&connection, &names).await?;
    let configs: BTreeMap<&String, Vec<Config>> = names.iter().zip(configs).collect();
    let mut said = String::new();
    for topic in &full {
        let configs = configs.get(&topic.name).map(Vec::as_slice).unwrap_or_default();
        said.push_str(&described(topic, configs, arguments));
    }
    Ok(said)
}

fn described(topic: &Topic, configs: &[Config], arguments: &Arguments) -> String {
    let own: Vec<String> = configs
        .iter()
        .filter(|config| config.source != "DEFAULT_CONFIG")
        .map(|config| format!("{}={}", config.name, config.value.as_deref().unwrap_or("null")))
        .collect();
    let by_partition = arguments.under_replicated_partitions
        || arguments.unavailable_partitions
        || arguments.under_min_isr_partitions
        || arguments.at_min_isr_partitions;
    let mut lines = String::new();
    let plain = arguments.topics_with_overrides && own.is_empty();
    if !by_partition && !plain {
        let replicas = topic.partitions.first().map_or(0, |partition| partition.replicas.len());
        lines.push_str(&format!(
            "Topic: {}\tTopicId: {}\tPartitionCount: {}\tReplicationFactor: {replicas}\tConfigs: {}\n",
            topic.name,
            topic.id,
            topic.partitions.len(),
            own.join(",")
        ));
    }
    if arguments.topics_with_overrides {
        return lines;
    }
    let needed = configs.iter().find(|config| config.name == "min.insync.replicas");
    let needed = needed.and_then(|config| config.value.as_ref()?.parse::<usize>().ok()).unwrap_or(1);
    let shown = |partition: &&Partition| {
        let in_sync = partition.in_sync.len();
        if arguments.under_replicated_partitions {
            in_sync < partition.replicas.len()
        } else if arguments.unavailable_partitions {
            partition.leader.is_none()
        } else if arguments.under_min_isr_partitions {
            in_sync < needed
        } else {
            !arguments.at_min_isr_partitions || in_sync == needed
        }
    };
    lines.extend(topic.partitions.iter().filter(shown).map(|partition| line(&topic.name, partition)));
    lines
}

fn line(topic: &str, partition: &Partition) -> String {
    let leader = partition.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string());
    let known = |brokers: &Option<Vec<i32>>| brokers.as_deref().map_or_else(|| "N/A".to_owned(), ids);
    format!(
        "\tTopic: {topic}\tPartition: {}\tLeader: {leader}\tReplicas: {}\tIsr: {}\tElr: {}\tLastKnownElr: {}\n",
        partition.index,
        ids(&partition.replicas),
        ids(&partition.in_sync),
        known(&partition.eligible),
        known(&partition.last_eligible)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::typed;

    fn arguments(line: &str) -> Arguments {
        typed(&format!("--bootstrap-server h:1 {line}")).unwrap()
    }

    fn topic() -> Topic {
        let partition = |index, leader, in_sync: &[i32]| Partition {
            index,
            leader,
            replicas: vec![1, 2],
            in_sync: in_sync.to_vec(),
            eligible: Some(vec![2]),
            last_eligible: (index == 0).then(Vec::new),
        };
        Topic {
            name: "my-topic".to_owned(),
            id: "an-id".to_owned(),
            internal: false,
            partitions: vec![partition(0, Some(1), &[1, 2]), partition(1, None, &[1])],
        }
    }

    fn config(name: &str, value: &str, source: &'static str) -> Config {
        let (name, value) = (name.to_owned(), Some(value.to_owned()));
        let (sensitive, read_only) = (false, false);
        Config { name, value, source, sensitive, read_only, documentation: None, synonyms: Vec::new() }
    }

    #[test]
    fn topics_are_described_with_the_tabs_of_kafka() {
        let configs = [
            config("min.insync.replicas", "2", "DEFAULT_CONFIG"),
            config("retention.ms", "5", "DYNAMIC_TOPIC_CONFIG"),
        ];
        let head = "Topic: my-topic\tTopicId: an-id\tPartitionCount: 2\tReplicationFactor: 2\tConfigs: retention.ms=5\n";
        let first =
            "\tTopic: my-topic\tPartition: 0\tLeader: 1\tReplicas: 1,2\tIsr: 1,2\tElr: 2\tLastKnownElr: \n";
        let second = "\tTopic: my-topic\tPartition: 1\tLeader: none\tReplicas: 1,2\tIsr: 1\tElr: 2\tLastKnownElr: N/A\n";
        let told = |flags: &str| described(&topic(), &configs, &arguments(&format!("--describe{flags}")));
        assert_eq!(told(""), format!("{head}{first}{second}"));
        assert_eq!(told(" --topics-with-overrides"), head);
        assert_eq!(told(" --under-replicated-partitions"), second);
        assert_eq!(told(" --unavailable-partitions"), second);
        assert_eq!(told(" --under-min-isr-partitions"), second);
        assert_eq!(told(" --at-min-isr-partitions"), first);
        let plain = described(&topic(), &[], &arguments("--describe --topics-with-overrides"));
        assert_eq!(plain, "");
    }

    #[test]
    fn who_would_alter_configs_is_sent_to_the_tool_that_does() {
        let told = check(&arguments("--alter --topic t --config a=b")).unwrap_err().to_string();
        assert!(told.contains("(the kafka-configs CLI supports altering topic configs"), "{told}");
        assert!(check(&arguments("--alter --topic t")).unwrap_err().to_string().contains("[partitions]"));
        assert!(check(&arguments("--describe --config a=b")).is_err());
        assert!(check(&arguments("--create --topic t --config a=b")).is_ok());
    }

    #[test]
    fn replicas_are_assigned_by_partition() {
        assert_eq!(assignments("1:2,2:3").unwrap(), [[1, 2], [2, 3]]);
        assert!(assignments("1:x").is_err());
    }
}
