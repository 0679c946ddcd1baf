//! What groups have committed, who is in them, and how they are.

use std::collections::{BTreeMap, BTreeSet};

use firn_client::cluster::{Broker, Cluster};
use firn_client::consumer::{self, Start};
use firn_client::groups::{self, Committed, Group, Member};

use super::{NAME, by_topic, remark};
use crate::command::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Offsets,
    Members,
    State,
}

type Place = (String, i32);

pub(super) async fn run(
    cluster: &Cluster,
    named: &[String],
    what: What,
    verbose: bool,
) -> Result<String, Failure> {
    let mut said = String::new();
    for name in named {
        let group = groups::describe(cluster, name).await?;
        if !worth_describing(&group, &mut said) {
            continue;
        }
        match what {
            What::Offsets => {
                let committed = groups::committed(cluster, name).await?;
                let ends = ends(cluster, &group, &committed).await?;
                said.push_str(&offsets(&group, &committed, &ends, verbose));
            }
            What::Members => said.push_str(&members(&group, verbose)),
            What::State => {
                let coordinator = cluster.find_coordinator(name).await?;
                said.push_str(&state(&group, &coordinator, verbose));
            }
        }
    }
    Ok(said)
}

/// Remarks on the state, where it explains what is missing below.
fn worth_describing(group: &Group, said: &mut String) -> bool {
    let name = &group.group;
    match group.state.as_str() {
        "Dead" => {
            said.push_str(&format!("\nError: Consumer group '{name}' does not exist.\n"));
            return false;
        }
        "Empty" => remark(&format!("\nConsumer group '{name}' has no active members.")),
        "PreparingRebalance" | "CompletingRebalance" | "Assigning" | "Reconciling" => {
            remark(&format!("\nWarning: Consumer group '{name}' is rebalancing."));
        }
        _ => {}
    }
    true
}

async fn ends(
    cluster: &Cluster,
    group: &Group,
    committed: &BTreeMap<Place, Committed>,
) -> Result<BTreeMap<Place, i64>, Failure> {
    let assigned = group.members.iter().flat_map(|member| &member.assigned);
    let places: BTreeSet<&Place> = committed.keys().chain(assigned).collect();
    let mut ends = BTreeMap::new();
    for (topic, partitions) in by_topic(places) {
        // A topic that was deleted has no end, and its offsets stay.
        if cluster.find(topic, false).await.is_err() {
            continue;
        }
        let found = consumer::offsets(cluster, topic, &partitions, Start::Latest).await?;
        ends.extend(found.into_iter().map(|(partition, end)| ((topic.to_owned(), partition), end)));
    }
    Ok(ends)
}

pub(super) fn offsets(
    group: &Group,
    committed: &BTreeMap<Place, Committed>,
    ends: &BTreeMap<Place, i64>,
    verbose: bool,
) -> String {
    let mut busy: Vec<&Member> = group.members.iter().filter(|member| !member.assigned.is_empty()).collect();
    busy.sort_by_key(|member| std::cmp::Reverse(member.assigned.len()));
    let assigned =
        busy.iter().flat_map(|member| member.assigned.iter().map(move |place| (place, Some(*member))));
    let held: BTreeSet<&Place> = assigned.clone().map(|(place, _)| place).collect();
    let rest = committed.keys().filter(|place| !held.contains(place)).map(|place| (place, None));
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let row = |(place, member): (&Place, Option<&Member>)| {
        let (offset, end) = (committed.get(place), ends.get(place));
        let lag = offset.zip(end).map(|(offset, end)| (end - offset.offset).to_string());
        let mut cells = vec![group.group.clone(), place.0.clone(), place.1.to_string()];
        if verbose {
            cells.push(or_dash(offset.and_then(|offset| Some(offset.leader_epoch?.to_string()))));
        }
        cells.push(or_dash(offset.map(|offset| offset.offset.to_string())));
        cells.extend([or_dash(end.map(i64::to_string)), or_dash(lag)]);
        cells.push(or_dash(member.map(|member| member.id.clone())));
        cells.push(or_dash(member.map(|member| member.host.clone())));
        cells.push(or_dash(member.map(|member| member.client_id.clone())));
        cells
    };
    let rows: Vec<Vec<String>> = assigned.chain(rest).map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut columns = vec![("GROUP", Some(NAME)), ("TOPIC", Some(NAME)), ("PARTITION", Some(10))];
    if verbose {
        columns.push(("LEADER-EPOCH", Some(15)));
    }
    columns.extend([("CURRENT-OFFSET", Some(15)), ("LOG-END-OFFSET", Some(15)), ("LAG", Some(15))]);
    columns.extend([("CONSUMER-ID", Some(NAME)), ("HOST", Some(NAME)), ("CLIENT-ID", None)]);
    layout(&columns, &rows)
}

pub(super) fn members(group: &Group, verbose: bool) -> String {
    let fixed = group.members.iter().any(|member| member.instance.is_some());
    let row = |member: &Member| {
        let mut cells = vec![group.group.clone(), member.id.clone()];
        if fixed {
            cells.push(member.instance.clone().unwrap_or_default());
        }
        let count = member.assigned.len().to_string();
        cells.extend([member.host.clone(), member.client_id.clone(), count]);
        if verbose {
            let dash = || "-".to_owned();
            cells.extend([dash(), assignment(member), dash(), dash()]);
        }
        cells.push(String::new());
        cells
    };
    let mut columns = vec![("GROUP", Some(NAME)), ("CONSUMER-ID", Some(NAME))];
    if fixed {
        columns.push(("GROUP-INSTANCE-ID", Some(17)));
    }
    columns.extend([("HOST", Some(NAME)), ("CLIENT-ID", Some(NAME)), ("#PARTITIONS", Some(15))]);
    if verbose {
        // Epochs and targets are those of the newer protocol (KIP-848).
        columns.extend([("CURRENT-EPOCH", Some(15)), ("CURRENT-ASSIGNMENT", Some(20))]);
        columns.extend([("TARGET-EPOCH", Some(15)), ("TARGET-ASSIGNMENT", Some(20))]);
    } else {
        // Kafka's lines go on to where the columns of --verbose would be.
        columns.push(("", None));
    }
    let rows: Vec<Vec<String>> = group.members.iter().map(row).collect();
    layout(&columns, &rows)
}

/// `topic:0,1;other:2`
fn assignment(member: &Member) -> String {
    let mut topics: BTreeMap<&String, Vec<String>> = BTreeMap::new();
    for (topic, partition) in &member.assigned {
        topics.entry(topic).or_default().push(partition.to_string());
    }
    let told = topics.iter().map(|(topic, partitions)| format!("{topic}:{}", partitions.join(",")));
    let told = told.collect::<Vec<_>>().join(";");
    if told.is_empty() { "-".to_owned() } else { told }
}

pub(super) fn state(group: &Group, coordinator: &Broker, verbose: bool) -> String {
    let strategy = if group.protocol.is_empty() { "-" } else { &group.protocol };
    let coordinator = format!("{}  ({})", coordinator.address, coordinator.id);
    let mut cells = vec![group.group.clone(), coordinator, strategy.to_owned(), group.state.clone()];
    let mut columns = vec![("GROUP", Some(NAME)), ("COORDINATOR (ID)", Some(25))];
    columns.extend([("ASSIGNMENT-STRATEGY", Some(20)), ("STATE", Some(20))]);
    if verbose {
        columns.extend([("GROUP-EPOCH", Some(15)), ("TARGET-ASSIGNMENT-EPOCH", Some(25))]);
        cells.extend(["-".to_owned(), "-".to_owned()]);
    }
    columns.push(("#MEMBERS", None));
    cells.push(group.members.len().to_string());
    layout(&columns, &[cells])
}

/// A blank line, headings and rows: one space between columns, each at least as wide as is told, and the one of no width
/// as it comes.
pub(super) fn layout(columns: &[(&str, Option<usize>)], rows: &[Vec<String>]) -> String {
    let widths: Vec<usize> = (0..)
        .zip(columns)
        .map(|(at, (_, width)): (usize, _)| {
            let widest = rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            width.map_or(0, |width| widest.fold(width, usize::max))
        })
        .collect();
    let headings: Vec<String> = columns.iter().map(|(heading, _)| (*heading).to_owned()).collect();
    let mut lines = String::from("\n");
    for row in std::iter::once(&headings).chain(rows) {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        lines.push_str(&cells.collect::<Vec<_>>().join(" "));
        lines.push('\n');
    }
    lines
}
