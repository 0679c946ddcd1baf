//! Idempotence as a table: what a leader accepts, refuses and recognises (KIP-98, and Kafka's ProducerAppendInfo).

use firn_records::batch::BatchHeader;

use super::*;
use crate::producer_snapshot;
use crate::sample::{Sample, headers};

fn batch(offset: i64, epoch: i16, sequence: i32, records: usize) -> BatchHeader {
    let bytes = Sample::filled(records, 1, 0).by(9, epoch, sequence).bytes();
    BatchHeader { base_offset: offset, ..headers(&bytes)[0] }
}

fn accept(producers: &mut Producers, header: &BatchHeader) -> Result<(), AppendError> {
    let mut staged = Staged::default();
    producers.stage(&mut staged, header, None, AppendOrigin::Client)?;
    producers.commit(staged);
    Ok(())
}

#[test]
fn the_last_five_batches_are_known_and_the_sixth_is_out_of_order() {
    let mut producers = Producers::default();
    for sequence in 0..7 {
        accept(&mut producers, &batch(100 + i64::from(sequence), 0, sequence, 1)).unwrap();
    }
    for sequence in 2..7 {
        let known = producers.find_duplicate(&batch(0, 0, sequence, 1)).expect("one of five");
        assert_eq!(known.last_offset, 100 + i64::from(sequence));
    }
    let forgotten = batch(200, 0, 1, 1);
    assert_eq!(producers.find_duplicate(&forgotten), None);
    assert!(matches!(
        accept(&mut producers, &forgotten),
        Err(AppendError::OutOfOrderSequence { sequence: 1, expected: 7, .. })
    ));
    assert_eq!(producers.find_duplicate(&batch(0, 0, 5, 2)), None, "same start, other length");
}

#[test]
fn sequences_wrap_after_i32_max() {
    let mut producers = Producers::default();
    accept(&mut producers, &batch(0, 0, i32::MAX - 1, 4)).unwrap();
    assert_eq!(producers.entries()[&9].last_sequence(), 1);
    assert!(producers.find_duplicate(&batch(9, 0, i32::MAX - 1, 4)).is_some());
    accept(&mut producers, &batch(4, 0, 2, 1)).unwrap();
    let mut producers = Producers::default();
    accept(&mut producers, &batch(0, 0, i32::MAX, 1)).unwrap();
    accept(&mut producers, &batch(1, 0, 0, 1)).unwrap();
}

#[test]
fn epochs_fence_and_a_new_one_starts_at_zero() {
    let mut producers = Producers::default();
    accept(&mut producers, &batch(0, 3, 0, 2)).unwrap();
    assert!(matches!(
        accept(&mut producers, &batch(2, 2, 2, 1)),
        Err(AppendError::InvalidProducerEpoch { epoch: 2, current: 3, .. })
    ));
    assert!(matches!(
        accept(&mut producers, &batch(2, 4, 2, 1)),
        Err(AppendError::OutOfOrderSequence { expected: 0, .. })
    ));
    accept(&mut producers, &batch(2, 4, 0, 1)).unwrap();
    assert_eq!(producers.find_duplicate(&batch(0, 3, 0, 2)), None, "the old epoch's batches are forgotten");
}

#[test]
fn an_unknown_producer_may_go_on_where_it_was() {
    let mut producers = Producers::default();
    accept(&mut producers, &batch(0, 5, 77, 3)).unwrap();
    accept(&mut producers, &batch(3, 5, 80, 1)).unwrap();
}

#[test]
fn a_failed_write_leaves_no_trace() {
    let mut producers = Producers::default();
    let mut staged = Staged::default();
    for (offset, sequence) in [(0, 0), (1, 1)] {
        let header = batch(offset, 0, sequence, 1);
        producers.stage(&mut staged, &header, None, AppendOrigin::Client).unwrap();
    }
    drop(staged);
    assert!(producers.is_empty());
    accept(&mut producers, &batch(0, 0, 0, 1)).unwrap();
}

#[test]
fn transactions_hold_the_stable_offset_back_until_their_marker_is_replicated() {
    let mut producers = Producers::default();
    let data = |id, offset| {
        let bytes = Sample::filled(2, 1, 0).by(id, 0, 0).transactional().bytes();
        BatchHeader { base_offset: offset, ..headers(&bytes)[0] }
    };
    let marker = |id, offset, commit| {
        let bytes = Sample::end_txn(commit, 4).by(id, 0, -1).bytes();
        let header = BatchHeader { base_offset: offset, ..headers(&bytes)[0] };
        (header, EndTransactionMarker::of_batch(&header, &bytes))
    };
    accept(&mut producers, &data(1, 10)).unwrap();
    accept(&mut producers, &data(2, 12)).unwrap();
    assert_eq!(producers.first_unstable_offset(14), Some(10));
    let (header, end) = marker(1, 14, false);
    let completed = producers.replay(&header, end).expect("a transaction ends");
    assert_eq!(completed, CompletedTxn { producer_id: 1, first_offset: 10, last_offset: 14, aborted: true });
    assert_eq!(producers.last_stable_offset_after(&completed), 12);
    let mut staged = Staged::default();
    let (header, end) = marker(2, 15, true);
    producers.stage(&mut staged, &header, end, AppendOrigin::Coordinator).unwrap();
    producers.commit(staged);
    assert_eq!(producers.first_undecided_offset(), None);
    assert_eq!(producers.first_unstable_offset(15), Some(12), "the marker at 15 is above the high watermark");
    assert_eq!(producers.first_unstable_offset(16), None);
    let zombie = EndTransactionMarker { result: TransactionResult::Commit, coordinator_epoch: 3 };
    let refused = producers.stage(&mut Staged::default(), &header, Some(zombie), AppendOrigin::Coordinator);
    assert!(matches!(refused, Err(AppendError::TransactionCoordinatorFenced { epoch: 3, current: 4, .. })));
}

#[test]
fn silent_producers_expire_but_never_in_a_transaction() {
    let mut producers = Producers::default();
    accept(&mut producers, &batch(0, 0, 0, 1)).unwrap();
    producers.expire(1_999, 1_000);
    assert!(!producers.is_empty());
    producers.expire(2_000, 1_000);
    assert!(producers.is_empty());
    let open = BatchHeader { attributes: 0b1_0000, ..batch(0, 0, 0, 1) };
    accept(&mut producers, &open).unwrap();
    producers.expire(i64::MAX, 1_000);
    assert_eq!(producers.first_undecided_offset(), Some(0));
}

#[test]
fn a_snapshot_keeps_the_whole_window_and_damage_is_refused() {
    let mut producers = Producers::default();
    for sequence in 0..7 {
        accept(&mut producers, &batch(i64::from(sequence), 2, sequence, 1)).unwrap();
    }
    let open = BatchHeader { producer_id: 4, attributes: 0b1_0000, ..batch(7, 0, 0, 1) };
    accept(&mut producers, &open).unwrap();
    let bytes = producer_snapshot::encode(&producers);
    let read = producer_snapshot::decode(&bytes).unwrap();
    assert_eq!(read.entries(), producers.entries());
    assert_eq!(read.first_undecided_offset(), Some(7));
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            assert!(producer_snapshot::decode(&flipped).is_err(), "bit {bit} of byte {at}");
        }
        assert!(producer_snapshot::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    let empty = producer_snapshot::encode(&Producers::default());
    assert_eq!(empty.len(), 10, "Kafka's empty snapshot");
    assert!(producer_snapshot::decode(&empty).unwrap().is_empty());
}
