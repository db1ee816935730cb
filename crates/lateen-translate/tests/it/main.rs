//! Translation as a whole: YAML in, xDS out.

mod authorization;
mod bookinfo;
mod determinism;
mod engine;
mod envoy;
mod fields;
mod golden;
mod incremental;
mod mesh_tls;
mod metrics;
mod on_demand;
mod samples;
mod traps;
mod world;
