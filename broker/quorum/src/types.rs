//! What consensus is about: entries, voters, and what an entry led to.

use std::fmt;

use firn_metadata::record::MetadataRecord;
use openraft::type_config::alias::{LogIdOf, StoredMembershipOf, VoteOf};
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// The types that openraft is told to use.
    pub Types:
        D = Change,
        R = Outcome,
        NodeId = u64,
        Node = Member,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
        // Only for what callers cannot see: errors inside of openraft.
        ErrorSource = openraft::AnyError,
);

pub type Entry = <Types as openraft::RaftTypeConfig>::Entry;
pub type LogId = LogIdOf<Types>;
pub type Membership = openraft::Membership<u64, Member>;
pub type StoredMembership = StoredMembershipOf<Types>;
pub type Vote = VoteOf<Types>;

/// One change of the metadata: what a decision came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Index of the last entry that the decision has seen. It is carried out only if it comes right behind: a decision
    /// made on an older image, by a controller that led meanwhile no more, changes nothing.
    pub after: u64,
    /// When the controller decided so, by its clock: milliseconds since the Unix epoch.
    pub at_ms: i64,
    pub records: Vec<MetadataRecord>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} records after {}", self.records.len(), self.after)
    }
}

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Applied,
    /// Other entries came in between, and nothing was changed.
    Stale,
}

/// A member of the quorum: a broker and its disk (KIP-853). Where to reach it is not part of the log: addresses change, and
/// members do not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub broker_id: i32,
    /// The id of the log directory that holds its log (`directory.id` in meta.properties).
    pub directory_id: String,
}

impl Member {
    /// What consensus knows it by. A broker whose disk was wiped is another member: it has forgotten what it voted for and
    /// what it had, so nobody may count on it as on the one before.
    pub fn id(&self) -> u64 {
        u64::from(self.broker_id.unsigned_abs()) << 32
            | u64::from(crc32c::crc32c(self.directory_id.as_bytes()))
    }
}

/// The broker of a member.
pub fn broker_of(member_id: u64) -> i32 {
    i32::try_from(member_id >> 32).unwrap_or(i32::MAX)
}

/// The term and the index of an entry.
pub fn log_id(term: u64, index: u64) -> LogId {
    LogId::new_term_index(term, index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wiped_disk_is_another_member_of_the_same_broker() {
        let member = |directory_id: &str| Member { broker_id: 7, directory_id: directory_id.to_owned() };
        let (before, after) = (member("one").id(), member("two").id());
        assert_ne!(before, after);
        assert_eq!((broker_of(before), broker_of(after)), (7, 7));
        assert_eq!(broker_of(Member { broker_id: i32::MAX, ..member("one") }.id()), i32::MAX);
    }
}
