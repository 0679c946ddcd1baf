//! What brokers say to each other beside Kafka's protocol: a message of the quorum's form, in a frame of Kafka's.

use std::collections::BTreeMap;
use std::fmt;

use firn_metadata::decide::DecisionError;
use firn_metadata::decide::balance::LogSize;
use firn_metadata::decide::brokers::Registration;
use firn_metadata::decide::create_topics::NewTopic;
use firn_metadata::decide::elections::{LogEnd, LogQuery};
use firn_metadata::decide::isr::{IsrError, IsrReport};
use firn_metadata::decide::producer_ids::ProducerIdBlock;
use firn_metadata::image::Partition;
use firn_metadata::incarnations::Registered;
use firn_quorum::electorate::Electorate;
use firn_quorum::types::Member;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The number of this API: far above Kafka's, and told to no client.
pub const API_KEY: i16 = 10_000;

/// What one broker asks of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Who are you?
    Standing,
    /// What do you know of me?
    Place(Member),
    /// A message of the quorum for this member, behind it.
    Quorum { to: u64 },
    /// Something for the controller.
    Controller(ControllerAsk),
    /// I follow more than I have asked for: answer the fetch of mine that waits.
    MoreToFetch { broker_id: i32 },
    /// A client's request for the controller, behind it, and the listener that it came in by.
    Client { listener: String },
    /// How far do your logs go?
    Logs(Vec<LogQuery>),
    /// How many bytes do your logs have?
    LogSizes,
    /// Where does your disk begin of what you lead in this epoch, and what is to be known of all before?
    LocalStart { topic_id: Uuid, partition: i32, leader_epoch: i32 },
}

/// What the controller is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControllerAsk {
    /// Take me into the quorum of this cluster, in the place of who had my number before.
    Join {
        cluster_id: String,
        member: Member,
        /// Where I am, should you not know.
        address: String,
        /// I am in `controller.quorum.voters`.
        votes: bool,
        /// Of my process, so that no other is taken for me. An earlier release does not tell.
        #[serde(default)]
        process: Option<Uuid>,
    },
    Register(Registration),
    /// I am here.
    Heartbeat {
        broker_id: i32,
        broker_epoch: i64,
        /// Offset after the last change of the metadata that is in force here.
        #[serde(default = "everything")]
        applied_to: i64,
        /// The disk has room for changes of the metadata.
        #[serde(default = "yes")]
        has_room: bool,
        /// A disk has room for records.
        #[serde(default = "yes")]
        takes_records: bool,
        /// So many marks this process has left in its directories.
        #[serde(default)]
        marks: u64,
    },
    /// The disk under these partitions has failed, or has not kept them: let others lead them.
    HandOver {
        broker_id: i32,
        broker_epoch: i64,
        /// It vouches for nothing of them any more, in sync or not.
        #[serde(default)]
        gives_up: bool,
        /// Each by its topic's id and its index.
        partitions: Vec<(Uuid, i32)>,
    },
    /// The disk has no room for what is written to these partitions, each by its topic's id, its index and its leader epoch: let others
    /// lead them, and do not wait for me.
    MakeWay {
        broker_id: i32,
        broker_epoch: i64,
        partitions: Vec<(Uuid, i32, i32)>,
    },
    /// I stop: let others lead.
    Leave {
        broker_id: i32,
        broker_epoch: i64,
    },
    ProducerIds {
        broker_id: i32,
    },
    CreateTopics(Vec<NewTopic>),
    /// Who is in sync with partitions that the broker leads.
    AlterPartitions {
        broker_id: i32,
        broker_epoch: i64,
        reports: Vec<IsrReport>,
    },
}

/// What a broker of an older release does not say.
const fn everything() -> i64 {
    i64::MAX
}

const fn yes() -> bool {
    true
}

/// What a broker is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Standing(Standing),
    Place(Place),
    /// The answer is behind it.
    Quorum,
    Controller(ControllerTold),
    /// The reply is behind it, and what it tells of is in the metadata up to this offset.
    Client {
        end_offset: i64,
    },
    /// That is noted.
    Noted,
    /// What of the logs is known, in the order of the question.
    Logs(Vec<Option<LogEnd>>),
    /// How many bytes the logs have, of each partition that lies there.
    LogSizes(Vec<LogSize>),
    /// Where the disk begins. The producers' state there is behind it.
    LocalStart {
        log_start_offset: i64,
        offset: i64,
        /// Each with where it began.
        leader_epochs: Vec<(i32, i64)>,
    },
    /// Ask another broker, or later.
    NotController,
    Failed(String),
}

/// What the controller says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ControllerTold {
    Joined,
    Registered {
        broker_epoch: i64,
        /// For so long nobody else is put in your place, whatever is not heard of you.
        #[serde(default = "everything")]
        lease_ms: i64,
    },
    /// You are heard of. What was decided before, and may concern you, is in the metadata up to this offset.
    Heard {
        end_offset: i64,
        #[serde(default = "everything")]
        lease_ms: i64,
    },
    Left,
    HandedOver,
    ProducerIds(ProducerIdBlock),
    /// What became of each topic.
    CreatedTopics(Vec<(String, Result<(), DecisionError>)>),
    /// What became of each report.
    AlteredPartitions(Vec<Result<Partition, IsrError>>),
    Refused(DecisionError),
}

/// Who a broker is, as far as it knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub broker_id: i32,
    /// Of the process: another at each start.
    pub process: Uuid,
    /// Of the directory that holds the metadata; not known before there is one.
    pub directory_id: Option<String>,
    pub cluster_id: Option<String>,
    /// It has belonged to a quorum.
    pub is_founded: bool,
    /// The controller, as far as it is known there, and since which term.
    pub controller: Option<i32>,
    pub controller_address: Option<String>,
    pub term: u64,
}

/// What a broker that has metadata knows of the one that asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Who says so.
    pub broker_id: i32,
    pub cluster_id: String,
    /// It is the controller, and knows all that is agreed on.
    pub leads: bool,
    /// How who asks has registered last, agreed on or not.
    pub registered: Option<Registered>,
    /// Offset after the last entry of the metadata log that the controller has known it to have, synced.
    pub had: Option<i64>,
    /// The member of the quorum that says so. An earlier release does not tell, and counts as none.
    #[serde(default)]
    pub member: u64,
    /// Who has a vote, as far as is known there, and where those are that are not listed.
    #[serde(default)]
    pub electorate: Electorate,
    #[serde(default)]
    pub addresses: BTreeMap<i32, String>,
}

/// What went wrong, where something did.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Told::Failed(reason) => f.write_str(reason),
            Told::NotController => f.write_str("it is not the controller"),
            Told::Standing(_)
            | Told::Place(_)
            | Told::Quorum
            | Told::Controller(_)
            | Told::Client { .. }
            | Told::Noted
            | Told::Logs(_)
            | Told::LogSizes(_)
            | Told::LocalStart { .. } => f.write_str("the answer is to another question"),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use firn_model::ids::TopicId;
    use firn_quorum::wire::{message, read};

    use super::*;

    /// Brokers of two releases speak with each other while a cluster is upgraded: what was said must stay what it is.
    #[test]
    fn the_format_does_not_drift() {
        let said = |ask: &Ask| {
            let bytes = message(ask, b"rest").unwrap();
            assert_eq!(read::<Ask>(&bytes).unwrap(), (ask.clone(), Bytes::from_static(b"rest")));
            String::from_utf8(bytes[4..].to_vec()).unwrap()
        };
        let beat = ControllerAsk::Heartbeat {
            broker_id: 1,
            broker_epoch: 2,
            applied_to: 3,
            has_room: true,
            takes_records: true,
            marks: 5,
        };
        assert_eq!(said(&Ask::Standing), r#"{"v":1,"message":"standing"}rest"#);
        let member = Member { broker_id: 3, directory_id: "disk".to_owned() };
        assert_eq!(
            said(&Ask::Place(member)),
            r#"{"v":1,"message":{"place":{"broker_id":3,"directory_id":"disk"}}}rest"#
        );
        let join = ControllerAsk::Join {
            cluster_id: "c".to_owned(),
            member: Member { broker_id: 3, directory_id: "disk".to_owned() },
            address: "there:1".to_owned(),
            votes: false,
            process: Some(Uuid::from_u128(1)),
        };
        assert_eq!(
            said(&Ask::Controller(join)),
            r#"{"v":1,"message":{"controller":{"join":{"cluster_id":"c","member":{"broker_id":3,"directory_id":"disk"},"address":"there:1","votes":false,"process":"00000000-0000-0000-0000-000000000001"}}}}rest"#
        );
        assert_eq!(said(&Ask::Quorum { to: 7 }), r#"{"v":1,"message":{"quorum":{"to":7}}}rest"#);
        assert_eq!(
            said(&Ask::Controller(beat)),
            r#"{"v":1,"message":{"controller":{"heartbeat":{"broker_id":1,"broker_epoch":2,"applied_to":3,"has_room":true,"takes_records":true,"marks":5}}}}rest"#
        );
        let older = message(BTreeMap::from([("heard", BTreeMap::from([("end_offset", 4)]))]), &[]).unwrap();
        let heard = ControllerTold::Heard { end_offset: 4, lease_ms: i64::MAX };
        assert_eq!(read::<ControllerTold>(&older).unwrap().0, heard);
        assert_eq!(
            said(&Ask::MoreToFetch { broker_id: 3 }),
            r#"{"v":1,"message":{"more_to_fetch":{"broker_id":3}}}rest"#
        );
        assert_eq!(
            said(&Ask::Client { listener: "INSIDE".to_owned() }),
            r#"{"v":1,"message":{"client":{"listener":"INSIDE"}}}rest"#
        );
        let query = LogQuery { topic_id: TopicId(Uuid::from_u128(1)), partition: 2 };
        assert_eq!(
            said(&Ask::Logs(vec![query])),
            r#"{"v":1,"message":{"logs":[{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partition":2}]}}rest"#
        );
        assert_eq!(said(&Ask::LogSizes), r#"{"v":1,"message":"log_sizes"}rest"#);
        let size = LogSize { topic_id: TopicId(Uuid::from_u128(1)), partition: 2, bytes: 3 };
        let bytes = message(Told::LogSizes(vec![size]), &[]).unwrap();
        assert_eq!(
            &bytes[4..],
            br#"{"v":1,"message":{"log_sizes":[{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partition":2,"bytes":3}]}}"#
        );
        let place = Told::Place(Place {
            broker_id: 3,
            cluster_id: "c".to_owned(),
            leads: false,
            registered: None,
            had: None,
            member: 7,
            electorate: Electorate::default(),
            addresses: BTreeMap::from([(4, "there:1".to_owned())]),
        });
        let bytes = message(&place, &[]).unwrap();
        assert_eq!(
            &bytes[4..],
            br#"{"v":1,"message":{"place":{"broker_id":3,"cluster_id":"c","leads":false,"registered":null,"had":null,"member":7,"electorate":{"since":null,"voters":[]},"addresses":{"4":"there:1"}}}}"#
        );
        assert_eq!(read::<Told>(&bytes).unwrap().0, place);
        let told =
            Told::Controller(ControllerTold::Refused(DecisionError::StaleBrokerEpoch("old".to_owned())));
        let bytes = message(&told, &[]).unwrap();
        assert_eq!(
            &bytes[4..],
            br#"{"v":1,"message":{"controller":{"refused":{"stale_broker_epoch":"old"}}}}"#
        );
        assert_eq!(read::<Told>(&bytes).unwrap().0, told);
    }
}
