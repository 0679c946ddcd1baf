//! Brokers as child processes that are one cluster, three of them unless a test says otherwise, of Firn or of Apache Kafka.

use std::ops::Deref;

use crate::cluster::{Broker, BrokerOptions, System};
use crate::process::free_ports;
use crate::questions::Questions;

#[derive(Debug)]
pub struct Trio {
    pub brokers: Vec<Broker>,
    questions: Questions,
}

impl Trio {
    /// Starts three brokers, with ids 1, 2 and 3, and waits until all answer.
    pub fn start(options: &BrokerOptions) -> Trio {
        let (brokers, questions) = start::<3>(options, |_| None);
        Trio { brokers, questions }
    }

    /// Stops all three at once, in an orderly way.
    pub fn stop(&mut self) {
        std::thread::scope(|scope| {
            for broker in &mut self.brokers {
                scope.spawn(|| broker.stop());
            }
        });
    }

    /// Starts all three again, and waits until they answer.
    pub fn start_again(&mut self) {
        self.brokers.iter_mut().for_each(Broker::start_unready);
        self.brokers.iter_mut().for_each(Broker::wait_ready);
    }
}

/// Starts so many brokers, with ids from 1 on, each in the zone that its id gives, and waits until all answer. The first three
/// have a vote.
pub fn start<const N: usize>(
    options: &BrokerOptions,
    zone: impl Fn(i32) -> Option<&'static str>,
) -> (Vec<Broker>, Questions) {
    let (ports, controllers): ([u16; N], [u16; N]) = (free_ports(), free_ports());
    let voters = match options.system {
        // Each keeps the metadata, and is found where its clients find it.
        System::Firn => ports,
        System::Kafka => controllers,
    };
    let voters: Vec<String> =
        (1..).zip(voters).take(3).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
    let of_one = |(id, (port, controller)): (i32, (u16, u16))| {
        let mut options = options.clone();
        options.data = options.data.map(|data| data.join(id.to_string()));
        let own_id = if options.system == System::Firn { "broker.id" } else { "node.id" };
        options = options.with(own_id, &id.to_string()).with("controller.quorum.voters", &voters.join(","));
        if let Some(zone) = zone(id) {
            options = options.with("broker.rack", zone);
        }
        let mut broker = Broker::prepare(options, port, controller);
        broker.start_unready();
        broker
    };
    let mut brokers: Vec<Broker> = (1..).zip(ports.into_iter().zip(controllers)).map(of_one).collect();
    brokers.iter_mut().for_each(Broker::wait_ready);
    let questions = Questions::of(brokers.iter().map(Broker::address).collect());
    (brokers, questions)
}

impl Deref for Trio {
    type Target = Questions;

    fn deref(&self) -> &Questions {
        &self.questions
    }
}
