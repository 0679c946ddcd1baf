//! Moving groups without members: where each partition is to be read on, and doing so.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use firn_client::cluster::Cluster;
use firn_client::consumer::{self, Start};
use firn_client::error::Error;
use firn_client::groups::{self, Offsets};

use super::describe::layout;
use super::{NAME, by_topic, remark};
use crate::command::Failure;
use crate::kafka::exceptions::GROUP_NOT_FOUND;
use crate::values::datetime;

const DAY_MS: f64 = 86_400_000.0;

/// Where to, and whether to do it.
#[derive(Debug, Clone, Args)]
#[group(skip)]
pub(super) struct Move {
    /// To the first record that is still there.
    #[arg(long)]
    to_earliest: bool,
    /// Behind the last record.
    #[arg(long)]
    to_latest: bool,
    /// To what is committed.
    #[arg(long)]
    to_current: bool,
    /// To this offset.
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    to_offset: Option<i64>,
    /// On by so many, or back by so many where it is negative.
    #[arg(long, allow_negative_numbers = true)]
    shift_by: Option<i64>,
    /// To the first record at or after YYYY-MM-DDThh:mm:ss.sss, of UTC unless a zone is given.
    #[arg(long, value_parser = datetime, value_name = "TIME")]
    to_datetime: Option<i64>,
    /// To the first record that is no older than PnDTnHnMnS.
    #[arg(long, value_parser = duration, value_name = "DURATION")]
    by_duration: Option<i64>,
    /// To the offsets in this CSV file, as --export prints it.
    #[arg(long, value_name = "FILE", conflicts_with = "scope")]
    from_file: Option<PathBuf>,
    /// Only show the new offsets.
    #[arg(long, requires = "reset_offsets", conflicts_with = "execute")]
    dry_run: bool,
    /// Commit the new offsets.
    #[arg(long, requires = "reset_offsets")]
    execute: bool,
    /// Print the new offsets as CSV.
    #[arg(long, requires = "reset_offsets")]
    export: bool,
}

/// Milliseconds of `PnDTnHnMnS`.
fn duration(text: &str) -> Result<i64, String> {
    let wrong = || "expected PnDTnHnMnS, for example P1DT12H".to_owned();
    let rest = text.strip_prefix(['P', 'p']).ok_or_else(wrong)?;
    let (days, times) = rest.split_once(['T', 't']).unwrap_or((rest, ""));
    let mut total = 0.0;
    let mut found = false;
    for (part, units) in
        [(days, &[('D', DAY_MS)][..]), (times, &[('H', 3_600_000.0), ('M', 60_000.0), ('S', 1000.0)])]
    {
        let (mut rest, mut units) = (part, units.iter());
        while let Some(at) = rest.find(|letter: char| letter.is_ascii_alphabetic()) {
            let (number, after) = rest.split_at(at);
            let mut letters = after.chars();
            let unit = letters.next().map(|letter| letter.to_ascii_uppercase());
            // Units come in their order, each once.
            let (_, size) = units.find(|(known, _)| Some(*known) == unit).ok_or_else(wrong)?;
            total += number.parse::<f64>().map_err(|_| wrong())? * size;
            (rest, found) = (letters.as_str(), true);
        }
        if !rest.is_empty() {
            return Err(wrong());
        }
    }
    // Far more than any clock says, and exact up to there.
    let sound = found && total.is_finite() && total.abs() < 1e15;
    if sound { Ok(total.round() as i64) } else { Err(wrong()) }
}

/// The partitions that `topic`, or `topic:0,1`, names.
pub(super) async fn partitions_of(cluster: &Cluster, topic: &str) -> Result<Vec<(String, i32)>, Error> {
    let (name, partitions) = match topic.split_once(':') {
        Some((name, partitions)) => {
            let partitions = partitions.split(',').map(|index| index.trim().parse::<i32>());
            let partitions = partitions.collect::<Result<Vec<_>, _>>();
            (name, Some(partitions.map_err(|_| Error::Records(format!("{topic}: partitions are numbers")))?))
        }
        None => (topic, None),
    };
    let partitions = match partitions {
        Some(partitions) => partitions,
        None => cluster.find(name, false).await?.leaders.into_keys().collect(),
    };
    Ok(partitions.into_iter().map(|partition| (name.to_owned(), partition)).collect())
}

pub(super) async fn run(
    cluster: &Cluster,
    named: &[String],
    scope: Option<&[String]>,
    wanted: &Move,
) -> Result<String, Failure> {
    if scope.is_some_and(<[String]>::is_empty) && wanted.from_file.is_none() {
        return Err("One of the reset scopes should be defined: --all-topics, --topic.".into());
    }
    if !wanted.execute && !wanted.dry_run {
        remark(
            "WARN: No action will be performed as the --execute option is missing; --dry-run says so without this line.",
        );
    }
    let mut said = String::new();
    let mut plans: Vec<(&String, Offsets)> = Vec::new();
    for group in named {
        let state = match groups::describe(cluster, group).await {
            Ok(found) => found.state,
            Err(Error::Refused { code: GROUP_NOT_FOUND, .. }) => "Dead".to_owned(),
            Err(error) => return Err(error.into()),
        };
        if !matches!(state.as_str(), "Empty" | "Dead") {
            writeln!(
                said,
                "\nError: Assignments can only be reset if the group '{group}' is inactive, but the current state is {state}."
            )?;
            continue;
        }
        let offsets = plan(cluster, group, scope, wanted, &mut said).await?;
        if wanted.execute {
            groups::reset(cluster, group, &offsets).await?;
        }
        plans.push((group, offsets));
    }
    let places = plans.iter().flat_map(|(group, offsets)| {
        offsets.iter().map(move |((topic, partition), offset)| {
            vec![(*group).clone(), topic.clone(), partition.to_string(), offset.to_string()]
        })
    });
    if wanted.export {
        // One group need not be named in each line.
        let skipped = usize::from(named.len() == 1);
        for cells in places {
            let cells: Vec<String> = cells.into_iter().skip(skipped).collect();
            writeln!(said, "{}", cells.join(","))?;
        }
        said.push('\n');
        return Ok(said);
    }
    let columns =
        [("GROUP", Some(NAME)), ("TOPIC", Some(NAME)), ("PARTITION", Some(10)), ("NEW-OFFSET", None)];
    Ok(said + &layout(&columns, &places.collect::<Vec<_>>()))
}

async fn plan(
    cluster: &Cluster,
    group: &str,
    scope: Option<&[String]>,
    wanted: &Move,
    said: &mut String,
) -> Result<Offsets, Failure> {
    if let Some(path) = &wanted.from_file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        return within_logs(cluster, from_csv(&text, group)?).await;
    }
    let committed = groups::offsets(cluster, group).await?;
    let named = match scope {
        None => committed.keys().cloned().collect(),
        Some(topics) => {
            let mut named = Vec::new();
            for topic in topics {
                named.extend(partitions_of(cluster, topic).await?);
            }
            named
        }
    };
    let mut planned = Offsets::new();
    for (topic, partitions) in by_topic(&named) {
        let found = place(cluster, (topic, &partitions), &committed, wanted, said).await?;
        planned.extend(found.into_iter().map(|(partition, offset)| ((topic.to_owned(), partition), offset)));
    }
    match wanted.to_offset.is_some() || wanted.shift_by.is_some() {
        true => within_logs(cluster, planned).await,
        false => Ok(planned),
    }
}

async fn place(
    cluster: &Cluster,
    (topic, partitions): (&str, &[i32]),
    committed: &Offsets,
    wanted: &Move,
    said: &mut String,
) -> Result<BTreeMap<i32, i64>, Failure> {
    let committed = |partition: i32| committed.get(&(topic.to_owned(), partition)).copied();
    if let Some(shift) = wanted.shift_by {
        let shifted = partitions.iter().map(|partition| {
            let current = committed(*partition).ok_or_else(|| {
                format!(
                    "Cannot shift offset for partition {topic}-{partition} since there is no current committed offset"
                )
            })?;
            Ok((*partition, current.saturating_add(shift)))
        });
        return shifted.collect::<Result<_, Failure>>();
    }
    if let Some(offset) = wanted.to_offset {
        return Ok(partitions.iter().map(|partition| (*partition, offset)).collect());
    }
    let now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        i64::try_from(now).unwrap_or(i64::MAX)
    };
    let since = wanted.to_datetime.or_else(|| wanted.by_duration.map(|duration| now() - duration));
    let mut found = match since {
        Some(since) => consumer::listed(cluster, topic, partitions, since).await?,
        None if wanted.to_earliest => consumer::offsets(cluster, topic, partitions, Start::Earliest).await?,
        None if wanted.to_latest => BTreeMap::new(),
        None => partitions.iter().filter_map(|index| Some((*index, committed(*index)?))).collect(),
    };
    found.retain(|_, offset| *offset >= 0);
    let missing: Vec<i32> =
        partitions.iter().copied().filter(|partition| !found.contains_key(partition)).collect();
    if since.is_some() {
        for partition in &missing {
            writeln!(
                said,
                "\nWarn: Partition {partition} from topic {topic} is empty. Falling back to latest known offset."
            )?;
        }
    }
    found.extend(consumer::offsets(cluster, topic, &missing, Start::Latest).await?);
    Ok(found)
}

/// Offsets beyond either end of a log are moved to that end, with the warning of Kafka's tool.
async fn within_logs(cluster: &Cluster, offsets: Offsets) -> Result<Offsets, Failure> {
    let (within, cut) = crate::group::within_logs(cluster, offsets).await?;
    cut.iter().for_each(|told| remark(&format!("WARN {told}")));
    Ok(within)
}

/// `topic,partition,offset` in each line, with the group's name before it where there are several.
fn from_csv(text: &str, group: &str) -> Result<Offsets, Failure> {
    let mut offsets = Offsets::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let wrong = || format!("{line}: expected topic,partition,offset");
        let mut cells: Vec<&str> = line.split(',').map(str::trim).collect();
        if cells.len() == 4 && cells.remove(0) != group {
            continue;
        }
        let [topic, partition, offset] = cells[..] else { return Err(wrong().into()) };
        let partition = partition.parse().map_err(|_| wrong())?;
        offsets.insert((topic.to_owned(), partition), offset.parse().map_err(|_| wrong())?);
    }
    Ok(offsets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_of_days_hours_minutes_and_seconds() {
        for (text, expected) in
            [("P1D", 86_400_000), ("PT1H", 3_600_000), ("P1DT2H3M4.5S", 93_784_500), ("PT30S", 30_000)]
        {
            assert_eq!(duration(text), Ok(expected), "{text}");
        }
        for text in ["P", "PT", "1D", "P1H", "PT1D", "PT1M2H", "P1DT2", "PTxS", "PT1e300S"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_may_speak_of_several_groups() {
        let expected = Offsets::from([(("t".to_owned(), 0), 5)]);
        assert_eq!(from_csv("t,0,5\n\n", "g").unwrap(), expected);
        assert_eq!(from_csv("g,t,0,5\nh,t,0,6\n", "g").unwrap(), expected);
        assert!(from_csv("t,0", "g").is_err() && from_csv("t,zero,5", "g").is_err());
    }
}
