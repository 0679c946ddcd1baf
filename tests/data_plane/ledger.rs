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
            let dumped = &found[&partition];
            let next = self.next.entry(partition).or_default();
            assert!(
                dumped.end_offset >= *next,
                "partition {partition} ended at {next} and now at {}",
                dumped.end_offset
            );
            assert_eq!(dumped.start_offset, 0, "nothing was deleted from partition {partition}");
            check_offsets(partition, *next, dumped);
            check_numbers(partition, dumped);
            let records: BTreeMap<i64, &str> =
                dumped.records.iter().map(|(offset, value)| (*offset, value.as_str())).collect();
            for (offset, value) in ledger.acknowledged.get(&partition).into_iter().flatten() {
                assert_eq!(
                    records.get(offset).copied(),
                    Some(value.as_str()),
                    "acknowledged at offset {offset} of partition {partition}, which ends at {}",
                    dumped.end_offset
                );
            }
            self.read += dumped.records.len();
            *next = dumped.end_offset;
        }
        self.acknowledged += ledger.len();
    }
}

fn check_offsets(partition: i32, from: i64, dumped: &Dumped) {
    let offsets = dumped.records.iter().map(|(offset, _)| *offset);
    assert!(offsets.eq(from..dumped.end_offset), "a hole or a double in partition {partition} from {from}");
}

/// Values are `<run>.<partition>.<number>`: within a run the numbers count up from 0, one by one.
fn check_numbers(partition: i32, dumped: &Dumped) {
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (offset, value) in &dumped.records {
        let mut parts = value.split('.');
        let (run, home, number) = (parts.next(), parts.next(), parts.next());
        assert_eq!(home, Some(partition.to_string().as_str()), "{value} at {offset} is another partition's");
        let number: u64 = number.and_then(|number| number.parse().ok()).expect("a number");
        let next = expected.entry(run.expect("a run")).or_insert(0);
        assert_eq!(
            number, *next,
            "out of order, lost or doubled at offset {offset} of partition {partition}"
        );
        *next += 1;
    }
}
