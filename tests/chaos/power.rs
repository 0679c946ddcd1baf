//! The power of all machines at once: what was acknowledged is there afterwards, once and in order, and so is every change of
//! the metadata and every offset of a group that somebody was told of.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use firn_tests::faults::FileSystem;
use firn_tests::ledger::Past;
use firn_tests::questions::Questions;

use crate::clients::Producers;
use crate::machine::{self, Equipment, Machine};
use crate::registrar::{self, Register, Registrar};

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 2;
/// Records a second of each.
const RATE: u32 = 3_000;

pub fn run(cuts: u64, file_system: FileSystem, without_fsync: bool) -> ExitCode {
    let began = Instant::now();
    let mut machines = machine::start_all(Equipment { file_system, disk_mib: 1024, own_clock: false });
    let addresses = machine::addresses();
    let questions = Questions::of(addresses.clone());
    let mut configs = vec![("min.insync.replicas", "2")];
    if without_fsync {
        configs.push(("flush.messages", "9223372036854775807"));
    }
    questions.create(TOPIC, PARTITIONS, &configs);
    let (mut past, mut register) = (Past::default(), Register::default());
    let mut slowest = Duration::ZERO;
    for cut in 0..cuts {
        let registrar = Registrar::start(addresses.clone(), TOPIC, register);
        let producers = Producers::start(PRODUCERS, &questions.addresses(), TOPIC, PARTITIONS, RATE);
        // Spread, so that no two cuts meet the same moment.
        producers.wait_for_more(500 + cut * 370 % 3_000);
        // In turn the disks die under brokers that still work, and everything at once. Only what was acknowledged before
        // the cut is held against it: after a cut nobody hears an acknowledgement, and an fsync that is under way while
        // a file system is shut down (not cut off from power) may return success.
        let (ledger, told) = if cut % 2 == 0 {
            let told = (producers.kill(), registrar.end());
            machines.iter().for_each(Machine::cut_power_of_disk);
            machines.iter_mut().for_each(Machine::kill);
            told
        } else {
            machines.iter().for_each(Machine::strike_dead);
            machines.iter_mut().for_each(Machine::kill);
            machines.iter().for_each(Machine::cut_power_of_disk);
            (producers.kill(), registrar.end())
        };
        register = told;
        machines.iter_mut().for_each(Machine::restore_power);
        let restored = Instant::now();
        machines.iter_mut().for_each(Machine::start);
        machines.iter_mut().for_each(Machine::wait_ready);
        past.check(&questions.addresses(), TOPIC, PARTITIONS, &ledger);
        let back = restored.elapsed();
        slowest = slowest.max(back);
        registrar::check(&addresses, TOPIC, &mut register);
        println!(
            "{:>7.1} s  cut {} of {cuts}: {} records acknowledged and {} changes of metadata so far, none lost; all was read {:.1} s after the power came back",
            began.elapsed().as_secs_f64(),
            cut + 1,
            past.acknowledged,
            register.told(),
            back.as_secs_f64(),
        );
    }
    questions.wait_in_sync(TOPIC, PARTITIONS, 3);
    for machine in &mut machines {
        machine.ask_to_stop();
        machine.wait_stopped();
    }
    println!(
        "{cuts} power cuts of three brokers on {file_system:?}: {} records acknowledged, {} read back, 0 lost, 0 doubled, 0 reordered; \
         {} topics created and {} deleted, {} configs and {} group offsets set, 0 lost; slowest return {:.1} s",
        past.acknowledged,
        past.read,
        register.created.told,
        register.deleted.told,
        register.config.told,
        register.offset.told,
        slowest.as_secs_f64(),
    );
    assert!(past.acknowledged as u64 > cuts * 100, "the load ran");
    ExitCode::SUCCESS
}
