//! What rate limits are made of: buckets of tokens, and descriptors, which say whose bucket a request takes from.

pub mod bucket;
pub mod descriptor;
