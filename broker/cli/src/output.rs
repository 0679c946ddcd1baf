//! How answers are printed: tables for people, JSON for programs.

use std::io::{self, Write};
use std::sync::OnceLock;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::ValueEnum;
use serde::Serialize;

/// Whether standard output and standard error take colours: none does before a command has asked.
static COLOURS: OnceLock<(bool, bool)> = OnceLock::new();

const HEADING: Style = Style::new().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// Colours go to terminals alone, and to none where `NO_COLOR` is set.
pub(crate) fn use_colours() {
    let out = AutoStream::choice(&io::stdout()) != ColorChoice::Never;
    let err = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    COLOURS.get_or_init(|| (out, err));
}

fn painted(style: Style, text: &str, wanted: bool) -> String {
    if wanted { format!("{style}{text}{style:#}") } else { text.to_owned() }
}

/// What stands before an error.
pub(crate) fn error_label() -> String {
    painted(ERROR, "error:", COLOURS.get().is_some_and(|(_, err)| *err))
}

/// Tells what does not stop a command, on standard error; where that is closed, nobody reads it.
pub(crate) fn warn(text: &str) {
    let label = painted(WARNING, "warning:", COLOURS.get().is_some_and(|(_, err)| *err));
    writeln!(io::stderr(), "{label} {text}").ok();
}

/// One line for programs.
pub(crate) fn json(value: &impl Serialize) -> Result<String, Box<dyn std::error::Error>> {
    Ok(serde_json::to_string(value)? + "\n")
}

/// Aligns rows under their headings, two spaces between columns and none at a line's end.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let headings: Vec<String> = headings.iter().map(|heading| (*heading).to_owned()).collect();
    let line = |row: &[String]| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = painted(HEADING, &line(&headings), COLOURS.get().is_some_and(|(out, _)| *out)) + "\n";
    for row in rows {
        lines.push_str(&line(row));
        lines.push('\n');
    }
    lines
}

/// Broker ids as Kafka prints them: `1,2,3`.
pub(crate) fn ids(brokers: &[i32]) -> String {
    brokers.iter().map(i32::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paint_wraps_the_words_and_is_left_out_where_it_is_not_wanted() {
        assert_eq!(painted(ERROR, "error:", false), "error:");
        let told = painted(HEADING, "TOPIC", true);
        assert!(
            told.starts_with('\u{1b}') && told.ends_with("\u{1b}[0m") && told.contains("TOPIC"),
            "{told:?}"
        );
    }
}
