//! The data plane: workers, listeners, codecs, TLS, pools, telemetry and admin. It is configured by Envoy v3 resources and
//! asks `lateen-engine` for every decision.
//!
//! Invariants: it knows neither Kubernetes nor Istio's kinds; a connection lives and dies on one worker; nothing on a
//! worker blocks; no panic is reachable from the network.

mod activity;
pub mod admin;
mod alarm;
pub mod bootstrap;
mod cluster;
mod codec;
mod config;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod http;
mod identity;
mod lifecycle;
mod listener;
mod live;
pub mod logging;
mod on_demand;
mod overload;
mod stream;
mod tcp;
mod telemetry;
mod tls;
mod upstream;
mod worker;
