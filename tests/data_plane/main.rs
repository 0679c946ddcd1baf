//! What must hold when machines and people misbehave: power cuts, kills, full disks, hostile bytes, a tier that fails.
//! And the files that all of it comes to: each is one that Kafka's own tools read.

mod cold;
mod cold_table;
mod full_disk;
mod hostile_input;
mod kill;
mod one_owner;
mod power_cut;
mod scribe;
mod table;
mod two_writers;
mod written_files;
