//! `firn dev`: one broker in this very process, or several with a process for each, and nothing to configure.

pub mod error;
pub mod place;
pub mod processes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use firn_model::broker_config::settings::HTTP_PORT_DISTANCE;

use error::DevError;
use place::{Place, create_dir, directory};
use processes::{Broker, CONFIG, READY};

/// How many brokers have each partition, if nothing else is said and there are as many.
const REPLICAS_MAX: u16 = 3;

/// How many brokers decide on the metadata: one of three may be lost, two of five. More would only take longer to agree.
fn voters(brokers: u16) -> u16 {
    match brokers {
        0..3 => brokers,
        3..5 => 3,
        5.. => 5,
    }
}

#[derive(Debug, Args)]
pub struct Dev {
    /// How many brokers: one is this very process, several are processes of their own that end with it
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub brokers: u16,
    /// Zones that the brokers stand in, in turn, as their broker.rack: a,b,c
    #[arg(long, value_name = "ZONES", value_delimiter = ',')]
    zones: Vec<String>,
    /// Port to listen on, on the loopback address alone; further brokers take those after it, and 0, for one broker, any
    /// free one
    #[arg(long, default_value_t = 9092)]
    port: u16,
    /// Where the data lie
    #[arg(long, value_name = "DIR", default_value = "firn-data")]
    data: PathBuf,
    /// Port of /metrics and /healthz, on the loopback address alone; further brokers take those after it [default: the
    /// broker's port + 10000]
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Object store for cold segments: s3://bucket/prefix or file:///path [default: a directory below --data]
    #[arg(long, value_name = "URL")]
    store: Option<String>,
}

impl Dev {
    /// Refuses what cannot be, and takes the directory. Nobody else runs there as long as the place is kept.
    pub fn claim(&self) -> Result<Place, DevError> {
        self.check()?;
        let data = match self.brokers {
            1 => self.data.clone(),
            // A broker that is started again may be so from another directory.
            _ => std::path::absolute(&self.data)
                .map_err(|source| DevError::Path { path: self.data.clone(), source })?,
        };
        Place::claim(data, self.store.as_deref())
    }

    fn check(&self) -> Result<(), DevError> {
        let brokers = self.brokers;
        if brokers == 0 {
            return Err(DevError::NoBroker);
        }
        if brokers > 1 && self.port == 0 {
            return Err(DevError::AnyPort { brokers });
        }
        for (flag, first) in [("--port", self.port), ("--http-port", self.http_port.unwrap_or(0))] {
            let last = u32::from(first) + u32::from(brokers) - 1;
            if first != 0 && last > u32::from(u16::MAX) {
                return Err(DevError::Ports { flag, first, brokers, last });
            }
        }
        match self.zones.iter().any(|zone| zone.trim().is_empty()) {
            true => Err(DevError::NamelessZone),
            false => Ok(()),
        }
    }

    /// What broker `id` is told, where `data` and `store` are those of all.
    pub fn properties(&self, id: u16, data: &Path, store: &str) -> BTreeMap<String, String> {
        let property = |key: &str, value: String| (key.to_owned(), value);
        let replicas = self.brokers.clamp(1, REPLICAS_MAX);
        let mut properties = BTreeMap::from([
            property("node.id", id.to_string()),
            property("listeners", format!("PLAINTEXT://{}", self.address(id))),
            property("log.dirs", directory(data, id).display().to_string()),
            property("firn.store.url", store.to_owned()),
            property("firn.http.host", "127.0.0.1".to_owned()),
            property("offsets.topic.replication.factor", replicas.to_string()),
            property("group.initial.rebalance.delay.ms", "0".to_owned()),
        ]);
        // 0 is any free port, for each of them.
        let http_port = self.http_port.map(|first| if first == 0 { 0 } else { after(first, id) });
        properties.extend(http_port.map(|port| property("firn.http.port", port.to_string())));
        let zone = self.zones.get(usize::from(id) % self.zones.len().max(1));
        properties.extend(zone.map(|zone| property("broker.rack", zone.trim().to_owned())));
        if self.brokers > 1 {
            let voters = (0..voters(self.brokers)).map(|voter| format!("{voter}@{}", self.address(voter)));
            let voters = voters.collect::<Vec<_>>().join(",");
            properties.extend([
                property("controller.quorum.voters", voters),
                property("default.replication.factor", replicas.to_string()),
                // One broker of three may be lost, and all goes on.
                property("min.insync.replicas", (replicas - 1).to_string()),
            ]);
        }
        properties
    }

    fn address(&self, id: u16) -> String {
        format!("127.0.0.1:{}", after(self.port, id))
    }

    /// Where it stands which process the one broker is.
    pub fn own_pid_file(&self) -> PathBuf {
        pid_file(&self.data, 0)
    }

    /// Runs several brokers until SIGINT or SIGTERM. Only the main thread may call it: see `processes`.
    pub fn run_processes(&self, place: &Place) -> Result<(), DevError> {
        let firn = program();
        let broker = |id: u16| -> Result<Broker, DevError> {
            let config = quoted(&directory(&self.data, id).join(CONFIG));
            let pid_file = quoted(&pid_file(&self.data, id));
            let broker = Broker {
                id,
                directory: directory(&place.data, id),
                properties: self.properties(id, &place.data, &place.store),
                again: format!("{firn} serve --config {config} --pid-file {pid_file}"),
            };
            create_dir(&broker.directory)?;
            Ok(broker)
        };
        let brokers = (0..self.brokers).map(broker).collect::<Result<Vec<_>, _>>()?;
        processes::run(&brokers, &self.ready(&firn))
    }

    /// The one line on standard output when all of several brokers serve clients.
    fn ready(&self, firn: &str) -> String {
        let addresses: Vec<String> = (0..self.brokers).map(|id| self.address(id)).collect();
        let pid_file = quoted(&pid_file(&self.data, 1));
        format!(
            "{READY}{}{}{}. Lose a broker and watch {}: kill -9 $(cat {pid_file})",
            addresses.join(", "),
            self.metrics(),
            self.next_steps(&self.address(0), firn),
            // One of two is no majority.
            if self.brokers > 2 {
                "the others go on"
            } else {
                "the other wait for it, which three would not"
            },
        )
    }

    /// Where the metrics of several brokers are, if that is known before they run.
    fn metrics(&self) -> String {
        let first = match self.http_port {
            Some(first) => Some(first).filter(|first| *first != 0),
            None => self.port.checked_add(HTTP_PORT_DISTANCE),
        };
        let Some(first) = first else { return String::new() };
        let others: Vec<String> = (1..self.brokers).map(|id| after(first, id).to_string()).collect();
        format!("; metrics on http://127.0.0.1:{first}/metrics (and {})", others.join(", "))
    }

    /// The end of the line that says that clients are served, at `address` for one.
    pub fn next_steps(&self, address: &str, firn: &str) -> String {
        let data = self.data.display();
        let stopped = if self.brokers == 1 { "it" } else { "them" };
        // Commands ask there by default.
        let bootstrap = match address.ends_with(":9092") {
            true => String::new(),
            false => format!(" --bootstrap {address}"),
        };
        format!(
            "; data in {data}; Ctrl-C stops {stopped}. Try: echo hello | {firn} produce greetings{bootstrap}"
        )
    }
}

/// Where it stands which process broker `id` is.
fn pid_file(data: &Path, id: u16) -> PathBuf {
    directory(data, id).join(place::PID_FILE)
}

/// How this program was called.
#[expect(clippy::disallowed_methods, reason = "people are told what they typed themselves")]
pub fn program() -> String {
    std::env::args().next().unwrap_or_else(|| "firn".to_owned())
}

/// The port of broker `id`, when that of broker 0 is `first`. `check` has seen to it that there is one.
fn after(first: u16, id: u16) -> u32 {
    u32::from(first) + u32::from(id)
}

/// A path as a shell reads it back.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    match text.chars().all(|c| c.is_alphanumeric() || "/._-".contains(c)) {
        true => text,
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use firn_model::broker_config::BrokerConfig;
    use firn_model::properties;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        dev: Dev,
    }

    fn dev(line: &str) -> Dev {
        Line::try_parse_from(std::iter::once("dev").chain(line.split_whitespace())).unwrap().dev
    }

    fn told(line: &str, id: u16) -> BTreeMap<String, String> {
        dev(line).properties(id, Path::new("/data"), "file:///data/store")
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn one_broker_needs_no_voters_and_is_told_nothing_that_has_no_effect() {
        let properties = told("--port 0", 0);
        let expected = [
            ("node.id", "0"),
            ("listeners", "PLAINTEXT://127.0.0.1:0"),
            ("log.dirs", "/data/broker-0"),
            ("firn.store.url", "file:///data/store"),
            ("firn.http.host", "127.0.0.1"),
            ("offsets.topic.replication.factor", "1"),
            ("group.initial.rebalance.delay.ms", "0"),
        ];
        assert_eq!(properties, map(&expected));
        let parsed = BrokerConfig::from_properties(&told("--zones a,b --http-port 8080", 0)).unwrap();
        assert_eq!(parsed.warnings, Vec::<String>::new());
        assert_eq!(parsed.config.rack.as_deref(), Some("a"));
        assert_eq!(parsed.config.http.map(|http| http.port), Some(8080));
    }

    #[test]
    fn several_take_ports_and_zones_in_turn_and_know_of_each_other() {
        let properties = told("--brokers 3 --port 7000 --http-port 8000 --zones north,south", 2);
        let expected = [
            ("node.id", "2"),
            ("listeners", "PLAINTEXT://127.0.0.1:7002"),
            ("log.dirs", "/data/broker-2"),
            ("firn.store.url", "file:///data/store"),
            ("firn.http.host", "127.0.0.1"),
            ("firn.http.port", "8002"),
            ("broker.rack", "north"),
            ("controller.quorum.voters", "0@127.0.0.1:7000,1@127.0.0.1:7001,2@127.0.0.1:7002"),
            ("default.replication.factor", "3"),
            ("min.insync.replicas", "2"),
            ("offsets.topic.replication.factor", "3"),
            ("group.initial.rebalance.delay.ms", "0"),
        ];
        assert_eq!(properties, map(&expected));
        let of_last = told("--brokers 7 --port 7000", 6);
        let listed = of_last.get("controller.quorum.voters").unwrap();
        assert_eq!(listed.split(',').count(), 5);
        assert!(listed.ends_with("4@127.0.0.1:7004"), "{listed}");
        let any = told("--brokers 3 --http-port 0", 2);
        assert_eq!(any.get("firn.http.port").map(String::as_str), Some("0"), "any free one for each");
    }

    #[test]
    fn what_a_broker_is_told_survives_its_file() {
        let data = Path::new("/a b\\new #1=x");
        let dev = dev("--brokers 2 --zones zürich,b");
        let properties = dev.properties(0, data, "file:///a b\\new #1=x/store");
        assert_eq!(properties::parse(&properties::write(&properties)), Ok(properties));
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_flag_that_asks_for_it() {
        for (line, flags) in [
            ("--brokers 0", "--brokers 0"),
            ("--brokers 3 --port 0", "--port 0 with --brokers 3"),
            ("--brokers 3 --port 65534", "--port 65534 with --brokers 3"),
            ("--brokers 3 --http-port 65534", "--http-port 65534 with --brokers 3"),
            ("--zones a,,b", "--zones"),
            ("--zones=", "--zones"),
        ] {
            let refused = dev(line).check().unwrap_err().to_string();
            assert!(refused.contains(flags), "{line}: {refused}");
        }
        for line in ["", "--port 0 --http-port 0", "--brokers 3 --port 65533", "--brokers 3 --zones a,b,c,d"]
        {
            assert!(dev(line).check().is_ok(), "{line}");
        }
    }

    #[test]
    fn the_ready_line_says_what_to_do_next() {
        assert_eq!(
            dev("--brokers 2 --data d").ready("firn"),
            "firn is ready on 127.0.0.1:9092, 127.0.0.1:9093; \
             metrics on http://127.0.0.1:19092/metrics (and 19093); data in d; Ctrl-C stops them. \
             Try: echo hello | firn produce greetings. \
             Lose a broker and watch the other wait for it, which three would not: kill -9 $(cat d/broker-1/broker.pid)"
        );
        let three = dev("--brokers 3 --data d").ready("firn");
        assert!(three.contains("watch the others go on: kill -9"), "{three}");
        let elsewhere = dev("--port 7000").next_steps("127.0.0.1:7000", "./firn");
        assert_eq!(
            elsewhere,
            "; data in firn-data; Ctrl-C stops it. Try: echo hello | ./firn produce greetings --bootstrap 127.0.0.1:7000"
        );
        assert_eq!(quoted(Path::new("it's here")), r"'it'\''s here'");
    }
}
