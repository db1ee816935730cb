//! The server's end: what each connected proxy has, what it should have, and in which order it gets there.
//!
//! A [`Session`] follows one stream. It works in waves: it takes the newest [`View`], brings the proxy there (clusters and
//! endpoints first, listeners and route tables when those have been answered, what is gone last), and only then looks for
//! a newer view. So a proxy never holds half of two revisions, a slow one skips revisions instead of queueing them, and
//! "this revision is live there" is a plain fact: its wave has ended.

mod blame;
mod grpc;
mod ledger;
mod message;
mod progress;
mod requests;
mod service;
mod session;
mod subscription;
mod view;

pub use grpc::{SecretServer, Server};
pub use ledger::Shelf;
pub use message::{Request, Response};
pub use progress::{Live, Progress, Rejection, TypeProgress};
pub use service::{Discovery, Limits, Peer, Proxy, Service};
pub use session::{Error, Next, Session, Stuck};
pub use view::{Changes, Selection, View};

/// The two forms of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// `DeltaAggregatedResources`: only what differs is sent.
    Delta,
    /// `StreamAggregatedResources`: state of the world. Clusters and listeners are sent whole whenever one differs.
    StateOfTheWorld,
}
