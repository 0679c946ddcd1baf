//! Reads Prometheus' text format, and refuses what Prometheus or its linter would.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

type Labels = Vec<(String, String)>;

/// One scrape.
#[derive(Debug, Default)]
pub struct Scrape {
    types: BTreeMap<String, String>,
    /// By name and labels, the labels in the order of their names.
    samples: BTreeMap<(String, Labels), f64>,
}

impl Scrape {
    pub async fn of(address: SocketAddr) -> Scrape {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.unwrap();
        let (head, body) = reply.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        Scrape::parse(body)
    }

    fn parse(text: &str) -> Scrape {
        assert!(text.ends_with('\n'), "the last line ends, too");
        let mut scrape = Scrape::default();
        let mut helped = BTreeSet::new();
        let mut current = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').unwrap();
                assert!(
                    !text.is_empty() && helped.insert(name.to_owned()),
                    "one HELP for each family: {line}"
                );
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
                assert!(helped.contains(name), "HELP comes before TYPE: {line}");
                assert!(scrape.types.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                current = name.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                let family = scrape.family(&name);
                assert_eq!(family, current, "a sample follows its TYPE: {line}");
                assert_eq!(
                    scrape.types[&family] == "counter",
                    name.ends_with("_total"),
                    "a counter's name: {line}"
                );
                assert!(scrape.samples.insert((name, labels), value).is_none(), "twice: {line}");
            }
        }
        assert_eq!(helped, scrape.types.keys().cloned().collect());
        scrape.check_histograms();
        scrape
    }

    fn family(&self, name: &str) -> String {
        let of_histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
            name.strip_suffix(suffix)
                .filter(|family| self.types.get(*family).is_some_and(|kind| kind == "histogram"))
        });
        of_histogram.unwrap_or(name).to_owned()
    }

    /// Each has rising buckets, of which the last is all that were counted, and a sum.
    fn check_histograms(&self) {
        for family in self.types.iter().filter(|(_, kind)| *kind == "histogram").map(|(name, _)| name) {
            let mut series: BTreeMap<Labels, Vec<(f64, f64)>> = BTreeMap::new();
            for ((name, labels), value) in &self.samples {
                if *name == format!("{family}_bucket") {
                    let (bounds, labels): (Vec<_>, Vec<_>) =
                        labels.iter().cloned().partition(|(label, _)| label == "le");
                    series.entry(labels).or_default().push((bounds[0].1.parse().unwrap(), *value));
                }
            }
            for (labels, mut buckets) in series {
                buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
                assert!(
                    buckets.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1),
                    "{family}{labels:?}"
                );
                let last = buckets.last().unwrap();
                assert_eq!(last.0, f64::INFINITY, "{family}{labels:?}");
                assert_eq!(
                    self.samples[&(format!("{family}_count"), labels.clone())],
                    last.1,
                    "{family}{labels:?}"
                );
                assert!(
                    self.samples.contains_key(&(format!("{family}_sum"), labels.clone())),
                    "{family}{labels:?}"
                );
            }
        }
    }

    /// The one sample of this name with exactly these labels.
    pub fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut labels: Vec<_> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        labels.sort();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or_else(|| panic!("no {name} with {labels:?}"))
    }

    /// The only sample of this name, which has no labels.
    pub fn single(&self, name: &str) -> f64 {
        self.get(name, &[])
    }

    /// How many samples carry this label.
    pub fn labelled(&self, label: &str, value: &str) -> usize {
        let has =
            |labels: &[(String, String)]| labels.iter().any(|(name, found)| name == label && found == value);
        self.samples.keys().filter(|(_, labels)| has(labels)).count()
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '_')
}

fn sample(line: &str) -> (String, Labels, f64) {
    let (series, value) = line.rsplit_once(' ').unwrap();
    let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
    let Some((name, rest)) = series.split_once('{') else {
        assert!(is_name(series), "{line}");
        return (series.to_owned(), Vec::new(), value);
    };
    assert!(is_name(name), "{line}");
    let mut labels = Vec::new();
    let mut rest = rest.strip_suffix('}').unwrap();
    while let Some((label, after)) = rest.split_once("=\"") {
        assert!(is_name(label), "{line}");
        let (value, after) = quoted(after);
        labels.push((label.to_owned(), value));
        rest = after.strip_prefix(',').unwrap_or(after);
    }
    assert_eq!(rest, "", "{line}");
    labels.sort();
    assert!(labels.is_sorted_by(|one, other| one.0 != other.0), "a label twice: {line}");
    (name.to_owned(), labels, value)
}

/// What stands before the closing quote, and what comes after it.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    loop {
        match letters.next().unwrap() {
            (at, '"') => return (value, &text[at + 1..]),
            (_, '\\') => value.push(match letters.next().unwrap().1 {
                'n' => '\n',
                escaped => escaped,
            }),
            (_, letter) => value.push(letter),
        }
    }
}
