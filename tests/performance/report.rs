//! Figures, their goals, and the files they end in.

use std::fmt::Write;
use std::path::PathBuf;

use firn_tests::tools;
use serde_json::json;

use crate::plot;

/// What a figure should be: a ratio of Firn to Kafka, a plain value of Firn's, or both.
#[derive(Debug, Clone, Copy, Default)]
pub struct Goal {
    pub ratio_min: Option<f64>,
    pub ratio_max: Option<f64>,
    pub value_min: Option<f64>,
    pub value_max: Option<f64>,
}

impl Goal {
    pub const NONE: Goal = Goal { ratio_min: None, ratio_max: None, value_min: None, value_max: None };

    pub fn ratio_at_least(limit: f64) -> Goal {
        Goal { ratio_min: Some(limit), ..Goal::NONE }
    }

    pub fn ratio_at_most(limit: f64) -> Goal {
        Goal { ratio_max: Some(limit), ..Goal::NONE }
    }

    pub fn at_least(limit: f64) -> Goal {
        Goal { value_min: Some(limit), ..Goal::NONE }
    }

    pub fn at_most(limit: f64) -> Goal {
        Goal { value_max: Some(limit), ..Goal::NONE }
    }

    fn met(&self, value: f64, ratio: Option<f64>) -> Option<bool> {
        let mut answers = Vec::new();
        if let Some(ratio) = ratio {
            answers.extend(self.ratio_min.map(|limit| ratio >= limit));
            answers.extend(self.ratio_max.map(|limit| ratio <= limit));
        }
        answers.extend(self.value_min.map(|limit| value >= limit));
        answers.extend(self.value_max.map(|limit| value <= limit));
        if answers.is_empty() { None } else { Some(answers.into_iter().all(|met| met)) }
    }

    fn describe(&self) -> String {
        let parts = [
            self.ratio_min.map(|limit| format!("≥ {limit} ×")),
            self.ratio_max.map(|limit| format!("≤ {limit} ×")),
            self.value_min.map(|limit| format!("≥ {limit}")),
            self.value_max.map(|limit| format!("≤ {limit}")),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// One figure of one or both systems, a value for each run.
#[derive(Debug, Clone)]
pub struct Figure {
    pub section: &'static str,
    pub name: String,
    pub unit: &'static str,
    pub firn: Vec<f64>,
    pub kafka: Vec<f64>,
    pub goal: Goal,
}

impl Figure {
    pub fn ratio(&self) -> Option<f64> {
        let (firn, kafka) = (median(&self.firn)?, median(&self.kafka)?);
        (kafka > 0.0).then(|| firn / kafka)
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        count if count % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The smallest value that at least so large a part of all does not exceed.
pub fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[derive(Debug)]
pub struct Report {
    machine: String,
    quick: bool,
    figures: Vec<Figure>,
}

impl Report {
    pub fn new(machine: String, quick: bool) -> Report {
        Report { machine, quick, figures: Vec::new() }
    }

    pub fn add(&mut self, figure: Figure) {
        eprintln!(
            "   {} | {} | firn {} | kafka {}",
            figure.section,
            figure.name,
            cell(&figure.firn),
            cell(&figure.kafka)
        );
        self.figures.push(figure);
    }

    pub fn markdown(&self) -> String {
        let mut text = String::from("# Firn and Apache Kafka 4.3.1 on one machine\n\n");
        if self.quick {
            text.push_str("**A quick run: short and hardly warmed up. Not for quoting.**\n\n");
        }
        text.push_str(&self.machine);
        text.push_str("\nEach cell is the median of alternating runs, with (min–max). Ratios are Firn : Kafka. GB is 10^9 bytes.\n");
        let mut section = "";
        for figure in &self.figures {
            if figure.section != section {
                section = figure.section;
                write!(text, "\n## {section}\n\n| figure | unit | Firn | Kafka | ratio | goal | met |\n|---|---|---|---|---|---|---|\n")
                    .expect("write to a string");
            }
            let ratio = figure.ratio();
            let met = median(&figure.firn).and_then(|value| figure.goal.met(value, ratio));
            writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                figure.name,
                figure.unit,
                cell(&figure.firn),
                cell(&figure.kafka),
                ratio.map(short).unwrap_or_default(),
                figure.goal.describe(),
                met.map_or("", |met| if met { "yes" } else { "no" })
            )
            .expect("write to a string");
        }
        text
    }

    /// Writes `report.md`, `report.json` and `report.svg`.
    pub fn write(&self) {
        let directory = directory();
        let figures: Vec<_> = self
            .figures
            .iter()
            .map(|figure| {
                json!({"section": figure.section, "name": figure.name, "unit": figure.unit,
                    "firn": figure.firn, "kafka": figure.kafka, "ratio": figure.ratio()})
            })
            .collect();
        let data = json!({"machine": self.machine, "quick": self.quick, "figures": figures});
        std::fs::write(directory.join("report.json"), format!("{data:#}\n")).expect("write the figures");
        std::fs::write(directory.join("report.md"), self.markdown()).expect("write the table");
        std::fs::write(directory.join("report.svg"), plot::ratios(&self.figures)).expect("write the plot");
        eprintln!("   written to {}", directory.display());
    }
}

/// Where everything of a bench run goes.
pub fn directory() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| tools::repository().join("target"), PathBuf::from);
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory).expect("create target/bench");
    directory
}

fn cell(values: &[f64]) -> String {
    let Some(middle) = median(values) else { return "–".to_owned() };
    if values.len() == 1 {
        return short(middle);
    }
    let min = values.iter().copied().fold(f64::INFINITY, f64::min);
    let max = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} ({}–{})", short(middle), short(min), short(max))
}

/// Three digits that matter.
pub fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
