//! What is counted and written down about traffic.

pub(crate) mod access_log;
pub(crate) mod access_stats;
mod attributes;
pub(crate) mod export;
pub(crate) mod failure;
pub(crate) mod grpc_stats;
pub(crate) mod jwt_stats;
pub(crate) mod limit_stats;
pub(crate) mod log_file;
pub(crate) mod operators;
mod otlp_log;
pub(crate) mod series;
pub(crate) mod ssl_stats;
pub(crate) mod stats;
pub(crate) mod stats_log;
pub(crate) mod stream_info;
pub(crate) mod trace;
pub(crate) mod zone_traffic;
