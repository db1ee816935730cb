//! What is counted and written down about traffic.

pub(crate) mod access_log;
pub(crate) mod failure;
pub(crate) mod stats;
pub(crate) mod stream_info;
