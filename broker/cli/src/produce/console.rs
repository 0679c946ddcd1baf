//! `kafka-console-producer`: its flags, and the producer properties that it obeys.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use firn_client::connection::ConnectionOptions;

use super::{Acks, Compression, Job, LINGER, options};
use crate::command::Failure;
use crate::kafka::client_properties::{self, Given, class, is_of_connections, milliseconds};
use crate::output::warn;
use crate::values::key_value;

/// Kafka's own tool for producing, with its flags.
#[derive(Debug, Clone, Args)]
pub struct ConsoleArguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, alias = "broker-list", value_name = "HOST:PORT")]
    pub(super) bootstrap_server: String,
    /// The topic to write to.
    #[arg(long)]
    topic: String,
    /// parse.key=true and key.separator=TEXT, for example; may be repeated.
    #[arg(long = "reader-property", alias = "property", value_name = "KEY=VALUE", value_parser = property)]
    reading: Vec<(String, String)>,
    /// A properties file of what --reader-property takes.
    #[arg(long, value_name = "FILE")]
    reader_config: Option<PathBuf>,
    /// acks=1, linger.ms=100 and their like; may be repeated.
    #[arg(long = "command-property", visible_alias = "producer-property", value_name = "KEY=VALUE", value_parser = key_value)]
    properties: Vec<(String, String)>,
    /// A properties file of what --command-property takes.
    #[arg(long = "command-config", visible_alias = "producer.config", value_name = "FILE")]
    config: Option<PathBuf>,
    /// Who must have written a record: all in-sync replicas, the leader (1), or nobody (0). [default: all]
    #[arg(long = "request-required-acks", value_enum, allow_hyphen_values = true)]
    acks: Option<Acks>,
    /// How batches are compressed; by gzip where no codec is named. [default: none]
    #[arg(long = "compression-codec", value_enum, num_args = 0..=1, default_missing_value = "gzip")]
    compression: Option<Compression>,
    /// Wait for each record to be acknowledged before the next one is sent.
    #[arg(long)]
    sync: bool,
    /// A batch is sent when it holds this many bytes.
    #[arg(long, value_name = "BYTES")]
    batch_size: Option<usize>,
    /// How long a record may wait for others to share its batch.
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    /// How long to wait for the topic.
    #[arg(long, value_name = "MS")]
    max_block_ms: Option<u64>,
    /// How long the broker may take to answer.
    #[arg(long, value_name = "MS")]
    request_timeout_ms: Option<u64>,
    /// Kafka's own LineMessageReader: there is no Java to load another.
    #[arg(long, value_name = "CLASS", value_parser = |name: &str| class(name, &["LineMessageReader"]))]
    line_reader: Option<String>,
    #[command(flatten)]
    idle: Idle,
}

/// Flags for what this client does not have: who gives them loses nothing.
#[derive(Debug, Clone, Args)]
#[group(skip)]
struct Idle {
    /// Taken, and without effect.
    #[arg(long, value_name = "BYTES")]
    max_memory_bytes: Option<u64>,
    /// Taken, and without effect.
    #[arg(long, value_name = "BYTES")]
    max_partition_memory_bytes: Option<u64>,
    /// Taken, and without effect.
    #[arg(long, value_name = "COUNT")]
    message_send_max_retries: Option<u64>,
    /// Taken, and without effect.
    #[arg(long, value_name = "MS")]
    metadata_expiry_ms: Option<u64>,
    /// Taken, and without effect.
    #[arg(long, value_name = "MS")]
    retry_backoff_ms: Option<u64>,
    /// Taken, and without effect.
    #[arg(long, value_name = "BYTES")]
    socket_buffer_size: Option<u64>,
}

/// As `key_value`, but a separator may be a blank.
fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, for example parse.key=true")?;
    check_reading(key, value)?;
    Ok((key.to_owned(), value.to_owned()))
}

fn check_reading(key: &str, value: &str) -> Result<(), String> {
    match key {
        "parse.key" if value.parse::<bool>().is_ok() => Ok(()),
        "key.separator" if !value.is_empty() => Ok(()),
        _ => Err("only parse.key=true|false and key.separator=TEXT are known".to_owned()),
    }
}

/// The producer properties that are obeyed.
#[derive(Debug, Default, PartialEq)]
struct Properties {
    acks: Option<Acks>,
    compression: Option<Compression>,
    linger: Option<Duration>,
    batch_bytes: Option<usize>,
    max_block: Option<Duration>,
    idempotent: Option<bool>,
}

impl Properties {
    /// One that has no effect here is told, and no error, as with Java's producer.
    fn parse(given: &Given) -> Result<Self, Failure> {
        let mut properties = Self::default();
        for (key, value) in given {
            let wrong = |allowed: &str| format!("{key} cannot be {value}: expected {allowed}");
            match key.as_str() {
                "acks" => {
                    properties.acks =
                        Some(Acks::from_str(value, true).map_err(|_| wrong("all, -1, 0 or 1"))?);
                }
                "compression.type" => {
                    let codec = Compression::from_str(value, true);
                    let codec = codec.map_err(|_| wrong("none, gzip, snappy, lz4 or zstd"))?;
                    properties.compression = Some(codec);
                }
                "linger.ms" => properties.linger = Some(milliseconds(key, value)?),
                "max.block.ms" => properties.max_block = Some(milliseconds(key, value)?),
                "batch.size" => {
                    properties.batch_bytes = Some(value.parse().map_err(|_| wrong("a number of bytes"))?);
                }
                "enable.idempotence" => {
                    properties.idempotent = Some(value.parse().map_err(|_| wrong("true or false"))?);
                }
                "key.serializer" | "value.serializer" => {
                    let known = ["StringSerializer", "ByteArraySerializer"];
                    class(value, &known).map_err(|reason| format!("{key}={value}: {reason}"))?;
                }
                "partitioner.class" | "interceptor.classes" if !value.trim().is_empty() => {
                    return Err(format!(
                        "{key}={value}: it names a Java class to load, and Firn has no Java; leave it out"
                    )
                    .into());
                }
                "transactional.id" => {
                    return Err(format!("{key}={value}: there are no transactions yet").into());
                }
                key if is_of_connections(key) => {}
                _ => warn(&format!("the producer property {key} has no effect here")),
            }
        }
        Ok(properties)
    }
}

impl ConsoleArguments {
    /// What to do, and how to connect. What is nearer to the caller counts: flags, then properties, then files.
    pub(super) fn job(self) -> Result<(Job, ConnectionOptions), Failure> {
        let file = |path: Option<PathBuf>| path.as_deref().map(client_properties::read).transpose();
        let mut given = file(self.config)?.unwrap_or_default();
        given.extend(self.properties);
        let mut connection = client_properties::options(&given)?;
        if let Some(timeout) = self.request_timeout_ms {
            connection.deadline = Duration::from_millis(timeout);
        }
        let mut reading = file(self.reader_config)?.unwrap_or_default();
        for (key, value) in &reading {
            check_reading(key, value).map_err(|reason| format!("{key}={value}: {reason}"))?;
        }
        reading.extend(self.reading);
        let (mut parse_key, mut separator) = (false, "\t".to_owned());
        for (key, value) in reading {
            match key.as_str() {
                "parse.key" => parse_key = value == "true",
                _ => separator = value,
            }
        }
        let properties = Properties::parse(&given)?;
        let acks = self.acks.or(properties.acks).unwrap_or(Acks::All);
        let compression = self.compression.or(properties.compression).unwrap_or(Compression::None);
        let mut options = options(acks, compression);
        options.batch_bytes = self.batch_size.or(properties.batch_bytes).unwrap_or(options.batch_bytes);
        options.idempotent = properties.idempotent.unwrap_or(options.idempotent);
        let job = Job {
            topic: self.topic,
            separator: Some(separator).filter(|_| parse_key),
            headers: Vec::new(),
            partition: None,
            options,
            linger: self.timeout.map(Duration::from_millis).or(properties.linger).unwrap_or(LINGER),
            sync: self.sync,
            max_block: self.max_block_ms.map(Duration::from_millis).or(properties.max_block),
        };
        Ok((job, connection))
    }
}

#[cfg(test)]
mod tests {
    use firn_records::batch::Codec;

    use super::*;
    use crate::command::testing::typed;

    fn job(line: &str) -> Result<(Job, ConnectionOptions), String> {
        let arguments: ConsoleArguments = typed(&format!("--bootstrap-server h:1 --topic t {line}"))?;
        arguments.job().map_err(|failure| failure.to_string())
    }

    #[test]
    fn only_known_properties_of_the_reader_are_taken() {
        assert_eq!(property("key.separator= "), Ok(("key.separator".to_owned(), " ".to_owned())));
        assert!(property("parse.key=maybe").is_err() && property("a=b").is_err());
        assert!(property("key.separator=").is_err());
    }

    #[test]
    fn flags_come_before_properties() {
        let properties = "--producer-property acks=1 --command-property compression.type=zstd \
                          --producer-property linger.ms=7 --producer-property batch.size=99 \
                          --producer-property client.id=me --producer-property max.block.ms=8";
        let (taken, connection) = job(properties).unwrap();
        assert_eq!((taken.options.acks, taken.options.codec), (1, Codec::Zstd));
        assert_eq!((taken.linger, taken.options.batch_bytes), (Duration::from_millis(7), 99));
        assert_eq!((taken.max_block, taken.sync), (Some(Duration::from_millis(8)), false));
        assert_eq!(connection.client_id, "me");
        let flags = "--request-required-acks -1 --compression-codec --timeout 5 --batch-size 3 --max-block-ms 4 \
                     --request-timeout-ms 6 --sync --socket-buffer-size 1 --retry-backoff-ms 1 \
                     --line-reader org.apache.kafka.tools.LineMessageReader";
        let (taken, connection) = job(&format!("{properties} {flags}")).unwrap();
        assert_eq!((taken.options.acks, taken.options.codec), (-1, Codec::Gzip));
        assert_eq!((taken.linger, taken.options.batch_bytes), (Duration::from_millis(5), 3));
        assert_eq!((taken.max_block, taken.sync), (Some(Duration::from_millis(4)), true));
        assert_eq!(connection.deadline, Duration::from_millis(6));
    }

    #[test]
    fn what_cannot_be_obeyed_is_refused_by_name() {
        for (line, told) in [
            (
                "--producer-property security.protocol=SSL",
                "security.protocol=SSL: there is no TLS or SASL yet",
            ),
            ("--producer-property transactional.id=x", "transactional.id=x: there are no transactions yet"),
            ("--producer-property partitioner.class=a.B", "partitioner.class=a.B: it names a Java class"),
            ("--producer-property value.serializer=a.B", "value.serializer=a.B: it names a Java class"),
            ("--producer-property acks=2", "acks cannot be 2: expected all, -1, 0 or 1"),
            ("--line-reader a.B", "--line-reader"),
            ("--producer.config /nowhere", "cannot read /nowhere"),
        ] {
            let refused = job(line).unwrap_err();
            assert!(refused.contains(told), "{line}: {refused}");
        }
    }
}
