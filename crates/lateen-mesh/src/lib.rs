//! The model: from objects to one immutable, indexed [`Mesh`], and checks across objects.
//!
//! Pure: no network, no clock. The same objects give the same mesh; what two meshes have in common they share.

mod analyze;
pub mod assume;
mod binding;
mod build;
mod config;
mod egress;
mod endpoints;
pub mod gateway_api;
mod handover;
pub mod host;
mod in_force;
mod inputs;
mod mesh;
mod origin;
mod peers;
mod pods;
mod policy;
mod precedence;
mod protocol;
mod rate_limits;
mod request_authentications;
mod routing;
mod scope;
mod services;
mod sidecar;
mod telemetries;
pub mod topology;
mod visibility;
mod workloads;

pub use analyze::analyze;
pub use config::{MeshConfig, OutboundMode, PathNormalization};
pub use egress::Access;
pub use endpoints::{Endpoint, ServiceEndpoints};
pub use in_force::{InForce, ObjectChange};
pub use mesh::{InboundPort, Mesh, NamespaceEndpoints, Standing};
pub use origin::Origin;
pub use peers::{EffectiveMtls, MtlsMode};
pub use policy::{Authorization, WorkloadAuthorization};
pub use precedence::Age;
pub use protocol::Protocol;
pub use routing::gateway::{GatewayListener, RejectedServer, passes_through};
pub use routing::virtual_service::{MESH, Semantics};
pub use routing::{DestinationRule, GatewayServer, HttpRule, MergedGateway, VirtualService, gateway_name};
pub use scope::{Scope, SeenRules, SeenServices};
pub use services::{Registry, Resolution, Service, ServicePort, TargetPort};
pub use sidecar::{AppEndpoint, EgressListener, EgressProxy, Ingress};
pub use topology::{Locality, TrafficDistribution};
pub use visibility::ExportTo;
pub use workloads::{Address, CLUSTER, Labels, ProxyKind, TelemetryLabels, Workload, WorkloadKind, selects};
