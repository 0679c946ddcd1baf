//! `<offset>.snapshot`: producers as they were when the log ended at that offset, in Kafka's bytes (version 1).
//!
//! Kafka's entry holds only a producer's last batch, so its duplicate window shrinks to one at every restart. Ours
//! follows Kafka's array with the older batches of the window; the checksum covers them and Kafka's reader, which
//! stops at the end of its array, does not mind. A snapshot that Kafka wrote has no such tail and reads as well.

use crate::producers::{BatchMetadata, ProducerEntry, Producers, WINDOW};

const VERSION: i16 = 1;
/// Version and checksum.
const PREFIX_LENGTH: usize = 6;
/// Marks the older batches after Kafka's array.
const OLDER_BATCHES: &[u8; 4] = b"firn";

/// The file's bytes.
pub(crate) fn encode(producers: &Producers) -> Vec<u8> {
    let entries = producers.entries();
    let mut out = Vec::with_capacity(PREFIX_LENGTH + 4 + entries.len() * 46);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&i32::try_from(entries.len()).unwrap_or(i32::MAX).to_be_bytes());
    for (producer_id, entry) in entries {
        let last = entry.last_batch();
        out.extend_from_slice(&producer_id.to_be_bytes());
        out.extend_from_slice(&entry.epoch.to_be_bytes());
        out.extend_from_slice(&entry.last_sequence().to_be_bytes());
        out.extend_from_slice(&last.map_or(-1, |batch| batch.last_offset).to_be_bytes());
        out.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
        out.extend_from_slice(&entry.last_timestamp.to_be_bytes());
        out.extend_from_slice(&entry.coordinator_epoch.to_be_bytes());
        out.extend_from_slice(&entry.current_txn_first_offset.unwrap_or(-1).to_be_bytes());
    }
    encode_older(producers, &mut out);
    let crc = crc32c::crc32c(out.get(PREFIX_LENGTH..).unwrap_or_default());
    if let Some(slot) = out.get_mut(2..PREFIX_LENGTH) {
        slot.copy_from_slice(&crc.to_be_bytes());
    }
    out
}

fn encode_older(producers: &Producers, out: &mut Vec<u8>) {
    let with_older = || producers.entries().iter().filter(|(_, entry)| entry.batches().len() > 1);
    let count = with_older().count();
    if count == 0 {
        return;
    }
    out.extend_from_slice(OLDER_BATCHES);
    out.extend_from_slice(&i32::try_from(count).unwrap_or(i32::MAX).to_be_bytes());
    for (producer_id, entry) in with_older() {
        let Some((_, older)) = entry.batches().split_last() else { continue };
        out.extend_from_slice(&producer_id.to_be_bytes());
        out.push(older.len() as u8);
        for batch in older {
            out.extend_from_slice(&batch.last_sequence.to_be_bytes());
            out.extend_from_slice(&batch.last_offset.to_be_bytes());
            out.extend_from_slice(&batch.offset_delta.to_be_bytes());
            out.extend_from_slice(&batch.timestamp.to_be_bytes());
        }
    }
}

/// Reads a snapshot. The error says what is wrong with it.
pub(crate) fn decode(bytes: &[u8]) -> Result<Producers, String> {
    let short = || "it ends too early".to_owned();
    let mut rest = bytes;
    let version = i16::from_be_bytes(take(&mut rest).ok_or_else(short)?);
    if version != VERSION {
        return Err(format!("version {version} is unknown"));
    }
    let stored = u32::from_be_bytes(take(&mut rest).ok_or_else(short)?);
    let computed = crc32c::crc32c(rest);
    if stored != computed {
        return Err(format!("its checksum is {computed:08x}, not {stored:08x}"));
    }
    let count = i32::from_be_bytes(take(&mut rest).ok_or_else(short)?);
    let mut entries = Vec::new();
    for _ in 0..count {
        entries.push(decode_entry(&mut rest).ok_or_else(short)?);
    }
    let mut older = decode_older(&mut rest).ok_or_else(short)?;
    let mut producers = Producers::default();
    for (producer_id, mut entry, last) in entries {
        if let Some(last) = last {
            let mut window = older.remove(&producer_id).unwrap_or_default();
            window.push(last);
            entry = ProducerEntry::restored(
                entry.epoch,
                entry.coordinator_epoch,
                entry.last_timestamp,
                entry.current_txn_first_offset,
                &window,
            );
        }
        producers.put(producer_id, entry);
    }
    Ok(producers)
}

fn decode_entry(rest: &mut &[u8]) -> Option<(i64, ProducerEntry, Option<BatchMetadata>)> {
    let producer_id = i64::from_be_bytes(take(rest)?);
    let epoch = i16::from_be_bytes(take(rest)?);
    let last_sequence = i32::from_be_bytes(take(rest)?);
    let last_offset = i64::from_be_bytes(take(rest)?);
    let offset_delta = i32::from_be_bytes(take(rest)?);
    let timestamp = i64::from_be_bytes(take(rest)?);
    let coordinator_epoch = i32::from_be_bytes(take(rest)?);
    let txn_first_offset = i64::from_be_bytes(take(rest)?);
    let entry = ProducerEntry::restored(
        epoch,
        coordinator_epoch,
        timestamp,
        (txn_first_offset >= 0).then_some(txn_first_offset),
        &[],
    );
    let last =
        (last_offset >= 0).then_some(BatchMetadata { last_sequence, last_offset, offset_delta, timestamp });
    Some((producer_id, entry, last))
}

type OlderBatches = std::collections::BTreeMap<i64, Vec<BatchMetadata>>;

fn decode_older(rest: &mut &[u8]) -> Option<OlderBatches> {
    let mut older = OlderBatches::new();
    if rest.first_chunk() != Some(OLDER_BATCHES) {
        return Some(older);
    }
    let _mark: [u8; 4] = take(rest)?;
    let count = i32::from_be_bytes(take(rest)?);
    for _ in 0..count {
        let producer_id = i64::from_be_bytes(take(rest)?);
        let [batches] = take(rest)?;
        if usize::from(batches) >= WINDOW {
            return None;
        }
        let mut window = Vec::with_capacity(WINDOW);
        for _ in 0..batches {
            window.push(BatchMetadata {
                last_sequence: i32::from_be_bytes(take(rest)?),
                last_offset: i64::from_be_bytes(take(rest)?),
                offset_delta: i32::from_be_bytes(take(rest)?),
                timestamp: i64::from_be_bytes(take(rest)?),
            });
        }
        older.insert(producer_id, window);
    }
    Some(older)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (field, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*field)
}
