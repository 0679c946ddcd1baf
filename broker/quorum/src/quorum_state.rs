//! `quorum-state`: whom this member voted for, and where its log begins. Kafka keeps the first under the same name.
//!
//! It is there before the first entry. So a log without it has lost it, and with it a vote that may have been given: such
//! a member could vote twice in a term, and two controllers could lead at a time. Nor may it go by a vote that has rotted: the file
//! has a checksum.

use serde::{Deserialize, Serialize};

use crate::types::{LogId, Vote, log_id};

pub(crate) const FILE: &str = "quorum-state";
const VERSION: u16 = 1;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct QuorumState {
    pub vote: Option<Vote>,
    /// The last entry that the log does not need any more, since a snapshot has it.
    pub purged: Option<LogId>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    v: u16,
    vote: Option<WrittenVote>,
    purged: Option<WrittenLogId>,
    /// Of the same without it; an earlier release wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32c: Option<u32>,
}

/// What to do with a file that cannot be relied on.
const WHAT_TO_DO: &str = "a member that does not know its votes could vote twice. If other brokers keep the metadata, move the \
     directory __cluster_metadata-0 away and start this one: it joins them as another member. If this broker is alone, \
     write {\"v\":1,\"vote\":null,\"purged\":null} into the file: there is nobody else to vote for";

/// A vote, in JSON.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WrittenVote {
    term: u64,
    voted_for: u64,
    /// A majority voted so: it is the leader.
    leads: bool,
}

impl From<&Vote> for WrittenVote {
    fn from(vote: &Vote) -> Self {
        let leader = vote.leader_id();
        Self { term: leader.term, voted_for: leader.voted_for, leads: vote.is_committed() }
    }
}

impl From<WrittenVote> for Vote {
    fn from(vote: WrittenVote) -> Self {
        let make = if vote.leads { Vote::new_committed } else { Vote::new };
        make(vote.term, vote.voted_for)
    }
}

/// The term and the index of an entry, in JSON.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WrittenLogId {
    pub term: u64,
    pub index: u64,
}

impl From<LogId> for WrittenLogId {
    fn from(id: LogId) -> Self {
        Self { term: id.committed_leader_id().term, index: id.index() }
    }
}

impl From<WrittenLogId> for LogId {
    fn from(id: WrittenLogId) -> Self {
        log_id(id.term, id.index)
    }
}

impl QuorumState {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let vote = self.vote.as_ref().map(WrittenVote::from);
        let purged = self.purged.map(WrittenLogId::from);
        let mut written = Written { v: VERSION, vote, purged, crc32c: None };
        written.crc32c = Some(crc32c::crc32c(&serde_json::to_vec(&written)?));
        serde_json::to_vec(&written)
    }

    /// The error says what is wrong with the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let damaged = |reason: String| format!("{reason}; {WHAT_TO_DO}");
        let mut written: Written =
            serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
        if let Some(noted) = written.crc32c.take() {
            let bytes = serde_json::to_vec(&written).map_err(|error| error.to_string())?;
            let computed = crc32c::crc32c(&bytes);
            if computed != noted {
                return Err(damaged(format!("its checksum is {computed}, not {noted}")));
            }
        }
        if written.v > VERSION {
            return Err(format!("it is of format {}, and this program reads up to {VERSION}", written.v));
        }
        Ok(Self { vote: written.vote.map(Vote::from), purged: written.purged.map(LogId::from) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_stays_the_same() {
        for (state, text) in [
            (QuorumState::default(), r#"{"v":1,"vote":null,"purged":null}"#),
            (
                QuorumState { vote: Some(Vote::new(3, 1)), purged: None },
                r#"{"v":1,"vote":{"term":3,"voted_for":1,"leads":false},"purged":null}"#,
            ),
            (
                QuorumState { vote: Some(Vote::new_committed(4, 2)), purged: Some(log_id(3, 17)) },
                r#"{"v":1,"vote":{"term":4,"voted_for":2,"leads":true},"purged":{"term":3,"index":17}}"#,
            ),
        ] {
            let written = String::from_utf8(state.encode().unwrap()).unwrap();
            assert!(written.starts_with(&text[..text.len() - 1]), "{written}");
            assert_eq!(QuorumState::decode(written.as_bytes()), Ok(state.clone()));
            assert_eq!(QuorumState::decode(text.as_bytes()), Ok(state), "of an earlier release");
        }
        for bad in ["", "{}", r#"{"v":2,"vote":null,"purged":null}"#, r#"{"v":1,"vote":{"term":-1}}"#] {
            assert!(QuorumState::decode(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    /// Unless what it says is the same.
    #[test]
    fn no_bit_flips_unnoticed() {
        for state in [
            QuorumState { vote: Some(Vote::new(3, 1)), purged: None },
            QuorumState { vote: Some(Vote::new_committed(4, 2)), purged: Some(log_id(3, 17)) },
        ] {
            let bytes = state.encode().unwrap();
            for bit in 0..bytes.len() * 8 {
                let mut hurt = bytes.clone();
                hurt[bit / 8] ^= 1 << (bit % 8);
                let found = QuorumState::decode(&hurt);
                let text = String::from_utf8_lossy(&hurt);
                assert!(
                    found.as_ref().is_ok_and(|found| *found == state) || found.is_err(),
                    "{text}: {found:?}"
                );
            }
        }
    }
}
