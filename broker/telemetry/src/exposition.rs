//! Prometheus' text format, written for what is only known when somebody asks: the state of each partition and group.

use std::fmt::Write;

/// What kind of number a family holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Gauge,
    Counter,
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
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// One number of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let mut shown = String::new();
        for (index, (label, value)) in labels.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            // Writing to a string cannot fail.
            write!(shown, "{comma}{label}=\"{}\"", escaped(value)).ok();
        }
        if shown.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{shown}}} {value}"));
        }
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
}
