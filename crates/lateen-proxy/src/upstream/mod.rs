//! The way up: connecting to hosts, keeping connections, and one attempt of a request on one of them.

mod acquire;
pub(crate) mod attempt;
pub(crate) mod call;
pub(crate) mod connect;
pub(crate) mod fetch;
mod http1;
mod http2;
pub(crate) mod key_sets;
pub(crate) mod named_pools;
pub(crate) mod own;
pub(crate) mod pool;
pub(crate) mod replay;
pub(crate) mod tcp_info;
pub(crate) mod tunnels;
mod waiters;
mod websocket;
