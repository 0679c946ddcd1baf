//! Requests to the group coordinator and their replies, without anything of the wire.
use crate::error::GroupError;
use crate::records::CommittedOffset;
use bytes::Bytes;
use firn_model::ids::TopicId;

/// JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    pub group_id: String,
    /// Empty for a member that has no id yet.
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// True from version 4: a new dynamic member is told its id first (KIP-394).
    pub require_known_member_id: bool,
    /// True from version 9 (KIP-814).
    pub supports_skipping_assignment: bool,
    pub session_timeout_ms: i32,
    /// Negative (version 0): the session timeout serves.
    pub rebalance_timeout_ms: i32,
    pub protocol_type: String,
    /// Name and metadata, the member's favourite first.
    pub protocols: Vec<(String, Bytes)>,
    /// Fresh randomness for a new member's id.
    pub random: u128,
    /// Bytes that members of all groups may still take.
    pub room: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinReply {
    pub error: Option<GroupError>,
    pub generation: i32,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// For the leader alone: everyone's metadata of the chosen protocol.
    pub members: Vec<JoinedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub metadata: Bytes,
}

impl JoinReply {
    pub(crate) fn refused(error: GroupError, member_id: &str) -> Reply {
        Reply::Join(Self {
            error: Some(error),
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members: Vec::new(),
        })
    }
}

/// Who speaks: a member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberOfGroup {
    pub group_id: String,
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub generation: i32,
}

/// SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncRequest {
    pub member: MemberOfGroup,
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub assignments: Vec<(String, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub protocol_type: Option<String>,
    pub protocol_name: Option<String>,
    pub assignment: Bytes,
}

/// LeaveGroup; versions 0 to 2 name one member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveRequest {
    pub group_id: String,
    pub members: Vec<LeavingMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
}

/// OffsetCommit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRequest {
    /// A simple consumer has an empty member id and generation -1.
    pub member: MemberOfGroup,
    /// Versions 2 to 4; `None` or negative: the broker's retention.
    pub retention_time_ms: Option<i64>,
    pub offsets: Vec<OffsetToCommit>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetToCommit {
    pub topic: String,
    /// The topic's id at this moment.
    pub topic_id: TopicId,
    pub partition: i32,
    pub offset: i64,
    pub leader_epoch: i32,
    pub metadata: Option<String>,
}

/// One partition's outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionOutcome {
    pub topic: String,
    pub partition: i32,
    pub error: Option<GroupError>,
}

/// OffsetFetch, one group of it. The member id and epoch of version 9 say nothing in a classic group, as in Kafka's
/// `ClassicGroup.validateOffsetFetch`: anyone may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchRequest {
    pub group_id: String,
    /// `None`: every offset of the group.
    pub partitions: Option<Vec<(String, i32)>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedOffset {
    pub topic: String,
    pub partition: i32,
    /// `None`: nothing committed (offset -1 on the wire).
    pub committed: Option<CommittedOffset>,
}

/// OffsetDelete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeleteOffsetsRequest {
    pub group_id: String,
    pub partitions: Vec<(String, i32)>,
}

/// A group's state, in Kafka's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupState {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    Dead,
}

impl GroupState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    pub group_id: String,
    pub protocol_type: String,
    pub state: GroupState,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedGroup {
    pub group_id: String,
    /// `GroupIdNotFound` goes with state Dead (an error on the wire from version 6 only).
    pub error: Option<GroupError>,
    pub state: GroupState,
    pub protocol_type: String,
    /// Empty unless the group is stable.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub metadata: Bytes,
    pub assignment: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveOutcome {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub error: Option<GroupError>,
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Join(JoinReply),
    Sync(Result<Assignment, GroupError>),
    Heartbeat(Result<(), GroupError>),
    Leave(Result<Vec<LeaveOutcome>, GroupError>),
    Commit(Vec<PartitionOutcome>),
    Fetch(Vec<FetchedOffset>),
    DeleteOffsets(Result<Vec<PartitionOutcome>, GroupError>),
    List(Vec<ListedGroup>),
    Describe(Vec<DescribedGroup>),
    DeleteGroups(Vec<(String, Option<GroupError>)>),
    /// The topic's offsets are gone, or their tombstones could not be stored.
    TopicsDeleted(Result<(), GroupError>),
}

impl Reply {
    /// The same answer where what it promised could not be stored.
    pub(crate) fn failed(self, error: GroupError) -> Self {
        let outcomes = |mut outcomes: Vec<PartitionOutcome>| {
            for outcome in &mut outcomes {
                outcome.error.get_or_insert(error);
            }
            outcomes
        };
        match self {
            Self::Join(reply) => JoinReply::refused(error, &reply.member_id),
            Self::Sync(_) => Self::Sync(Err(error)),
            Self::Heartbeat(_) => Self::Heartbeat(Err(error)),
            Self::Leave(_) => Self::Leave(Err(error)),
            Self::Commit(of) => Self::Commit(outcomes(of)),
            Self::DeleteOffsets(of) => Self::DeleteOffsets(of.map(outcomes)),
            Self::DeleteGroups(mut groups) => {
                for (_, outcome) in &mut groups {
                    outcome.get_or_insert(error);
                }
                Self::DeleteGroups(groups)
            }
            Self::TopicsDeleted(_) => Self::TopicsDeleted(Err(error)),
            read @ (Self::Fetch(_) | Self::List(_) | Self::Describe(_)) => read,
        }
    }
}
