//! Filters that listeners are made of, one file per filter or family.

pub(crate) mod claims;
pub(crate) mod cors;
pub(crate) mod fault;
pub(crate) mod http_connection_manager;
pub(crate) mod inspectors;
pub(crate) mod jwt_authn;
pub(crate) mod rate_limit;
pub(crate) mod rbac;
pub(crate) mod tcp_proxy;
