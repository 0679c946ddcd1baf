//! `kafka-get-offsets`: offsets of partitions by time or place.

use std::collections::BTreeMap;
use std::fmt::Write;

use clap::Args;
use firn_client::consumer;
use firn_client::topics;

use super::client_properties::CommandConfig;
use super::patterns::TopicPattern;
use crate::command::{Failure, cluster_with};

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    /// Brokers to ask first, comma separated.
    #[arg(long, alias = "broker-list", value_name = "HOST:PORT")]
    bootstrap_server: String,
    #[command(flatten)]
    client: CommandConfig,
    /// A topic, or a regular expression for several; all unless given.
    #[arg(long, conflicts_with = "topic_partitions")]
    topic: Option<String>,
    /// Partitions, comma separated; all unless given.
    #[arg(long, value_delimiter = ',', conflicts_with = "topic_partitions")]
    partitions: Vec<i32>,
    /// Topics with partitions, comma separated: topic1:1,topic2:0-3,topic3,topic4:5-,topic5:-3
    #[arg(long, value_name = "PATTERNS")]
    topic_partitions: Option<String>,
    /// Milliseconds since 1970, or -1 or latest, -2 or earliest, -3 or max-timestamp, -4 or earliest-local, -5 or
    /// latest-tiered, -6 or earliest-pending-upload.
    #[arg(long, default_value = "latest", allow_hyphen_values = true, value_parser = time)]
    time: i64,
    /// Leave out the cluster's own topics.
    #[arg(long)]
    exclude_internal_topics: bool,
}

fn time(text: &str) -> Result<i64, String> {
    match text {
        "latest" => Ok(-1),
        "earliest" => Ok(-2),
        "max-timestamp" => Ok(-3),
        "earliest-local" => Ok(-4),
        "latest-tiered" => Ok(-5),
        "earliest-pending-upload" => Ok(-6),
        number => match number.parse() {
            Ok(time) if time >= -6 => Ok(time),
            _ => Err("expected milliseconds since 1970, or a place such as earliest".to_owned()),
        },
    }
}

/// Partitions of the topics that match: `from` to before `end`.
#[derive(Debug)]
struct Wanted {
    topics: Option<TopicPattern>,
    from: i32,
    end: i32,
}

impl Wanted {
    /// `topic`, `topic:1`, `topic:0-3` (without 3), `topic:5-`, `topic:-3` or `:1`.
    fn parse(text: &str) -> Result<Self, Failure> {
        let wrong = || format!("{text} is no pattern for partitions; expected for example topic:0-3");
        let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number >= 0).ok_or_else(wrong);
        let (topic, partitions) = text.split_once(':').unwrap_or((text, ""));
        let (from, end) = match partitions.split_once('-') {
            None if partitions.is_empty() => (0, i32::MAX),
            None => {
                let only = number(partitions)?;
                (only, only.saturating_add(1))
            }
            Some((from, end)) => (
                if from.is_empty() { 0 } else { number(from)? },
                if end.is_empty() { i32::MAX } else { number(end)? },
            ),
        };
        let topics = if topic.is_empty() { None } else { Some(TopicPattern::new(topic)?) };
        Ok(Self { topics, from, end })
    }

    fn takes(&self, topic: &str, partition: i32) -> bool {
        (self.from..self.end).contains(&partition)
            && self.topics.as_ref().is_none_or(|topics| topics.matches(topic))
    }
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let cluster = cluster_with(&arguments.bootstrap_server, arguments.client.options()?);
    let everywhere = |topics| Wanted { topics, from: 0, end: i32::MAX };
    let wanted = match (&arguments.topic_partitions, &arguments.topic) {
        (Some(patterns), _) => patterns.split(',').map(Wanted::parse).collect::<Result<Vec<_>, _>>()?,
        (None, Some(topic)) => vec![everywhere(Some(TopicPattern::new(topic)?))],
        (None, None) => vec![everywhere(None)],
    };
    let named = &arguments.partitions;
    let takes = |topic: &str, partition: i32| {
        (named.is_empty() || named.contains(&partition))
            && wanted.iter().any(|wanted| wanted.takes(topic, partition))
    };
    let mut places: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for topic in topics::describe(&*cluster.any().await?, None).await? {
        if topic.internal && arguments.exclude_internal_topics {
            continue;
        }
        let taken = topic.partitions.iter().map(|partition| partition.index);
        let taken: Vec<i32> = taken.filter(|index| takes(&topic.name, *index)).collect();
        if !taken.is_empty() {
            places.insert(topic.name, taken);
        }
    }
    if places.is_empty() {
        return Err("Could not match any topic-partitions with the specified filters".into());
    }
    let mut lines = String::new();
    for (topic, partitions) in places {
        for (partition, offset) in consumer::listed(&cluster, &topic, &partitions, arguments.time).await? {
            if offset >= 0 {
                writeln!(lines, "{topic}:{partition}:{offset}")?;
            }
        }
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_name_ranges_of_partitions() {
        let taken = |pattern: &str, topic: &str| {
            let wanted = Wanted::parse(pattern).unwrap();
            (0..7).filter(|partition| wanted.takes(topic, *partition)).collect::<Vec<_>>()
        };
        assert_eq!(taken("t:1", "t"), [1]);
        assert_eq!(taken("t:0-3", "t"), [0, 1, 2]);
        assert_eq!(taken("t:5-", "t"), [5, 6]);
        assert_eq!(taken("t.*:-3", "tt"), [0, 1, 2]);
        assert_eq!(taken(":2", "any"), [2]);
        assert_eq!(taken("t", "t").len(), 7);
        assert!(taken("t", "u").is_empty());
        assert!(Wanted::parse("t:x").is_err() && Wanted::parse("t:1-x").is_err());
    }

    #[test]
    fn times_are_numbers_or_places() {
        assert_eq!((time("earliest"), time("-3"), time("5")), (Ok(-2), Ok(-3), Ok(5)));
        assert!(time("-7").is_err() && time("soon").is_err());
    }
}
