//! `firn group`: list, describe, reset offsets and delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::{ArgGroup, Args, Subcommand};
use firn_client::cluster::Cluster;
use firn_client::consumer::{self, Start};
use firn_client::error::ResponseError;
use firn_client::groups::{self, Group, Listed, Offsets};
use serde::Serialize;

use crate::command::{Failure, To, cluster};
use crate::output::{Output, json, table, warn};
use crate::values::time;

#[derive(Debug, Clone, Args)]
pub struct Arguments {
    #[command(flatten)]
    to: To,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Subcommand)]
enum Action {
    /// List groups.
    List,
    /// Show how far a group is behind, and which member reads what.
    Describe {
        /// The group.
        group: String,
    },
    /// Move a group that has no members to another place in a topic.
    #[command(group = ArgGroup::new("place").required(true).args(["to_earliest", "to_latest", "to_offset", "to_timestamp"]))]
    ResetOffsets {
        /// The group.
        group: String,
        /// The topic in which it is moved.
        #[arg(long)]
        topic: String,
        /// This partition alone; may be repeated.
        #[arg(long = "partition")]
        partitions: Vec<i32>,
        /// The first record that is still there.
        #[arg(long)]
        to_earliest: bool,
        /// Behind the last record.
        #[arg(long)]
        to_latest: bool,
        /// This offset.
        #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
        to_offset: Option<i64>,
        /// The first record at or after this time, as 2026-01-31T12:00:00Z or in milliseconds since 1970.
        #[arg(long, value_name = "TIME", value_parser = time)]
        to_timestamp: Option<i64>,
        /// Only show the new offsets.
        #[arg(long)]
        dry_run: bool,
    },
    /// Delete a group that has no members, with what it has committed.
    Delete {
        /// The group.
        group: String,
    },
}

#[derive(Debug, Serialize)]
struct ListedJson<'a> {
    group: &'a str,
    protocol_type: &'a str,
    state: &'a str,
}

/// How far a group is in one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Progress {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: Option<i64>,
    pub(crate) end: Option<i64>,
    pub(crate) lag: Option<i64>,
    pub(crate) member: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) client: Option<String>,
}

pub(crate) async fn run(arguments: Arguments) -> Result<String, Failure> {
    let cluster = Arc::new(cluster(&arguments.to.bootstrap));
    let output = arguments.to.output;
    match arguments.action {
        Action::List => listed(output, &groups::list(&cluster).await?),
        Action::Describe { group } => {
            let (group, rows) = progress(&cluster, &group).await?;
            described(output, &group, &rows)
        }
        Action::ResetOffsets {
            group,
            topic,
            partitions,
            to_earliest,
            to_latest: _,
            to_offset,
            to_timestamp,
            dry_run,
        } => {
            let start = match (to_earliest, to_offset, to_timestamp) {
                (true, ..) => Start::Earliest,
                (_, Some(offset), _) => Start::Offset(offset),
                (.., Some(timestamp)) => Start::Timestamp(timestamp),
                _ => Start::Latest,
            };
            let offsets = places(&cluster, &topic, partitions, start).await?;
            let known = match groups::describe(&cluster, &group).await {
                Ok(found) => found.state != "Dead",
                Err(error) if error.is(ResponseError::GroupIdNotFound) => false,
                Err(error) => return Err(error.into()),
            };
            if !known {
                // A name that is mistyped looks like success, and the readers begin where they did before.
                let becomes = if dry_run { "would be" } else { "is" };
                warn(&format!("there is no group {group} yet; it {becomes} made, with these offsets"));
            }
            if !dry_run {
                groups::reset(&cluster, &group, &offsets).await?;
            }
            let head = match dry_run {
                true => "Dry run: nothing is changed.\n".to_owned(),
                false => format!("Moved group {group}:\n"),
            };
            moved(output, &head, &offsets)
        }
        Action::Delete { group } => {
            groups::delete(&cluster, &group).await?;
            Ok(match output {
                Output::Table => format!("Group {group} is deleted.\n"),
                Output::Json => json(&serde_json::json!({ "deleted": group }))?,
            })
        }
    }
}

/// Where `start` lies in the partitions named, or in all; within the log, as Kafka's tool moves them.
pub(crate) async fn places(
    cluster: &Cluster,
    topic: &str,
    partitions: Vec<i32>,
    start: Start,
) -> Result<Offsets, Failure> {
    let partitions = match partitions.is_empty() {
        true => cluster.route(topic, false).await?.leaders.into_keys().collect(),
        false => partitions,
    };
    let found = consumer::offsets(cluster, topic, &partitions, start).await?;
    let offsets = found.into_iter().map(|(partition, offset)| ((topic.to_owned(), partition), offset));
    let offsets = offsets.collect();
    let Start::Offset(_) = start else { return Ok(offsets) };
    let (within, cut) = within_logs(cluster, offsets).await?;
    cut.iter().for_each(|told| warn(told));
    Ok(within)
}

/// Moves offsets beyond either end of a log to that end, and says so of each, in the words of Kafka's tool.
pub(crate) async fn within_logs(
    cluster: &Cluster,
    mut offsets: Offsets,
) -> Result<(Offsets, Vec<String>), Failure> {
    let mut topics: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in offsets.keys() {
        topics.entry(topic.clone()).or_default().push(*partition);
    }
    let mut cut = Vec::new();
    for (topic, partitions) in topics {
        let first = consumer::offsets(cluster, &topic, &partitions, Start::Earliest).await?;
        let end = consumer::offsets(cluster, &topic, &partitions, Start::Latest).await?;
        for partition in partitions {
            if let Some(offset) = offsets.get_mut(&(topic.clone(), partition)) {
                let bound = |of: &BTreeMap<i32, i64>| of.get(&partition).copied();
                let place = format!("{topic}-{partition}");
                cut.extend(bring_within(offset, &place, bound(&first), bound(&end)));
            }
        }
    }
    Ok((offsets, cut))
}

fn bring_within(offset: &mut i64, place: &str, first: Option<i64>, end: Option<i64>) -> Option<String> {
    let asked = *offset;
    let (which, bound) = match (first, end) {
        (_, Some(end)) if asked > end => ("higher than latest", end),
        (Some(first), _) if asked < first => ("lower than earliest", first),
        _ => return None,
    };
    *offset = bound;
    Some(format!(
        "New offset ({asked}) is {which} offset for topic partition {place}. Value will be set to {bound}"
    ))
}

/// A group, and its progress in each partition that it has committed in or reads.
pub(crate) async fn progress(cluster: &Cluster, name: &str) -> Result<(Group, Vec<Progress>), Failure> {
    let group = groups::describe(cluster, name).await?;
    let committed = groups::offsets(cluster, name).await?;
    let mut wanted: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    let assigned = group.members.iter().flat_map(|member| &member.assigned);
    let places: std::collections::BTreeSet<_> = committed.keys().chain(assigned).collect();
    for (topic, partition) in places {
        wanted.entry(topic.clone()).or_default().push(*partition);
    }
    let mut ends = Offsets::new();
    for (topic, partitions) in wanted {
        // A topic that was deleted has no end, and its offsets stay.
        let found = consumer::offsets(cluster, &topic, &partitions, Start::Latest).await.unwrap_or_default();
        let known = partitions
            .into_iter()
            .map(|index| ((topic.clone(), index), found.get(&index).copied().unwrap_or(-1)));
        ends.extend(known);
    }
    let rows = rows(&group, &committed, ends);
    Ok((group, rows))
}

fn rows(group: &Group, committed: &Offsets, ends: Offsets) -> Vec<Progress> {
    let row = |((topic, partition), end): ((String, i32), i64)| {
        let place = (topic, partition);
        let member = group.members.iter().find(|member| member.assigned.contains(&place));
        let (offset, end) = (committed.get(&place).copied(), Some(end).filter(|end| *end >= 0));
        Progress {
            group: group.group.clone(),
            offset,
            end,
            lag: offset.zip(end).map(|(offset, end)| end.saturating_sub(offset).max(0)),
            member: member.map(|member| member.id.clone()),
            host: member.map(|member| member.host.clone()),
            client: member.map(|member| member.client_id.clone()),
            topic: place.0,
            partition,
        }
    };
    ends.into_iter().map(row).collect()
}

fn listed(output: Output, groups: &[Listed]) -> Result<String, Failure> {
    if output == Output::Json {
        let rows = groups.iter().map(|found| ListedJson {
            group: &found.group,
            protocol_type: &found.protocol_type,
            state: &found.state,
        });
        return json(&rows.collect::<Vec<_>>());
    }
    let rows: Vec<_> = groups
        .iter()
        .map(|found| vec![found.group.clone(), found.protocol_type.clone(), found.state.clone()])
        .collect();
    Ok(table(&["GROUP", "PROTOCOL", "STATE"], &rows))
}

fn described(output: Output, group: &Group, rows: &[Progress]) -> Result<String, Failure> {
    if output == Output::Json {
        let value = serde_json::json!({ "group": group.group, "state": group.state, "partitions": rows });
        return json(&value);
    }
    let text = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), |value| value.to_string());
    let cells: Vec<_> = rows
        .iter()
        .map(|row| {
            let member = row.member.clone().unwrap_or_else(|| "-".to_owned());
            let place = [row.topic.clone(), row.partition.to_string()];
            place.into_iter().chain([text(row.offset), text(row.end), text(row.lag), member]).collect()
        })
        .collect();
    let table = table(&["TOPIC", "PARTITION", "OFFSET", "END", "LAG", "MEMBER"], &cells);
    Ok(format!("Group {} is {}, with {} members.\n{table}", group.group, group.state, group.members.len()))
}

fn moved(output: Output, head: &str, offsets: &Offsets) -> Result<String, Failure> {
    if output == Output::Json {
        let rows: Vec<_> = offsets
            .iter()
            .map(|((topic, partition), offset)| {
                serde_json::json!({ "topic": topic, "partition": partition, "offset": offset })
            })
            .collect();
        return json(&rows);
    }
    let rows: Vec<_> = offsets
        .iter()
        .map(|((topic, partition), offset)| vec![topic.clone(), partition.to_string(), offset.to_string()])
        .collect();
    Ok(head.to_owned() + &table(&["TOPIC", "PARTITION", "NEW OFFSET"], &rows))
}

#[cfg(test)]
mod tests {
    use firn_client::groups::Member;

    use super::*;

    #[test]
    fn offsets_beyond_an_end_are_cut_and_told_in_the_words_of_kafka() {
        for (asked, cut, told) in [
            (
                500,
                9,
                Some(
                    "New offset (500) is higher than latest offset for topic partition t-0. Value will be set to 9",
                ),
            ),
            (
                1,
                3,
                Some(
                    "New offset (1) is lower than earliest offset for topic partition t-0. Value will be set to 3",
                ),
            ),
            (9, 9, None),
            (3, 3, None),
        ] {
            let mut offset = asked;
            assert_eq!(bring_within(&mut offset, "t-0", Some(3), Some(9)).as_deref(), told);
            assert_eq!(offset, cut);
        }
    }

    #[test]
    fn a_move_says_first_what_became_of_it() {
        let offsets = Offsets::from([(("t".to_owned(), 0), 5)]);
        let told = moved(Output::Table, "Moved group g:\n", &offsets).unwrap();
        assert_eq!(told, "Moved group g:\nTOPIC  PARTITION  NEW OFFSET\nt      0          5\n");
        assert!(moved(Output::Json, "Moved group g:\n", &offsets).unwrap().starts_with('['));
    }

    #[test]
    fn lag_needs_both_a_commit_and_an_end() {
        let place = |partition| ("orders".to_owned(), partition);
        let member = Member {
            id: "m-1".to_owned(),
            instance: None,
            client_id: "c".to_owned(),
            host: "/h".to_owned(),
            assigned: vec![place(1)],
        };
        let group = Group {
            group: "g".to_owned(),
            state: "Stable".to_owned(),
            protocol: "range".to_owned(),
            members: vec![member],
        };
        let committed = Offsets::from([(place(0), 3), (place(2), 9)]);
        let rows = rows(&group, &committed, Offsets::from([(place(0), 10), (place(1), 5), (place(2), -1)]));
        let expected = "Group g is Stable, with 1 members.\n\
                        TOPIC   PARTITION  OFFSET  END  LAG  MEMBER\n\
                        orders  0          3       10   7    -\n\
                        orders  1          -       5    -    m-1\n\
                        orders  2          9       -    -    -\n";
        assert_eq!(described(Output::Table, &group, &rows).unwrap(), expected);
    }
}
