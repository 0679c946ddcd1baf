//! Who uses the cluster meanwhile: idempotent producers with acks=all, and groups that read and commit.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use firn_tests::history::{Commit, CommitAction, History, Poll, Seen};
use firn_tests::ledger::value_of;
use firn_tests::librdkafka::{Ledger, Load, member, number};
use firn_tests::process::wait_for;

/// An answer to a commit that took longer may have come when the member was out of its group already, and another had
/// asked: it tells nothing of what came first.
const PROMPT: Duration = Duration::from_secs(5);
/// Within this a group has read everything once nothing is wrong any more.
const DRAINED_DEADLINE: Duration = Duration::from_secs(300);

/// Several loads on one topic.
#[derive(Debug)]
pub struct Producers(Vec<Load>);

impl Producers {
    pub fn start(count: usize, addresses: &str, topic: &str, partitions: i32, rate: u32) -> Producers {
        let patient = ["reconnect.backoff.max.ms=500", "retry.backoff.ms=50", "socket.timeout.ms=10000"];
        let load = || Load::start(addresses, topic, partitions, 0, rate, &patient);
        Producers((0..count).map(|_| load()).collect())
    }

    pub fn acknowledged(&self) -> u64 {
        self.0.iter().map(Load::acknowledged).sum()
    }

    pub fn wait_for_more(&self, records: u64) {
        let enough = self.acknowledged() + records;
        wait_for("more acknowledgements", Duration::from_secs(300), || {
            (self.acknowledged() >= enough).then_some(())
        });
    }

    /// Ends all once everything that they have sent is acknowledged, and gives what they were told.
    pub fn end(self) -> Ledger {
        let mut all = Ledger::default();
        self.0.into_iter().for_each(|load| all.add(load.end()));
        all
    }

    /// Kills all, and gives what they had been told.
    pub fn kill(self) -> Ledger {
        let mut all = Ledger::default();
        self.0.into_iter().for_each(|load| all.add(load.kill()));
        all
    }
}

/// What a member of a group was told; times are of the machine's monotonic clock, in nanoseconds.
#[derive(Debug, Clone)]
enum Event {
    Read {
        partition: i32,
        seen: Seen,
    },
    /// It goes on where the group was.
    Began {
        partition: i32,
        offset: i64,
        ended: i64,
    },
    Committed {
        partition: i32,
        offset: i64,
        begun: i64,
        ended: i64,
    },
    /// It is not known whether the coordinator keeps it.
    Attempted {
        partition: i32,
        offset: i64,
        begun: i64,
    },
    /// What is wrong in any case.
    Strange(String),
}

#[derive(Debug)]
struct Member {
    child: Child,
    events: Arc<Mutex<Vec<Event>>>,
    reader: Option<JoinHandle<()>>,
}

fn event(line: &str) -> Option<Event> {
    let mut words = line.splitn(3, ' ');
    let (kind, partition) = (words.next()?, words.next()?.parse::<i32>().ok()?);
    let rest = words.next()?;
    if kind == "X" {
        return Some(Event::Strange(format!("partition {partition}: {rest}")));
    }
    if kind == "R" {
        let (offset, value) = rest.split_once(' ')?;
        let value = value_of(partition, number(value))?;
        return Some(Event::Read { partition, seen: Seen { offset: offset.parse().ok()?, value } });
    }
    let numbers: Vec<i64> = rest.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [offset, begun, ended] = numbers[..] else { return None };
    match kind {
        "O" => Some(Event::Began { partition, offset, ended }),
        "C" => Some(Event::Committed { partition, offset, begun, ended }),
        "T" => Some(Event::Attempted { partition, offset, begun }),
        _ => None,
    }
}

impl Member {
    fn start(addresses: &str, topic: &str, partitions: i32, group: &str) -> Member {
        let mut command = member(addresses, topic, partitions, group);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start a member");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let kept = events.clone();
        let reader = std::thread::spawn(move || {
            let mut line = String::new();
            // The line that the kill cut short tells nothing.
            while out.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
                // Values end with a zero byte.
                let text = line.trim_end_matches('\n');
                let event = event(text)
                    .unwrap_or_else(|| Event::Strange(format!("a member of a group read {text:?}")));
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                line.clear();
            }
        });
        Member { child, events, reader: Some(reader) }
    }

    /// By partition, the last offset that the coordinator keeps.
    fn committed(&self) -> BTreeMap<i32, i64> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let committed = events.iter().filter_map(|event| match event {
            Event::Committed { partition, offset, .. } => Some((*partition, *offset)),
            Event::Began { partition, offset, .. } => Some((*partition, *offset)),
            _ => None,
        });
        committed.collect()
    }

    fn end(&mut self) {
        self.child.kill().expect("kill a member");
        self.child.wait().expect("reap a member");
        if let Some(reader) = self.reader.take() {
            reader.join().expect("what it printed is read");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if self.reader.is_some() {
            self.child.kill().unwrap_or_default();
            self.child.wait().map(drop).unwrap_or_default();
        }
    }
}

/// Groups, by their members.
#[derive(Debug)]
pub struct Groups {
    groups: Vec<Vec<Member>>,
}

impl Groups {
    /// A group for each number, with so many members.
    pub fn start(members: &[usize], addresses: &str, topic: &str, partitions: i32) -> Groups {
        let group = |(place, count): (usize, &usize)| {
            let name = format!("readers-{place}");
            (0..*count).map(|_| Member::start(addresses, topic, partitions, &name)).collect()
        };
        Groups { groups: members.iter().enumerate().map(group).collect() }
    }

    /// Waits until each group has committed all of each partition, which end here.
    pub fn wait_drained(&self, ends: &BTreeMap<i32, i64>) {
        for (place, group) in self.groups.iter().enumerate() {
            let what = format!("all of the topic is read and committed by group {place}, to {ends:?}");
            wait_for(&what, DRAINED_DEADLINE, || {
                let mut committed: BTreeMap<i32, i64> = BTreeMap::new();
                for (partition, offset) in group.iter().flat_map(Member::committed) {
                    let last = committed.entry(partition).or_default();
                    *last = offset.max(*last);
                }
                ends.iter()
                    .all(|(partition, end)| committed.get(partition).copied().unwrap_or(0) >= *end)
                    .then_some(())
            });
        }
    }

    /// Ends all, and adds what they were told. Says what no history can tell.
    pub fn end(mut self, history: &mut History) -> Vec<String> {
        let mut strange = Vec::new();
        let mut consumer = 0;
        for (place, group) in self.groups.iter_mut().enumerate() {
            let mut commits = Vec::new();
            for member in group.iter_mut() {
                member.end();
                let events =
                    std::mem::take(&mut *member.events.lock().unwrap_or_else(PoisonError::into_inner));
                note(consumer, place as u32, events, history, &mut commits, &mut strange);
                consumer += 1;
            }
            commits.sort_by_key(|(when, _)| *when);
            history.commits.extend(commits.into_iter().map(|(_, commit)| commit));
            if let Some(missed) = missed(history, consumer - group.len() as u32..consumer) {
                strange.push(format!("group {place} was never given {missed}"));
            }
        }
        strange
    }
}

/// The first record that is there at the end and that none of these consumers has read.
fn missed(history: &History, consumers: std::ops::Range<u32>) -> Option<String> {
    let mut read: BTreeMap<i32, std::collections::HashSet<i64>> = BTreeMap::new();
    for poll in history.polls.iter().filter(|poll| consumers.contains(&poll.consumer)) {
        read.entry(poll.partition).or_default().extend(poll.records.iter().map(|seen| seen.offset));
    }
    history.finals.iter().find_map(|last| {
        let read = read.get(&last.partition);
        let missed =
            last.records.iter().find(|seen| !read.is_some_and(|read| read.contains(&seen.offset)))?;
        Some(format!("{} at {} of partition {}", missed.value, missed.offset, last.partition))
    })
}

/// Adds what one member was told.
fn note(
    consumer: u32,
    group: u32,
    events: Vec<Event>,
    history: &mut History,
    commits: &mut Vec<(i64, Commit)>,
    strange: &mut Vec<String>,
) {
    // By partition: where it is to go on, and what it has read since.
    let mut reading: BTreeMap<i32, Poll> = BTreeMap::new();
    let mut due: BTreeMap<i32, i64> = BTreeMap::new();
    let commit = |partition, action| Commit { group, partition, action };
    for event in events {
        match event {
            Event::Began { partition, offset, ended } => {
                let poll = Poll {
                    consumer,
                    partition,
                    repositioned: true,
                    records: Vec::new(),
                    epochs: Vec::new(),
                    high_watermark: None,
                    log_end: None,
                    connection: 0,
                };
                history.polls.extend(reading.insert(partition, poll));
                due.insert(partition, offset.max(0));
                let kept = Some(offset).filter(|offset| *offset >= 0);
                commits.push((ended, commit(partition, CommitAction::Fetched(kept))));
            }
            Event::Read { partition, seen } => {
                let Some(poll) = reading.get_mut(&partition) else {
                    strange.push(format!("consumer {consumer} was given {partition} without an assignment"));
                    continue;
                };
                if let Some(due) = due.remove(&partition).filter(|due| *due != seen.offset) {
                    let what =
                        format!("consumer {consumer} began {partition} at {due} and got {}", seen.offset);
                    strange.push(what);
                }
                poll.records.push(seen);
            }
            Event::Committed { partition, offset, begun, ended } => {
                let prompt = ended - begun <= PROMPT.as_nanos() as i64;
                let (when, action) = match prompt {
                    true => (ended, CommitAction::Committed(offset)),
                    false => (begun, CommitAction::Attempted(offset)),
                };
                commits.push((when, commit(partition, action)));
            }
            Event::Attempted { partition, offset, begun } => {
                commits.push((begun, commit(partition, CommitAction::Attempted(offset))));
            }
            Event::Strange(what) => strange.push(format!("consumer {consumer}, {what}")),
        }
    }
    history.polls.extend(reading.into_values());
}

#[cfg(test)]
mod tests {
    use firn_tests::history::Value;

    use super::*;

    #[test]
    fn what_a_member_prints_is_understood() {
        let Some(Event::Read { partition: 3, seen }) = event("R 3 17 77.3.5....\0") else {
            panic!("a record");
        };
        assert_eq!(seen, Seen { offset: 17, value: Value { producer: 77, number: 5 } });
        assert!(matches!(event("O 0 -1 10 11"), Some(Event::Began { offset: -1, ended: 11, .. })));
        assert!(matches!(event("C 0 9 10 11"), Some(Event::Committed { offset: 9, begun: 10, .. })));
        assert!(matches!(event("T 0 9 10 11"), Some(Event::Attempted { offset: 9, begun: 10, .. })));
        assert!(matches!(event("X 0 out of range"), Some(Event::Strange(_))));
        assert!(event("R 0 1 of nobody").is_none());
    }
}
