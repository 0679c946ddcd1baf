//! The crate against memory and a local directory, with and without faults.

mod fixture;

mod chaos;
mod lifecycle;
mod reads;
