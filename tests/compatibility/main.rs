//! Real Kafka clients and tools against one broker: what people do with Kafka, done with what they do it with.
//! Every test ends with Apache's DumpLogSegments over every file that the broker wrote.

mod admin;
mod command_line;
mod faces;
mod group_lifecycle;
mod groups;
mod lab;
mod log_rules;
mod our_groups;
mod producers;
mod starting;

use firn_tests::cluster::Broker;
use firn_tests::segments::{self, Offsets, Segments};

/// Stops the broker and holds all its files against the oracle.
fn finish(mut broker: Broker, offsets: Offsets) -> Segments {
    broker.stop();
    segments::assert_valid_directory(&broker.data(), offsets)
}

/// The lines of a text in sorted order, for comparing what may come in any order.
fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
