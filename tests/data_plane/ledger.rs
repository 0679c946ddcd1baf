//! Holds what a topic gives back against what its broker acknowledged.

use std::collections::BTreeMap;

use firn_tests::librdkafka::{Dumped, Ledger, dump};

/// A topic's checked past: everything below `next` has been read once and found right.
#[derive(Debug, Default)]
pub struct History {
    next: BTreeMap<i32, i64>,
    pub acknowledged: usize,
    pub read: usize,
}

impl History {
    /// Reads what is new since the last call, and checks it against what one run of the load was told:
    /// every acknowledged record lies where its acknowledgement said, in the order of sending, none twice, no offset
    /// is missing, and nothing that an earlier call had read has gone.
    pub fn check(&mut self, address: &str, topic: &str, partitions: i32, ledger: &Ledger) {
        let found = dump(address, topic, partitions, &self.next);
        for partition in 0..partitions {
            let next = self.next.entry(partition).or_default();
            let acknowledged = ledger.acknowledged.get(&partition).map(Vec::as_slice).unwrap_or_default();
            let dumped = &found[&partition];
            if let Err(wrong) = verify(partition, *next, dumped, acknowledged) {
                panic!("partition {partition}, read from {next} to {}: {wrong}", dumped.end_offset);
            }
            self.read += dumped.records.len();
            *next = dumped.end_offset;
        }
        self.acknowledged += ledger.len();
    }
}

/// Whether a partition, read from an offset to its end, is what its producers were told. Says the first thing wrong.
fn verify(partition: i32, from: i64, dumped: &Dumped, acknowledged: &[(i64, String)]) -> Result<(), String> {
    if dumped.end_offset < from {
        return Err(format!("it ended at {from} before"));
    }
    if dumped.start_offset != 0 {
        return Err(format!("it starts at {}, and nothing was to be deleted", dumped.start_offset));
    }
    let records: BTreeMap<i64, &str> =
        dumped.records.iter().map(|(offset, value)| (*offset, value.as_str())).collect();
    for (offset, value) in acknowledged {
        match records.get(offset) {
            Some(found) if found == value => {}
            Some(found) => return Err(format!("{value} was acknowledged at {offset}, where now {found} is")),
            None => return Err(format!("{value} was acknowledged at {offset} and is lost")),
        }
    }
    if !dumped.records.iter().map(|(offset, _)| *offset).eq(from..dumped.end_offset) {
        return Err("offsets have a hole or a double".to_owned());
    }
    in_sending_order(partition, dumped)
}

/// Values are `<run>.<partition>.<number>`: within a run the numbers count up from 0, one by one.
fn in_sending_order(partition: i32, dumped: &Dumped) -> Result<(), String> {
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (offset, value) in &dumped.records {
        let parts: Vec<&str> = value.split('.').collect();
        let [run, home, number] = parts[..] else {
            return Err(format!("{value} at {offset} is no record of the load"));
        };
        if home != partition.to_string() {
            return Err(format!("{value} at {offset} is another partition's"));
        }
        let next = expected.entry(run).or_insert(0);
        if number.parse() != Ok(*next) {
            return Err(format!(
                "{value} at {offset} where number {next} was due: out of order, lost or doubled"
            ));
        }
        *next += 1;
    }
    Ok(())
}

/// A checker that has never seen a bad history is no checker: each way to go wrong is planted in a good one.
#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> (Dumped, Vec<(i64, String)>) {
        let record = |number: i64| (number, format!("77.0.{number}"));
        let dumped = Dumped { start_offset: 0, end_offset: 10, records: (0..10).map(record).collect() };
        // The last two were never acknowledged, and may be there all the same.
        (dumped, (0..8).map(record).collect())
    }

    fn wrong_with(spoil: impl FnOnce(&mut Dumped, &mut Vec<(i64, String)>)) -> String {
        let (mut dumped, mut acknowledged) = good();
        spoil(&mut dumped, &mut acknowledged);
        verify(0, 0, &dumped, &acknowledged).expect_err("the anomaly is found")
    }

    #[test]
    fn a_good_history_passes() {
        let (dumped, acknowledged) = good();
        assert_eq!(verify(0, 0, &dumped, &acknowledged), Ok(()));
    }

    #[test]
    fn every_anomaly_is_found() {
        let lost = wrong_with(|dumped, _| {
            dumped.records.truncate(5);
            dumped.end_offset = 5;
        });
        assert!(lost.contains("is lost"), "{lost}");
        let replaced = wrong_with(|dumped, _| dumped.records[3].1 = "78.0.0".to_owned());
        assert!(replaced.contains("where now"), "{replaced}");
        let doubled = wrong_with(|dumped, acknowledged| {
            dumped.records[9].1 = "77.0.8".to_owned();
            acknowledged.clear();
        });
        assert!(doubled.contains("doubled"), "{doubled}");
        let swapped = wrong_with(|dumped, acknowledged| {
            dumped.records[4].1 = "77.0.5".to_owned();
            dumped.records[5].1 = "77.0.4".to_owned();
            acknowledged.clear();
        });
        assert!(swapped.contains("out of order"), "{swapped}");
        let hole = wrong_with(|dumped, acknowledged| {
            dumped.records.remove(9);
            acknowledged.clear();
        });
        assert!(hole.contains("hole"), "{hole}");
        let foreign = wrong_with(|dumped, _| dumped.records[9].1 = "77.1.9".to_owned());
        assert!(foreign.contains("another partition"), "{foreign}");
        let start = wrong_with(|dumped, _| dumped.start_offset = 1);
        assert!(start.contains("starts at 1"), "{start}");
        let (dumped, _) = good();
        assert!(verify(0, 11, &dumped, &[]).is_err_and(|wrong| wrong.contains("ended at 11")));
    }
}
