//! Several brokers as one cluster, each a process of its own: what people meet, and what they meet when one is gone.

mod admin;
mod coordinator;
mod dev;
mod drain;
mod lab;
mod throttle;
mod zone;
