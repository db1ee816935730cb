//! The model as a whole: YAML in, rules of precedence out.

mod analyze;
mod gateway_api;
mod gateways;
mod in_force;
mod policy;
mod routing;
mod scope;
mod services;
mod sharing;
mod sidecar;
mod world;
