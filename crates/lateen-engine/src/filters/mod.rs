//! Filters: small programs that look at a connection or a request and say whether it goes on.

pub mod ext_authz;
pub mod http;
pub mod network;
pub mod rbac;
