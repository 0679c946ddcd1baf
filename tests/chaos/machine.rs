//! A machine: a file system, a clock, a place on the wire, and the broker that runs there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use firn_tests::faults::{FileSystem, LoopImage};
use firn_tests::process::{Process, TempDir, wait_for};
use firn_tests::{tools, wire};
use rustix::process::Signal;

use crate::network;

const PORT: u16 = 9092;
/// How many there are. Their numbers, and their brokers' ids, begin with 1.
pub const MACHINES: u8 = 3;
const READY_DEADLINE: Duration = Duration::from_secs(300);
const STOP_DEADLINE: Duration = Duration::from_secs(90);
/// What a broker leaves free on its disk.
const RESERVE_BYTES: u64 = 16 << 20;
/// Where Debian has the library that gives a process a clock of its own.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// Where the kernel is told how fast a group of processes may use a disk.
const BLKIO: &str = "/sys/fs/cgroup/blkio";

/// What machines have.
#[derive(Debug, Clone, Copy)]
pub struct Equipment {
    pub file_system: FileSystem,
    pub disk_mib: u64,
    /// A clock that can be set, which costs the broker some time whenever it looks.
    pub own_clock: bool,
}

#[derive(Debug)]
pub struct Machine {
    pub number: u8,
    // The process goes before the disk that it writes to.
    process: Option<Process>,
    disk: LoopImage,
    work: TempDir,
    own_clock: bool,
    /// Lines of its output before it was started last: the next says that it is ready.
    said_before: usize,
    /// It was asked to. Before it is ready it ends by the signal, as after a kill.
    stops: bool,
}

/// How far the port of `/metrics` is from the first listener's.
const HTTP_PORT_DISTANCE: u16 = 10_000;

/// Where a machine's broker is found.
pub fn address(number: u8) -> String {
    format!("{}:{PORT}", network::address(number))
}

pub fn addresses() -> Vec<String> {
    (1..=MACHINES).map(address).collect()
}

/// Machines whose brokers are one cluster, and answer.
pub fn start_all(equipment: Equipment) -> Vec<Machine> {
    let mut machines: Vec<Machine> = (1..=MACHINES).map(|number| Machine::new(number, equipment)).collect();
    machines.iter_mut().for_each(Machine::start);
    machines.iter_mut().for_each(Machine::wait_ready);
    machines
}

impl Machine {
    fn new(number: u8, equipment: Equipment) -> Machine {
        network::add(number);
        let disk = LoopImage::create(equipment.file_system, equipment.disk_mib);
        let work = TempDir::new(&format!("machine-{number}"));
        let machine = Machine {
            number,
            process: None,
            disk,
            work,
            own_clock: equipment.own_clock,
            said_before: 0,
            stops: false,
        };
        let voters: Vec<String> = (1..=MACHINES).map(|id| format!("{id}@{}", address(id))).collect();
        let lines = [
            format!("broker.id={number}"),
            format!("listeners=PLAINTEXT://{}", address(number)),
            format!("log.dirs={}", machine.data().display()),
            format!("controller.quorum.voters={}", voters.join(",")),
            format!("firn.disk.reserve.bytes={RESERVE_BYTES}"),
            "default.replication.factor=3".to_owned(),
            "min.insync.replicas=2".to_owned(),
            "offsets.topic.replication.factor=3".to_owned(),
            "offsets.topic.num.partitions=3".to_owned(),
            // Small, so that faults fall on rolls, index files and snapshots too.
            "log.segment.bytes=1048576".to_owned(),
            "metadata.log.max.record.bytes.between.snapshots=20000".to_owned(),
            "group.initial.rebalance.delay.ms=0".to_owned(),
            // Disks are looked at all the time.
            "firn.log.scrub.interval.ms=500".to_owned(),
            "firn.log.scrub.max.bytes.per.second=2e8".to_owned(),
        ];
        std::fs::write(machine.config(), lines.join("\n") + "\n").expect("write server.properties");
        machine.set_clock(0);
        machine
    }

    fn config(&self) -> PathBuf {
        self.work.path().join("server.properties")
    }

    fn clock(&self) -> PathBuf {
        self.work.path().join("clock")
    }

    pub fn data(&self) -> PathBuf {
        self.disk.path().join("data")
    }

    pub fn http_address(&self) -> String {
        format!("{}:{}", network::address(self.number), PORT + HTTP_PORT_DISTANCE)
    }

    pub fn start(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", network::namespace(self.number)));
        // It ends with this process, however that ends.
        command.args(["setpriv", "--pdeathsig", "KILL", "env"]);
        if self.own_clock {
            command.arg(format!("LD_PRELOAD={FAKETIME}"));
            command.arg(format!("FAKETIME_TIMESTAMP_FILE={}", self.clock().display()));
            command.args(["FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1", "NO_FAKE_STAT=1"]);
        }
        command.arg(tools::firn()).arg("serve").arg("--config").arg(self.config());
        let process = Process::start("broker", command, self.work.path());
        self.said_before = process.stdout().lines().count();
        self.process = Some(process);
    }

    pub fn wait_ready(&mut self) {
        let address = address(self.number);
        let process = self.process.as_mut().expect("the broker was started");
        wait_for("the broker's first answer", READY_DEADLINE, || {
            process.assert_running();
            wire::answers(&address).then_some(())
        });
    }

    /// The broker must not end by itself.
    pub fn assert_running(&mut self) {
        if let Some(process) = self.process.as_mut().filter(|_| !self.stops) {
            process.assert_running();
        }
    }

    pub fn kill(&mut self) {
        self.process.take().expect("the broker runs").kill();
    }

    /// SIGKILL, and does not wait for the end.
    pub fn strike_dead(&self) {
        self.signal(Signal::KILL);
    }

    pub fn ask_to_stop(&mut self) {
        self.stops = true;
        self.signal(Signal::TERM);
    }

    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("the broker runs").signal(signal);
    }

    /// Whether a broker that was asked to stop has done so; it must have done so cleanly.
    pub fn has_stopped(&mut self) -> bool {
        let process = self.process.as_mut().expect("the broker was asked to stop");
        let Some(status) = process.ended() else { return false };
        let was_ready = process.stdout().lines().count() > self.said_before;
        assert!(
            status == 0 || !was_ready,
            "no clean stop, but {status}\n{}\n{}",
            process.stdout(),
            process.stderr()
        );
        self.process = None;
        self.stops = false;
        true
    }

    pub fn wait_stopped(&mut self) {
        wait_for("the end of a broker", STOP_DEADLINE, || self.has_stopped().then_some(()));
    }

    /// Nothing that its disk has not got by now will ever be there.
    pub fn cut_power_of_disk(&self) {
        self.disk.cut_power();
    }

    pub fn restore_power(&mut self) {
        self.disk.restore_power();
    }

    /// Lets its clock be so far ahead, within a second.
    pub fn set_clock(&self, ahead_s: i64) {
        let path = self.work.path().join("clock.new");
        std::fs::write(&path, format!("{ahead_s:+}\n")).expect("set the clock");
        std::fs::rename(&path, self.clock()).expect("set the clock");
    }

    fn ballast(&self) -> PathBuf {
        self.disk.path().join("ballast")
    }

    /// Takes all the room that is left on the disk.
    pub fn fill_disk(&self) {
        let file = std::fs::File::create(self.ballast()).expect("create the ballast");
        let mut at = 0;
        let mut piece = self.disk.free_bytes();
        while piece >= 4096 {
            match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), at, piece) {
                Ok(()) => at += piece,
                Err(_) => piece /= 2,
            }
        }
    }

    pub fn empty_disk(&self) {
        std::fs::remove_file(self.ballast()).expect("make room");
    }

    pub fn freeze_disk(&self, at_most: Duration) {
        self.disk.freeze(at_most);
    }

    pub fn thaw_disk(&self) {
        self.disk.thaw();
    }

    fn pace(&self) -> PathBuf {
        Path::new(BLKIO).join(format!("firn-chaos-{}-{}", std::process::id(), self.number))
    }

    /// Whether this kernel can slow a disk down.
    pub fn can_be_slow() -> bool {
        Path::new(BLKIO).join("blkio.throttle.write_iops_device").exists()
    }

    /// Lets the broker write no more than so often a second.
    pub fn slow_disk(&self, writes_a_second: u32) {
        let group = self.pace();
        std::fs::create_dir(&group).expect("a group of processes");
        let limit = format!("{} {writes_a_second}", self.disk.device());
        std::fs::write(group.join("blkio.throttle.write_iops_device"), limit).expect("slow the disk down");
        let process = self.process.as_ref().expect("the broker runs");
        std::fs::write(group.join("cgroup.procs"), process.pid().to_string()).expect("slow the broker down");
    }

    pub fn quicken_disk(&self) {
        let group = self.pace();
        if let Some(process) = &self.process {
            let root = Path::new(BLKIO).join("cgroup.procs");
            std::fs::write(root, process.pid().to_string()).expect("quicken the broker");
        }
        wait_for("the end of a group", Duration::from_secs(20), || std::fs::remove_dir(&group).ok());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.disk.thaw();
        if let Some(process) = &mut self.process {
            process.signal(Signal::CONT);
            process.kill();
        }
        if self.pace().exists() {
            std::fs::remove_dir(self.pace()).unwrap_or_default();
        }
    }
}
