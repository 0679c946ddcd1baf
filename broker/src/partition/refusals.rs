//! Batches that were refused for the moment, and whose producers' next ones have to wait for them.
//!
//! An idempotent producer sends several batches before it hears of the first. If that one is refused for a reason that goes
//! away (another broker leads, too few are in sync, the disk is full), the next one may find it gone: its sequence is one too
//! many, or, where the log knows nothing of the producer yet, it would come to stand in front. Kafka answers with
//! `OUT_OF_ORDER_SEQUENCE_NUMBER`, upon which clients made of librdkafka begin another epoch, in which nothing of what they have sent to
//! other partitions is known to be there already (librdkafka #4953). Here it is refused as the one before was, until that one is there.

use std::collections::HashMap;
use std::time::Duration;

use firn_records::batch::BatchHeader;
use firn_storage::producers::Producers;

use super::PartitionError;

/// Who has not sent it again for so long has given it up.
const KEPT: Duration = Duration::from_secs(60);
/// Of so many producers of a partition at most.
const PRODUCERS_MAX: usize = 1_000;

/// By producer id.
#[derive(Debug, Default)]
pub(super) struct Refusals(HashMap<i64, Refusal>);

#[derive(Debug, Clone, Copy)]
struct Refusal {
    epoch: i16,
    /// Of the first and the last batch that was refused; what comes between was refused, too.
    first: i32,
    last: i32,
    /// By the partition's clock.
    at: Duration,
}

impl Refusals {
    /// Whether this batch has to wait for one before it. Costs nothing while none was refused.
    pub fn hold_back(
        &mut self,
        header: &BatchHeader,
        producers: &Producers,
        now: impl FnOnce() -> Duration,
    ) -> bool {
        let Some(refusal) = self.0.get(&header.producer_id).copied() else { return false };
        let entry = producers.entries().get(&header.producer_id);
        // Another leader may have taken the first ones, and this log have them from there.
        let due = entry.map_or(refusal.first, |entry| entry.next_sequence(refusal.epoch));
        let was_refused = !follows(refusal.first, due) && !follows(due, refusal.last);
        let is_of_another_epoch = entry.is_some_and(|entry| entry.epoch > refusal.epoch);
        let is_over = now().saturating_sub(refusal.at) > KEPT || header.producer_epoch > refusal.epoch;
        if !was_refused || is_of_another_epoch || is_over {
            self.0.remove(&header.producer_id);
            return false;
        }
        header.producer_epoch == refusal.epoch && follows(header.base_sequence, due)
    }

    /// Takes note of a batch that was refused with `error`, if that is one upon which producers send it again.
    pub fn note(&mut self, header: &BatchHeader, error: &PartitionError, now: Duration) {
        if !header.has_producer_id() || header.base_sequence < 0 || !error.is_passing() {
            return;
        }
        if self.0.len() >= PRODUCERS_MAX {
            self.0.retain(|_, refusal| now.saturating_sub(refusal.at) <= KEPT);
        }
        if self.0.len() >= PRODUCERS_MAX && !self.0.contains_key(&header.producer_id) {
            return;
        }
        let (epoch, sequence) = (header.producer_epoch, header.base_sequence);
        let new = Refusal { epoch, first: sequence, last: sequence, at: now };
        let refusal = self.0.entry(header.producer_id).or_insert(new);
        refusal.at = now;
        if epoch > refusal.epoch {
            *refusal = new;
        } else if epoch == refusal.epoch && follows(refusal.first, sequence) {
            refusal.first = sequence;
        } else if epoch == refusal.epoch && follows(sequence, refusal.last) {
            refusal.last = sequence;
        }
    }
}

/// Whether one sequence comes after another: they begin again at 0 behind `i32::MAX`.
fn follows(sequence: i32, other: i32) -> bool {
    let ahead = sequence.wrapping_sub(other) & i32::MAX;
    (1..=i32::MAX / 2).contains(&ahead)
}

#[cfg(test)]
mod tests {
    use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
    use firn_records::validate::ValidatedBatches;
    use firn_storage::error::AppendError;
    use firn_storage::producers::AppendOrigin;

    use super::super::tests::{assigned, catch_up, three, turn_all};
    use super::super::{Acks, Partition};
    use super::*;
    use std::sync::Arc;

    fn send(to: &Arc<Partition>, epoch: i16, base_sequence: i32) -> Result<i64, PartitionError> {
        let producer = Producer { id: 7, epoch, base_sequence };
        let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
        builder.push(1, None, Some(b"flake"), &[]);
        let batches = ValidatedBatches::trusted(builder.build().unwrap()).unwrap();
        Ok(to.append(&batches, AppendOrigin::Client, Acks::All, 1)?.appended.last_offset)
    }

    fn is_held_back(sent: Result<i64, PartitionError>) -> bool {
        matches!(sent, Err(PartitionError::BehindRefused))
    }

    #[tokio::test]
    async fn what_follows_a_refused_batch_waits_for_it() {
        let replicas = three();
        let [one, two, _] = &replicas;
        // A log that knows nothing of the producer would take any sequence.
        turn_all(&replicas, &assigned(1, 1, &[1, 2], &[1]));
        assert!(matches!(send(one, 0, 0), Err(PartitionError::NotEnoughReplicas { .. })));
        turn_all(&replicas, &assigned(1, 2, &[1, 2], &[1, 2]));
        assert!(is_held_back(send(one, 0, 1)) && is_held_back(send(one, 0, 2)));
        assert_eq!([0, 1, 2].map(|sequence| send(one, 0, sequence).unwrap()), [0, 1, 2]);
        // And so does who leads only by the time that the second one comes.
        catch_up(one, two).await;
        assert!(matches!(send(two, 0, 3), Err(PartitionError::NotLeader)));
        turn_all(&replicas, &assigned(2, 3, &[1, 2], &[1, 2]));
        assert!(is_held_back(send(two, 0, 4)));
        assert_eq!(send(two, 0, 2).unwrap(), 2, "it is known, and was acknowledged to nobody perhaps");
        assert_eq!([3, 4].map(|sequence| send(two, 0, sequence).unwrap()), [3, 4]);
        let gap = send(two, 0, 6);
        assert!(
            matches!(gap, Err(PartitionError::Append(AppendError::OutOfOrderSequence { .. }))),
            "{gap:?}"
        );
    }

    /// Of several that were refused here the first was taken by the leader of before, who led for long enough to pass it on.
    #[tokio::test]
    async fn what_follows_waits_for_the_first_that_is_not_there() {
        let replicas = three();
        let [one, two, _] = &replicas;
        turn_all(&replicas, &assigned(1, 1, &[1, 2], &[1, 2]));
        for sequence in [0, 1] {
            assert!(matches!(send(two, 0, sequence), Err(PartitionError::NotLeader)));
        }
        send(one, 0, 0).unwrap();
        catch_up(one, two).await;
        turn_all(&replicas, &assigned(2, 2, &[1, 2], &[1, 2]));
        assert!(is_held_back(send(two, 0, 2)));
        assert_eq!([0, 1, 2].map(|sequence| send(two, 0, sequence).unwrap()), [0, 1, 2]);
    }

    #[tokio::test]
    async fn nobody_waits_for_what_another_leader_has_taken_or_another_epoch_has_replaced() {
        let replicas = three();
        let [one, two, _] = &replicas;
        turn_all(&replicas, &assigned(1, 1, &[1, 2], &[1, 2]));
        assert!(matches!(send(two, 0, 0), Err(PartitionError::NotLeader)));
        send(one, 0, 0).unwrap();
        catch_up(one, two).await;
        turn_all(&replicas, &assigned(2, 2, &[1, 2], &[1, 2]));
        assert_eq!(send(two, 0, 1).unwrap(), 1);
        turn_all(&replicas, &assigned(2, 3, &[1, 2], &[2]));
        assert!(matches!(send(two, 0, 2), Err(PartitionError::NotEnoughReplicas { .. })));
        turn_all(&replicas, &assigned(2, 4, &[1, 2], &[1, 2]));
        assert_eq!(send(two, 1, 0).unwrap(), 2);
        assert_eq!(send(two, 1, 1).unwrap(), 3);
    }

    #[tokio::test]
    async fn who_sends_it_no_more_is_not_waited_for_and_so_many_are_remembered() {
        let producers = Producers::default();
        let header = |id, base_sequence| {
            let producer = Producer { id, epoch: 0, base_sequence };
            let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
            builder.push(1, None, Some(b"flake"), &[]);
            ValidatedBatches::trusted(builder.build().unwrap()).unwrap().headers[0]
        };
        let mut refusals = Refusals::default();
        refusals.note(&header(1, 5), &PartitionError::Closed, Duration::ZERO);
        assert!(refusals.0.is_empty(), "it is not sent here again");
        refusals.note(&header(1, 5), &PartitionError::NotLeader, Duration::ZERO);
        refusals.note(&header(1, 6), &PartitionError::BehindRefused, KEPT);
        assert!(refusals.hold_back(&header(1, 6), &producers, || KEPT * 2), "the second was refused then");
        assert!(!refusals.hold_back(&header(1, 5), &producers, || KEPT * 2));
        let later = || KEPT * 2 + Duration::from_millis(1);
        assert!(!refusals.hold_back(&header(1, 6), &producers, later));
        for id in 0..2 * PRODUCERS_MAX as i64 {
            refusals.note(&header(id, 0), &PartitionError::NotLeader, Duration::ZERO);
        }
        assert_eq!(refusals.0.len(), PRODUCERS_MAX);
    }

    #[test]
    fn sequences_go_round() {
        assert!(follows(1, 0) && follows(0, i32::MAX) && follows(3, i32::MAX - 2));
        assert!(!follows(0, 0) && !follows(0, 1) && !follows(i32::MAX, 0));
    }
}
