//! The client's end: subscriptions over ADS, or of secrets alone, of either variant, kept across reconnects, applied before they are acknowledged.
//!
//! [`State`] is the protocol without input, output or clock; [`run`] drives it over a channel that the caller connects.

mod backoff;
pub mod channel;
mod run;
mod sotw;
mod state;

pub use backoff::Backoff;
pub use run::{Connect, ConnectError, Connection, Handler, Service, Status, run};
pub use state::{Interest, Received, Rejection, State, Update, Upsert};
