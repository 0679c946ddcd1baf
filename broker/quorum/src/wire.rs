//! What members say to each other, in bytes; other messages between brokers have the same form.
//!
//! A message is a header, one JSON object behind its length (32 bits, big endian), and what does not fit into one: entries
//! as batches, exactly as they lie in the log, or a snapshot's file. The header begins with `v`; a reader refuses a greater
//! one than its own.

use bytes::{BufMut, Bytes, BytesMut};
use firn_records::batch::batches;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::entry;
use crate::quorum_state::{WrittenLogId, WrittenVote};
use crate::snapshot::SnapshotId;
use crate::types::{Entry, LogId, Types, Vote};

const VERSION: u16 = 1;

/// What one member asks of another.
#[derive(Debug, Clone)]
pub enum Ask {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    /// The leader, and a snapshot of its own.
    Snapshot(Vote, SnapshotId, Bytes),
    TransferLeader(TransferLeaderRequest<Types>),
}

/// What it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Append(AppendEntriesResponse<Types>),
    Vote(VoteResponse<Types>),
    Snapshot(SnapshotResponse<Types>),
    TransferLeader(TransferLeaderResponse<Types>),
}

/// Why bytes are no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    #[error("a message of {0} bytes ends in the middle")]
    CutOff(usize),
    #[error("the message is of format {0}, and this program speaks up to {VERSION}")]
    TooNew(u16),
    #[error("the message cannot be read: {0}")]
    Malformed(String),
    #[error("the message cannot be written: {0}")]
    Unwritable(String),
}

#[derive(Serialize, Deserialize)]
struct Written<M> {
    v: u16,
    message: M,
}

#[derive(Deserialize)]
struct WrittenVersion {
    v: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenAsk {
    Append { vote: WrittenVote, after: Option<WrittenLogId>, committed: Option<WrittenLogId> },
    Vote { vote: WrittenVote, last: Option<WrittenLogId>, transfer: bool },
    PreVote { vote: WrittenVote, last: Option<WrittenLogId>, transfer: bool },
    Snapshot { vote: WrittenVote, end_offset: i64, epoch: i32 },
    TransferLeader { vote: WrittenVote, to: u64, last: Option<WrittenLogId> },
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenTold {
    Appended,
    AppendedUpTo(Option<WrittenLogId>),
    Conflict,
    HigherVote(WrittenVote),
    Vote { vote: WrittenVote, granted: bool, last: Option<WrittenLogId> },
    Snapshot(WrittenVote),
    LeaderTransferred,
    VoteChanged { expected: WrittenVote, actual: WrittenVote },
    LogNotFlushed { expected: Option<WrittenLogId>, actual: Option<WrittenLogId> },
}

impl Ask {
    pub fn encode(&self) -> Result<Bytes, WireError> {
        match self {
            Ask::Append(ask) => {
                let header = WrittenAsk::Append {
                    vote: (&ask.vote).into(),
                    after: written(&ask.prev_log_id),
                    committed: written(&ask.leader_commit),
                };
                let mut batches = Vec::new();
                for entry in &ask.entries {
                    batches.extend_from_slice(&entry::encode_placed(entry).map_err(WireError::Unwritable)?);
                }
                message(header, &batches)
            }
            Ask::Vote(VoteRequest { vote, last_log_id, leadership_transfer }) => {
                let (vote, last, transfer) = (vote.into(), written(last_log_id), *leadership_transfer);
                message(WrittenAsk::Vote { vote, last, transfer }, &[])
            }
            Ask::PreVote(VoteRequest { vote, last_log_id, leadership_transfer }) => {
                let (vote, last, transfer) = (vote.into(), written(last_log_id), *leadership_transfer);
                message(WrittenAsk::PreVote { vote, last, transfer }, &[])
            }
            Ask::Snapshot(vote, SnapshotId { end_offset, epoch }, bytes) => {
                let header =
                    WrittenAsk::Snapshot { vote: vote.into(), end_offset: *end_offset, epoch: *epoch };
                message(header, bytes)
            }
            Ask::TransferLeader(ask) => {
                let (to, last) = (*ask.to_node_id(), ask.last_log_id().copied().map(WrittenLogId::from));
                message(WrittenAsk::TransferLeader { vote: ask.from_leader().into(), to, last }, &[])
            }
        }
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let (header, rest) = read(bytes)?;
        Ok(match header {
            WrittenAsk::Append { vote, after, committed } => {
                let (vote, prev_log_id): (Vote, _) = (vote.into(), after.map(LogId::from));
                let entries = entries(&rest)?;
                check_order(&vote, prev_log_id, &entries)?;
                let leader_commit = committed.map(LogId::from);
                Ask::Append(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
            }
            WrittenAsk::Vote { vote, last, transfer } => Ask::Vote(vote_request(vote, last, transfer)),
            WrittenAsk::PreVote { vote, last, transfer } => Ask::PreVote(vote_request(vote, last, transfer)),
            WrittenAsk::Snapshot { vote, end_offset, epoch } => {
                Ask::Snapshot(vote.into(), SnapshotId { end_offset, epoch }, rest)
            }
            WrittenAsk::TransferLeader { vote, to, last } => {
                Ask::TransferLeader(TransferLeaderRequest::new(vote.into(), to, last.map(LogId::from)))
            }
        })
    }
}

impl Told {
    pub fn encode(&self) -> Result<Bytes, WireError> {
        let header = match self {
            Told::Append(AppendEntriesResponse::Success) => WrittenTold::Appended,
            Told::Append(AppendEntriesResponse::PartialSuccess(last)) => {
                WrittenTold::AppendedUpTo(written(last))
            }
            Told::Append(AppendEntriesResponse::Conflict) => WrittenTold::Conflict,
            Told::Append(AppendEntriesResponse::HigherVote(vote)) => WrittenTold::HigherVote(vote.into()),
            Told::Vote(VoteResponse { vote, vote_granted, last_log_id }) => {
                WrittenTold::Vote { vote: vote.into(), granted: *vote_granted, last: written(last_log_id) }
            }
            Told::Snapshot(SnapshotResponse { vote }) => WrittenTold::Snapshot(vote.into()),
            Told::TransferLeader(Ok(())) => WrittenTold::LeaderTransferred,
            Told::TransferLeader(Err(TransferLeaderError::VoteChanged { expected, actual })) => {
                WrittenTold::VoteChanged { expected: expected.into(), actual: actual.into() }
            }
            Told::TransferLeader(Err(TransferLeaderError::LogNotFlushed { expected, actual })) => {
                WrittenTold::LogNotFlushed { expected: written(expected), actual: written(actual) }
            }
        };
        message(header, &[])
    }

    pub fn decode(bytes: &Bytes) -> Result<Self, WireError> {
        let (header, _) = read(bytes)?;
        Ok(match header {
            WrittenTold::Appended => Told::Append(AppendEntriesResponse::Success),
            WrittenTold::AppendedUpTo(last) => {
                Told::Append(AppendEntriesResponse::PartialSuccess(last.map(LogId::from)))
            }
            WrittenTold::Conflict => Told::Append(AppendEntriesResponse::Conflict),
            WrittenTold::HigherVote(vote) => Told::Append(AppendEntriesResponse::HigherVote(vote.into())),
            WrittenTold::Vote { vote, granted, last } => Told::Vote(VoteResponse {
                vote: vote.into(),
                vote_granted: granted,
                last_log_id: last.map(LogId::from),
            }),
            WrittenTold::Snapshot(vote) => Told::Snapshot(SnapshotResponse { vote: vote.into() }),
            WrittenTold::LeaderTransferred => Told::TransferLeader(Ok(())),
            WrittenTold::VoteChanged { expected, actual } => {
                let (expected, actual) = (expected.into(), actual.into());
                Told::TransferLeader(Err(TransferLeaderError::VoteChanged { expected, actual }))
            }
            WrittenTold::LogNotFlushed { expected, actual } => {
                let (expected, actual) = (expected.map(LogId::from), actual.map(LogId::from));
                Told::TransferLeader(Err(TransferLeaderError::LogNotFlushed { expected, actual }))
            }
        })
    }
}

fn written(id: &Option<LogId>) -> Option<WrittenLogId> {
    id.map(WrittenLogId::from)
}

fn vote_request(vote: WrittenVote, last: Option<WrittenLogId>, transfer: bool) -> VoteRequest<Types> {
    let mut request = VoteRequest::new(vote.into(), last.map(LogId::from));
    request.leadership_transfer = transfer;
    request
}

/// A message: what can be said in JSON, and bytes.
pub fn message<M: Serialize>(header: M, rest: &[u8]) -> Result<Bytes, WireError> {
    let unwritable = |reason: String| WireError::Unwritable(reason);
    let header = serde_json::to_vec(&Written { v: VERSION, message: header })
        .map_err(|error| unwritable(error.to_string()))?;
    let length = u32::try_from(header.len()).map_err(|error| unwritable(error.to_string()))?;
    let mut bytes = BytesMut::with_capacity(4 + header.len() + rest.len());
    bytes.put_u32(length);
    bytes.put_slice(&header);
    bytes.put_slice(rest);
    Ok(bytes.freeze())
}

/// Takes a message apart.
pub fn read<M: DeserializeOwned>(bytes: &Bytes) -> Result<(M, Bytes), WireError> {
    let cut_off = || WireError::CutOff(bytes.len());
    let (length, _) = bytes.split_first_chunk::<4>().ok_or_else(cut_off)?;
    let end = 4 + u32::from_be_bytes(*length) as usize;
    let header = bytes.get(4..end).ok_or_else(cut_off)?;
    let malformed = |error: serde_json::Error| WireError::Malformed(error.to_string());
    let WrittenVersion { v } = serde_json::from_slice(header).map_err(malformed)?;
    if v > VERSION {
        return Err(WireError::TooNew(v));
    }
    let Written { message, .. } = serde_json::from_slice(header).map_err(malformed)?;
    Ok((message, bytes.slice(end..)))
}

fn entries(bytes: &[u8]) -> Result<Vec<Entry>, WireError> {
    let mut found = batches(bytes);
    let mut entries = Vec::new();
    for batch in found.by_ref() {
        let (header, batch) = batch.map_err(|error| WireError::Malformed(error.to_string()))?;
        entries.push(entry::decode(&header, batch).map_err(WireError::Malformed)?);
    }
    match found.remainder() {
        [] => Ok(entries),
        _ => Err(WireError::CutOff(bytes.len())),
    }
}

/// That entries follow each other, and none is of a later term than who leads: openraft relies on it.
fn check_order(vote: &Vote, after: Option<LogId>, entries: &[Entry]) -> Result<(), WireError> {
    let place = |id: LogId| (id.committed_leader_id().term, id.index());
    let mut last = after.map(place);
    for (term, index) in entries.iter().map(|entry| place(entry.log_id)) {
        let follows = last.is_none_or(|(before, last)| before <= term && last.checked_add(1) == Some(index));
        if !follows || term > vote.leader_id().term {
            let reason = format!("entry {index} of term {term} does not follow (term, index) {last:?}");
            return Err(WireError::Malformed(reason));
        }
        last = Some((term, index));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use openraft::EntryPayload;
    use openraft::entry::RaftEntry;

    use super::*;
    use crate::types::{Change, log_id};

    fn asks() -> Vec<Ask> {
        let (vote, last) = (Vote::new_committed(3, 7), Some(log_id(2, 9)));
        let entries = vec![
            Entry::new(log_id(3, 10), EntryPayload::Blank),
            Entry::new(
                log_id(3, 11),
                EntryPayload::Normal(Change { after: 10, at_ms: 1, records: Vec::new() }),
            ),
        ];
        let append = |entries| AppendEntriesRequest { vote, prev_log_id: last, entries, leader_commit: None };
        vec![
            Ask::Append(append(entries)),
            Ask::Append(append(Vec::new())),
            Ask::Vote(vote_request((&vote).into(), None, false)),
            Ask::PreVote(vote_request((&vote).into(), last.map(WrittenLogId::from), true)),
            Ask::Snapshot(vote, SnapshotId { end_offset: 8, epoch: 2 }, Bytes::from_static(b"snapshot")),
            Ask::TransferLeader(TransferLeaderRequest::new(vote, 5, last)),
        ]
    }

    fn answers() -> Vec<Told> {
        let (vote, last) = (Vote::new(3, 7), Some(log_id(2, 9)));
        vec![
            Told::Append(AppendEntriesResponse::Success),
            Told::Append(AppendEntriesResponse::PartialSuccess(last)),
            Told::Append(AppendEntriesResponse::Conflict),
            Told::Append(AppendEntriesResponse::HigherVote(vote)),
            Told::Vote(VoteResponse { vote, vote_granted: true, last_log_id: last }),
            Told::Snapshot(SnapshotResponse { vote }),
            Told::TransferLeader(Ok(())),
            Told::TransferLeader(Err(TransferLeaderError::VoteChanged { expected: vote, actual: vote })),
            Told::TransferLeader(Err(TransferLeaderError::LogNotFlushed { expected: last, actual: None })),
        ]
    }

    #[test]
    fn what_is_said_is_heard() {
        for ask in asks() {
            let bytes = ask.encode().unwrap();
            assert_eq!(format!("{:?}", Ask::decode(&bytes).unwrap()), format!("{ask:?}"));
        }
        for told in answers() {
            assert_eq!(Told::decode(&told.encode().unwrap()), Ok(told));
        }
    }

    #[test]
    fn entries_that_do_not_follow_each_other_are_refused() {
        let (vote, after) = (Vote::new_committed(3, 7), Some(log_id(2, 9)));
        let blank = |(term, index)| Entry::new(log_id(term, index), EntryPayload::Blank);
        for (ids, is_read) in [
            (&[(2, 10), (3, 11)][..], true),
            (&[(2, 10), (2, 12)], false),
            (&[(2, 11)], false),
            (&[(1, 10)], false),
            (&[(3, 10), (2, 11)], false),
            (&[(4, 10)], false),
        ] {
            let entries = ids.iter().copied().map(blank).collect();
            let ask = AppendEntriesRequest { vote, prev_log_id: after, entries, leader_commit: None };
            assert_eq!(Ask::decode(&Ask::Append(ask).encode().unwrap()).is_ok(), is_read, "{ids:?}");
        }
    }

    #[test]
    fn what_is_cut_off_or_of_a_newer_format_is_refused() {
        for ask in asks() {
            let bytes = ask.encode().unwrap();
            // A snapshot says itself whether it is whole.
            let end = if matches!(ask, Ask::Snapshot(..)) { bytes.len() - 8 } else { bytes.len() };
            for length in 0..end {
                let cut = Ask::decode(&bytes.slice(..length));
                // Between two entries it is a shorter message.
                assert!(cut.is_err() || matches!(cut, Ok(Ask::Append(_))), "{ask:?} at {length}");
            }
        }
        let newer = message(serde_json::json!("appended"), &[]).unwrap();
        let newer = Bytes::from(String::from_utf8(newer.to_vec()).unwrap().replace("\"v\":1", "\"v\":2"));
        assert_eq!(Told::decode(&newer), Err(WireError::TooNew(2)));
    }
}
