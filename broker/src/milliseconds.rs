//! Times as configs and requests carry them: signed numbers of milliseconds.

use std::time::Duration;

/// So many milliseconds; none, where a client or a config says less than that.
pub fn milliseconds(count: impl Into<i64>) -> Duration {
    Duration::from_millis(u64::try_from(count.into()).unwrap_or(0))
}

/// The same for what is done again and again: never without a pause.
pub fn period(count: impl Into<i64>) -> Duration {
    milliseconds(count).max(Duration::from_millis(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_negative_is_none() {
        assert_eq!(milliseconds(5), Duration::from_millis(5));
        assert_eq!(milliseconds(-1), Duration::ZERO);
        assert_eq!(milliseconds(i64::MIN), Duration::ZERO);
        assert_eq!((period(5), period(0)), (milliseconds(5), milliseconds(1)));
    }
}
