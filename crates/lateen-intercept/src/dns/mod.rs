//! The DNS server of a node: names of the cluster from a table, everything else from a forwarder.

#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod names;
mod resolv_conf;
mod server;
#[cfg(test)]
mod tests;

pub use names::{Answer, Names};
pub use resolv_conf::resolv_conf;
pub use server::{Forwarder, Lookup, Server};
