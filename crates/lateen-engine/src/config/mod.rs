//! From xDS messages to checked, compiled values. A field that would change behaviour and is not honoured is an error that
//! names it; nothing is skipped in silence.

pub mod access_log;
pub mod cluster;
pub mod dns_cache;
pub mod endpoint;
pub mod error;
pub mod grpc;
pub mod http;
pub mod http_service;
pub mod inspect;
pub mod listener;
pub mod max_age;
pub mod metadata;
mod on_demand;
pub mod resources;
pub(crate) mod scalar;
pub mod secret;
pub mod snapshot;
pub mod stats_log;
pub mod tcp;
pub mod tls;
pub mod tracing;

pub use cluster::Cluster;
pub use endpoint::{Endpoint, EndpointSet};
pub use error::ConfigError;
pub use grpc::GrpcService;
pub use http::HttpConnectionManager;
pub use http_service::HttpService;
pub use listener::{FilterChain, Listener};
pub use metadata::{Origin, Value};
pub use resources::{Candidate, Resources, Wanted};
pub use secret::Secret;
pub use snapshot::{Snapshot, Warming};
