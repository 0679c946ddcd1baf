//! `kafka-console-consumer`: its flags, its consumer properties and its groups.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use firn_client::connection::ConnectionOptions;
use firn_client::consumer::Start;
use firn_client::membership::MemberOptions;

use super::layout::{Console, Layout, property};
use super::{Job, Source};
use crate::command::Failure;
use crate::kafka::client_properties::{self, class, is_of_connections, milliseconds};
use crate::output::warn;
use crate::values::{key_value, offset};

/// Kafka's own tool for consuming, with its flags.
#[derive(Debug, Clone, Args)]
pub struct ConsoleArguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, value_name = "HOST:PORT")]
    pub(super) bootstrap_server: String,
    /// The topic to read.
    #[arg(long)]
    topic: String,
    /// Not served: one topic is read at a time, by --topic.
    #[arg(long, value_name = "PATTERN", value_parser = several)]
    include: Option<String>,
    /// Begin with the oldest record where the group has committed nothing.
    #[arg(long)]
    from_beginning: bool,
    /// The consumer group to read as; one of this run's own unless given.
    #[arg(long, conflicts_with = "partition")]
    group: Option<String>,
    /// Read this partition alone, outside of any group.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// An offset, or earliest, or latest.
    #[arg(long, requires = "partition", value_parser = offset)]
    offset: Option<Start>,
    /// Stop after this many records.
    #[arg(long)]
    max_messages: Option<u64>,
    /// Stop when no record comes for this long.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// print.key=true, key.separator=TEXT and their like; may be repeated.
    #[arg(long = "formatter-property", alias = "property", value_name = "KEY=VALUE", value_parser = property)]
    formatting: Vec<(String, String)>,
    /// A properties file of what --formatter-property takes.
    #[arg(long, value_name = "FILE")]
    formatter_config: Option<PathBuf>,
    /// Kafka's own DefaultMessageFormatter: there is no Java to load another.
    #[arg(long, value_name = "CLASS", value_parser = |name: &str| class(name, &["DefaultMessageFormatter"]))]
    formatter: Option<String>,
    /// StringDeserializer or ByteArrayDeserializer, which print the same: there is no Java to load another.
    #[arg(long, value_name = "CLASS", value_parser = |name: &str| class(name, &DESERIALIZERS))]
    key_deserializer: Option<String>,
    /// As --key-deserializer.
    #[arg(long, value_name = "CLASS", value_parser = |name: &str| class(name, &DESERIALIZERS))]
    value_deserializer: Option<String>,
    /// group.id=NAME, auto.offset.reset=earliest and their like; may be repeated.
    #[arg(long = "command-property", visible_alias = "consumer-property", value_name = "KEY=VALUE", value_parser = key_value)]
    properties: Vec<(String, String)>,
    /// A properties file of what --command-property takes.
    #[arg(long = "command-config", visible_alias = "consumer.config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Firn has no transactions, and all that it has is committed.
    #[arg(long, value_enum, ignore_case = true, value_name = "LEVEL")]
    isolation_level: Option<IsolationLevel>,
    /// Print shutdown_complete at the end.
    #[arg(long)]
    pub(super) enable_systest_events: bool,
    /// Taken, and without effect: records are printed as they are.
    #[arg(long)]
    skip_message_on_error: bool,
}

/// Classes that turn bytes into what prints as those bytes.
const DESERIALIZERS: [&str; 2] = ["StringDeserializer", "ByteArrayDeserializer"];

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum IsolationLevel {
    #[value(name = "read_uncommitted")]
    ReadUncommitted,
    #[value(name = "read_committed")]
    ReadCommitted,
}

fn several(_: &str) -> Result<String, String> {
    Err("one topic is read at a time; name it by --topic".to_owned())
}

/// The consumer properties that are obeyed.
#[derive(Debug, Default)]
struct Properties {
    group: Option<String>,
    instance: Option<String>,
    reset: Option<Start>,
    auto_commit: Option<bool>,
    commit_interval: Option<Duration>,
    session_timeout: Option<Duration>,
    heartbeat_interval: Option<Duration>,
    rebalance_timeout: Option<Duration>,
}

impl Properties {
    /// One that has no effect here is told, and no error, as with Java's consumer.
    fn parse(given: Vec<(String, String)>) -> Result<Self, Failure> {
        let mut properties = Self::default();
        for (key, value) in given {
            let wrong = |allowed: &str| format!("{key} cannot be {value}: expected {allowed}");
            let milliseconds = || milliseconds(&key, &value).map(Some);
            match key.as_str() {
                "group.id" => properties.group = Some(value),
                "group.instance.id" => properties.instance = Some(value),
                "auto.offset.reset" => {
                    properties.reset = match value.as_str() {
                        "earliest" => Some(Start::Earliest),
                        "latest" => Some(Start::Latest),
                        _ => return Err(wrong("earliest or latest").into()),
                    }
                }
                "enable.auto.commit" => {
                    properties.auto_commit = Some(value.parse().map_err(|_| wrong("true or false"))?);
                }
                "auto.commit.interval.ms" => properties.commit_interval = milliseconds()?,
                "session.timeout.ms" => properties.session_timeout = milliseconds()?,
                "heartbeat.interval.ms" => properties.heartbeat_interval = milliseconds()?,
                "max.poll.interval.ms" => properties.rebalance_timeout = milliseconds()?,
                "key.deserializer" | "value.deserializer" => {
                    class(&value, &DESERIALIZERS).map_err(|reason| format!("{key}={value}: {reason}"))?;
                }
                "interceptor.classes" if !value.trim().is_empty() => {
                    return Err(format!(
                        "{key}={value}: it names a Java class to load, and Firn has no Java; leave it out"
                    )
                    .into());
                }
                "isolation.level" => {
                    let known = IsolationLevel::from_str(&value, true);
                    known.map_err(|_| wrong("read_uncommitted or read_committed"))?;
                }
                key if is_of_connections(key) => {}
                _ => warn(&format!("the consumer property {key} has no effect here")),
            }
        }
        Ok(properties)
    }

    /// As Kafka's tool: a group of the run's own commits nothing, since nobody will resume it.
    fn member(self, group: Option<String>, from_beginning: bool) -> Result<MemberOptions, Failure> {
        if from_beginning && self.reset == Some(Start::Latest) {
            return Err("--from-beginning contradicts auto.offset.reset=latest".into());
        }
        let group = match (group, self.group) {
            (Some(flag), Some(property)) if flag != property => {
                return Err(format!("--group {flag} contradicts group.id={property}").into());
            }
            (flag, property) => flag.or(property),
        };
        let reset = if from_beginning { Start::Earliest } else { Start::Latest };
        let auto_commit = self.auto_commit.unwrap_or(group.is_some());
        let defaults = MemberOptions::new(
            group
                .unwrap_or_else(|| format!("console-consumer-{}", RandomState::new().hash_one(()) % 100_000)),
            self.reset.unwrap_or(reset),
        );
        Ok(MemberOptions {
            instance: self.instance,
            commit_interval: self.commit_interval.or(defaults.commit_interval).filter(|_| auto_commit),
            session_timeout: self.session_timeout.unwrap_or(defaults.session_timeout),
            heartbeat_interval: self.heartbeat_interval.unwrap_or(defaults.heartbeat_interval),
            rebalance_timeout: self.rebalance_timeout.unwrap_or(defaults.rebalance_timeout),
            ..defaults
        })
    }
}

impl ConsoleArguments {
    /// What to do, and how to connect. What is nearer to the caller counts: flags, then properties, then files.
    pub(super) fn job(self) -> Result<(Job, ConnectionOptions), Failure> {
        let file = |path: Option<PathBuf>| path.as_deref().map(client_properties::read).transpose();
        let mut given = file(self.config)?.unwrap_or_default();
        given.extend(self.properties);
        let connection = client_properties::options(&given)?;
        let mut formatting = file(self.formatter_config)?.unwrap_or_default();
        for (key, value) in &formatting {
            property(&format!("{key}={value}"))?;
        }
        formatting.extend(self.formatting);
        let properties = Properties::parse(given)?;
        let source = match self.partition {
            Some(partition) => {
                let start = if self.from_beginning { Start::Earliest } else { Start::Latest };
                Source::Partitions(vec![partition], self.offset.or(properties.reset).unwrap_or(start))
            }
            None => Source::Group(properties.member(self.group, self.from_beginning)?),
        };
        let job = Job {
            topic: self.topic,
            source,
            max: self.max_messages,
            until_end: false,
            layout: Layout::Console(Console::new(formatting)),
            patience: self.timeout_ms.map(Duration::from_millis),
            create: true,
        };
        Ok((job, connection))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::testing::typed;

    fn member(
        properties: &[(&str, &str)],
        group: Option<&str>,
        beginning: bool,
    ) -> Result<MemberOptions, Failure> {
        let given = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Properties::parse(given.collect())?.member(group.map(str::to_owned), beginning)
    }

    #[test]
    fn a_group_is_named_once_and_one_without_a_name_commits_nothing() {
        let named = member(&[("group.id", "g")], Some("g"), true).unwrap();
        assert_eq!((named.group.as_str(), named.reset), ("g", Start::Earliest));
        assert_eq!(named.commit_interval, Some(Duration::from_secs(5)));
        assert!(member(&[("group.id", "h")], Some("g"), false).is_err());

        let nameless = member(&[], None, false).unwrap();
        let number = nameless.group.strip_prefix("console-consumer-").unwrap();
        assert!(number.parse::<u32>().unwrap() < 100_000, "{number}");
        assert_eq!((nameless.reset, nameless.commit_interval), (Start::Latest, None));
        assert!(member(&[("enable.auto.commit", "true")], None, false).unwrap().commit_interval.is_some());
        assert!(
            member(&[("enable.auto.commit", "false")], Some("g"), false).unwrap().commit_interval.is_none()
        );
    }

    fn job(line: &str) -> Result<(Job, ConnectionOptions), String> {
        let arguments: ConsoleArguments = typed(&format!("--bootstrap-server h:1 --topic t {line}"))?;
        arguments.job().map_err(|failure| failure.to_string())
    }

    #[test]
    fn flags_of_scripts_are_obeyed_or_refused_by_name() {
        let (job_taken, connection) =
            job("--consumer-property client.id=me --isolation-level read_committed \
             --value-deserializer org.apache.kafka.common.serialization.StringDeserializer \
             --formatter kafka.tools.DefaultMessageFormatter --enable-systest-events --skip-message-on-error \
             --command-property isolation.level=read_committed --group g")
            .unwrap();
        assert_eq!(connection.client_id, "me");
        assert!(matches!(job_taken.source, Source::Group(options) if options.group == "g"));
        for (line, told) in [
            ("--include .*", "'--include <PATTERN>': one topic is read at a time; name it by --topic"),
            ("--formatter a.B", "'--formatter <CLASS>': it names a Java class to load, and Firn has no Java"),
            ("--value-deserializer a.B", "'--value-deserializer <CLASS>'"),
            ("--isolation-level serializable", "'--isolation-level <LEVEL>'"),
            ("--consumer.config /nowhere", "cannot read /nowhere"),
            ("--consumer-property security.protocol=SASL_SSL", "there is no TLS or SASL yet"),
            ("--consumer-property key.deserializer=a.B", "key.deserializer=a.B: it names a Java class"),
        ] {
            let refused = job(line).unwrap_err();
            assert!(refused.contains(told), "{line}: {refused}");
        }
    }

    #[test]
    fn properties_are_checked() {
        let set = member(&[("session.timeout.ms", "6000"), ("auto.offset.reset", "earliest")], None, false);
        let set = set.unwrap();
        assert_eq!((set.session_timeout, set.reset), (Duration::from_secs(6), Start::Earliest));
        let told = member(&[("auto.offset.reset", "nowhere")], None, false).unwrap_err().to_string();
        assert_eq!(told, "auto.offset.reset cannot be nowhere: expected earliest or latest");
        assert!(member(&[("session.timeout.ms", "soon")], None, false).is_err());
        assert!(member(&[("auto.offset.reset", "latest")], None, true).is_err());
    }
}
