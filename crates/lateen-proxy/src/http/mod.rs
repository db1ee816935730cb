//! HTTP: connections, the life of a request, bodies, upgrades.

pub(crate) mod body;
pub(crate) mod connection;
mod forward;
mod headers;
mod request;
mod respond;
mod upgrade;
