//! `firn consume` and `kafka-console-consumer`: records of a topic, as they come.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use firn_client::cluster::Cluster;
use firn_client::consumer::{Consumer, Incoming, Start};
use serde_json::json;

use crate::command::{Bootstrap, Failure, cluster};
use crate::output::Output;

/// How long a broker may hold a fetch back for want of records.
const WAIT: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("start").args(["from_beginning", "offset", "timestamp"]))]
pub struct Arguments {
    #[command(flatten)]
    bootstrap: Bootstrap,
    topic: String,
    /// Begin with the oldest record instead of the next one.
    #[arg(long)]
    from_beginning: bool,
    /// Begin with this offset in each partition.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    offset: Option<i64>,
    /// Begin with the first record at or after this time, in milliseconds since 1970.
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(i64).range(0..))]
    timestamp: Option<i64>,
    /// Read this partition alone; may be repeated.
    #[arg(long = "partition", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Stop after this many records.
    #[arg(long)]
    max: Option<u64>,
    /// How a record is printed: %t topic, %p partition, %o offset, %T timestamp, %k key, %v value, %h headers, %% percent,
    /// \n and \t.
    #[arg(long, default_value = "%v\\n", conflicts_with = "output")]
    format: String,
    /// json prints one object a line.
    #[arg(long, value_enum, default_value = "table")]
    output: Output,
}

/// Kafka's own tool for consuming, with its flags.
#[derive(Debug, Clone, Args)]
pub struct ConsoleArguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, value_name = "HOST:PORT")]
    bootstrap_server: String,
    #[arg(long)]
    topic: String,
    #[arg(long)]
    from_beginning: bool,
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// An offset, or earliest, or latest.
    #[arg(long, requires = "partition", value_parser = offset)]
    offset: Option<Start>,
    #[arg(long)]
    max_messages: Option<u64>,
    /// Fail when no record comes for this long.
    #[arg(long, value_name = "MS")]
    timeout_ms: Option<u64>,
    /// print.key=true, key.separator=TEXT and their like; may be repeated.
    #[arg(long = "property", alias = "formatter-property", value_name = "KEY=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

fn offset(text: &str) -> Result<Start, String> {
    match text {
        "earliest" => Ok(Start::Earliest),
        "latest" => Ok(Start::Latest),
        number => match number.parse() {
            Ok(offset) if offset >= 0 => Ok(Start::Offset(offset)),
            _ => Err("expected an offset, earliest or latest".to_owned()),
        },
    }
}

fn property(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE, for example print.key=true")?;
    match key {
        "print.timestamp" | "print.partition" | "print.offset" | "print.headers" | "print.key"
        | "print.value"
            if value.parse::<bool>().is_ok() => {}
        "key.separator" | "line.separator" => {}
        _ => return Err(format!("{key} is not known, or cannot be {value}")),
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// How a record is printed.
#[derive(Debug)]
enum Layout {
    Json,
    Format(String),
    Console(Console),
}

/// The parts that Kafka's `DefaultMessageFormatter` prints.
#[derive(Debug, Default)]
struct Console {
    timestamp: bool,
    partition: bool,
    offset: bool,
    headers: bool,
    key: bool,
    no_value: bool,
    separator: Option<String>,
    line: Option<String>,
}

impl Console {
    fn new(properties: Vec<(String, String)>) -> Self {
        let mut console = Self::default();
        for (key, value) in properties {
            let yes = value == "true";
            match key.as_str() {
                "print.timestamp" => console.timestamp = yes,
                "print.partition" => console.partition = yes,
                "print.offset" => console.offset = yes,
                "print.headers" => console.headers = yes,
                "print.key" => console.key = yes,
                "print.value" => console.no_value = !yes,
                "key.separator" => console.separator = Some(value),
                _ => console.line = Some(value),
            }
        }
        console
    }

    fn print(&self, record: &Incoming) -> Vec<u8> {
        let null_or = |bytes: &Option<bytes::Bytes>| bytes.as_deref().unwrap_or(b"null").to_vec();
        let mut parts = Vec::new();
        if self.timestamp {
            parts.push(format!("CreateTime:{}", record.timestamp).into_bytes());
        }
        if self.partition {
            parts.push(format!("Partition:{}", record.partition).into_bytes());
        }
        if self.offset {
            parts.push(format!("Offset:{}", record.offset).into_bytes());
        }
        if self.headers {
            parts.push(Some(headers(record)).filter(|all| !all.is_empty()).unwrap_or(b"NO_HEADERS".to_vec()));
        }
        if self.key {
            parts.push(null_or(&record.key));
        }
        if !self.no_value {
            parts.push(null_or(&record.value));
        }
        let mut line = parts.join(self.separator.as_deref().unwrap_or("\t").as_bytes());
        line.extend_from_slice(self.line.as_deref().unwrap_or("\n").as_bytes());
        line
    }
}

/// `name:value,name:value`, as Kafka's formatter prints them.
fn headers(record: &Incoming) -> Vec<u8> {
    let pairs = record
        .headers
        .iter()
        .map(|(name, value)| [name.as_ref(), value.as_deref().unwrap_or(b"null")].join(&b":"[..]));
    pairs.collect::<Vec<_>>().join(&b","[..])
}

impl Layout {
    fn print(&self, topic: &str, record: &Incoming) -> Vec<u8> {
        match self {
            Self::Json => json_line(topic, record),
            Self::Format(format) => formatted(format, topic, record),
            Self::Console(console) => console.print(record),
        }
    }
}

/// Bytes that are no UTF-8 lose what cannot be shown.
fn json_line(topic: &str, record: &Incoming) -> Vec<u8> {
    let text = |bytes: &Option<bytes::Bytes>| bytes.as_deref().map(String::from_utf8_lossy).map(String::from);
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": String::from_utf8_lossy(name), "value": text(value) }))
        .collect();
    let line = json!({
        "topic": topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": text(&record.key),
        "value": text(&record.value),
        "headers": headers,
    });
    format!("{line}\n").into_bytes()
}

fn formatted(format: &str, topic: &str, record: &Incoming) -> Vec<u8> {
    let mut line = Vec::new();
    let mut letters = format.chars();
    let mut letter_bytes = [0; 4];
    while let Some(letter) = letters.next() {
        let escaped = if matches!(letter, '%' | '\\') { letters.clone().next() } else { None };
        match (letter, escaped) {
            ('%', Some('t')) => line.extend_from_slice(topic.as_bytes()),
            ('%', Some('p')) => line.extend_from_slice(record.partition.to_string().as_bytes()),
            ('%', Some('o')) => line.extend_from_slice(record.offset.to_string().as_bytes()),
            ('%', Some('T')) => line.extend_from_slice(record.timestamp.to_string().as_bytes()),
            ('%', Some('k')) => line.extend_from_slice(record.key.as_deref().unwrap_or_default()),
            ('%', Some('v')) => line.extend_from_slice(record.value.as_deref().unwrap_or_default()),
            ('%', Some('h')) => line.extend_from_slice(&headers(record)),
            ('%', Some('%')) => line.push(b'%'),
            ('\\', Some('n')) => line.push(b'\n'),
            ('\\', Some('t')) => line.push(b'\t'),
            _ => {
                line.extend_from_slice(letter.encode_utf8(&mut letter_bytes).as_bytes());
                continue;
            }
        }
        letters.next();
    }
    line
}

/// What one run does, whichever flags it came from.
#[derive(Debug)]
struct Job {
    topic: String,
    partitions: Vec<i32>,
    start: Start,
    max: Option<u64>,
    layout: Layout,
    /// How long to go on without a record; none for ever.
    patience: Option<Duration>,
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let start = match (arguments.from_beginning, arguments.offset, arguments.timestamp) {
        (true, ..) => Start::Earliest,
        (_, Some(offset), _) => Start::Offset(offset),
        (.., Some(timestamp)) => Start::Timestamp(timestamp),
        _ => Start::Latest,
    };
    let layout = match arguments.output {
        Output::Json => Layout::Json,
        Output::Table => Layout::Format(arguments.format),
    };
    let (topic, partitions, max) = (arguments.topic, arguments.partitions, arguments.max);
    let job = Job { topic, partitions, start, max, layout, patience: None };
    until_interrupted(Arc::new(cluster(&arguments.bootstrap.bootstrap)), job).await
}

pub(crate) async fn run_console(arguments: ConsoleArguments) -> Result<String, Failure> {
    let start = if arguments.from_beginning { Start::Earliest } else { Start::Latest };
    let job = Job {
        topic: arguments.topic,
        partitions: arguments.partition.into_iter().collect(),
        start: arguments.offset.unwrap_or(start),
        max: arguments.max_messages,
        layout: Layout::Console(Console::new(arguments.properties)),
        patience: arguments.timeout_ms.map(Duration::from_millis),
    };
    until_interrupted(Arc::new(cluster(&arguments.bootstrap_server)), job).await
}

/// An interrupt is how one that follows is meant to end.
async fn until_interrupted(cluster: Arc<Cluster>, job: Job) -> Result<String, Failure> {
    tokio::select! {
        ended = consume(cluster, job) => ended?,
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(String::new())
}

async fn consume(cluster: Arc<Cluster>, job: Job) -> Result<(), Failure> {
    let partitions = Some(job.partitions.as_slice()).filter(|named| !named.is_empty());
    let mut consumer = Consumer::open(cluster, &job.topic, partitions, job.start).await?;
    let mut left = job.max.unwrap_or(u64::MAX);
    let mut silence = tokio::time::Instant::now();
    while left > 0 {
        let records = consumer.poll(WAIT).await?;
        if !records.is_empty() {
            silence = tokio::time::Instant::now();
        } else if job.patience.is_some_and(|patience| silence.elapsed() >= patience) {
            return Err("no record came in time".into());
        }
        let mut lines = Vec::new();
        for record in records.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            lines.extend_from_slice(&job.layout.print(&job.topic, record));
            left -= 1;
        }
        let mut output = io::stdout().lock();
        match output.write_all(&lines).and_then(|()| output.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Incoming {
        Incoming {
            partition: 1,
            offset: 42,
            timestamp: 1000,
            key: Some("k".into()),
            value: None,
            headers: vec![("h".into(), Some("x".into())), ("n".into(), None)],
        }
    }

    fn printed(layout: &Layout) -> String {
        String::from_utf8(layout.print("orders", &record())).unwrap()
    }

    #[test]
    fn formats_name_the_parts_of_a_record() {
        let format = |text: &str| printed(&Layout::Format(text.to_owned()));
        assert_eq!(format("%t/%p/%o %T\\t%k=%v [%h]\\n"), "orders/1/42 1000\tk= [h:x,n:null]\n");
        assert_eq!(format("100%% %x \\q %"), "100% %x \\q %");
    }

    #[test]
    fn json_tells_null_from_empty() {
        let expected = serde_json::json!({
            "topic": "orders", "partition": 1, "offset": 42, "timestamp": 1000, "key": "k", "value": null,
            "headers": [{ "name": "h", "value": "x" }, { "name": "n", "value": null }],
        });
        let line: serde_json::Value = serde_json::from_str(&printed(&Layout::Json)).unwrap();
        assert_eq!(line, expected);
    }

    #[test]
    fn the_console_prints_parts_in_the_order_of_kafka() {
        let all = ["timestamp", "partition", "offset", "headers", "key"];
        let properties = all.iter().map(|part| property(&format!("print.{part}=true")).unwrap());
        let mut console = Console::new(properties.collect());
        let expected = "CreateTime:1000\tPartition:1\tOffset:42\th:x,n:null\tk\tnull\n";
        assert_eq!(String::from_utf8(console.print(&record())).unwrap(), expected);
        console.separator = Some("|".to_owned());
        let plain = Incoming { headers: Vec::new(), ..record() };
        assert!(String::from_utf8(console.print(&plain)).unwrap().contains("|NO_HEADERS|k|null\n"));
        assert!(property("print.key=maybe").is_err() && property("color=red").is_err());
    }

    #[test]
    fn offsets_are_numbers_or_names() {
        assert_eq!(offset("earliest"), Ok(Start::Earliest));
        assert_eq!(offset("7"), Ok(Start::Offset(7)));
        assert!(offset("-1").is_err());
    }
}
