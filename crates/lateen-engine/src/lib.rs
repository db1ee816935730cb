//! The data plane's mind without its body: xDS resources compiled into an immutable [`config::Snapshot`], and every
//! decision on it that needs no socket: which filter chain, which route, what a filter says, which host.
//!
//! Invariants: no I/O, no clock and no randomness of its own (both are passed in), no lock (but for the buckets that a rate
//! limit makes for clients as they come). Whatever is costly (regular
//! expressions, address sets, header names) is built when configuration is compiled, not when a request comes.

#![expect(deprecated, reason = "configurations in the wild still write the older fields of Envoy's messages")]

pub mod balance;
pub mod config;
pub mod filters;
pub mod flags;
pub mod headers;
pub mod jwt;
pub mod matching;
pub mod message;
pub mod metadata;
pub mod rate_limit;
pub mod route;

pub use config::error::ConfigError;
pub use lateen_cel::json;
