//! The few Kubernetes kinds that a mesh reads, and those that a mesh on one machine runs.

pub mod config_map;
pub mod container;
pub mod deployment;
pub mod namespace;
pub mod pem;
pub mod pod;
pub mod pod_status;
pub mod probe;
pub mod secret;
pub mod service;
pub mod service_account;
pub mod volume;

pub use config_map::ConfigMap;
pub use container::Container;
pub use deployment::Deployment;
pub use namespace::Namespace;
pub use pod::{Pod, PodSpec};
pub use pod_status::PodStatus;
pub use secret::Secret;
pub use service::Service;
pub use service_account::ServiceAccount;
