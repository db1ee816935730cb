//! For tests only: scripted peers, fake upstreams, tokens, and waiting on conditions.

pub mod collector;
pub mod corpus;
pub mod eventually;
pub mod http2;
pub mod peer;
pub mod tokens;
pub mod upstream;
