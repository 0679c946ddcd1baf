//! Holds what a topic gives back against what its broker acknowledged.

use std::collections::BTreeMap;

use crate::checker::check;
use crate::history::{Deletion, FinalRead, History, Seen, Send, Told, Value};
use crate::librdkafka::{Dumped, Ledger, dump};

/// A topic's checked past: everything below `next` has been read once and found right.
#[derive(Debug, Default)]
pub struct Past {
    next: BTreeMap<i32, i64>,
    pub acknowledged: usize,
    pub read: usize,
}

impl Past {
    /// Reads what is new since the last call, and checks it against what one run of the load was told:
    /// every acknowledged record lies where its acknowledgement said, in the order of sending, none twice, no offset
    /// is missing, and nothing that an earlier call had read has gone.
    pub fn check(&mut self, address: &str, topic: &str, partitions: i32, ledger: &Ledger) {
        let found = dump(address, topic, partitions, &self.next);
        let mut history = History::default();
        for partition in 0..partitions {
            let next = self.next.entry(partition).or_default();
            let dumped = &found[&partition];
            if let Err(wrong) = note(&mut history, partition, *next, dumped, ledger) {
                panic!("partition {partition}, read from {next} to {}: {wrong}", dumped.end_offset);
            }
            self.read += dumped.records.len();
            *next = dumped.end_offset;
        }
        let anomalies: Vec<String> = check(&history).iter().map(ToString::to_string).collect();
        assert!(anomalies.is_empty(), "{}", anomalies.join("\n"));
        self.acknowledged += history.acknowledged();
    }
}

/// Reads a topic from its beginning, and gives the history of it and of all that producers were told.
pub fn history(address: &str, topic: &str, partitions: i32, ledger: &Ledger) -> Result<History, String> {
    let found = dump(address, topic, partitions, &BTreeMap::new());
    let mut history = History::default();
    for partition in 0..partitions {
        let dumped = found.get(&partition).ok_or_else(|| format!("there is no partition {partition}"))?;
        note(&mut history, partition, 0, dumped, ledger)
            .map_err(|wrong| format!("partition {partition}: {wrong}"))?;
    }
    Ok(history)
}

/// Adds a partition, read from an offset to its end, to the history. Says what of it no history can tell.
fn note(
    history: &mut History,
    partition: i32,
    from: i64,
    dumped: &Dumped,
    ledger: &Ledger,
) -> Result<(), String> {
    if dumped.end_offset < from {
        return Err(format!("it ended at {from} before"));
    }
    if dumped.start_offset != 0 {
        return Err(format!("it starts at {}, and nothing was to be deleted", dumped.start_offset));
    }
    let of_load =
        |value: &String| value_of(partition, value).ok_or_else(|| format!("{value} is not of this load"));
    let seen = |(offset, value): &(i64, String)| Ok(Seen { offset: *offset, value: of_load(value)? });
    let records: Vec<Seen> = dumped.records.iter().map(seen).collect::<Result<_, String>>()?;
    let mut acknowledged: Vec<(Option<i64>, Value)> = Vec::new();
    for (offset, value) in ledger.acknowledged.get(&partition).into_iter().flatten() {
        acknowledged.push((Some(*offset), of_load(value)?));
    }
    for value in ledger.unplaced.get(&partition).into_iter().flatten() {
        acknowledged.push((None, of_load(value)?));
    }
    // The load sends each producer's numbers from 0 on, and tells of those alone whose acknowledgement came.
    let mut sent: BTreeMap<u32, Vec<Told>> = BTreeMap::new();
    let acknowledged_values = acknowledged.iter().map(|(_, value)| *value);
    for value in records.iter().map(|seen| seen.value).chain(acknowledged_values) {
        let told = sent.entry(value.producer).or_default();
        let count = usize::try_from(value.number).map_err(|error| error.to_string())? + 1;
        if told.len() < count {
            told.resize(count, Told::Nothing);
        }
    }
    for (offset, value) in acknowledged {
        sent.entry(value.producer).or_default()[value.number as usize] = Told::Acknowledged(offset);
    }
    for (producer, told) in sent {
        let first = records.iter().find(|seen| seen.value.producer == producer);
        if let Some(first) = first.filter(|first| first.value.number > 0) {
            return Err(format!("the first of producer {producer} is number {}", first.value.number));
        }
        let send = |(number, told)| Send { partition, value: Value { producer, number }, told };
        history.sends.extend((0..).zip(told).map(send));
    }
    let (log_start, log_end) = (from, dumped.end_offset);
    history.deletions.push(Deletion { partition, before: from, done: false });
    history.finals.push(FinalRead {
        partition,
        log_start,
        log_end,
        dense: true,
        records,
        epochs: Vec::new(),
    });
    Ok(())
}

/// Values are `<run>.<partition>.<number>`.
pub fn value_of(partition: i32, value: &str) -> Option<Value> {
    let [run, home, number] = value.split('.').collect::<Vec<_>>()[..] else { return None };
    let value = Value { producer: run.parse().ok()?, number: number.parse().ok()? };
    (home == partition.to_string()).then_some(value)
}

/// The checker has tests of its own; here it is what comes before it.
#[cfg(test)]
mod tests {
    use crate::checker::Kind;

    use super::*;

    fn record(number: i64) -> (i64, String) {
        (number, format!("77.0.{number}"))
    }

    fn good() -> (Dumped, Ledger) {
        let dumped = Dumped { start_offset: 0, end_offset: 10, records: (0..10).map(record).collect() };
        // The last two were never acknowledged, and may be there all the same.
        let placed = (0..8).filter(|number| *number != 4).map(record).collect();
        let acknowledged = BTreeMap::from([(0, placed)]);
        let unplaced = BTreeMap::from([(0, vec![record(4).1])]);
        (dumped, Ledger { acknowledged, unplaced, ..Ledger::default() })
    }

    fn noted(from: i64, dumped: &Dumped, ledger: &Ledger) -> Result<Vec<Kind>, String> {
        let mut history = History::default();
        note(&mut history, 0, from, dumped, ledger)?;
        Ok(check(&history).iter().map(|anomaly| anomaly.kind).collect())
    }

    #[test]
    fn a_good_history_passes_and_a_lost_record_does_not() {
        let (mut dumped, ledger) = good();
        assert_eq!(noted(0, &dumped, &ledger), Ok(vec![]));
        dumped.records.truncate(5);
        dumped.end_offset = 5;
        assert_eq!(noted(0, &dumped, &ledger), Ok(vec![Kind::Unseen; 3]));
        dumped.records.truncate(4);
        dumped.end_offset = 4;
        let found = noted(0, &dumped, &ledger);
        assert!(
            found.is_ok_and(|kinds| kinds.contains(&Kind::Lost)),
            "the one that was acknowledged somewhere"
        );
    }

    #[test]
    fn what_a_history_cannot_tell_is_found() {
        let (dumped, ledger) = good();
        let wrong = |spoil: fn(&mut Dumped)| {
            let mut spoiled = dumped.clone();
            spoil(&mut spoiled);
            noted(0, &spoiled, &ledger).unwrap_err()
        };
        let foreign = wrong(|dumped| dumped.records[9].1 = "77.1.9".to_owned());
        assert!(foreign.contains("not of this load"), "{foreign}");
        let start = wrong(|dumped| dumped.start_offset = 1);
        assert!(start.contains("starts at 1"), "{start}");
        let first = wrong(|dumped| drop(dumped.records.remove(0)));
        assert!(first.contains("is number 1"), "{first}");
        assert!(noted(11, &dumped, &Ledger::default()).is_err_and(|wrong| wrong.contains("ended at 11")));
    }
}
