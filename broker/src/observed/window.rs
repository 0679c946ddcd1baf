//! What happened lately, out of totals that only rise: for the few numbers that Kafka gives as a mean of the last while.

use std::time::Duration;

/// How much of the past is looked at, at the least.
const SPAN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy)]
struct Totals<const N: usize> {
    at: Duration,
    totals: [f64; N],
}

/// Totals as they were up to two spans ago. However often it is asked, and by however many, the past does not get
/// shorter than a span.
#[derive(Debug, Clone)]
pub(super) struct Window<const N: usize> {
    older: Totals<N>,
    newer: Totals<N>,
}

impl<const N: usize> Default for Window<N> {
    /// Begins when nothing had happened yet.
    fn default() -> Self {
        let none = Totals { at: Duration::ZERO, totals: [0.0; N] };
        Self { older: none, newer: none }
    }
}

impl<const N: usize> Window<N> {
    /// How many seconds are looked at, and how much each total rose in them. `at` is counted from the beginning.
    pub(super) fn look(&mut self, at: Duration, totals: [f64; N]) -> (f64, [f64; N]) {
        if at.saturating_sub(self.newer.at) >= SPAN {
            self.older = self.newer;
            self.newer = Totals { at, totals };
        }
        let mut rose = totals;
        for (rose, before) in rose.iter_mut().zip(self.older.totals) {
            *rose -= before;
        }
        (at.saturating_sub(self.older.at).as_secs_f64(), rose)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_looks_back_a_span_however_often_it_is_asked() {
        let mut window = Window::<1>::default();
        let mut look = |seconds: u64, total: f64| {
            let (over, [rose]) = window.look(Duration::from_secs(seconds), [total]);
            (over, rose)
        };
        assert_eq!(look(0, 0.0), (0.0, 0.0));
        assert_eq!(look(10, 5.0), (10.0, 5.0), "young: all there was");
        assert_eq!(look(30, 9.0), (30.0, 9.0));
        assert_eq!(look(31, 9.0), (31.0, 9.0), "a second look right after is no look at nothing");
        assert_eq!(look(59, 10.0), (59.0, 10.0));
        assert_eq!(look(60, 12.0), (30.0, 3.0), "what was before the span is gone");
        assert_eq!(look(61, 12.0), (31.0, 3.0));
        assert_eq!(look(600, 12.0), (540.0, 0.0), "long unasked: since the last look");
    }
}
