//! A checker that has never seen a bad history is no checker: every anomaly is planted in good ones and found, and good
//! ones are let pass.

use fastrand::Rng;

use super::*;
use crate::history::{Commit, CommitAction, Led, Send};

const CLEAN_HISTORIES: u64 = 1_000;
const PLANTS_EACH: usize = 50;
const PARTITIONS: i32 = 2;
const PRODUCERS: u32 = 3;
const CONSUMERS: u32 = 3;

/// A history of a topic that keeps every promise, with lost answers, refusals, retention, seeks and slow readers.
fn clean(seed: u64) -> History {
    let mut rng = Rng::with_seed(seed);
    let mut history = History::default();
    for partition in 0..PARTITIONS {
        let log = produce(&mut rng, partition, &mut history.sends);
        let log_end = log.len() as i64;
        for consumer in 0..CONSUMERS {
            consume(&mut rng, partition, consumer, &log, &mut history.polls);
        }
        commit(&mut rng, partition, log_end, &mut history.commits);
        let log_start = delete(&mut rng, partition, log_end, &mut history.deletions);
        let records = log[log_start as usize..].to_vec();
        let epochs = Vec::new();
        history.finals.push(FinalRead { partition, log_start, log_end, dense: true, records, epochs });
        lead(&mut rng, partition, log_end, &mut history);
    }
    history
}

/// Deletes the beginning of a log, in steps, of which some fail; returns where it starts then.
fn delete(rng: &mut Rng, partition: i32, log_end: i64, deletions: &mut Vec<Deletion>) -> i64 {
    let mut start = 0;
    for _ in 0..rng.usize(..4) {
        let before = rng.i64(start..=log_end / 3);
        let done = rng.bool();
        deletions.push(Deletion { partition, before, done });
        // What failed may have been done all the same.
        if done || rng.bool() {
            start = before;
        }
    }
    start
}

/// One leader after another, each of an epoch of its own, as everybody sees in the batches, of two records each.
fn lead(rng: &mut Rng, partition: i32, log_end: i64, history: &mut History) {
    let mut epochs = Vec::new();
    let mut epoch = 0;
    for _ in 0..log_end {
        if epochs.is_empty() || rng.u8(..12) == 0 {
            epoch += rng.i32(1..3);
            let led = Led { partition, epoch, broker: rng.i32(0..3) };
            history.leaders.extend(std::iter::repeat_n(led, rng.usize(1..4)));
        }
        epochs.push(epoch);
    }
    let seen = |records: &[Seen]| {
        let firsts = records.iter().map(|seen| seen.offset / 2 * 2);
        let mut firsts: Vec<i64> = firsts.collect();
        firsts.dedup();
        firsts.into_iter().map(|offset| EpochSeen { offset, epoch: epochs[offset as usize] }).collect()
    };
    for poll in history.polls.iter_mut().filter(|poll| poll.partition == partition) {
        poll.epochs = seen(&poll.records);
    }
    for read in history.finals.iter_mut().filter(|read| read.partition == partition) {
        read.epochs = seen(&read.records);
    }
}

/// Producers in turn, each told of its records what befits them.
fn produce(rng: &mut Rng, partition: i32, sends: &mut Vec<Send>) -> Vec<Seen> {
    let mut log = Vec::new();
    let mut next = [0; PRODUCERS as usize];
    for _ in 0..rng.usize(30..90) {
        let producer = rng.u32(0..PRODUCERS);
        let number = next[producer as usize];
        next[producer as usize] += 1;
        let value = Value { producer, number };
        let offset = log.len() as i64;
        let told = match rng.u8(0..10) {
            0 => Told::Refused,
            1 | 2 => Told::Nothing,
            3 => Told::Acknowledged(None),
            _ => Told::Acknowledged(Some(offset)),
        };
        if told != Told::Refused {
            log.push(Seen { offset, value });
        }
        sends.push(Send { partition, value, told });
    }
    // The answers to the last ones never came, and the records neither.
    for producer in 0..PRODUCERS {
        let value = Value { producer, number: next[producer as usize] };
        sends.push(Send { partition, value, told: Told::Nothing });
    }
    log
}

/// One consumer that follows a log as it grows, and now and then seeks.
fn consume(rng: &mut Rng, partition: i32, consumer: u32, log: &[Seen], polls: &mut Vec<Poll>) {
    let (mut position, mut high_watermark, mut repositioned) = (0, 0, true);
    while position < log.len() {
        high_watermark = rng.usize(high_watermark.max(position)..=log.len());
        let until = rng.usize(position..=high_watermark.min(position + 8));
        let records = log[position..until].to_vec();
        let log_end = rng.bool().then_some(high_watermark as i64);
        let high_watermark = rng.u8(0..4).gt(&0).then_some(high_watermark as i64);
        polls.push(Poll {
            consumer,
            partition,
            repositioned,
            records,
            epochs: Vec::new(),
            high_watermark,
            log_end,
            connection: 0,
        });
        position = until;
        repositioned = rng.u8(0..12) == 0;
        if repositioned {
            position = rng.usize(0..=position);
        }
    }
}

fn commit(rng: &mut Rng, partition: i32, log_end: i64, commits: &mut Vec<Commit>) {
    for group in 0..2 {
        let mut push = |action| commits.push(Commit { group, partition, action });
        push(CommitAction::Fetched(None));
        let (mut known, mut offset) = (None, 0);
        while offset < log_end {
            offset += rng.i64(1..8);
            match rng.u8(0..4) {
                0 => {
                    push(CommitAction::Attempted(offset));
                    if rng.bool() {
                        known = Some(offset);
                    }
                }
                _ => {
                    push(CommitAction::Committed(offset));
                    known = Some(offset);
                }
            }
            push(CommitAction::Fetched(known));
        }
    }
}

impl History {
    /// Every record that anybody saw at the end or while polling.
    fn everything_seen(&mut self, partition: i32) -> impl Iterator<Item = &mut Vec<Seen>> {
        let finals = self.finals.iter_mut().filter(move |read| read.partition == partition);
        let polls = self.polls.iter_mut().filter(move |poll| poll.partition == partition);
        finals.map(|read| &mut read.records).chain(polls.map(|poll| &mut poll.records))
    }

    fn forget(&mut self, partition: i32, gone: impl Fn(i64) -> bool) {
        for records in self.everything_seen(partition) {
            records.retain(|seen| !gone(seen.offset));
        }
    }

    /// What a producer was told of the record at an offset.
    fn told(&mut self, partition: i32, value: Value) -> &mut Told {
        let send = self.sends.iter_mut().find(|send| (send.partition, send.value) == (partition, value));
        &mut send.expect("it was sent").told
    }

    /// A place of the last read, away from its ends.
    fn place(&self, rng: &mut Rng, partition: i32) -> Option<Seen> {
        let records = &self.finals[partition as usize].records;
        (records.len() > 8).then(|| records[rng.usize(3..records.len() - 3)])
    }

    /// A poll that fits, by its place.
    fn poll(&self, rng: &mut Rng, fits: impl Fn(&Poll) -> bool) -> Option<usize> {
        let places: Vec<usize> = (0..self.polls.len()).filter(|place| fits(&self.polls[*place])).collect();
        (!places.is_empty()).then(|| places[rng.usize(0..places.len())])
    }

    /// A poll that goes on where another ended, and what that one ended with.
    fn poll_that_goes_on(&self, rng: &mut Rng, records_min: usize) -> Option<(usize, Seen)> {
        let place = self.poll(rng, |poll| !poll.repositioned && poll.records.len() >= records_min)?;
        let poll = &self.polls[place];
        let same = |other: &&Poll| (other.partition, other.consumer) == (poll.partition, poll.consumer);
        let mut before = self.polls[..place].iter().filter(same).rev();
        // The last one with records, if nobody has sought since.
        let last = before.find(|other| other.repositioned || !other.records.is_empty())?.records.last()?;
        (last.offset + 1 == poll.records[0].offset).then_some((place, *last))
    }

    /// Plants an anomaly of this kind; `None` where this history has no place for it.
    fn plant(&mut self, rng: &mut Rng, kind: Kind) -> Option<()> {
        let partition = rng.i32(0..PARTITIONS);
        let index = partition as usize;
        match kind {
            Kind::InconsistentOffset => {
                let other = self.place(rng, partition)?.value;
                let place = self.poll(rng, |poll| poll.partition == partition && !poll.records.is_empty())?;
                let seen = &mut self.polls[place].records[0];
                (seen.value != other).then(|| seen.value = other)?;
            }
            Kind::Duplicate => {
                let value = self.place(rng, partition)?.value;
                let read = &mut self.finals[index];
                read.records.push(Seen { offset: read.log_end, value });
                read.log_end += 1;
            }
            Kind::Lost => {
                let gone = self.place(rng, partition)?;
                let read = &self.finals[index];
                let first = read.records.iter().find(|seen| seen.value.producer == gone.value.producer)?;
                let may_be_deleted = read.log_start > 0 && first.value == gone.value;
                match self.told(partition, gone.value) {
                    Told::Acknowledged(Some(_)) => {}
                    Told::Acknowledged(None) if !may_be_deleted => {}
                    _ => return None,
                }
                self.forget(partition, |offset| offset == gone.offset);
            }
            Kind::Unseen => {
                let last = *self.finals[index].records.last()?;
                *self.told(partition, last.value) = Told::Acknowledged(Some(last.offset));
                self.forget(partition, |offset| offset >= last.offset);
                self.finals[index].log_end = last.offset;
            }
            Kind::Vanished => {
                let gone = self.place(rng, partition)?;
                *self.told(partition, gone.value) = Told::Nothing;
                self.finals[index].records.retain(|seen| seen.offset != gone.offset);
            }
            Kind::Phantom => {
                let place = self.poll(rng, |poll| !poll.records.is_empty())?;
                let poll = &mut self.polls[place];
                let (partition, seen) = (poll.partition, &mut poll.records[0]);
                if rng.bool() {
                    seen.value.number += 1_000_000;
                } else {
                    let value = seen.value;
                    *self.told(partition, value) = Told::Refused;
                }
            }
            Kind::Reordered => self.swap_two_of_one_producer(rng, partition)?,
            Kind::SequenceGap => {
                let gone = self.place(rng, partition)?;
                let read = &self.finals[index].records;
                let own = |seen: &&Seen| seen.value.producer == gone.value.producer;
                let (first, last) = (read.iter().find(own)?.value, read.iter().rfind(own)?.value);
                (first < gone.value && gone.value < last).then_some(())?;
                *self.told(partition, gone.value) = Told::Nothing;
                self.forget(partition, |offset| offset == gone.offset);
            }
            Kind::Hole => {
                let gone = self.place(rng, partition)?;
                self.forget(partition, |offset| offset == gone.offset);
            }
            Kind::NonMonotonicPoll => {
                let (place, last) = self.poll_that_goes_on(rng, 1)?;
                self.polls[place].records.insert(0, last);
            }
            Kind::PollSkip => {
                let (place, last) = self.poll_that_goes_on(rng, 2)?;
                let poll = &mut self.polls[place];
                let read = &self.finals[poll.partition as usize];
                (last.offset + 1 >= read.log_start).then(|| poll.records.remove(0))?;
            }
            Kind::NonMonotonicInPoll => {
                let place = self.poll(rng, |poll| poll.records.len() >= 2)?;
                let records = &mut self.polls[place].records;
                let at = rng.usize(1..records.len());
                records.swap(at - 1, at);
            }
            Kind::SkipInPoll => {
                let place = self.poll(rng, |poll| poll.records.len() >= 3)?;
                let poll = &mut self.polls[place];
                let at = rng.usize(1..poll.records.len() - 1);
                let gone = poll.records.remove(at);
                (gone.offset >= self.finals[poll.partition as usize].log_start).then_some(())?;
            }
            Kind::AboveHighWatermark => {
                let place = self.poll(rng, |poll| !poll.records.is_empty())?;
                let poll = &mut self.polls[place];
                let at = rng.usize(0..poll.records.len());
                poll.high_watermark = Some(poll.records[at].offset);
            }
            Kind::HighWatermarkRegression => {
                let place = self.poll(rng, |poll| poll.high_watermark.is_some_and(|mark| mark > 0))?;
                let Poll { high_watermark, .. } = self.polls[place];
                let lower = Poll {
                    high_watermark: high_watermark.map(|mark| mark - 1),
                    records: Vec::new(),
                    ..self.polls[place].clone()
                };
                self.polls.insert(place + 1, lower);
            }
            Kind::EndRegression => {
                let place = self.poll(rng, |poll| poll.log_end.is_some() && !poll.records.is_empty())?;
                let poll = &mut self.polls[place];
                poll.log_end = poll.records.last().map(|seen| seen.offset);
            }
            Kind::CommitRegression => {
                let asked = |commit: &&mut Commit| matches!(commit.action, CommitAction::Fetched(Some(_)));
                let mut asked: Vec<&mut Commit> = self.commits.iter_mut().filter(asked).collect();
                let at = rng.usize(0..asked.len());
                asked[at].action = CommitAction::Fetched(Some(-1));
            }
            Kind::InconsistentEpoch => {
                let place = self.poll(rng, |poll| {
                    let read = &self.finals[poll.partition as usize];
                    let also_read = |seen: &EpochSeen| seen.offset >= read.log_start;
                    poll.epochs.first().is_some_and(also_read)
                })?;
                self.polls[place].epochs[0].epoch += 1;
            }
            Kind::EpochRegression => {
                let epochs = &mut self.finals[index].epochs;
                let (first, at) = (epochs.first()?.epoch, rng.usize(1..epochs.len()));
                let offset = epochs[at].offset;
                let everywhere = self.polls.iter_mut().filter(|poll| poll.partition == partition);
                let polled = everywhere.flat_map(|poll| &mut poll.epochs);
                for seen in self.finals[index].epochs.iter_mut().chain(polled) {
                    if seen.offset == offset {
                        seen.epoch = first - 1;
                    }
                }
            }
            Kind::TwoLeaders => {
                let at = rng.usize(..self.leaders.len());
                let led = self.leaders[at];
                self.leaders.push(Led { broker: led.broker + 1, ..led });
            }
            Kind::Undeleted => {
                let before = self.finals[index].log_start + 1;
                self.deletions.push(Deletion { partition, before, done: true });
            }
            Kind::Overdeleted => {
                let asked = self.deletions.iter().filter(|deletion| deletion.partition == partition);
                let asked = asked.map(|deletion| deletion.before).max().unwrap_or(0);
                let read = &mut self.finals[index];
                read.log_start = asked + 1;
                read.records.retain(|seen| seen.offset > asked);
            }
        }
        Some(())
    }

    /// Exchanges two neighbours of one producer wherever they are seen or acknowledged.
    fn swap_two_of_one_producer(&mut self, rng: &mut Rng, partition: i32) -> Option<()> {
        let one = self.place(rng, partition)?;
        let records = &self.finals[partition as usize].records;
        let after = |seen: &&Seen| seen.offset > one.offset && seen.value.producer == one.value.producer;
        let other = *records.iter().find(after)?;
        for seen in self.everything_seen(partition).flatten() {
            if seen.value == one.value {
                seen.value = other.value;
            } else if seen.value == other.value {
                seen.value = one.value;
            }
        }
        for (value, offset) in [(one.value, other.offset), (other.value, one.offset)] {
            let told = self.told(partition, value);
            if matches!(told, Told::Acknowledged(Some(_))) {
                *told = Told::Acknowledged(Some(offset));
            }
        }
        Some(())
    }
}

#[test]
fn clean_histories_pass() {
    let mut acknowledged = 0;
    for seed in 0..CLEAN_HISTORIES {
        let history = clean(seed);
        let found = check(&history);
        assert!(found.is_empty(), "seed {seed}: {}", found[0]);
        acknowledged += history.acknowledged();
    }
    assert!(acknowledged > 50_000, "only {acknowledged} were acknowledged: the histories say nothing");
}

#[test]
fn every_anomaly_is_found_wherever_it_is_planted() {
    for kind in Kind::ALL {
        let mut planted = 0;
        for seed in 0..CLEAN_HISTORIES {
            if planted == 2 * PLANTS_EACH {
                break;
            }
            let mut history = clean(seed);
            if history.plant(&mut Rng::with_seed(!seed), kind).is_none() {
                continue;
            }
            planted += 1;
            let found = check(&history);
            assert!(
                found.iter().any(|anomaly| anomaly.kind == kind),
                "seed {seed}, {kind:?}: found {found:?}"
            );
        }
        assert!(planted >= PLANTS_EACH, "{kind:?} was planted only {planted} times");
    }
}

#[test]
fn a_commit_without_an_answer_may_come_late_and_nothing_else_may() {
    let told = |actions: &[CommitAction]| {
        let commits =
            actions.iter().map(|action| Commit { group: 0, partition: 0, action: *action }).collect();
        check(&History { commits, ..History::default() }).len()
    };
    use CommitAction::{Attempted, Committed, Fetched};
    assert_eq!(told(&[Fetched(None), Attempted(5), Fetched(None), Fetched(Some(5))]), 0);
    assert_eq!(told(&[Committed(3), Attempted(5), Committed(7), Fetched(Some(5))]), 0);
    assert_eq!(told(&[Committed(3), Attempted(5), Fetched(Some(5)), Fetched(Some(3))]), 1);
    assert_eq!(told(&[Committed(3), Committed(4), Fetched(Some(3))]), 1);
    assert_eq!(told(&[Committed(3), Fetched(None)]), 1);
}
