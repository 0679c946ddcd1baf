//! The crate against memory and a local directory, with and without faults.

mod fixture;

mod reads;
