//! `firn consume` and `kafka-console-consumer`: records of a topic, as they come.

mod console;
mod layout;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgGroup, Args};
use firn_client::cluster::Cluster;
use firn_client::consumer::{self, Consumer, Incoming, Start};
use firn_client::error::Error;
use firn_client::membership::{Member, MemberOptions};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::command::{Failure, To, TopicName, cluster, cluster_with};
use crate::output::Output;
use crate::progress::Progress;
use crate::values::{offset, time};

pub use console::ConsoleArguments;
use layout::Layout;

/// How long a broker may hold a fetch back for want of records.
const WAIT: Duration = Duration::from_millis(500);
/// Records printed at once (Java's `max.poll.records`): between two batches a group may move on.
const BATCH: usize = 500;

#[derive(Debug, Clone, Args)]
#[command(group = ArgGroup::new("start").args(["from_beginning", "offset", "timestamp"]))]
#[command(group = ArgGroup::new("nowhere").args(["offset", "timestamp", "partitions"]).multiple(true).conflicts_with("group"))]
pub struct Arguments {
    #[command(flatten)]
    to: To,
    #[command(flatten)]
    topic: TopicName,
    /// Read as a member of this consumer group: share the partitions, commit what was printed, and resume there.
    #[arg(long, short)]
    group: Option<String>,
    /// Begin with the oldest record instead of the next one; in a group, where nothing is committed yet.
    #[arg(long)]
    from_beginning: bool,
    /// Begin with this offset in each partition, or at its earliest or latest; not with --group, which begins where it
    /// has committed.
    #[arg(long, value_parser = offset)]
    offset: Option<Start>,
    /// Begin with the first record at or after this time, as 2026-01-31T12:00:00Z or in milliseconds since 1970; not
    /// with --group.
    #[arg(long, value_name = "TIME", value_parser = time)]
    timestamp: Option<i64>,
    /// Read this partition alone; may be repeated, and not with --group, which shares the partitions.
    #[arg(long = "partition", value_parser = clap::value_parser!(i32).range(0..))]
    partitions: Vec<i32>,
    /// Stop after this many records.
    #[arg(long)]
    max: Option<u64>,
    /// Stop at what is the end when reading begins; not with --group.
    #[arg(long, conflicts_with = "group")]
    until_end: bool,
    /// How a record is printed: %t topic, %p partition, %o offset, %T timestamp, %k key, %v value, %h headers, %% percent,
    /// \n and \t. Not with --output.
    #[arg(long, default_value = "%v\\n", conflicts_with = "output")]
    format: String,
}

/// What one run does, whichever flags it came from.
#[derive(Debug)]
struct Job {
    topic: String,
    source: Source,
    max: Option<u64>,
    until_end: bool,
    layout: Layout,
    /// How long to go on without a record; none for ever.
    patience: Option<Duration>,
    /// Whether a topic that is not there may be created, where the broker does that.
    create: bool,
}

/// Who decides what is read.
#[derive(Debug)]
enum Source {
    /// The caller: these partitions, or all where none is named.
    Partitions(Vec<i32>, Start),
    Group(MemberOptions),
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Enough,
    Silence,
    /// Nobody reads what is printed.
    Unread,
    Interrupted,
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let start = match (arguments.from_beginning, arguments.offset, arguments.timestamp) {
        (true, ..) => Start::Earliest,
        (_, Some(start), _) => start,
        (.., Some(timestamp)) => Start::Timestamp(timestamp),
        _ => Start::Latest,
    };
    let source = match arguments.group {
        Some(group) => Source::Group(MemberOptions::new(group, start)),
        None => Source::Partitions(arguments.partitions, start),
    };
    let layout = match arguments.to.output {
        Output::Json => Layout::Json,
        Output::Table => Layout::Format(arguments.format),
    };
    let (topic, max, until_end) = (arguments.topic.into_name(), arguments.max, arguments.until_end);
    let job = Job { topic, source, max, until_end, layout, patience: None, create: false };
    consume(Arc::new(cluster(&arguments.to.bootstrap)), job, &mut 0).await?;
    Ok(String::new())
}

pub(crate) async fn run_console(arguments: ConsoleArguments) -> Result<String, Failure> {
    let (address, events) = (arguments.bootstrap_server.clone(), arguments.enable_systest_events);
    let (job, options) = arguments.job()?;
    let mut printed = 0;
    let ended = consume(Arc::new(cluster_with(&address, options)), job, &mut printed).await;
    // The last line of Kafka's tool, on standard error as there; where that is closed, nobody reads it.
    writeln!(io::stderr(), "Processed a total of {printed} messages").ok();
    ended?;
    Ok(if events { "shutdown_complete\n".to_owned() } else { String::new() })
}

async fn consume(cluster: Arc<Cluster>, job: Job, printed: &mut u64) -> Result<End, Failure> {
    let route = cluster.find(&job.topic, job.create).await?;
    let mut reader = match &job.source {
        Source::Group(options) => Reader::Member(Box::new(Member::new(cluster, &job.topic, options.clone()))),
        Source::Partitions(named, start) => {
            let all = || route.leaders.keys().copied().collect();
            let partitions = if named.is_empty() { all() } else { named.clone() };
            let ends = match job.until_end {
                true => Some(consumer::offsets(&cluster, &job.topic, &partitions, Start::Latest).await?),
                false => None,
            };
            let consumer = Consumer::open(cluster, &job.topic, Some(&partitions), *start).await?;
            Reader::Consumer { consumer, ends }
        }
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let ended = tokio::select! {
        ended = follow(&mut reader, &job, printed) => ended,
        // This is how one that follows is meant to end.
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| End::Interrupted).map_err(Into::into),
        _ = terminate.recv() => Ok(End::Interrupted),
        () = unread() => Ok(End::Unread),
    };
    // A member that fails leaves, too: the others need not wait for the end of its session.
    let left = match reader {
        Reader::Member(member) => member.leave().await,
        Reader::Consumer { .. } => Ok(()),
    };
    let ended = ended?;
    left?;
    Ok(ended)
}

/// Ends when nobody reads standard output any more: who follows a quiet topic would learn it only with the next record.
async fn unread() {
    let (gone, told) = oneshot::channel();
    // A thread of its own, which ends with the process: what is no pipe, as a file, is never closed by anyone.
    std::thread::spawn(move || {
        let output = io::stdout();
        // Nothing but what is always told: an error, or a reader that hung up.
        let mut watched = [PollFd::new(&output, PollFlags::empty())];
        loop {
            match poll(&mut watched, None) {
                Err(Errno::INTR) => {}
                Ok(_) => return gone.send(()),
                Err(_) => return Ok(()),
            }
        }
    });
    if told.await.is_err() {
        std::future::pending().await
    }
}

/// Where records come from.
enum Reader {
    Consumer {
        consumer: Consumer,
        /// Where to stop in each partition; none: nowhere.
        ends: Option<BTreeMap<i32, i64>>,
    },
    Member(Box<Member>),
}

impl Reader {
    /// Records to print, at most `max` of a group's: what is not printed must not count as read.
    async fn poll(&mut self, max: u64) -> Result<Vec<Incoming>, Error> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        match self {
            Self::Member(member) => member.poll(WAIT, max.min(BATCH)).await,
            Self::Consumer { consumer, ends } => {
                let mut records = consumer.poll(WAIT).await?;
                if let Some(ends) = ends {
                    records
                        .retain(|record| ends.get(&record.partition).is_some_and(|end| record.offset < *end));
                }
                records.truncate(max);
                Ok(records)
            }
        }
    }

    /// What was polled is printed.
    fn done(&mut self) {
        if let Self::Member(member) = self {
            member.done();
        }
    }

    /// How many offsets lie between here and where to stop; none where there is no such place.
    fn left(&self) -> Option<u64> {
        let Self::Consumer { consumer, ends: Some(ends) } = self else { return None };
        let positions = consumer.positions();
        let left = ends.iter().map(|(partition, end)| {
            let position = positions.get(partition).copied().unwrap_or(*end);
            u64::try_from(end.saturating_sub(position)).unwrap_or_default()
        });
        Some(left.sum())
    }
}

async fn follow(reader: &mut Reader, job: &Job, printed: &mut u64) -> Result<End, Failure> {
    let total = reader.left().map(|left| left.min(job.max.unwrap_or(u64::MAX)));
    let progress = Progress::start("records", total.or(job.max));
    let mut silence = Instant::now();
    loop {
        let left = job.max.unwrap_or(u64::MAX).saturating_sub(*printed);
        if left == 0 || reader.left() == Some(0) {
            return Ok(End::Enough);
        }
        let records = reader.poll(left).await?;
        if records.is_empty() {
            if job.patience.is_some_and(|patience| silence.elapsed() >= patience) {
                return Ok(End::Silence);
            }
            continue;
        }
        silence = Instant::now();
        let lines: Vec<u8> = records.iter().flat_map(|record| job.layout.print(&job.topic, record)).collect();
        if !print(lines).await? {
            return Ok(End::Unread);
        }
        reader.done();
        *printed = printed.saturating_add(records.len() as u64);
        progress.at(*printed);
    }
}

/// Prints from a thread that may block, so that a member whose reader is slow goes on to say that it lives. False when
/// the reader has gone.
async fn print(lines: Vec<u8>) -> Result<bool, Failure> {
    let written = tokio::task::spawn_blocking(move || {
        let mut output = io::stdout().lock();
        output.write_all(&lines).and_then(|()| output.flush())
    });
    match written.await? {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        written => written.map(|()| true).map_err(Into::into),
    }
}
