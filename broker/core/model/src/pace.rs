//! How long bytes take at a limited rate.

use std::time::Duration;

/// The longest that one piece of work keeps the next waiting, whatever the rate: no clock can be told much more.
const TURN_MAX: Duration = Duration::from_secs(24 * 3600);

/// The time that `bytes` take at `bytes_per_second`; none where that is [`f64::INFINITY`].
pub fn turn(bytes: u64, bytes_per_second: f64) -> Duration {
    Duration::try_from_secs_f64(bytes as f64 / bytes_per_second).unwrap_or(TURN_MAX).min(TURN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_take_as_long_as_the_rate_says() {
        assert_eq!(turn(500, 1_000.0), Duration::from_millis(500));
        assert_eq!(turn(u64::MAX, f64::INFINITY), Duration::ZERO);
        for slow in [1e-300, 0.0] {
            assert_eq!(turn(u64::MAX, slow), TURN_MAX);
        }
    }
}
