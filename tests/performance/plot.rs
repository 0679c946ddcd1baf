//! The report's picture: one bar a figure, its ratio of Firn to Kafka on a logarithmic scale.

use std::fmt::Write;

use crate::report::{Figure, short};

const ROW: f64 = 20.0;
const LABEL_WIDTH: f64 = 470.0;
const BARS_WIDTH: f64 = 480.0;
const TOP: f64 = 56.0;
/// The scale's ends: a hundredth and a hundredfold.
const DECADES: f64 = 2.0;

/// An SVG of every figure that both systems have.
pub fn ratios(figures: &[Figure]) -> String {
    let rows: Vec<(&Figure, f64)> = figures
        .iter()
        .filter_map(|figure| Some((figure, figure.ratio().filter(|ratio| *ratio > 0.0)?)))
        .collect();
    let height = TOP + ROW * rows.len() as f64 + 20.0;
    let width = LABEL_WIDTH + BARS_WIDTH + 70.0;
    let middle = LABEL_WIDTH + BARS_WIDTH / 2.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">Firn : Apache Kafka (1 is equal; blue is better for Firn, orange worse)</text>\n"
    );
    for decade in -2..=2 {
        let x = middle + f64::from(decade) / DECADES * BARS_WIDTH / 2.0;
        let label = short(10_f64.powi(decade)).trim_end_matches('0').trim_end_matches('.').to_owned();
        let label = if decade > 0 { format!("{:.0}", 10_f64.powi(decade)) } else { label };
        push(
            &mut svg,
            format_args!(
                "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{}\" stroke=\"#ccc\"/>",
                height - 20.0
            ),
        );
        push(
            &mut svg,
            format_args!(
                "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{label}</text>",
                TOP - 6.0
            ),
        );
    }
    for (row, (figure, ratio)) in rows.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let reach = (ratio.log10() / DECADES).clamp(-1.0, 1.0) * BARS_WIDTH / 2.0;
        let (x, width) = if reach < 0.0 { (middle + reach, -reach) } else { (middle, reach) };
        let more_is_better = figure.unit.ends_with("/s");
        let better = (*ratio >= 1.0) == more_is_better;
        let colour = if better { "#2b6cb0" } else { "#dd6b20" };
        push(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{} [{}]</text>",
                LABEL_WIDTH - 8.0,
                y + 14.0,
                escaped(&figure.name),
                figure.unit
            ),
        );
        push(
            &mut svg,
            format_args!(
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"13\" fill=\"{colour}\"/>",
                y + 3.0,
                width.max(1.0)
            ),
        );
        push(
            &mut svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\">{}</text>",
                LABEL_WIDTH + BARS_WIDTH + 8.0,
                y + 14.0,
                short(*ratio)
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn push(svg: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(svg, "{line}").expect("write to a string");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
