//! The ports of a proxy in a mesh, as Istio numbers them.

/// Admin, on loopback.
pub(crate) const ADMIN: u16 = 15000;
/// Metrics and health for whoever scrapes a pod.
pub(crate) const AGENT: u16 = 15020;
/// Health.
pub(crate) const HEALTH: u16 = 15021;
/// Metrics.
pub(crate) const METRICS: u16 = 15090;
