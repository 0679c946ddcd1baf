//! A broker in this process on a disk that forgets what was not synced, and a client of it over loopback.

#[path = "../topics/mod.rs"]
mod topics;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn::environment::Environment;
use firn::node::{Node, StartError};
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::fetch_response::FetchResponse;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::produce_response::PartitionProduceResponse;
use firn_protocol::library::messages::{DeleteTopicsRequest, FetchRequest, ProduceRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_records::batch::{self, HEADER_LENGTH};
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_records::record::records;
use firn_storage::simulated::{PowerCut, SimulatedDisk};
use uuid::Uuid;

pub use topics::create_topic;

pub const TOPIC: &str = "ledger";

/// A broker, a client of it, and the id of its one topic.
pub struct World {
    pub disk: SimulatedDisk,
    pub node: Node,
    pub client: Connection,
    pub topic_id: Uuid,
}

pub async fn try_start_on(disk: SimulatedDisk) -> Result<Node, StartError> {
    try_start_in("/data", disk).await
}

pub async fn try_start_in(log_dirs: &str, disk: SimulatedDisk) -> Result<Node, StartError> {
    try_start_with("", log_dirs, disk).await
}

pub async fn try_start_with(more: &str, log_dirs: &str, disk: SimulatedDisk) -> Result<Node, StartError> {
    let text = format!(
        "{more}node.id=3\nlisteners=PLAINTEXT://127.0.0.1:0\nlog.dirs={log_dirs}\nfirn.http.port=-1\n\
         offsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\nfirn.disk.reserve.bytes=0\n"
    );
    let parsed = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    let environment = Environment { disk: Arc::new(disk), ..Environment::system() };
    Node::start(parsed.config, environment).await
}

pub async fn start_on(disk: SimulatedDisk) -> (Node, Connection) {
    met(try_start_on(disk).await.unwrap()).await
}

pub async fn met(node: Node) -> (Node, Connection) {
    let client = connect(&node).await;
    (node, client)
}

async fn connect(node: &Node) -> Connection {
    let address = node.addresses[0].to_string();
    Connection::connect(&address, ConnectionOptions::default()).await.unwrap()
}

impl World {
    pub async fn start() -> World {
        Self::start_with("").await
    }

    pub async fn start_with(more: &str) -> World {
        let disk = SimulatedDisk::new();
        let (node, client) = met(try_start_with(more, "/data", disk.clone()).await.unwrap()).await;
        let topic_id = create(&client, TOPIC).await;
        World { disk, node, client, topic_id }
    }

    /// Another client: what one connection asks is answered in order.
    pub async fn connect(&self) -> Connection {
        connect(&self.node).await
    }

    /// A fetch of these partitions of the one topic, outside any session.
    pub fn fetch_request(&self, partitions: Vec<FetchPartition>, wait: Duration) -> FetchRequest {
        let bounded = |partition: FetchPartition| partition.with_partition_max_bytes(1 << 20);
        let partitions = partitions.into_iter().map(bounded).collect();
        let topic = FetchTopic::default().with_topic_id(self.topic_id).with_partitions(partitions);
        FetchRequest::default()
            .with_max_wait_ms(wait.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    }

    /// The power goes and comes back; what was not synced may be gone.
    pub async fn after(self, cut: PowerCut) -> World {
        let disk = self.disk.after_power_cut(cut);
        let (node, client) = start_on(disk.clone()).await;
        World { disk, node, client, topic_id: self.topic_id }
    }

    pub async fn produce(&self, batch: Bytes) -> PartitionProduceResponse {
        let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
        let topic = TopicProduceData::default().with_topic_id(self.topic_id).with_partition_data(vec![data]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let mut response = self.client.call(&request).await.unwrap();
        response.responses.remove(0).partition_responses.remove(0)
    }

    pub async fn fetch(&self, from: i64, session: (i32, i32), wait: Duration) -> FetchResponse {
        let partition = FetchPartition::default().with_fetch_offset(from).with_current_leader_epoch(-1);
        let mut request = self
            .fetch_request(vec![partition], wait)
            .with_session_id(session.0)
            .with_session_epoch(session.1);
        if session.1 > 0 {
            request.topics.clear();
        }
        self.client.call(&request).await.unwrap()
    }

    /// All values, by their offsets.
    pub async fn values(&self) -> Vec<(i64, String)> {
        let mut found = Vec::new();
        loop {
            let from = found.last().map_or(0, |(offset, _)| offset + 1);
            let response = self.fetch(from, (0, -1), Duration::ZERO).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0);
            let bytes = partition.records.clone().unwrap_or_default();
            if bytes.is_empty() {
                return found;
            }
            for batch in batch::batches(&bytes) {
                let (header, batch) = batch.unwrap();
                batch::verify_crc(batch).unwrap();
                for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
                    let record = record.unwrap();
                    let offset = header.base_offset + i64::from(record.offset_delta);
                    found.push((offset, String::from_utf8_lossy(record.value.unwrap()).into_owned()));
                }
            }
        }
    }
}

pub fn batch_of(producer: Producer, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

pub async fn produce_to(client: &Connection, topic_id: Uuid, partitions: &[i32], batch: Bytes) -> Vec<i16> {
    let data = partitions
        .iter()
        .map(|index| PartitionProduceData::default().with_index(*index).with_records(Some(batch.clone())));
    let topic = TopicProduceData::default().with_topic_id(topic_id).with_partition_data(data.collect());
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
    let response = client.call(&request).await.unwrap();
    response.responses[0].partition_responses.iter().map(|partition| partition.error_code).collect()
}

pub async fn create(client: &Connection, name: &'static str) -> Uuid {
    create_topic(client, name, 1, &[]).await
}

/// Bytes of all files on the disk.
pub fn used_bytes(disk: &SimulatedDisk) -> u64 {
    let files = disk.files(Path::new("/data")).unwrap();
    files.iter().map(|file| disk.contents(file).map_or(0, |bytes| bytes.len() as u64)).sum()
}

pub async fn delete(client: &Connection, name: &'static str) -> i16 {
    let name = TopicName(StrBytes::from_static_str(name));
    let topic = DeleteTopicState::default().with_name(Some(name));
    let deleted = client.call(&DeleteTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
    deleted.responses[0].error_code
}
