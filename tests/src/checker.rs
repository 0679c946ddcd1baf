//! Judges a history: whether a topic kept the promises that Kafka makes to idempotent producers with acks=all, to
//! consumers and to groups.
//!
//! The anomalies are those of Jepsen's Kafka workload, as far as there are no transactions, and what the invariants of
//! replication forbid besides: reading past the high watermark; a high watermark, a leader epoch, a log's start or a committed
//! offset that goes back; two leaders in one epoch. Each check is one pass over the history, so a million records are judged in
//! seconds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use crate::history::{CommitAction, Deletion, EpochSeen, FinalRead, History, Poll, Seen, Told, Value};

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Two values were seen at one offset.
    InconsistentOffset,
    /// One value was seen at two offsets.
    Duplicate,
    /// Acknowledged, below the end of the log, and not there.
    Lost,
    /// Acknowledged at or past the end of the log.
    Unseen,
    /// A consumer read it, and it is not there any more.
    Vanished,
    /// Read, and never sent, or refused.
    Phantom,
    /// One producer's records do not lie in the order of sending.
    Reordered,
    /// One producer's record lies there, and one that it sent before does not.
    SequenceGap,
    /// An offset of a log that has neither transactions nor compaction has no record.
    Hole,
    /// A consumer that nobody repositioned went back.
    NonMonotonicPoll,
    /// A consumer that nobody repositioned went past a record.
    PollSkip,
    /// The same within one poll.
    NonMonotonicInPoll,
    SkipInPoll,
    /// A consumer was given a record at or past the high watermark.
    AboveHighWatermark,
    /// A consumer saw a lower high watermark than before.
    HighWatermarkRegression,
    /// A consumer was told that the log ends before where it had been told before, or before what it had read.
    EndRegression,
    /// A group was told another offset than the one that it had committed.
    CommitRegression,
    /// Two leader epochs were seen at one offset.
    InconsistentEpoch,
    /// A record has a lower leader epoch than one before it.
    EpochRegression,
    /// Two brokers were said to lead in one epoch.
    TwoLeaders,
    /// What was said to be deleted is there.
    Undeleted,
    /// The log starts above all that anybody wanted to be deleted.
    Overdeleted,
}

impl Kind {
    pub const ALL: [Kind; 22] = [
        Kind::InconsistentOffset,
        Kind::Duplicate,
        Kind::Lost,
        Kind::Unseen,
        Kind::Vanished,
        Kind::Phantom,
        Kind::Reordered,
        Kind::SequenceGap,
        Kind::Hole,
        Kind::NonMonotonicPoll,
        Kind::PollSkip,
        Kind::NonMonotonicInPoll,
        Kind::SkipInPoll,
        Kind::AboveHighWatermark,
        Kind::HighWatermarkRegression,
        Kind::EndRegression,
        Kind::CommitRegression,
        Kind::InconsistentEpoch,
        Kind::EpochRegression,
        Kind::TwoLeaders,
        Kind::Undeleted,
        Kind::Overdeleted,
    ];
}

/// One broken promise, in words that say where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Anomaly {
    pub kind: Kind,
    pub partition: i32,
    pub what: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} in partition {}: {}", self.kind, self.partition, self.what)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.producer, self.number)
    }
}

/// Every broken promise of a history; empty if all were kept.
pub fn check(history: &History) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let mut partitions: BTreeMap<i32, Partition<'_>> = BTreeMap::new();
    for read in &history.finals {
        partitions.entry(read.partition).or_default().read = Some(read);
    }
    for send in &history.sends {
        let partition = partitions.entry(send.partition).or_default();
        partition.sent.insert(send.value, send.told);
        match send.told {
            Told::Acknowledged(Some(offset)) => {
                partition.acknowledged.push(Seen { offset, value: send.value });
            }
            Told::Acknowledged(None) => partition.unplaced.push(send.value),
            Told::Refused | Told::Nothing => {}
        }
    }
    for poll in &history.polls {
        partitions.entry(poll.partition).or_default().polls.entry(poll.consumer).or_default().push(poll);
    }
    for deletion in &history.deletions {
        partitions.entry(deletion.partition).or_default().deletions.push(*deletion);
    }
    for (index, partition) in &partitions {
        let mut report = |kind, what| found.push(Anomaly { kind, partition: *index, what });
        partition.check(&mut report);
    }
    check_commits(history, &mut found);
    check_leaders(history, &mut found);
    found
}

/// What a history says of one partition.
#[derive(Default)]
struct Partition<'a> {
    sent: HashMap<Value, Told>,
    acknowledged: Vec<Seen>,
    /// Acknowledged, and nobody was told where it lies.
    unplaced: Vec<Value>,
    /// By consumer.
    polls: BTreeMap<u32, Vec<&'a Poll>>,
    read: Option<&'a FinalRead>,
    deletions: Vec<Deletion>,
}

type Report<'a> = dyn FnMut(Kind, String) + 'a;

impl Partition<'_> {
    fn check(&self, report: &mut Report<'_>) {
        let log = self.log(report);
        self.check_contents(&log, report);
        self.check_order(&log, report);
        self.check_epochs(report);
        if let Some(read) = self.read {
            self.check_survival(read, report);
            self.check_start(read, report);
        }
        let log_start = self.read.map_or(i64::MIN, |read| read.log_start);
        for polls in self.polls.values() {
            check_polls(polls, &log, log_start, report);
        }
    }

    fn polled(&self) -> impl Iterator<Item = &Seen> {
        self.polls.values().flatten().flat_map(|poll| &poll.records)
    }

    fn read_at_last(&self) -> &[Seen] {
        self.read.map_or(&[], |read| &read.records)
    }

    /// What lies where, as far as anybody was told. The last read has the last word.
    fn log(&self, report: &mut Report<'_>) -> BTreeMap<i64, Value> {
        let mut log = BTreeMap::new();
        let mut disputed = BTreeSet::new();
        for seen in self.read_at_last().iter().chain(&self.acknowledged).chain(self.polled()) {
            let known = *log.entry(seen.offset).or_insert(seen.value);
            if known != seen.value && disputed.insert(seen.offset) {
                let what = format!("{known} and {} were both seen at offset {}", seen.value, seen.offset);
                report(Kind::InconsistentOffset, what);
            }
        }
        log
    }

    fn check_contents(&self, log: &BTreeMap<i64, Value>, report: &mut Report<'_>) {
        let mut first: HashMap<Value, i64> = HashMap::with_capacity(log.len());
        for (offset, value) in log {
            if let Some(before) = first.insert(*value, *offset) {
                report(Kind::Duplicate, format!("{value} lies at {before} and at {offset}"));
            }
        }
        let mut phantoms = BTreeSet::new();
        for seen in self.read_at_last().iter().chain(self.polled()) {
            let why = match self.sent.get(&seen.value) {
                None => "nobody sent it",
                Some(Told::Refused) => "it was refused",
                Some(_) => continue,
            };
            if phantoms.insert(seen.value) {
                report(Kind::Phantom, format!("{} was read at {}, and {why}", seen.value, seen.offset));
            }
        }
    }

    /// An idempotent producer's records lie in the order of sending, without one missing in between that was not refused.
    fn check_order(&self, log: &BTreeMap<i64, Value>, report: &mut Report<'_>) {
        let log_start = self.read.map_or(i64::MIN, |read| read.log_start);
        let mut last: HashMap<u32, u64> = HashMap::new();
        for (offset, value) in log.range(log_start..) {
            let Some(before) = last.insert(value.producer, value.number) else { continue };
            if value.number < before {
                report(Kind::Reordered, format!("{value} lies at {offset}, behind number {before}"));
                continue;
            }
            // Without a last read, what is not known to be there may be there all the same.
            if self.read.is_none() || !self.sent.contains_key(value) {
                continue;
            }
            let between = (before + 1..value.number).map(|number| Value { number, ..*value });
            let missing = between.filter(|one| self.sent.get(one).is_some_and(|told| *told != Told::Refused));
            if let Some(missing) = missing.min() {
                report(
                    Kind::SequenceGap,
                    format!("{value} lies at {offset}, and {missing} does not before it"),
                );
            }
        }
    }

    /// Leaders write one after another: their epochs rise with the offsets, and are the same to everybody.
    fn check_epochs(&self, report: &mut Report<'_>) {
        let at_last = self.read.iter().flat_map(|read| &read.epochs);
        let polled = self.polls.values().flatten().flat_map(|poll| &poll.epochs);
        let mut epochs = BTreeMap::new();
        let mut disputed = BTreeSet::new();
        for EpochSeen { offset, epoch } in at_last.chain(polled).copied() {
            let known = *epochs.entry(offset).or_insert(epoch);
            if known != epoch && disputed.insert(offset) {
                let what = format!("epochs {known} and {epoch} were both seen at offset {offset}");
                report(Kind::InconsistentEpoch, what);
            }
        }
        let mut highest = i32::MIN;
        for (offset, epoch) in epochs {
            if epoch < highest {
                report(Kind::EpochRegression, format!("epoch {epoch} at offset {offset}, behind {highest}"));
            }
            highest = highest.max(epoch);
        }
    }

    /// The log starts where it was told to, and not above.
    fn check_start(&self, read: &FinalRead, report: &mut Report<'_>) {
        let start = read.log_start;
        let done = self.deletions.iter().filter(|deletion| deletion.done).map(|deletion| deletion.before);
        if let Some(gone) = done.max().filter(|gone| start < *gone) {
            report(Kind::Undeleted, format!("the log starts at {start}, and all below {gone} was deleted"));
        }
        let asked = self.deletions.iter().map(|deletion| deletion.before).max().unwrap_or(0);
        if start > asked {
            let what =
                format!("the log starts at {start}, and nobody wanted more deleted than below {asked}");
            report(Kind::Overdeleted, what);
        }
    }

    /// What was acknowledged, or read, is there at the end, unless retention took it.
    fn check_survival(&self, read: &FinalRead, report: &mut Report<'_>) {
        let there: BTreeSet<i64> = read.records.iter().map(|seen| seen.offset).collect();
        let hole = (read.log_start..read.log_end).find(|offset| !there.contains(offset));
        if let Some(hole) = hole.filter(|_| read.dense) {
            report(Kind::Hole, format!("nothing lies at {hole}, of {} to {}", read.log_start, read.log_end));
        }
        for Seen { offset, value } in &self.acknowledged {
            if *offset >= read.log_end {
                let what =
                    format!("{value} was acknowledged at {offset}, and the log ends at {}", read.log_end);
                report(Kind::Unseen, what);
            } else if *offset >= read.log_start && !there.contains(offset) {
                report(Kind::Lost, format!("{value} was acknowledged at {offset}"));
            }
        }
        self.check_unplaced(read, report);
        let mut gone = BTreeSet::new();
        for Seen { offset, value } in self.polled() {
            if *offset >= read.log_start && !there.contains(offset) && gone.insert(*offset) {
                report(Kind::Vanished, format!("{value} was read at {offset}"));
            }
        }
    }
    /// Nobody knows where these were. If nothing was deleted, or an earlier one of the producer is still there, they are too.
    fn check_unplaced(&self, read: &FinalRead, report: &mut Report<'_>) {
        if self.unplaced.is_empty() {
            return;
        }
        let there: BTreeSet<Value> = read.records.iter().map(|seen| seen.value).collect();
        for value in self.unplaced.iter().filter(|value| !there.contains(value)) {
            let producers_first = Value { number: 0, ..*value };
            if read.log_start == 0 || there.range(producers_first..*value).next().is_some() {
                report(Kind::Lost, format!("{value} was acknowledged"));
            }
        }
    }
}

/// One consumer's polls of one partition, in their order.
fn check_polls(polls: &[&Poll], log: &BTreeMap<i64, Value>, log_start: i64, report: &mut Report<'_>) {
    // The first offset in a range where there is a record; retention may have taken those below the log's start.
    let passed = |from: i64, to: i64| {
        let from = from.max(log_start);
        (from < to).then(|| log.range(from..to).next().map(|(offset, _)| *offset)).flatten()
    };
    let mut next: Option<i64> = None;
    let (mut watermark, mut connection) = (i64::MIN, None);
    let mut end = 0;
    for poll in polls {
        let consumer = poll.consumer;
        if connection.replace(poll.connection) != Some(poll.connection) {
            watermark = i64::MIN;
        }
        if poll.repositioned {
            next = None;
        }
        for (place, seen) in poll.records.iter().enumerate() {
            let offset = seen.offset;
            if let Some(due) = next {
                let (back, skip) = match place {
                    0 => (Kind::NonMonotonicPoll, Kind::PollSkip),
                    _ => (Kind::NonMonotonicInPoll, Kind::SkipInPoll),
                };
                if offset < due {
                    report(back, format!("consumer {consumer} was at {due} and got {offset}"));
                } else if let Some(missed) = passed(due, offset) {
                    report(skip, format!("consumer {consumer} was at {due} and got {offset}, past {missed}"));
                }
            }
            next = Some(offset + 1);
            end = end.max(offset + 1);
        }
        if let Some(log_end) = poll.log_end {
            if log_end < end {
                let what =
                    format!("consumer {consumer} knew of {end}, and was told that the log ends at {log_end}");
                report(Kind::EndRegression, what);
            }
            end = end.max(log_end);
        }
        let Some(high_watermark) = poll.high_watermark else { continue };
        if let Some(seen) = poll.records.iter().find(|seen| seen.offset >= high_watermark) {
            let what =
                format!("consumer {consumer} got {} and a high watermark of {high_watermark}", seen.offset);
            report(Kind::AboveHighWatermark, what);
        }
        if high_watermark < watermark {
            let what = format!("consumer {consumer} saw {watermark}, and then {high_watermark}");
            report(Kind::HighWatermarkRegression, what);
        }
        watermark = watermark.max(high_watermark);
    }
}

/// What a coordinator may say of a group's offset in one partition.
#[derive(Default)]
struct CommittedOffset {
    /// What it said last.
    known: Option<i64>,
    /// Commits without an answer: each may be carried out at any time.
    attempted: BTreeSet<i64>,
}

fn check_commits(history: &History, found: &mut Vec<Anomaly>) {
    let mut offsets: BTreeMap<(u32, i32), CommittedOffset> = BTreeMap::new();
    for commit in &history.commits {
        let state = offsets.entry((commit.group, commit.partition)).or_default();
        match commit.action {
            CommitAction::Committed(offset) => state.known = Some(offset),
            CommitAction::Attempted(offset) => drop(state.attempted.insert(offset)),
            CommitAction::Fetched(offset) => {
                if offset != state.known && !offset.is_some_and(|offset| state.attempted.contains(&offset)) {
                    let CommittedOffset { known, attempted } = state;
                    let what = format!(
                        "group {} was told {offset:?}; it had committed {known:?}, and perhaps {attempted:?}",
                        commit.group
                    );
                    found.push(Anomaly { kind: Kind::CommitRegression, partition: commit.partition, what });
                }
                state.known = offset;
            }
        }
    }
}

fn check_leaders(history: &History, found: &mut Vec<Anomaly>) {
    let mut leaders = BTreeMap::new();
    let mut disputed = BTreeSet::new();
    for led in &history.leaders {
        let (partition, in_epoch) = (led.partition, (led.partition, led.epoch));
        let known = *leaders.entry(in_epoch).or_insert(led.broker);
        if known != led.broker && disputed.insert(in_epoch) {
            let what =
                format!("brokers {known} and {} were both said to lead in epoch {}", led.broker, led.epoch);
            found.push(Anomaly { kind: Kind::TwoLeaders, partition, what });
        }
    }
}

#[cfg(test)]
#[path = "checker_tests.rs"]
mod tests;
