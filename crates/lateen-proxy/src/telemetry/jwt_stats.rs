//! What is counted of a filter that checks tokens, under Envoy's names.

use super::stats::{Counter, Registry, Scope};

#[derive(Debug)]
pub(crate) struct JwtStats {
    pub allowed: Counter,
    pub denied: Counter,
    pub cors_preflight_bypassed: Counter,
    pub fetch_success: Counter,
    pub fetch_failed: Counter,
}

impl JwtStats {
    /// `manager`: the name of the connection manager's counters; `own`: of the filter's, which may be empty.
    pub(crate) fn new(registry: &Registry, manager: &str, own: &str) -> Self {
        let scope = Scope::Http(manager.into());
        let dot = if own.is_empty() { "" } else { "." };
        let counter = |name| registry.counter(&scope, format!("jwt_authn.{own}{dot}{name}"));
        Self {
            allowed: counter("allowed"),
            denied: counter("denied"),
            cors_preflight_bypassed: counter("cors_preflight_bypassed"),
            fetch_success: counter("jwks_fetch_success"),
            fetch_failed: counter("jwks_fetch_failed"),
        }
    }
}
