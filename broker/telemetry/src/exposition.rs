//! Prometheus' text format, written for what is only known when somebody asks: the state of each partition and group.

use std::fmt::Write;

/// What kind of number a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
}

/// Labels, written out once for all the samples that carry them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(String);

impl Labels {
    pub fn of(labels: &[(&str, &str)]) -> Self {
        let mut text = String::new();
        for (index, (label, value)) in labels.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            write!(text, "{comma}{label}=\"{}\"", escaped(value)).ok();
        }
        Self(text)
    }
}

/// What a histogram has counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted<'a> {
    /// Upper bounds, rising, and how many lay above the bound before and not above this one.
    pub buckets: &'a [(f64, u64)],
    /// How many lay above the last bound.
    pub above: u64,
    pub sum: f64,
}

/// The text of one scrape.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

impl Exposition {
    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        self.begin(name, kind, help);
    }

    /// Begins a family of histograms.
    pub fn histograms(&mut self, name: &str, help: &str) {
        self.begin(name, "histogram", help);
    }

    /// One number of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.labelled(name, &Labels::of(labels), value);
    }

    /// The same under labels that are written out already.
    pub fn labelled(&mut self, name: &str, labels: &Labels, value: f64) {
        if labels.0.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.0));
        }
    }

    /// One histogram of the family that was begun last.
    pub fn histogram(&mut self, name: &str, labels: &Labels, counted: &Counted<'_>) {
        let comma = if labels.0.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bound, one) in counted.buckets {
            count += one;
            self.line(format_args!("{name}_bucket{{{}{comma}le=\"{bound}\"}} {count}", labels.0));
        }
        count += counted.above;
        self.line(format_args!("{name}_bucket{{{}{comma}le=\"+Inf\"}} {count}", labels.0));
        self.labelled(&format!("{name}_sum"), labels, counted.sum);
        self.labelled(&format!("{name}_count"), labels, count as f64);
    }

    /// A family of one number without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// Adds text that is in the format already.
    pub fn append(&mut self, text: &str) {
        self.text.push_str(text);
    }

    pub fn into_text(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").ok();
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_prometheus_text() {
        let mut exposition = Exposition::default();
        exposition.single("up", Kind::Gauge, "Whether it runs", 1.0);
        exposition.family("size_bytes", Kind::Counter, "Sizes");
        exposition.sample("size_bytes", &[("topic", "a\"b\\c\nd"), ("partition", "0")], 1.5);
        let expected = "# HELP up Whether it runs\n# TYPE up gauge\nup 1\n# HELP size_bytes Sizes\n\
                        # TYPE size_bytes counter\nsize_bytes{topic=\"a\\\"b\\\\c\\nd\",partition=\"0\"} 1.5\n";
        assert_eq!(exposition.into_text(), expected);
    }

    #[test]
    fn a_histogram_adds_its_buckets_up() {
        let mut exposition = Exposition::default();
        exposition.histograms("took_ms", "Times");
        let counted = Counted { buckets: &[(0.5, 2), (10.0, 0)], above: 1, sum: 40.5 };
        exposition.histogram("took_ms", &Labels::of(&[("operation", "get")]), &counted);
        let expected = "# HELP took_ms Times\n# TYPE took_ms histogram\n\
                        took_ms_bucket{operation=\"get\",le=\"0.5\"} 2\n\
                        took_ms_bucket{operation=\"get\",le=\"10\"} 2\n\
                        took_ms_bucket{operation=\"get\",le=\"+Inf\"} 3\n\
                        took_ms_sum{operation=\"get\"} 40.5\ntook_ms_count{operation=\"get\"} 3\n";
        assert_eq!(exposition.into_text(), expected);
    }
}
