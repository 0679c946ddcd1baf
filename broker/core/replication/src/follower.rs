//! Where a follower's log and its leader's part, and what the follower does about it (KIP-101, KIP-279, KIP-595).
//!
//! A log may be cut where histories differ, which epochs tell, and nowhere else: not at the high watermark, for what lies
//! above it may be committed without the follower's knowing.

/// The end of an epoch in somebody's log: the offset after its last record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    pub epoch: i32,
    pub end_offset: i64,
}

/// Where the follower's log is to be cut: the leader says that its last epoch not beyond the follower's ends at `leader`;
/// `own` gives, of the follower's log, the last epoch not beyond one, and where it ends. `None`: the leader's answer is to
/// another question, for it names an epoch beyond the follower's.
pub fn cut(leader: EpochEnd, log_end: i64, own: impl Fn(i32) -> Option<EpochEnd>) -> Option<i64> {
    // Of an epoch that the follower has not, it has nothing to keep beyond the one before.
    let known = own(leader.epoch)?;
    Some(known.end_offset.min(leader.end_offset).min(log_end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log's epochs: each with the offset after its last record.
    fn log(epochs: &'static [(i32, i64)]) -> impl Fn(i32) -> Option<EpochEnd> {
        move |wanted| {
            let known = epochs.iter().rev().find(|(epoch, _)| *epoch <= wanted);
            known.map(|(epoch, end_offset)| EpochEnd { epoch: *epoch, end_offset: *end_offset })
        }
    }

    #[test]
    fn a_log_is_cut_where_histories_differ() {
        type Row = (&'static str, EpochEnd, &'static [(i32, i64)], i64, Option<i64>);
        let table: [Row; 5] = [
            (
                "the leader's epoch ended earlier",
                EpochEnd { epoch: 3, end_offset: 70 },
                &[(2, 50), (3, 90)],
                90,
                Some(70),
            ),
            (
                "the follower's ended earlier",
                EpochEnd { epoch: 2, end_offset: 60 },
                &[(2, 50), (3, 90)],
                90,
                Some(50),
            ),
            (
                "an epoch that the leader never saw",
                EpochEnd { epoch: 1, end_offset: 40 },
                &[(1, 40), (2, 90)],
                90,
                Some(40),
            ),
            (
                "an epoch that the follower never saw",
                EpochEnd { epoch: 2, end_offset: 60 },
                &[(1, 40), (3, 90)],
                90,
                Some(40),
            ),
            ("an answer to another question", EpochEnd { epoch: 1, end_offset: 10 }, &[(2, 90)], 90, None),
        ];
        for (why, leader, own, log_end, cut) in table {
            assert_eq!(super::cut(leader, log_end, log(own)), cut, "{why}");
        }
    }
}
