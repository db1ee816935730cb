//! The aggregated discovery protocol, both ends, and the JSON form of xDS messages.
//!
//! Each end is a state machine without input, output or clock ([`server::Session`], [`client::State`]) and a thin task that
//! drives it over gRPC ([`server::Service`], [`client::run`]).

pub mod client;
pub mod json;
pub mod node;
mod references;
mod resource;
pub mod server;

pub use resource::{Body, References, Resource};

/// The type URLs of the resources whose order on the wire matters (Envoy: xDS protocol, "eventual consistency").
pub mod type_url {
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
}
