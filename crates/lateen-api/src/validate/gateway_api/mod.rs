//! Rules of the Gateway API for its kinds: those of its schemas, which an API server holds and files do not.

mod filters;
mod gateway;
mod policies;
mod routes;

pub(super) use gateway::{check_class, check_gateway, check_listener_set};
pub(super) use policies::{check_backend_tls, check_grant, check_traffic};
pub(super) use routes::{check_grpc, check_http, check_tcp, check_tls};

use super::check::Check;
use super::names;

/// `*.example.com` or `example.com`, in lower case: a host of the Gateway API.
fn hostname(check: &mut Check<'_>, field: String, name: &str) {
    let plain = name.strip_prefix("*.").unwrap_or(name);
    if plain.split('.').all(names::is_lower_label) && names::host(plain).is_ok() {
        return;
    }
    check.error(field, format!("`{name}` is not a host name: lower case, and at most its first part may be `*`"));
}

/// A name that must be there.
fn required(check: &mut Check<'_>, field: String, value: &str) {
    if value.is_empty() {
        let name = field.rsplit('.').next().unwrap_or_default().to_owned();
        check.error(field, format!("`{name}` is required and missing"));
    }
}
