//! What happened in a run, in order: a hash that two runs of a seed must share, and lines for whoever looks for the reason.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clones are the same trace.
#[derive(Debug, Clone)]
pub struct Trace {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// Its keys are constants.
    hasher: DefaultHasher,
    events: u64,
    print: bool,
}

impl Trace {
    pub fn new(print: bool) -> Self {
        let state = State { hasher: DefaultHasher::new(), events: 0, print };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Something that happened, at the virtual time of this moment.
    pub fn note(&self, who: &str, what: impl Display) {
        self.note_at(turmoil::sim_elapsed().unwrap_or_default(), who, what);
    }

    /// The same where no host of the simulation is asking.
    pub fn note_at(&self, at: Duration, who: &str, what: impl Display) {
        let line = format!("{:>9.4} {who}: {what}", at.as_secs_f64());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.hasher.write(line.as_bytes());
        state.events += 1;
        if state.print {
            println!("{line}");
        }
    }

    /// The hash of all that was noted, and how much that was.
    pub fn end(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.hasher.finish(), state.events)
    }
}
