//! `gateway.networking.k8s.io`, the Kubernetes Gateway API: who listens where, and how requests, connections and TLS sessions
//! are routed, at the edge (to a Gateway's listeners) and in the mesh (to a Service).
//!
//! Field names and defaults are those of the standard channel; fields of the experimental one are read where they say
//! something that Lateen does (`HTTPRouteRule.retry`). All versions of a kind are one schema.

pub mod backend_tls_policy;
pub mod filters;
pub mod gateway;
pub mod grpc_route;
pub mod http_route;
pub mod listener_set;
pub mod references;
pub mod status;
pub mod stream_routes;
pub mod traffic_policy;

pub use backend_tls_policy::BackendTlsPolicy;
pub use gateway::{Gateway, GatewayClass};
pub use grpc_route::GrpcRoute;
pub use http_route::HttpRoute;
pub use listener_set::ListenerSet;
pub use references::{BackendRef, ParentReference, ReferenceGrant};
pub use stream_routes::{TcpRoute, TlsRoute};
pub use traffic_policy::TrafficPolicy;

/// The API group of its kinds.
pub const GROUP: &str = "gateway.networking.k8s.io";

/// The group of its kinds that are tried out.
pub const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";
