//! The aggregated discovery protocol, both ends, and the JSON form of xDS messages.

pub mod json;
