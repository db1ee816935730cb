//! The kinds users write: parsing with positions, defaults and validation.
//!
//! Istio's kinds follow the field names of `networking.istio.io`, `security.istio.io` and `telemetry.istio.io`; their versions
//! (`v1`, `v1beta1`, `v1alpha3`, `v1alpha1`) are one schema. Kubernetes kinds hold what an ordinary manifest says.
//! As in protobuf, an absent list or map equals an empty one; where absence means something, the field is an `Option`.
//!
//! Invariants: no IO, no clock, nothing async; the same text always gives the same objects and the same diagnostics.

pub mod caller_issuers;
pub mod diagnostic;
pub mod extension_providers;
pub mod gateway_api;
pub mod kubernetes;
pub mod made_of;
pub mod mesh_config;
pub mod mesh_traffic;
pub mod meta;
mod mistakes;
pub mod networking;
pub mod object;
pub mod parse;
pub mod policy;
pub mod proxy_settings;
pub mod scalar;
pub mod schema;
pub mod security;
pub mod selector;
pub mod similar;
pub mod support;
pub mod telemetry;
pub mod validate;
pub mod yaml;

pub use diagnostic::{Diagnostic, Severity};
pub use made_of::MadeOf;
pub use meta::{ObjectMeta, Origin, StringMap};
pub use object::{Kind, KindSpec, Object, ObjectKey, Resource};
pub use parse::{Parsed, parse_documents, parse_json};
pub use validate::{Environment, validate, validate_in};
