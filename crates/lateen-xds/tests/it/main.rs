//! The protocol, end to end: both state machines against each other, both tasks over a socket, and our server against a
//! real Envoy.

mod envoy;
mod pair;
mod wire;
mod world;
