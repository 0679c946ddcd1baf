//! What is told of a run that broke a promise: few enough events to be read, of the many that there were.

use std::time::Duration;

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// What befalls the brokers, and what they make of it.
    Run,
    /// Who leads a partition.
    Leader(i32),
    /// What the clients of a partition do, and are told.
    Partition(i32),
    /// What all clients need, and no partition more than another.
    Others,
    /// A change of a disk: so many that they are not kept.
    Disk,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub struct Event {
    pub at: Duration,
    pub about: About,
    pub line: String,
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Broken {
    /// When that was seen.
    pub at: Duration,
    /// Of which partition, if it is of one.
    pub partition: Option<i32>,
    pub what: String,
}

/// How much is told of what befell the brokers; two virtual minutes have about half of it.
const OF_RUN_MAX: usize = 400;
/// How much is told of the clients.
const OF_CLIENTS_MAX: usize = 60;

/// The events until a promise was seen to be broken that concern it, in order: faults, brokers and leaders of the whole run, and
/// the last that clients did.
pub fn tell<'a>(events: &'a [Event], broken: &Broken) -> Vec<&'a str> {
    let concerns = |partition| broken.partition.is_none_or(|of| of == partition);
    let (mut of_run, mut of_clients) = (0, 0);
    let mut told: Vec<&str> = events
        .iter()
        .rev()
        .filter(|event| event.at <= broken.at)
        .filter(|event| {
            let (counted, max) = match event.about {
                About::Run => (&mut of_run, OF_RUN_MAX),
                About::Leader(partition) if concerns(partition) => (&mut of_run, OF_RUN_MAX),
                About::Partition(partition) if concerns(partition) => (&mut of_clients, OF_CLIENTS_MAX),
                About::Others if broken.partition.is_none() => (&mut of_clients, OF_CLIENTS_MAX),
                _ => return false,
            };
            *counted += 1;
            *counted <= max
        })
        .map(|event| event.line.as_str())
        .collect();
    told.reverse();
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(second: u64, about: About, line: &str) -> Event {
        Event { at: Duration::from_secs(second), about, line: format!("{second} {line}") }
    }

    fn broken(second: u64, partition: Option<i32>) -> Broken {
        Broken { at: Duration::from_secs(second), partition, what: "Lost".to_owned() }
    }

    /// Each second a fault, and clients of two partitions, the first of which has another leader then.
    fn long_run() -> Vec<Event> {
        let of_second = |second| {
            [
                event(second, About::Run, "fault"),
                event(second, About::Leader(0), "leads"),
                event(second, About::Partition(0), "wrote to 0"),
                event(second, About::Partition(1), "wrote to 1"),
                event(second, About::Others, "asked"),
            ]
        };
        (0..1_000).flat_map(of_second).collect()
    }

    #[test]
    fn faults_of_the_whole_run_are_told_and_the_last_of_the_partition() {
        let events = long_run();
        let told = tell(&events, &broken(150, Some(1)));
        let faults: Vec<_> = (0..=150).map(|second| format!("{second} fault")).collect();
        let written: Vec<_> = (91..=150).map(|second| format!("{second} wrote to 1")).collect();
        let (of_run, of_clients): (Vec<&str>, Vec<&str>) =
            told.iter().partition(|line| line.ends_with("fault"));
        assert_eq!(
            (of_run, of_clients),
            (faults.iter().map(String::as_str).collect(), written.iter().map(String::as_str).collect())
        );
        let seconds: Vec<u64> =
            told.iter().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(seconds.is_sorted(), "in order");
    }

    #[test]
    fn leaders_are_told_of_the_partition_and_clients_of_all_where_none_is_named() {
        let events = long_run();
        let count = |partition, what: &str| {
            tell(&events, &broken(20, partition)).iter().filter(|line| line.ends_with(what)).count()
        };
        assert_eq!([Some(0), Some(1), None].map(|partition| count(partition, "leads")), [21, 0, 21]);
        assert_eq!([Some(0), Some(1), None].map(|partition| count(partition, "asked")), [0, 0, 20]);
        assert_eq!([Some(0), Some(1), None].map(|partition| count(partition, "wrote to 1")), [0, 21, 20]);
    }

    #[test]
    fn no_run_is_too_long_to_be_read() {
        for partition in [None, Some(0), Some(1)] {
            assert_eq!(tell(&long_run(), &broken(1_000, partition)).len(), OF_RUN_MAX + OF_CLIENTS_MAX);
        }
    }
}
