//! Clients that have heard of an election before this broker has, which is to lead.
//!
//! A broker that hands over names its heir to whoever writes to it (KIP-951), and the heir reads the same metadata a moment later than
//! clients come, as likely as not. Refused, they would pause for `retry.backoff.ms`, which is a hundred times as long.

use std::sync::Arc;

use tokio::sync::Notify;

use super::waiting::{Watch, Watched};
use super::{Partition, replica::Role};
use crate::replication::KNOWN_WITHIN;

impl Partition {
    /// What `act` does, and does once more if it is refused here (`is_refusal`) and this broker leads the partition a moment later.
    pub async fn once_led<T, E>(
        self: &Arc<Self>,
        act: impl Fn() -> Result<T, E>,
        is_refusal: impl Fn(&E) -> bool,
    ) -> Result<T, E> {
        match act() {
            Err(refused) if is_refusal(&refused) => {
                if self.until_led().await {
                    act()
                } else {
                    Err(refused)
                }
            }
            done => done,
        }
    }

    /// Waits for this broker to lead the partition; whether it does. Not where it led last, for there it is the client that has not heard
    /// of the election, nor soon after another waited in vain: the requests behind it on its connection wait, too.
    async fn until_led(self: &Arc<Self>) -> bool {
        let turned = Arc::new(Notify::new());
        let id = {
            let mut state = self.state.lock();
            match state.role {
                Role::Follows(_)
                    if state.may_be_next && state.log.is_some() && self.replication.may_wait() => {}
                _ => return self.leader(&state).is_some(),
            }
            state.readers.add(Watched::Turned, &turned)
        };
        let _watch = Watch { partition: self.clone(), id };
        if tokio::time::timeout(KNOWN_WITHIN, turned.notified()).await.is_err() {
            self.replication.waited_in_vain();
        }
        self.leader(&self.state.lock()).is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use firn_storage::producers::AppendOrigin;
    use futures_util::poll;
    use tokio::time::Instant;

    use super::super::tests::{assigned, flake, three, turn_all};
    use super::super::{Acks, PartitionError};
    use super::*;
    use crate::replication::IN_VAIN;

    fn append(to: &Arc<Partition>) -> Result<i64, PartitionError> {
        Ok(to.append(&flake(), AppendOrigin::Client, Acks::Leader, 1)?.appended.last_offset)
    }

    /// What comes of it, and after how long.
    async fn append_once_led(to: &Arc<Partition>) -> (Result<i64, PartitionError>, Duration) {
        let begun = Instant::now();
        let appended = to.once_led(|| append(to), |error| matches!(error, PartitionError::NotLeader)).await;
        (appended, begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_before_the_election_is_known_here_waits_for_it() {
        let replicas = three();
        let [one, two, _] = &replicas;
        turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
        let mut waiting = Box::pin(append_once_led(two));
        assert!(poll!(&mut waiting).is_pending());
        turn_all(&replicas, &assigned(2, 2, &[1, 2, 3], &[2, 3]));
        let (appended, waited) = waiting.await;
        assert!(matches!(appended, Ok(0)) && waited.is_zero(), "{appended:?} {waited:?}");
        assert!(matches!(append_once_led(two).await, (Ok(1), Duration::ZERO)), "it leads");
        let (refused, waited) = append_once_led(one).await;
        assert!(
            refused.is_err() && waited.is_zero(),
            "who led last has clients that have not heard of the election"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn what_turns_between_the_refusal_and_the_wait_is_noticed() {
        let replicas = three();
        let [_, two, _] = &replicas;
        turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
        let attempts = Cell::new(0);
        let act = || {
            attempts.set(attempts.get() + 1);
            let appended = append(two);
            turn_all(&replicas, &assigned(2, 2, &[1, 2, 3], &[2, 3]));
            appended
        };
        assert!(matches!(two.once_led(act, |_| true).await, Ok(0)));
        assert_eq!(attempts.get(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn one_waits_in_vain_and_those_behind_it_do_not() {
        let replicas = three();
        let [_, two, three] = &replicas;
        turn_all(&replicas, &assigned(1, 1, &[1, 2, 3], &[1, 2, 3]));
        let wait = async || {
            let (refused, waited) = append_once_led(three).await;
            assert!(refused.is_err());
            waited
        };
        assert_eq!(wait().await, KNOWN_WITHIN);
        assert_eq!(wait().await, Duration::ZERO, "whoever comes next is told at once");
        tokio::time::advance(IN_VAIN).await;
        assert_eq!(wait().await, KNOWN_WITHIN);
        assert!(append(two).is_err());
        turn_all(&replicas, &assigned(2, 2, &[1, 2, 3], &[2, 3]));
        append(two).unwrap();
    }
}
