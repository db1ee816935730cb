//! Rules, links and processes in real namespaces, as root and as an ordinary user alike.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod binary;
mod isolated;
mod processes;
mod redirect;
mod services;
mod talk;
