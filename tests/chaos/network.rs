//! One wire between all machines, and its cuts: what one machine sends to another arrives, or is lost without a word.
//!
//! Each machine is a network namespace on a bridge; clients are in the namespace of this process, whose address is the
//! bridge's. A way is cut by a wrong address of the other's card in the sender's table of neighbours: so a cut has a
//! direction, and needs no packet filter.

use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

use firn_tests::process::run_ok;

const BRIDGE: &str = "wire";
const DEADLINE: Duration = Duration::from_secs(20);
/// A card that nobody has.
const NOBODY: &str = "02:00:00:00:00:00";
/// Where clients are, as a machine's number.
pub const CLIENTS: u8 = 0;

fn ip(arguments: &[&str]) {
    run_ok(Command::new("ip").args(arguments), "", DEADLINE);
}

pub fn address(machine: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, if machine == CLIENTS { 1 } else { 10 + machine })
}

/// A machine's namespace.
pub fn namespace(machine: u8) -> String {
    format!("machine-{machine}")
}

/// Called once, in a new namespace.
pub fn begin() {
    ip(&["link", "set", "lo", "up"]);
    ip(&["link", "add", BRIDGE, "type", "bridge"]);
    ip(&["address", "add", &format!("{}/24", address(CLIENTS)), "dev", BRIDGE]);
    ip(&["link", "set", BRIDGE, "up"]);
    // Namespaces have names here alone.
    std::fs::create_dir_all("/run/netns").expect("a place for the names of namespaces");
    run_ok(Command::new("mount").args(["-t", "tmpfs", "tmpfs", "/run/netns"]), "", DEADLINE);
}

/// Puts a machine on the wire.
pub fn add(machine: u8) {
    let (name, card) = (namespace(machine), format!("to-{machine}"));
    ip(&["netns", "add", &name]);
    ip(&["link", "add", &card, "type", "veth", "peer", "name", BRIDGE, "netns", &name]);
    ip(&["link", "set", &card, "master", BRIDGE, "up"]);
    ip(&["-n", &name, "address", "add", &format!("{}/24", address(machine)), "dev", BRIDGE]);
    ip(&["-n", &name, "link", "set", BRIDGE, "up"]);
    ip(&["-n", &name, "link", "set", "lo", "up"]);
}

/// Changes the table of neighbours of one machine.
fn neighbours(machine: u8, arguments: &[&str]) {
    let name = namespace(machine);
    let mut all = if machine == CLIENTS { Vec::new() } else { vec!["-n", &name] };
    all.push("neighbour");
    all.extend(arguments);
    ip(&all);
}

/// From here on nothing that `from` sends reaches `to`.
pub fn cut(from: u8, to: u8) {
    let to = address(to).to_string();
    neighbours(from, &["replace", &to, "lladdr", NOBODY, "dev", BRIDGE, "nud", "permanent"]);
}

/// Ends a cut.
pub fn mend(from: u8, to: u8) {
    neighbours(from, &["delete", &address(to).to_string(), "dev", BRIDGE]);
}
