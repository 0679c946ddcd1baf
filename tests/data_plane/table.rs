//! Holds what a compacted topic gives back against what its broker acknowledged.

use std::collections::BTreeMap;

use firn_tests::librdkafka::{Dumped, Ledger, dump};

/// A partition's key, and where and what its last record is.
type Last = BTreeMap<(i32, u64), (i64, String)>;

/// What every key has had at last, by acknowledgements and by earlier reads.
#[derive(Debug)]
pub struct Table {
    keys: u64,
    last: Last,
    pub acknowledged: usize,
}

impl Table {
    /// Of a load with this number of keys in each partition.
    pub fn of(keys: u64) -> Table {
        Table { keys, last: Last::new(), acknowledged: 0 }
    }

    /// Adds what one run of the load was told, reads the topic from its beginning, and checks that each key has its last
    /// acknowledged value, or one that was sent later and never acknowledged.
    pub fn check(&mut self, address: &str, topic: &str, partitions: i32, ledger: &Ledger) {
        for (partition, acknowledged) in &ledger.acknowledged {
            for (offset, value) in acknowledged {
                let (_, key) = home_and_key(value, self.keys);
                let newest = self.last.entry((*partition, key)).or_default();
                if newest.1.is_empty() || newest.0 < *offset {
                    *newest = (*offset, value.clone());
                }
            }
        }
        self.acknowledged += ledger.len();
        let found = dump(address, topic, partitions, &BTreeMap::new());
        match verify(&self.last, &found, self.keys) {
            Ok(now) => self.last = now,
            Err(wrong) => panic!("{topic}: {wrong}"),
        }
    }
}

/// Values are `<run>.<partition>.<number>`, and the key is the number modulo all keys.
fn home_and_key(value: &str, keys: u64) -> (i32, u64) {
    let parts: Vec<&str> = value.split('.').collect();
    let [_, home, number] = parts[..] else { panic!("{value} is no record of the load") };
    (home.parse().expect("a partition"), number.parse::<u64>().expect("a number") % keys)
}

/// Gives what each key has now. Says the first thing wrong.
fn verify(last: &Last, found: &BTreeMap<i32, Dumped>, keys: u64) -> Result<Last, String> {
    let mut now = Last::new();
    for (partition, dumped) in found {
        let mut before = -1;
        for (offset, value) in &dumped.records {
            let (home, key) = home_and_key(value, keys);
            if home != *partition || *offset <= before {
                return Err(format!("{value} is at {offset} of partition {partition}, after {before}"));
            }
            before = *offset;
            now.insert((*partition, key), (*offset, value.clone()));
        }
    }
    for ((partition, key), (offset, value)) in last {
        let Some((found_at, found)) = now.get(&(*partition, *key)) else {
            return Err(format!("key {key} of partition {partition}, {value} at {offset}, is lost"));
        };
        if found_at < offset || (found_at == offset && found != value) {
            return Err(format!(
                "key {key} of partition {partition} was {value} at {offset} and is {found} at {found_at}"
            ));
        }
    }
    Ok(now)
}

/// Each way to go wrong is planted in a good table.
#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_with(spoil: impl FnOnce(&mut Vec<(i64, String)>)) -> Result<Last, String> {
        let record = |number: i64| (number, format!("77.0.{number}"));
        let last = (4..8).map(|number| ((0, number as u64 % 4), record(number))).collect();
        let mut records: Vec<_> = (4..8).map(record).collect();
        spoil(&mut records);
        let dumped = Dumped { start_offset: 0, end_offset: 20, records };
        verify(&last, &BTreeMap::from([(0, dumped)]), 4)
    }

    #[test]
    fn every_anomaly_is_found() {
        assert!(wrong_with(|_| {}).is_ok());
        let later = |records: &mut Vec<(i64, String)>| records.push((12, "78.0.3".to_owned()));
        assert!(wrong_with(later).is_ok_and(|now| now[&(0, 3)].0 == 12), "a later value is no loss");
        let lost = wrong_with(|records| drop(records.remove(1))).expect_err("a key is gone");
        assert!(lost.contains("is lost"), "{lost}");
        let stale = wrong_with(|records| records[0] = (0, "77.0.0".to_owned())).expect_err("an old value");
        assert!(stale.contains("was 77.0.4 at 4 and is 77.0.0 at 0"), "{stale}");
        let other = wrong_with(|records| records[0].1 = "78.0.0".to_owned()).expect_err("another value");
        assert!(other.contains("and is 78.0.0 at 4"), "{other}");
        let doubled = wrong_with(|records| records[1].0 = 4).expect_err("an offset twice");
        assert!(doubled.contains("after 4"), "{doubled}");
    }
}
