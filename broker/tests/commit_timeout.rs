//! A commit of offsets that the disk keeps waiting: the client is told to ask again within offsets.commit.timeout.ms.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firn::environment::Environment;
use firn::node::Node;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_topics_request::CreatableTopic;
use firn_protocol::library::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use firn_protocol::library::messages::{
    CreateTopicsRequest, FindCoordinatorRequest, GroupId, OffsetCommitRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_storage::disk::{DirEntry, Disk, DiskFile, Lock, OpenMode, Space};
use firn_storage::simulated::SimulatedDisk;
use parking_lot::{Condvar, Mutex};

/// A disk whose syncs wait while it is held.
#[derive(Debug, Clone)]
struct HeldDisk {
    disk: SimulatedDisk,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Gate {
    fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut held = self.held.lock();
        while *held {
            self.changed.wait(&mut held);
        }
    }
}

#[derive(Debug)]
struct HeldFile {
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl Disk for HeldDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(HeldFile { file: self.disk.open(path, mode)?, gate: self.gate.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
    fn lock_exclusive(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock_exclusive(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
}

impl DiskFile for HeldFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.file.write_vectored_at(buffers, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.file.reserve(len)
    }
    fn file(&self) -> Option<&std::fs::File> {
        self.file.file()
    }
}

fn topic() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

/// The error code of one commit.
async fn commit(client: &Connection, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic = OffsetCommitRequestTopic::default().with_name(topic()).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(StrBytes::from_static_str("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    client.call(&request).await.unwrap().topics[0].partitions[0].error_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_takes_too_long_is_to_be_tried_again() {
    let text = "listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.port=-1\nfirn.disk.reserve.bytes=0\n\
                offsets.topic.num.partitions=1\noffsets.commit.timeout.ms=200\n";
    let parsed = BrokerConfig::from_properties(&properties::parse(text).unwrap()).unwrap();
    let disk = HeldDisk { disk: SimulatedDisk::new(), gate: Arc::default() };
    let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::system() };
    let node = Node::start(parsed.config, environment).await.unwrap();
    let client =
        Connection::connect(&node.addresses[0].to_string(), ConnectionOptions::default()).await.unwrap();
    let wanted =
        CreatableTopic::default().with_name(topic()).with_num_partitions(1).with_replication_factor(1);
    client.call(&CreateTopicsRequest::default().with_topics(vec![wanted])).await.unwrap();
    let coordinator =
        FindCoordinatorRequest::default().with_coordinator_keys(vec![StrBytes::from_static_str("g")]);
    client.call(&coordinator).await.unwrap();
    assert_eq!(commit(&client, 1).await, 0);

    disk.gate.hold(true);
    let late = tokio::time::timeout(Duration::from_secs(20), commit(&client, 2)).await;
    assert_eq!(late.expect("within the timeout"), ResponseError::CoordinatorNotAvailable.code());

    disk.gate.hold(false);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while commit(&client, 3).await != 0 {
        assert!(tokio::time::Instant::now() < deadline, "commits are taken again");
    }
    node.stop().await;
}
