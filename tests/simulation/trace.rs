//! What happened in a run, in order: a hash that two runs of a seed must share, and lines for whoever looks for the reason.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::story::{About, Broken, Event, tell};

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
    /// Those that may be told.
    kept: Vec<Event>,
    print: bool,
}

impl Trace {
    pub fn new(print: bool) -> Self {
        let state = State { hasher: DefaultHasher::new(), events: 0, kept: Vec::new(), print };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Something that happened, at the virtual time of this moment.
    pub fn note(&self, about: About, who: &str, what: impl Display) {
        self.note_at(turmoil::sim_elapsed().unwrap_or_default(), about, who, what);
    }

    /// The same where no host of the simulation is asking.
    pub fn note_at(&self, at: Duration, about: About, who: &str, what: impl Display) {
        let line = format!("{:>9.4} {who}: {what}", at.as_secs_f64());
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.hasher.write(line.as_bytes());
        state.events += 1;
        if state.print {
            println!("{line}");
        }
        if about != About::Disk {
            state.kept.push(Event { at, about, line });
        }
    }

    /// Lines for whoever wants to know how a promise came to be broken.
    pub fn story(&self, broken: &Broken) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        tell(&state.kept, broken).into_iter().map(str::to_owned).collect()
    }

    /// The hash of all that was noted, and how much that was.
    pub fn end(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.hasher.finish(), state.events)
    }
}
