//! What becomes of one request, and why: from objects to the mesh that they are, from that to what each proxy on the way is
//! sent, and through that by the code that proxies run. Nothing is matched here: routes, chains, rules and hosts are chosen by
//! `lateen-engine`, as they are in a proxy, and this tells what it chose.
//!
//! Invariants: no I/O, no clock, no randomness; what depends on a draw is told in shares.

mod capture;
mod dns;
mod ending;
mod held;
pub mod journey;
pub mod question;
mod walk;
mod world;

pub use journey::Journey;
pub use question::{From, Misunderstood, Question, Url};
pub use walk::explain;
pub use world::{Objects, World};
