//! What can be typed, and how a run ends: 0 done, 1 failed, 2 misused (clap's own code).

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use firn_client::cluster::Cluster;
use firn_client::connection::ConnectionOptions;

use crate::output::{self, Output};
use crate::{broker, cluster, config, consume, group, kafka, produce, topic};

/// Why a command failed, in words for the one who typed it.
pub(crate) type Failure = Box<dyn std::error::Error>;

/// Which cluster is spoken to, and how its answers are printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct To {
    /// Brokers to ask first, comma separated.
    #[arg(
        long,
        visible_alias = "bootstrap-server",
        global = true,
        env = "FIRN_BOOTSTRAP",
        default_value = "127.0.0.1:9092",
        value_name = "HOST:PORT"
    )]
    pub(crate) bootstrap: String,
    /// How answers are printed.
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub(crate) output: Output,
}

/// A topic by its place on the line, or by the flag that Kafka's tools have for it.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(crate) struct TopicName {
    /// The topic.
    #[arg(value_name = "TOPIC", required_unless_present = "topic_flag")]
    topic_name: Option<String>,
    /// The topic, as Kafka's tools name it.
    #[arg(long = "topic", value_name = "TOPIC", conflicts_with = "topic_name")]
    topic_flag: Option<String>,
}

impl TopicName {
    pub(crate) fn into_name(self) -> String {
        self.topic_name.or(self.topic_flag).unwrap_or_default()
    }
}

/// The commands of people, for the binary to mount next to its own.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Create, list, describe, alter, trim and delete topics.
    Topic(topic::Arguments),
    /// Write one record for each line of standard input, or of a file.
    Produce(produce::Arguments),
    /// Print the records of a topic, and follow it.
    Consume(consume::Arguments),
    /// List, describe, reset and delete consumer groups.
    Group(group::Arguments),
    /// Describe, set and delete configs.
    Config(config::Arguments),
    /// Show brokers and what lies on their disks.
    Cluster(cluster::Arguments),
    /// Empty brokers, and put out those that have gone for good.
    Broker(broker::Arguments),
    /// Kafka's own tool for topics, with its flags and its output.
    #[command(name = "kafka-topics")]
    KafkaTopics(kafka::topics::Arguments),
    /// Kafka's own tool for producing, with its flags.
    #[command(name = "kafka-console-producer")]
    KafkaConsoleProducer(Box<produce::ConsoleArguments>),
    /// Kafka's own tool for consuming, with its flags.
    #[command(name = "kafka-console-consumer")]
    KafkaConsoleConsumer(Box<consume::ConsoleArguments>),
    /// Kafka's own tool for consumer groups, with its flags and its output.
    #[command(name = "kafka-consumer-groups")]
    KafkaConsumerGroups(Box<kafka::consumer_groups::Arguments>),
    /// Kafka's own tool for configs, with its flags and its output.
    #[command(name = "kafka-configs")]
    KafkaConfigs(kafka::configs::Arguments),
    /// Kafka's own tool for deleting old records, with its flags and its output.
    #[command(name = "kafka-delete-records")]
    KafkaDeleteRecords(kafka::delete_records::Arguments),
    /// Kafka's own tool for looking offsets up, with its flags and its output.
    #[command(name = "kafka-get-offsets")]
    KafkaGetOffsets(kafka::get_offsets::Arguments),
}

/// What a tool of Kafka's tells on standard output though it fails.
#[derive(Debug)]
pub(crate) struct ToldOnOutput(pub(crate) String);

impl std::fmt::Display for ToldOnOutput {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for ToldOnOutput {}

/// A part was done and is told as ever; the rest was refused, each for its own reason.
#[derive(Debug)]
pub(crate) struct Partly {
    pub(crate) said: String,
    pub(crate) refused: Vec<String>,
}

impl std::fmt::Display for Partly {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.refused.join("; "))
    }
}

impl std::error::Error for Partly {}

/// Runs one command and prints what it has to say.
pub async fn run(command: Command) -> ExitCode {
    output::use_colours();
    let said = match command {
        Command::Topic(arguments) => topic::run(arguments).await,
        Command::KafkaTopics(arguments) => Box::pin(kafka::topics::run(arguments)).await,
        Command::KafkaConsumerGroups(arguments) => Box::pin(kafka::consumer_groups::run(*arguments)).await,
        Command::KafkaConfigs(arguments) => Box::pin(kafka::configs::run(arguments)).await,
        Command::KafkaDeleteRecords(arguments) => Box::pin(kafka::delete_records::run(arguments)).await,
        Command::KafkaGetOffsets(arguments) => Box::pin(kafka::get_offsets::run(arguments)).await,
        Command::Produce(arguments) => Box::pin(produce::run(arguments)).await,
        Command::Consume(arguments) => Box::pin(consume::run(arguments)).await,
        Command::Group(arguments) => group::run(arguments).await,
        Command::Config(arguments) => config::run(arguments).await,
        Command::Cluster(arguments) => cluster::run(arguments).await,
        Command::Broker(arguments) => broker::run(arguments).await,
        Command::KafkaConsoleProducer(arguments) => Box::pin(produce::run_console(*arguments)).await,
        Command::KafkaConsoleConsumer(arguments) => Box::pin(consume::run_console(*arguments)).await,
    };
    match said {
        Ok(text) => finish(io::stdout().lock().write_all(text.as_bytes())),
        Err(error) if error.is::<ToldOnOutput>() => {
            writeln!(io::stdout().lock(), "{error}").ok();
            ExitCode::FAILURE
        }
        Err(error) => {
            if let Some(Partly { said, refused }) = error.downcast_ref() {
                io::stdout().lock().write_all(said.as_bytes()).ok();
                for reason in refused {
                    writeln!(io::stderr().lock(), "{} {reason}", output::error_label()).ok();
                }
                return ExitCode::FAILURE;
            }
            // Where even the error cannot be printed, the exit code still tells.
            writeln!(io::stderr().lock(), "{} {error}", output::error_label()).ok();
            ExitCode::FAILURE
        }
    }
}

/// A reader that has seen enough, as `head` does, is no failure.
fn finish(written: io::Result<()>) -> ExitCode {
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// The cluster behind `addresses`.
pub(crate) fn cluster(addresses: &str) -> Cluster {
    cluster_with(addresses, ConnectionOptions::default())
}

pub(crate) fn cluster_with(addresses: &str, options: ConnectionOptions) -> Cluster {
    Cluster::new(split(addresses), options)
}

fn split(addresses: &str) -> Vec<String> {
    addresses.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned).collect()
}

/// What the tests of several commands need.
#[cfg(test)]
pub(crate) mod testing {
    use clap::{Args, Parser};

    /// The arguments of a line that somebody types, or what they are told is wrong with it.
    pub(crate) fn typed<A: Args>(line: &str) -> Result<A, String> {
        #[derive(Debug, Parser)]
        struct Line<A: Args> {
            #[command(flatten)]
            arguments: A,
        }
        let words = std::iter::once("tool").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.arguments).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_quiet_and_a_full_disk_is_not() {
        let ended = |kind: io::ErrorKind| format!("{:?}", finish(Err(kind.into())));
        assert_eq!(ended(io::ErrorKind::BrokenPipe), format!("{:?}", ExitCode::SUCCESS));
        assert_eq!(ended(io::ErrorKind::StorageFull), format!("{:?}", ExitCode::FAILURE));
    }

    #[tokio::test]
    async fn a_cluster_that_is_not_there_is_a_failure() {
        // A port that was free a moment ago: nothing listens on it.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = cluster(&address).any().await.unwrap_err().to_string();
        assert!(error.contains(&address) && error.contains("check the address"), "{error}");
        assert!(cluster(" , ").any().await.unwrap_err().to_string().contains("no address is given"));
    }
}
