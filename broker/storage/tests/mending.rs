//! A disk that does not keep what was written: bits that flip, blocks of zeros, files that end early, anywhere. No batch is ever
//! handed out that is not what it was, and with another replica's batches the log is what it was, byte for byte.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking, in its helpers too"
)]

#[path = "crash/model.rs"]
#[allow(dead_code, reason = "shared with the crash points")]
mod model;
#[path = "crash/workload.rs"]
#[allow(dead_code, reason = "shared with the crash points")]
mod workload;

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use firn_model::topic_config::TopicConfig;
use firn_records::batch::batches;
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::directory::LogDirOptions;
use firn_storage::epochs::EpochEntry;
use firn_storage::error::{ReadError, StorageError};
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::mend::MendError;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::real_disk::RealDisk;

use model::{header_of, partition, topic_id};

const WOUNDS: u64 = 1_000;
const BATCHES: i64 = 60;

/// A directory of this machine that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("firn-mending-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        Self(path)
    }

    fn open(&self) -> (LogDir, PartitionLog) {
        let identity = Identity {
            cluster_id: "5L6g3nShT-eMCtK--X86sw".to_owned(),
            node_id: 1,
            directory_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
        };
        let disk = Arc::new(RealDisk);
        let dir = LogDir::open(disk, &self.0, &identity, LogDirOptions::default()).unwrap();
        let config =
            TopicConfig { segment_bytes: 4_000, index_interval_bytes: 500, ..TopicConfig::default() };
        let log = dir.open_log(&partition(), topic_id(1), Arc::new(config), 0).unwrap();
        (dir, log)
    }

    /// The segments' files, the oldest first.
    fn segments(&self) -> Vec<PathBuf> {
        let directory = self.0.join(partition().to_string());
        let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let mut logs: Vec<PathBuf> =
            entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
        logs.sort();
        logs
    }

    /// Fills the log, and closes it as a broker does that has noted how far it is: its epochs, and all that it has.
    fn filled(&self) -> (Vec<EpochEntry>, Vec<u8>) {
        let (dir, mut log) = self.open();
        fill(&mut log);
        let epochs = log.epoch_entries().to_vec();
        let (whole, _) = read(&log, 0);
        log.close().unwrap();
        dir.checkpoint().unwrap();
        (epochs, whole)
    }

    /// The file that the batch at an offset lies in, and where, if the log has all of `whole`.
    fn place_of(&self, offset: i64, whole: &[u8]) -> (File, u64) {
        let base = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().parse::<i64>().unwrap();
        let path = self.segments().into_iter().rfind(|path| base(path) <= offset).unwrap();
        let before = batches(whole).map(Result::unwrap);
        let before = before.filter(|(one, _)| (base(&path)..offset).contains(&one.base_offset));
        let at: usize = before.map(|(_, batch)| batch.len()).sum();
        (File::options().write(true).open(path).unwrap(), at as u64)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// Batches of one to four records in three leader epochs, over several segments.
fn fill(log: &mut PartitionLog) {
    for number in 0..BATCHES {
        let value = vec![b'a' + (number % 26) as u8; 40 + 7 * (number % 11) as usize];
        let bytes = workload::batch(1 + (number % 4) as usize, &value, 1_000 + number, None, false);
        let epoch = (number / 20) as i32;
        log.append(&bytes, &header_of(&bytes), epoch, AppendOrigin::Client, 1_000).unwrap();
    }
}

/// Reads as a broker does, from an offset to the log's end: what it would send, and where it would not go on.
fn read(log: &PartitionLog, mut from: i64) -> (Vec<u8>, Option<i64>) {
    let mut sent = Vec::new();
    while from < log.end_offset() {
        let mut slice = match log.read(from, log.end_offset(), 700, true) {
            Ok(slice) => slice,
            Err(ReadError::Storage(StorageError::Corrupt { .. })) => return (sent, Some(from)),
            Err(error) => panic!("{error}"),
        };
        if !slice.is_known() {
            let rules = log.rules_of(&slice).unwrap();
            if slice.check(from, &rules).is_some() && slice.len == 0 {
                return (sent, Some(from));
            }
        }
        let bytes = slice.read().unwrap();
        let before = from;
        for batch in batches(&bytes) {
            let (header, batch) = batch.unwrap();
            // One that begins before was sent with the one before.
            if header.next_offset() > from {
                sent.extend_from_slice(batch);
                from = header.next_offset();
            }
        }
        assert!(
            from > before,
            "nothing at {from}, of {slice:?}, {:?}",
            bytes.get(..61).map(firn_records::batch::BatchHeader::parse)
        );
    }
    (sent, None)
}

/// Hurts a file somewhere, and says how.
fn wound(path: &Path, rng: &mut u64) -> String {
    let mut draw = |below: u64| {
        *rng ^= *rng << 13;
        *rng ^= *rng >> 7;
        *rng ^= *rng << 17;
        *rng % below
    };
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let len = file.metadata().unwrap().len();
    let at = draw(len);
    match draw(8) {
        0 => {
            file.set_len(at).unwrap();
            format!("ends at {at} of {len}")
        }
        1 => {
            let zeros = vec![0; draw((len - at).min(512)) as usize + 1];
            file.write_all_at(&zeros[..zeros.len().min((len - at) as usize)], at).unwrap();
            format!("{} zeros at {at}", zeros.len())
        }
        _ => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            let bit = draw(8);
            file.write_all_at(&[byte[0] ^ (1 << bit)], at).unwrap();
            format!("bit {bit} of byte {at}")
        }
    }
}

/// What another replica has of a range of offsets, and the rest of the batch that it begins in.
fn of_replica(whole: &[u8], range: &Range<i64>) -> Bytes {
    let wanted = batches(whole).map(Result::unwrap);
    let wanted =
        wanted.filter(|(header, _)| header.next_offset() > range.start && header.base_offset < range.end);
    wanted.flat_map(|(_, batch)| batch.to_vec()).collect()
}

fn mend(log: &mut PartitionLog, offset: i64, whole: &[u8]) -> Result<(), MendError> {
    if log.is_active_at(offset) {
        log.roll(2_000)?;
    }
    let task = log.mending_task(offset, 2_000, CleanerLimits::of_memory(0))?.expect("a segment");
    let looked = task.look()?;
    assert!(!looked.missing.is_empty() && !looked.reason.is_empty(), "nothing is found at {offset}");
    let fetched: Vec<Bytes> = task.wanted(&looked).iter().map(|range| of_replica(whole, range)).collect();
    let mended = task.rebuild(&looked, &fetched)?;
    assert!(log.mended(mended, 2_000)?, "nothing else has changed the log");
    Ok(())
}

#[test]
fn wherever_the_disk_fails_nothing_wrong_is_read_and_all_can_be_mended() {
    let scratch = Scratch::new("wounds");
    let (dir, mut log) = scratch.open();
    fill(&mut log);
    log.close().unwrap();
    drop(dir);
    let mut rng = 0x9e37_79b9_7f4a_7c15_u64;
    let (mut refused, mut mended) = (0, 0);
    let (dir, mut log) = scratch.open();
    let (whole, stopped) = read(&log, 0);
    assert_eq!((stopped, whole.is_empty()), (None, false));
    for number in 0..WOUNDS {
        // What was read a moment ago is not looked at again, unless it has changed.
        log.age();
        log.age();
        let segments = scratch.segments();
        let segments: Vec<_> =
            segments.iter().filter(|path| std::fs::metadata(path).unwrap().len() > 0).collect();
        let path = segments[number as usize % segments.len()];
        let how = format!("{}: {}", path.display(), wound(path, &mut rng));
        let (mut sent, mut stopped) = read(&log, 0);
        let before = mended;
        while let Some(at) = stopped {
            assert!(mended < before + 3, "{how}: it is not mended at {at}");
            refused += 1;
            assert!(whole.starts_with(&sent), "{how}: other records before offset {at}");
            mend(&mut log, at, &whole).unwrap_or_else(|error| panic!("{how}: {error}"));
            mended += 1;
            (sent, stopped) = read(&log, 0);
        }
        assert!(sent == whole, "{how}: other records than there were");
    }
    // A wound can be nothing: zeros where zeros were.
    assert!(refused > WOUNDS * 9 / 10 && mended == refused, "{refused} refused, {mended} mended");
    log.close().unwrap();
    drop(dir);
    let (_dir, log) = scratch.open();
    assert!(read(&log, 0) == (whole, None), "opened again it is the same log");
}

/// No checksum covers where a batch says that it lies, and a read may begin at any of its records.
#[test]
fn a_batch_that_says_that_it_lies_elsewhere_is_read_from_no_offset() {
    let scratch = Scratch::new("elsewhere");
    let (_, whole) = scratch.filled();
    let (_dir, log) = scratch.open();
    for (header, _) in batches(&whole).map(Result::unwrap) {
        let (file, at) = scratch.place_of(header.base_offset, &whole);
        for bit in 0..64 {
            let claimed = header.base_offset ^ (1 << bit);
            file.write_all_at(&claimed.to_be_bytes(), at).unwrap();
            for from in (header.base_offset - 1).max(0)..header.next_offset() {
                log.age();
                log.age();
                let (sent, stopped) = read(&log, from);
                let right = of_replica(&whole, &(from..i64::MAX));
                assert!(right.starts_with(&sent), "{header:?} at {claimed}: other records from {from} on");
                assert!(stopped.is_some(), "{header:?} at {claimed}: nothing is noticed from {from} on");
            }
        }
        file.write_all_at(&header.base_offset.to_be_bytes(), at).unwrap();
    }
}

#[test]
fn a_replica_that_has_something_else_mends_nothing() {
    let scratch = Scratch::new("unfit");
    let (dir, mut log) = scratch.open();
    fill(&mut log);
    log.close().unwrap();
    drop(dir);
    let (_dir, mut log) = scratch.open();
    let (whole, _) = read(&log, 0);
    log.age();
    log.age();
    let first = &scratch.segments()[0];
    let file = std::fs::OpenOptions::new().write(true).open(first).unwrap();
    // The second batch's checksum.
    let second = batches(&whole).map(Result::unwrap).nth(1).unwrap().0;
    let at = batches(&whole).map(Result::unwrap).next().unwrap().1.len() as u64;
    file.write_all_at(&[0; 4], at + 17).unwrap();
    let task = log.mending_task(0, 0, CleanerLimits::of_memory(0)).unwrap().unwrap();
    let looked = task.look().unwrap();
    assert_eq!(looked.missing.first(), Some(&(second.base_offset..second.next_offset())));
    assert_eq!(looked.missing.len(), 1);
    let of =
        |number: usize| Bytes::copy_from_slice(batches(&whole).map(Result::unwrap).nth(number).unwrap().1);
    let mut of_another_epoch = of(1).to_vec();
    of_another_epoch[15] = 9;
    let mut damaged = of(1).to_vec();
    damaged[70] ^= 1;
    for wrong in [Bytes::new(), of(0), of_another_epoch.into(), damaged.into()] {
        let unfit = task.rebuild(&looked, &[wrong]).unwrap_err();
        assert!(matches!(unfit, MendError::Unfit(_)), "{unfit}");
    }
    let gap = task.rebuild(&looked, &[of(2)]).unwrap_err();
    assert!(matches!(gap, MendError::Gap { .. }), "{gap}");
    assert_eq!(read(&log, 0).1, Some(second.base_offset), "it is as it was");
    let mended = task.rebuild(&looked, &[of(1)]).unwrap();
    // A cut in between: the segment may not be what was looked at.
    log.truncate_to(second.next_offset() + 1).unwrap();
    assert!(!log.mended(mended, 0).unwrap());
    let leftovers = std::fs::read_dir(first.parent().unwrap()).unwrap();
    let cleaned =
        leftovers.filter(|entry| entry.as_ref().unwrap().path().to_string_lossy().contains("cleaned"));
    assert_eq!(cleaned.count(), 0);
}

/// Other replicas, and the store, need not have what is deleted; whoever looks for what lies behind it comes by.
#[test]
fn what_is_deleted_needs_nobody_to_be_mended() {
    let scratch = Scratch::new("deleted");
    let (_, whole) = scratch.filled();
    let (_dir, mut log) = scratch.open();
    let bases: Vec<i64> = batches(&whole).map(|batch| batch.unwrap().0.base_offset).collect();
    // In the middle of a batch of three, in the middle of a segment.
    let start = bases[26] + 1;
    assert!(log.segment_at(start) < bases[24]);
    log.set_log_start_offset(start).unwrap();
    let left = of_replica(&whole, &(start..i64::MAX)).to_vec();
    assert!(read(&log, start) == (left.clone(), None));
    for (first, behind) in [(24, 25), (25, 27), (26, 27), (25, 28)] {
        log.age();
        log.age();
        for base in &bases[first..behind] {
            let (file, at) = scratch.place_of(*base, &whole);
            file.write_all_at(&[0; 61], at).unwrap();
        }
        let mut mended = 0;
        while let (_, Some(at)) = read(&log, start) {
            mend(&mut log, at, &left).unwrap();
            mended += 1;
            assert!(mended < 3, "{first}");
        }
        let segment = log.segment_at(start);
        let task = log.mending_task(segment, 0, CleanerLimits::of_memory(0)).unwrap().unwrap();
        if !task.look().unwrap().missing.is_empty() {
            mend(&mut log, segment, &left).unwrap();
        }
        assert!(read(&log, start) == (left.clone(), None), "{first}");
        // What is deleted is not on the disk any more, so that what follows lies elsewhere.
        let task = log.mending_task(segment, 0, CleanerLimits::of_memory(0)).unwrap().unwrap();
        assert!(task.look().unwrap().missing.is_empty(), "a gap among what is deleted is none");
    }
}

/// A cut goes by what the batches say of themselves. Where that is wrong it might drop what is acknowledged.
#[test]
fn a_damaged_log_is_not_cut_and_goes_on() {
    let scratch = Scratch::new("cut");
    let (_, whole) = scratch.filled();
    let (dir, mut log) = scratch.open();
    let segment = log.segment_at(log.end_offset() / 2);
    let in_it: Vec<i64> = batches(&whole)
        .map(|batch| batch.unwrap().0.base_offset)
        .filter(|base| log.segment_at(*base) == segment)
        .collect();
    let cut_at = in_it[5];
    // No batch at all, one that lies elsewhere, one of another epoch; the first, the last that is kept, the first that is cut.
    for (number, at_byte, wrong) in
        [(0, 0, &[0; 61][..]), (4, 0, &[0, 0, 0, 0, 0, 0, 9]), (5, 12, &[0, 0, 0, 7])]
    {
        let (file, at) = scratch.place_of(in_it[number], &whole);
        file.write_all_at(wrong, at + at_byte).unwrap();
        let end = log.end_offset();
        let refused = log.truncate_to(cut_at).unwrap_err();
        assert!(matches!(refused, StorageError::Corrupt { .. }), "{refused}");
        assert_eq!((dir.failed(), log.end_offset()), (None, end), "nothing has happened");
        let damage = log.damage_before_cut(cut_at).unwrap().unwrap();
        assert_eq!((damage.segment, damage.offset), (segment, in_it[number]), "{damage}");
        mend(&mut log, segment, &whole).unwrap();
        assert!(log.damage_before_cut(cut_at).unwrap().is_none());
    }
    log.truncate_to(cut_at).unwrap();
    assert_eq!(log.end_offset(), cut_at);
    assert!(read(&log, 0) == (of_replica(&whole, &(0..cut_at)).to_vec(), None));
}

/// Where `leader-epoch-checkpoint` has no checksum what it says is held against the batches.
#[test]
fn leader_epochs_that_no_batch_has_are_read_from_the_batches_again() {
    let scratch = Scratch::new("epochs");
    let (dir, mut log) = scratch.open();
    fill(&mut log);
    let epochs = log.epoch_entries().to_vec();
    assert_eq!(epochs.len(), 3);
    log.close().unwrap();
    drop(dir);
    let file = scratch.0.join(partition().to_string()).join("leader-epoch-checkpoint");
    let (first, second) = (epochs[1].start_offset, epochs[2].start_offset);
    for wrong in [
        format!("0\n3\n0 0\n1 {first}\n4 {second}\n"),
        format!("0\n3\n0 0\n1 {}\n2 {second}\n", first + 3),
        format!("0\n3\n0 0\n1 {}\n2 {second}\n", first - 3),
        format!("0\n2\n0 0\n1 {first}\n"),
        "0\n1\n7 0\n".to_owned(),
        "0\n0\n".to_owned(),
        "9\n".to_owned(),
    ] {
        std::fs::write(&file, &wrong).unwrap();
        let (dir, log) = scratch.open();
        assert_eq!(log.epoch_entries(), epochs, "{wrong:?}");
        log.close().unwrap();
        drop(dir);
    }
}

/// A batch's checksum does not cover its epoch.
#[test]
fn no_batch_is_believed_that_is_alone_with_its_epoch() {
    let scratch = Scratch::new("lies");
    let (epochs, whole) = scratch.filled();
    // The first batch of the second epoch, the one before it, and one in the middle.
    let of_second =
        batches(&whole).map(|batch| batch.unwrap().0).position(|header| header.partition_leader_epoch == 1);
    let of_second = of_second.unwrap();
    for (number, epoch) in [(of_second, 9), (of_second, 0), (of_second - 1, 1), (5, 7)] {
        let header = batches(&whole).map(|batch| batch.unwrap().0).nth(number).unwrap();
        let (file, at) = scratch.place_of(header.base_offset, &whole);
        file.write_all_at(&i32::to_be_bytes(epoch), at + 12).unwrap();
        let (dir, mut log) = scratch.open();
        assert_eq!(log.epoch_entries(), epochs, "batch {number} says {epoch}");
        assert_eq!(read(&log, 0).1, Some(header.base_offset), "and is given to nobody");
        mend(&mut log, header.base_offset, &whole).unwrap();
        assert!(read(&log, 0) == (whole.clone(), None));
        log.close().unwrap();
        dir.checkpoint().unwrap();
        drop(dir);
    }
}

/// Compaction took something before this log was told so, or made: other replicas have nothing there either.
#[test]
fn a_gap_that_others_have_too_is_no_damage() {
    let scratch = Scratch::new("gap");
    let (dir, mut log) = scratch.open();
    fill(&mut log);
    let (mut whole, _) = read(&log, 0);
    let gap = log.end_offset();
    for number in 0..3 {
        let mut bytes = workload::batch(1, b"after the gap", 2_000, None, false);
        bytes[0..8].copy_from_slice(&(gap + 5 + number).to_be_bytes());
        bytes[12..16].copy_from_slice(&2i32.to_be_bytes());
        log.append_fetched(&bytes, &header_of(&bytes), 2_000).unwrap();
        whole.extend_from_slice(&bytes);
    }
    log.age();
    log.age();
    assert_eq!(read(&log, 0).1, Some(gap), "nobody has said that there is a gap");
    let task = log.mending_task(gap, 0, CleanerLimits::of_memory(0)).unwrap().unwrap();
    let looked = task.look().unwrap();
    assert_eq!(looked.missing.first(), Some(&(gap..gap + 5)));
    let after = of_replica(&whole, &(gap..gap + 6));
    let found = task.rebuild(&looked, &[after]).unwrap_err();
    assert!(matches!(found, MendError::Gap { .. }), "{found}");
    log.tolerate_gaps();
    assert!(read(&log, 0) == (whole.clone(), None));
    log.close().unwrap();
    drop(dir);
    // After a crash it is not taken for the end of what was written.
    let (_dir, log) = scratch.open();
    assert!(read(&log, 0) == (whole, None));
}

/// The epochs have rotted where their batch has, so that nothing here tells that they are wrong: another replica does.
#[test]
fn epochs_that_have_rotted_come_back_with_the_batches() {
    let scratch = Scratch::new("both");
    let (epochs, whole) = scratch.filled();
    let (first, second) = (epochs[1].start_offset, epochs[2].start_offset);
    let file = scratch.0.join(partition().to_string()).join("leader-epoch-checkpoint");
    std::fs::write(&file, format!("0\n3\n0 0\n1 {first}\n4 {second}\n")).unwrap();
    let (of_second, at) = scratch.place_of(second, &whole);
    of_second.write_all_at(&[0; 61], at).unwrap();
    let (dir, mut log) = scratch.open();
    let (mut sent, mut stopped) = read(&log, 0);
    for _ in 0..10 {
        let Some(offset) = stopped else { break };
        assert!(whole.starts_with(&sent));
        mend(&mut log, offset, &whole).unwrap();
        (sent, stopped) = read(&log, 0);
    }
    assert!((sent, stopped) == (whole, None));
    assert_eq!(log.epoch_entries(), epochs);
    log.close().unwrap();
    drop(dir);
}
