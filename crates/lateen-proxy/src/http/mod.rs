//! HTTP: connections, the life of a request, bodies, upgrades.

mod attempts;
mod back;
pub(crate) mod body;
mod clock;
pub(crate) mod connection;
mod dynamic_host;
mod ext_authz;
mod filters;
mod forward;
pub(crate) mod interim;
mod jwt;
mod lifetime;
pub(crate) mod mirror;
mod rate_limit;
mod request;
mod respond;
mod revoked;
mod spans;
pub(crate) mod state;
mod upgrade;
mod watch;
