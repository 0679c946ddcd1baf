//! Many brokers in three zones, whole ones: how long they take to find each other and register, to have many partitions, and to go
//! on without a zone, in virtual time; and how much they tell each other meanwhile.
//!
//! Five decide on the metadata, the others follow them. Nothing else is wrong with them, nor with the network: what is looked for is
//! how costs grow.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use firn::context::Context;
use firn::environment::Environment;
use firn::node::Node;
use firn_blocking as blocking;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_metadata::image::{Image, Partition};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::create_topics_request::CreatableTopic;
use firn_protocol::library::messages::{CreateTopicsRequest, TopicName};
use firn_storage::simulated::SimulatedDisk;

use crate::environment::SeededRandom;
use crate::many_hosts::{Hosts, Sent, name};
use crate::randomness;
use crate::shared::text;

const SEED: u64 = 1;
const PORT: u16 = 9092;
const ZONES: usize = 3;
const VOTERS: usize = 5;
const REPLICAS: i16 = 3;
/// Partitions of one topic, at most.
const TOPIC_PARTITIONS_MAX: usize = 1_000;
/// How long a piece of work for the disk takes.
const DISK_LATENCY: Duration = Duration::from_micros(500);
/// Virtual time that a step may take.
const STEP_MAX: Duration = Duration::from_secs(120);

/// What a step took, in virtual time, and what was sent meanwhile.
struct Step {
    what: &'static str,
    took: Duration,
    sent: Sent,
}

/// The brokers of a run, by number, as far as they serve.
#[derive(Clone, Default)]
struct Nodes(Arc<Mutex<Vec<Option<Arc<Context>>>>>);

impl Nodes {
    fn all(&self) -> MutexGuard<'_, Vec<Option<Arc<Context>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs each of these sizes, and prints what it took.
pub fn scale(sizes: &[usize], partitions_each: usize) -> ExitCode {
    println!("| brokers | partitions | | virtual seconds | messages | a broker | MB |");
    println!("|---|---|---|---|---|---|---|");
    for brokers in sizes {
        let began = Instant::now();
        let (brokers, partitions) = (*brokers, brokers * partitions_each);
        // A thread runs one at most.
        match std::thread::spawn(move || run(brokers, partitions)).join() {
            Ok(Ok(())) => eprintln!("{brokers} brokers in {:.0} s", began.elapsed().as_secs_f64()),
            Ok(Err(why)) => {
                println!("{brokers} brokers: {why}");
                return ExitCode::FAILURE;
            }
            Err(_) => return ExitCode::FAILURE,
        }
    }
    ExitCode::SUCCESS
}

fn run(count: usize, partitions: usize) -> Result<(), String> {
    randomness::follow(SEED);
    blocking::do_in_place(|| DISK_LATENCY);
    let mut world = World {
        hosts: Hosts::new(count, SEED),
        nodes: Nodes::default(),
        disks: (0..count).map(|_| SimulatedDisk::new()).collect(),
    };
    world.nodes.all().resize(count, None);
    let tell = |Step { what, took, sent: Sent { messages, bytes } }: Step| {
        let (seconds, each) = (took.as_secs_f64(), messages / count as u64);
        let megabytes = bytes as f64 / 1e6;
        println!("| {count} | {partitions} | {what} | {seconds:.2} | {messages} | {each} | {megabytes:.1} |");
    };
    (0..count).try_for_each(|number| world.switch_on(number))?;
    let registered = world.until("all serve and are registered", |all, image| {
        all.iter().all(Option::is_some) && image.brokers().filter(|broker| !broker.fenced).count() == count
    })?;
    tell(registered);
    world.create(partitions)?;
    let created = world.until("partitions created, and known to all", |all, image| {
        let applied_to = all.iter().flatten().map(|context| context.controller.applied_to());
        let (least, most) = applied_to.fold((i64::MAX, 0), |(least, most), at| (at.min(least), at.max(most)));
        of_all(image).count() == partitions && least == most
    })?;
    tell(created);
    // The controller may be of the zone.
    let zone: BTreeSet<usize> = (0..count).step_by(ZONES).collect();
    for number in &zone {
        world.hosts.switch_off(*number);
        world.nodes.all()[*number] = None;
    }
    let is_there = |id: i32| usize::try_from(id).is_ok_and(|number| !zone.contains(&number));
    let lost = world.until("a zone lost: others lead, and all know", |all, image| {
        let led = |image: &Image| of_all(image).all(|one| is_there(one.leader));
        led(image) && all.iter().flatten().all(|context| led(&context.controller.image()))
    })?;
    tell(lost);
    zone.iter().try_for_each(|number| world.switch_on(*number))?;
    let back = world.until("it is back: all in sync", |all, image| {
        all.iter().all(Option::is_some) && of_all(image).all(|one| one.isr.len() == REPLICAS as usize)
    })?;
    tell(back);
    Ok(())
}

fn of_all(image: &Image) -> impl Iterator<Item = &Arc<Partition>> {
    image.topics().flat_map(|topic| &topic.partitions)
}

struct World {
    hosts: Hosts,
    nodes: Nodes,
    disks: Vec<SimulatedDisk>,
}

impl World {
    /// Goes on until what the brokers have, and the controller's metadata, are as they are to be.
    fn until(
        &mut self,
        what: &'static str,
        holds: impl Fn(&[Option<Arc<Context>>], &Image) -> bool,
    ) -> Result<Step, String> {
        let (began, before) = (self.hosts.elapsed(), self.hosts.sent());
        loop {
            // To look is dear.
            (0..8).for_each(|_| self.hosts.step());
            let took = self.hosts.elapsed() - began;
            let nodes = self.nodes.all();
            // Outside of the hosts no clock is virtual: whether it leads now cannot be asked of it.
            let by_term = nodes.iter().flatten().map(|context| (context.controller.progress(), context));
            let leading = by_term.filter(|(now, context)| now.leader == Some(context.node_id));
            let controller = leading.max_by_key(|(now, _)| now.term).map(|(_, context)| context);
            if controller.is_some_and(|controller| holds(&nodes, &controller.controller.image())) {
                let Sent { messages, bytes } = self.hosts.sent();
                let sent = Sent { messages: messages - before.messages, bytes: bytes - before.bytes };
                return Ok(Step { what, took, sent });
            }
            if took > STEP_MAX {
                return Err(format!("not within {STEP_MAX:?}: {what}"));
            }
        }
    }

    /// Starts a broker, on the disk that it had before.
    fn switch_on(&mut self, number: usize) -> Result<(), String> {
        let count = self.disks.len();
        let voters = (0..VOTERS.min(count)).map(|voter| format!("{voter}@{}:{PORT}", name(voter)));
        let text = format!(
            "node.id={number}\nlisteners=PLAINTEXT://0.0.0.0:{PORT}\n\
             advertised.listeners=PLAINTEXT://{}:{PORT}\ncontroller.quorum.voters={}\n\
             broker.rack=zone-{}\nlog.dirs=/data\nfirn.http.port=-1\nfirn.disk.reserve.bytes=0\n\
             min.insync.replicas=2\nnum.recovery.threads.per.data.dir=1\nlog.cleaner.threads=1\n",
            name(number),
            voters.collect::<Vec<_>>().join(","),
            number % ZONES,
        );
        let parsed = properties::parse(&text).map_err(|error| error.to_string())?;
        let config = BrokerConfig::from_properties(&parsed).map_err(|error| error.to_string())?.config;
        let (network, clock) = self.hosts.environment(number);
        let disk = self.disks[number].after_kill();
        self.disks[number] = disk.clone();
        let environment = Environment {
            clock,
            random: Arc::new(SeededRandom::new(number as u64)),
            disk: Arc::new(disk),
            network,
            open_files_max: 10_000,
        };
        let nodes = self.nodes.clone();
        let runtime = self.hosts.switch_on(number).map_err(|error| error.to_string())?;
        runtime.spawn(async move {
            match Node::start_with_tier(config, environment, None).await {
                Ok(node) => {
                    nodes.all()[number] = Some(node.context.clone());
                    panic!("broker {number} ends: {}", node.ended().await);
                }
                Err(error) => panic!("broker {number} does not start: {error}"),
            }
        });
        Ok(())
    }

    /// Has a broker's client create topics of so many partitions in all.
    fn create(&mut self, partitions: usize) -> Result<(), String> {
        // Any broker takes it.
        let asked = name(1);
        let (network, _) = self.hosts.environment(1);
        let runtime = self.hosts.runtime(1).ok_or("broker 1 is off")?;
        runtime.spawn(async move {
            let address = format!("{asked}:{PORT}");
            let stream = network.connect(address.clone()).await.expect("a connection");
            let options =
                ConnectionOptions { deadline: Duration::from_secs(60), ..ConnectionOptions::default() };
            let connection = Connection::over(stream, address, options).await.expect("a broker");
            let topics = (0..partitions.div_ceil(TOPIC_PARTITIONS_MAX)).map(|number| {
                let left = partitions - number * TOPIC_PARTITIONS_MAX;
                CreatableTopic::default()
                    .with_name(TopicName(text(&format!("topic-{number}"))))
                    .with_num_partitions(left.min(TOPIC_PARTITIONS_MAX) as i32)
                    .with_replication_factor(REPLICAS)
            });
            let request =
                CreateTopicsRequest::default().with_topics(topics.collect()).with_timeout_ms(60_000);
            for created in connection.call(&request).await.expect("an answer").topics {
                assert_eq!(created.error_code, 0, "{:?}", created.error_message);
            }
        });
        Ok(())
    }
}
