//! `lateen up` and its companions as a user has them, with real namespaces and processes. Only the control plane is a
//! stand-in (`control_plane.py`); pods are outside the mesh.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod analyze;
mod authz;
mod described;
mod exec;
mod explain;
mod failures;
mod host;
mod inject;
mod injected;
mod lifecycle;
mod mesh;
mod offline;
mod outside;
mod pods;
mod proxy_config;
mod tested;
mod traffic;
