//! What must hold when machines and people misbehave: power cuts, kills, full disks, hostile bytes, a tier that fails.

mod cold;
mod full_disk;
mod hostile_input;
mod kill;
mod ledger;
mod one_owner;
mod power_cut;
mod two_writers;
