//! What clients of one topic asked for and were told: the history that `checker` judges.
//!
//! Whoever records one (a load on real processes, the simulation) only notes what happened, in the order in which each
//! client saw it. An answer that never came is noted as such: what was asked for may have happened or not.

/// A record's identity: who sent it, and its place among that producer's records of one partition, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Value {
    pub producer: u32,
    pub number: u64,
}

/// What a producer was told of one record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It survives, and lies at this offset where the client was told of one.
    Acknowledged(Option<i64>),
    /// It was not written and never will be.
    Refused,
    /// Nothing, or an error that leaves it open.
    Nothing,
}

/// One record as its producer sent it. Each value is sent once; retries below are the client's own. A producer that gives
/// a record up and goes on is another producer from there on, as it is to Kafka, where it gets a new epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Send {
    pub partition: i32,
    pub value: Value,
    pub told: Told,
}

/// A record as somebody read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub offset: i64,
    pub value: Value,
}

/// The leader epoch that a batch carries, as somebody read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochSeen {
    /// The batch's first.
    pub offset: i64,
    pub epoch: i32,
}

/// Who leads a partition in an epoch, as a broker has said it of itself or of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Led {
    pub partition: i32,
    pub epoch: i32,
    pub broker: i32,
}

/// That all below an offset may go: somebody asked for it, or whoever reads at last begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    pub partition: i32,
    pub before: i64,
    /// A broker has said that it is gone.
    pub done: bool,
}

/// What one fetch gave a consumer of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Poll {
    pub consumer: u32,
    pub partition: i32,
    /// The consumer was assigned the partition, or sought a position, since its last poll of it: it may go back or skip.
    pub repositioned: bool,
    pub records: Vec<Seen>,
    /// Where the client shows them.
    pub epochs: Vec<EpochSeen>,
    /// As the response said, where the client shows it.
    pub high_watermark: Option<i64>,
    /// Where the log ends, as the consumer was told when it asked right after this.
    pub log_end: Option<i64>,
    /// Whom it had asked. Another leader may know of a lower high watermark than the one before, until its followers fetch.
    pub connection: usize,
}

/// What a group did with its position in one partition. All entries of a group and partition are in the order in which
/// they happened: one ended before the next began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Commit {
    pub group: u32,
    pub partition: i32,
    pub action: CommitAction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitAction {
    /// The coordinator said that it keeps this offset.
    Committed(i64),
    /// A commit whose answer never came.
    Attempted(i64),
    /// The coordinator's answer to the question for the committed offset; `None` if there is none.
    Fetched(Option<i64>),
}

/// A partition as it was read from its start to its end once everything had calmed down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalRead {
    pub partition: i32,
    pub log_start: i64,
    /// Exclusive.
    pub log_end: i64,
    /// Every offset has a record: there are no transactions, and nothing was compacted.
    pub dense: bool,
    pub records: Vec<Seen>,
    /// Where the client shows them.
    pub epochs: Vec<EpochSeen>,
}

/// Everything that the clients of one topic did and saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    /// Of each producer and partition, in the order of sending.
    pub sends: Vec<Send>,
    /// Of each consumer and partition, in the order of reading.
    pub polls: Vec<Poll>,
    pub commits: Vec<Commit>,
    pub leaders: Vec<Led>,
    pub deletions: Vec<Deletion>,
    /// One of each partition.
    pub finals: Vec<FinalRead>,
}

impl History {
    /// How many records producers were told to be safe.
    pub fn acknowledged(&self) -> usize {
        self.sends.iter().filter(|send| matches!(send.told, Told::Acknowledged(_))).count()
    }
}
