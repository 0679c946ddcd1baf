//! How far long work is: a bar on standard error, for a person who looks at it and sees nothing else move.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

const TEMPLATE: &str = "{wide_bar} {human_pos} of {human_len} {msg}, {eta} left";

/// Gone from the terminal when it is dropped.
#[derive(Debug)]
pub(crate) struct Progress(ProgressBar);

impl Progress {
    /// Work of so many `things`. No bar where the amount is not known, where standard error is no terminal, or where what
    /// is printed goes to one, and shows by itself that there is progress.
    pub(crate) fn start(things: &'static str, total: Option<u64>) -> Self {
        match total {
            Some(total) if total > 0 && io::stderr().is_terminal() && !io::stdout().is_terminal() => {
                Self::shown(things, total)
            }
            _ => Self(ProgressBar::hidden()),
        }
    }

    /// As `start`, for work that prints nothing before its end.
    pub(crate) fn of_silent_work(things: &'static str, total: u64) -> Self {
        if total > 1 && io::stderr().is_terminal() {
            return Self::shown(things, total);
        }
        Self(ProgressBar::hidden())
    }

    fn shown(things: &'static str, total: u64) -> Self {
        let bar = ProgressBar::new(total).with_message(things);
        // A constant, which a test parses.
        if let Ok(style) = ProgressStyle::with_template(TEMPLATE) {
            bar.set_style(style);
        }
        Self(bar)
    }

    pub(crate) fn at(&self, done: u64) {
        self.0.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_one_that_is_understood() {
        assert!(ProgressStyle::with_template(TEMPLATE).is_ok());
    }
}
