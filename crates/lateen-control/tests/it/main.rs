//! Tests of the control plane as a whole: files in, answers and resources out.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted may end it")]

mod api;
mod authority;
mod certificates;
mod directory;
mod discovery;
mod grpc;
mod hostile_callers;
mod keys;
mod world;
