//! `firn produce` and `kafka-console-producer`: one record for each line of standard input, or of a file.

mod console;

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use clap::{Args, ValueEnum};
use firn_client::cluster::Cluster;
use firn_client::producer::{Outgoing, Producer, ProducerOptions};
use firn_records::batch::Codec;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use crate::command::{Failure, To, TopicName, cluster, cluster_with};
use crate::output::{Output, json};
use crate::progress::Progress;
use crate::values::header;

pub use console::ConsoleArguments;

/// How long a record waits for others unless the caller says.
const LINGER: Duration = Duration::from_millis(20);
/// Lines read ahead of the broker.
const LINES_AHEAD: usize = 1024;

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    topic: TopicName,
    /// Read lines from this file instead of standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Splits each line into key and value at the first occurrence; \t is a tab.
    #[arg(long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header for every record; may be repeated.
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Who must have written a record: all in-sync replicas, the leader (1), or nobody (0).
    #[arg(long, value_enum, default_value = "all", allow_hyphen_values = true)]
    acks: Acks,
    /// How batches are compressed.
    #[arg(long, value_enum, default_value = "none")]
    compression: Compression,
    /// Write to this partition, whatever the key.
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Acks {
    #[value(alias = "-1")]
    All,
    #[value(name = "1")]
    Leader,
    #[value(name = "0")]
    Nobody,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// What one run does, whichever flags it came from.
#[derive(Debug)]
struct Job {
    topic: String,
    separator: Option<String>,
    headers: Vec<(String, String)>,
    partition: Option<i32>,
    options: ProducerOptions,
    /// How long a record may wait for others to share its batch.
    linger: Duration,
    /// Whether each record is acknowledged before the next one is sent.
    sync: bool,
    /// How long to wait for the topic; none: as long as the client tries.
    max_block: Option<Duration>,
}

fn options(acks: Acks, compression: Compression) -> ProducerOptions {
    let acks = match acks {
        Acks::All => -1,
        Acks::Leader => 1,
        Acks::Nobody => 0,
    };
    let codec = match compression {
        Compression::None => Codec::None,
        Compression::Gzip => Codec::Gzip,
        Compression::Snappy => Codec::Snappy,
        Compression::Lz4 => Codec::Lz4,
        Compression::Zstd => Codec::Zstd,
    };
    ProducerOptions { acks, codec, ..ProducerOptions::default() }
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let Arguments { to, topic, file, key_separator, headers, acks, compression, partition } = arguments;
    let topic = topic.into_name();
    let separator = key_separator.map(|text| text.replace("\\t", "\t"));
    let job = Job {
        topic: topic.clone(),
        separator,
        headers,
        partition,
        options: options(acks, compression),
        linger: LINGER,
        sync: false,
        max_block: None,
    };
    let cluster = Arc::new(cluster(&to.bootstrap));
    let written = match file {
        Some(path) => {
            let failed = |error| format!("cannot read {}: {error}", path.display());
            let file = File::open(&path).map_err(failed)?;
            let progress = Progress::of_silent_work("bytes", file.metadata().map_err(failed)?.len());
            produce(cluster, job, lines(BufReader::new(file)), Some(progress)).await?
        }
        None => produce(cluster, job, standard_input(), None).await?,
    };
    match to.output {
        Output::Table => Ok(format!(
            "{} {written} {} to {topic}.\n",
            if acks == Acks::Nobody { "Sent" } else { "Wrote" },
            if written == 1 { "record" } else { "records" },
        )),
        Output::Json => json(&serde_json::json!({ "written": written })),
    }
}

pub(crate) async fn run_console(arguments: ConsoleArguments) -> Result<String, Failure> {
    let address = arguments.bootstrap_server.clone();
    let (job, options) = arguments.job()?;
    produce(Arc::new(cluster_with(&address, options)), job, standard_input(), None).await?;
    Ok(String::new())
}

async fn produce(
    cluster: Arc<Cluster>,
    job: Job,
    mut lines: Lines,
    progress: Option<Progress>,
) -> Result<u64, Failure> {
    let mut producer = job.open(cluster).await?;
    let (mut number, mut bytes) = (0_u64, 0);
    let mut due: Option<Instant> = None;
    loop {
        let waited = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            line = lines.recv() => {
                let Some(line) = line else { break };
                number += 1;
                let read = line.map_err(|error| format!("cannot read line {number}: {error}"));
                let taken = read.and_then(|line| Ok((job.record(&line, number)?, line.len() as u64 + 1)));
                let (record, length) = match taken {
                    Ok(taken) => taken,
                    Err(reason) => {
                        // The lines before it were good, and are not read again by who mends this one and goes on.
                        producer.flush().await?;
                        return Err(job.stopped(&reason, producer.written()).into());
                    }
                };
                producer.send(&record).await?;
                bytes += length;
                if let Some(progress) = &progress {
                    progress.at(bytes);
                }
                if job.sync {
                    producer.flush().await?;
                } else {
                    due.get_or_insert_with(|| Instant::now() + job.linger);
                }
            }
            () = waited => {
                producer.flush().await?;
                due = None;
            }
        }
    }
    producer.flush().await?;
    Ok(producer.written())
}

impl Job {
    async fn open(&self, cluster: Arc<Cluster>) -> Result<Producer, Failure> {
        let opened = Producer::open(cluster, &self.topic, self.options);
        let Some(max_block) = self.max_block else { return Ok(opened.await?) };
        let late =
            |_| format!("Topic {} not present in metadata after {} ms.", self.topic, max_block.as_millis());
        Ok(timeout(max_block, opened).await.map_err(late)??)
    }

    fn record(&self, line: &[u8], number: u64) -> Result<Outgoing, String> {
        let (key, value) = match &self.separator {
            Some(separator) => {
                let (key, value) = split(line, separator.as_bytes()).ok_or_else(|| {
                    let line = String::from_utf8_lossy(line);
                    format!("line {number} has no key separator {separator:?}: {line}")
                })?;
                (Some(Bytes::copy_from_slice(key)), value)
            }
            None => (None, line),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let headers =
            self.headers.iter().map(|(name, value)| (name.clone(), Some(Bytes::from(value.clone()))));
        Ok(Outgoing {
            partition: self.partition,
            timestamp: i64::try_from(now).unwrap_or_default(),
            key,
            value: Some(Bytes::copy_from_slice(value)),
            headers: headers.collect(),
        })
    }

    /// Why not all was written, and how much was.
    fn stopped(&self, reason: &str, written: u64) -> String {
        let records = if written == 1 { "record was" } else { "records were" };
        let verb = if self.options.acks == 0 { "sent" } else { "written" };
        format!("{reason} ({written} {records} {verb} before it)")
    }
}

fn split<'a>(line: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = line.windows(separator.len().max(1)).position(|window| window == separator)?;
    Some((line.get(..at)?, line.get(at + separator.len()..)?))
}

/// Lines without their ends, which need not be UTF-8.
type Lines = mpsc::Receiver<io::Result<Vec<u8>>>;

fn standard_input() -> Lines {
    lines(BufReader::new(io::stdin()))
}

/// Lines read by a thread of their own: neither standard input nor a file can be polled.
fn lines(input: impl BufRead + Send + 'static) -> Lines {
    let (lines, receiver) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        for line in input.split(b'\n') {
            let line = line.map(|mut line| {
                line.pop_if(|end| *end == b'\r');
                line
            });
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_at_the_first_separator() {
        let job = Job {
            topic: "orders".to_owned(),
            separator: Some("::".to_owned()),
            headers: vec![("source".to_owned(), "test".to_owned())],
            partition: Some(2),
            options: options(Acks::All, Compression::Zstd),
            linger: LINGER,
            sync: false,
            max_block: None,
        };
        let record = job.record(b"a::b::c", 1).unwrap();
        assert_eq!((record.key.as_deref(), record.value.as_deref()), (Some(&b"a"[..]), Some(&b"b::c"[..])));
        assert_eq!(record.headers, [("source".to_owned(), Some(Bytes::from_static(b"test")))]);
        let refused = job.record(b"a:b", 3).unwrap_err();
        assert_eq!(refused, "line 3 has no key separator \"::\": a:b");
        assert_eq!(
            job.stopped(&refused, 1),
            "line 3 has no key separator \"::\": a:b (1 record was written before it)"
        );
        let keyless = Job { separator: None, ..job };
        assert_eq!(keyless.record(b"a::b", 1).unwrap().key, None);
    }
}
