//! Patience with errors that pass: exponential backoff with jitter (KIP-580).

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::error::Error;

/// How often, and after how long, something that failed is tried again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retry {
    pub(crate) attempts: u32,
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Retry {
    /// The delays are those of Java's `retry.backoff.ms` and `retry.backoff.max.ms`.
    pub(crate) const STANDARD: Self =
        Self { attempts: 10, first: Duration::from_millis(100), longest: Duration::from_secs(1) };

    /// Carries `attempt` out until it succeeds, fails for good, or has failed too often.
    pub(crate) async fn run<T>(&self, attempt: impl AsyncFnMut() -> Result<T, Error>) -> Result<T, Error> {
        self.run_while(Error::is_retriable, attempt).await
    }

    /// As `run`, for errors that pass by the caller's own word.
    pub(crate) async fn run_while<T>(
        &self,
        passes: impl Fn(&Error) -> bool,
        mut attempt: impl AsyncFnMut() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut failed = 0;
        loop {
            match attempt().await {
                Err(error) if passes(&error) && failed + 1 < self.attempts => {
                    self.pause(failed).await;
                    failed += 1;
                }
                ended => return ended,
            }
        }
    }

    /// Waits after so many failures before this one.
    #[expect(
        clippy::disallowed_methods,
        reason = "as random as the hash maps, whose seeds a simulation owns"
    )]
    pub(crate) async fn pause(&self, failed: u32) {
        // Seeded anew in each map: enough to keep clients out of step.
        let random = RandomState::new().hash_one(failed);
        tokio::time::sleep(self.delay(failed, random)).await;
    }

    /// Twice as long each time, give or take a fifth.
    fn delay(&self, failed: u32, random: u64) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(failed));
        let percent = 80 + u32::try_from(random % 41).unwrap_or_default();
        doubled.min(self.longest) * percent / 100
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: i16) -> Error {
        Error::Refused { what: "try".to_owned(), code, message: None }
    }

    #[test]
    fn delays_double_up_to_the_longest_within_a_fifth() {
        for (failed, expected) in [(0, 100), (1, 200), (3, 800), (4, 1000), (40, 1000)] {
            for random in 0..50 {
                let delay = Retry::STANDARD.delay(failed, random).as_millis();
                assert!((expected * 8 / 10..=expected * 12 / 10).contains(&delay), "{failed}: {delay}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_errors_that_pass_are_tried_again() {
        for (code, attempts) in [(6, Retry::STANDARD.attempts), (17, 1)] {
            let mut tried = 0;
            let ended = Retry::STANDARD.run(async || {
                tried += 1;
                Err::<(), _>(refused(code))
            });
            assert!(ended.await.is_err());
            assert_eq!(tried, attempts, "{code}");
        }
        let mut left = 3;
        let ended = Retry::STANDARD.run(async || {
            left -= 1;
            if left == 0 { Ok(()) } else { Err(refused(5)) }
        });
        assert!(ended.await.is_ok());
    }
}
