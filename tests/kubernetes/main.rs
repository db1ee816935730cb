//! The control plane on Kubernetes: against a real API server with a real etcd (`apiserver`, a program of Go around their own
//! modules), as the service account that it has there and with that account's rights.
//!
//! There are no nodes: pods are made and never run, and say of themselves what a kubelet would.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted may end it")]

mod cluster;
mod control_plane;
mod discovery;
mod identity;
mod injection;
mod install;
mod kinds;
mod leader;
mod outage;
mod rights;
