//! Tests of the control plane as a whole: files in, answers and resources out.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted may end it")]

mod api;
mod authority;
mod callers;
mod certificates;
mod console;
mod directory;
mod discovery;
mod external_ca;
mod federation;
mod grpc;
mod hostile_callers;
mod https_server;
mod injection;
mod issuers;
mod keys;
mod manifests;
mod traffic;
mod world;
