//! What recovery promises of any directory: it opens or says what is damaged; what it opens it serves whole, in order
//! and with its checksums right; and a second open finds the same.

use std::path::Path;
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;
use firn_records::batch::{batches, verify_crc};
use firn_storage::directory::LogDirOptions;
use firn_storage::disk::{Disk, OpenMode};
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::simulated::SimulatedDisk;

/// The files that an input fills, in order.
pub const FILES: [&str; 9] = [
    "00000000000000000000.log",
    "00000000000000000000.index",
    "00000000000000000000.timeindex",
    "00000000000000000000.txnindex",
    "00000000000000000003.log",
    "00000000000000000003.index",
    "00000000000000000003.snapshot",
    "leader-epoch-checkpoint",
    "00000000000000000000.log.swap",
];

/// An input is one section a file: two bytes of length, then as many bytes. What is missing is empty or absent.
pub fn segment_recovery(data: &[u8]) {
    let disk = SimulatedDisk::new();
    let identity = Identity { cluster_id: "c".to_owned(), node_id: 1, directory_id: "d".to_owned() };
    let open = || {
        LogDir::open(Arc::new(disk.clone()), Path::new("/d"), &identity, LogDirOptions::default())
            .expect("an untouched directory opens")
    };
    drop(open());
    let partition = Path::new("/d/t-0");
    disk.create_dir(partition).expect("a directory");
    let mut rest = data;
    for name in FILES {
        let Some((length, after)) = rest.split_first_chunk::<2>() else { break };
        let length = usize::from(u16::from_le_bytes(*length)).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        if !bytes.is_empty() {
            let file = disk.open(&partition.join(name), OpenMode::Create).expect("a file");
            file.write_vectored_at(&[std::io::IoSlice::new(bytes)], 0).expect("room");
        }
    }
    let mut seen = None;
    for _ in 0..2 {
        let dir = open();
        let opened = dir.open_log(
            &TopicPartition::new("t", 0),
            TopicId(uuid::Uuid::from_u128(1)),
            Arc::new(TopicConfig::default()),
            0,
        );
        let Ok(log) = opened else { return };
        let found = serve(&log);
        let answers = (log.log_start_offset(), log.end_offset(), found);
        assert!(seen.as_ref().is_none_or(|before| *before == answers), "{seen:?} became {answers:?}");
        seen = Some(answers);
    }
}

/// The offsets of all batches that the log serves.
fn serve(log: &PartitionLog) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut offset = log.local_start_offset();
    assert!(log.log_start_offset() <= offset && offset <= log.end_offset());
    while offset < log.end_offset() {
        let slice = log.read(offset, log.end_offset(), 1 << 20, true).expect("what recovery kept is read");
        let bytes = slice.read().expect("the bytes are there");
        let mut next = offset;
        for batch in batches(&bytes) {
            let (header, batch) = batch.expect("whole batches");
            verify_crc(batch).expect("checked by recovery");
            assert!(header.last_offset() >= next, "offsets rise");
            next = header.next_offset();
            found.push((header.base_offset, header.last_offset()));
        }
        if next == offset {
            break;
        }
        offset = next;
    }
    // Any time may be asked for; records that do not decode are an error, never a panic.
    for time in [i64::MIN, 0, 1_000, i64::MAX] {
        let _answer = log.offset_for_timestamp(time);
    }
    let _answer = log.max_timestamp();
    found
}
