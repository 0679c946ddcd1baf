//! `log.cleaner.io.max.bytes.per.second`: all compactions of the broker together read and write no faster.

use std::sync::Arc;
use std::time::Duration;

use firn_model::broker_config::BrokerConfig;
use firn_model::broker_config::settings::LogSettings;
use firn_model::pace;
use firn_storage::cleaner_limits::{CleanerLimits, CleanerPace};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a cleaner sleeps without asking whether the limit has changed, or compaction was stopped.
const NAP: Duration = Duration::from_millis(50);

/// One for all cleaners of a broker.
#[derive(Debug)]
pub struct SteadyPace {
    config: watch::Receiver<Arc<BrokerConfig>>,
    /// When what was read and written so far is slept off.
    paid: Mutex<Instant>,
}

impl SteadyPace {
    pub fn new(config: watch::Receiver<Arc<BrokerConfig>>) -> Self {
        Self { config, paid: Mutex::new(Instant::now()) }
    }

    fn bytes_per_second(&self) -> f64 {
        self.config.borrow().log.cleaner_io_bytes_per_second
    }
}

impl CleanerPace for SteadyPace {
    fn spend(&self, bytes: u64, stopped: &dyn Fn() -> bool) {
        let limit = self.bytes_per_second();
        let turn = pace::turn(bytes, limit);
        if turn.is_zero() {
            return;
        }
        let paid = {
            let mut paid = self.paid.lock();
            *paid = Instant::now().max(*paid) + turn;
            *paid
        };
        while !stopped() {
            let left = paid.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            if self.bytes_per_second() != limit {
                // What is owed was reckoned by a limit that is no more.
                *self.paid.lock() = Instant::now();
                return;
            }
            if !firn_blocking::pause(left.min(NAP)) {
                return;
            }
        }
    }
}

/// What one of the cleaner threads may take: they share the memory for keys, as Kafka's do.
pub fn limits_of_one(log: &LogSettings, pace: &Arc<SteadyPace>) -> CleanerLimits {
    let threads = usize::try_from(log.cleaner_threads).unwrap_or(0).max(1);
    let dedupe_buffer_bytes = usize::try_from(log.cleaner_dedupe_buffer_size).unwrap_or(0) / threads;
    CleanerLimits { dedupe_buffer_bytes, pace: pace.clone() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn config(bytes_per_second: &str) -> Arc<BrokerConfig> {
        let key = "log.cleaner.io.max.bytes.per.second".to_owned();
        let properties = BTreeMap::from([(key, bytes_per_second.to_owned())]);
        Arc::new(BrokerConfig::from_properties(&properties).unwrap().config)
    }

    #[test]
    fn cleaners_together_take_as_long_as_the_limit_says() {
        let (_limit, config) = watch::channel(config("1e6"));
        let (pace, began) = (SteadyPace::new(config), Instant::now());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..10).for_each(|_| pace.spend(10_000, &|| false)));
            }
        });
        assert!(began.elapsed() >= Duration::from_millis(199), "200,000 bytes at 1,000,000 a second");
    }

    #[test]
    fn nobody_sleeps_on_without_a_limit_or_once_it_is_over() {
        let (limit, config_now) = watch::channel(BrokerConfig::default().into());
        let pace = SteadyPace::new(config_now);
        pace.spend(u64::MAX, &|| false);
        limit.send_replace(config("1"));
        pace.spend(u64::MAX, &|| true);
        std::thread::scope(|scope| {
            let sleeping = scope.spawn(|| pace.spend(u64::MAX, &|| false));
            limit.send_replace(config("1e300"));
            sleeping.join().unwrap();
        });
        pace.spend(1, &|| false);
    }
}
