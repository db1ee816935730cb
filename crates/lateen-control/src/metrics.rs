//! The control plane's own metrics, under Istio's names, and their page.

use std::sync::Arc;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// All of them. Cloning shares.
#[derive(Clone)]
pub struct Metrics {
    /// Proxies with a stream.
    pub connected: Gauge,
    pub pushes: Counter,
    /// From a change in the store to its configuration being offered, seconds.
    pub push_time: Histogram,
    /// From the offer to a proxy having it in force, seconds.
    pub convergence: Histogram,
    pub rejects: Counter,
    pub services: Gauge,
    pub virtual_services: Gauge,
    pub csr: Counter,
    pub csr_issued: Counter,
    pub csr_refused: Counter,
    /// Changes of the authority's files that could not be taken.
    pub ca_failures: Counter,
    /// Seconds since 1970.
    pub root_expiry: Gauge,
    pub ca_expiry: Gauge,
    pub keys_fetched: Counter,
    pub keys_not_fetched: Counter,
    registry: Arc<Registry>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// With a registry of its own.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let seconds = || Histogram::new([0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let mut metrics = Self {
            connected: Gauge::default(),
            pushes: Counter::default(),
            push_time: seconds(),
            convergence: seconds(),
            rejects: Counter::default(),
            services: Gauge::default(),
            virtual_services: Gauge::default(),
            csr: Counter::default(),
            csr_issued: Counter::default(),
            csr_refused: Counter::default(),
            ca_failures: Counter::default(),
            root_expiry: Gauge::default(),
            ca_expiry: Gauge::default(),
            keys_fetched: Counter::default(),
            keys_not_fetched: Counter::default(),
            registry: Arc::default(),
        };
        registry.register("pilot_xds", "Proxies connected by xDS", metrics.connected.clone());
        registry.register("pilot_push_triggers", "Configurations offered to proxies", metrics.pushes.clone());
        let name = "pilot_xds_push_time";
        registry.register(name, "From a change to its configuration being offered, seconds", metrics.push_time.clone());
        let name = "pilot_proxy_convergence_time";
        registry.register(name, "From the offer to a proxy having it in force, seconds", metrics.convergence.clone());
        registry.register("pilot_total_xds_rejects", "Resources that proxies refused", metrics.rejects.clone());
        registry.register("pilot_services", "Services in the mesh", metrics.services.clone());
        registry.register("pilot_virt_services", "Virtual services in the mesh", metrics.virtual_services.clone());
        registry.register("citadel_server_csr_count", "Certificates asked for", metrics.csr.clone());
        let name = "citadel_server_success_cert_issuance_count";
        registry.register(name, "Certificates issued", metrics.csr_issued.clone());
        registry.register("citadel_server_csr_refused_count", "Certificates refused", metrics.csr_refused.clone());
        let name = "lateen_ca_reload_failures";
        registry.register(
            name,
            "Changes of the authority's files that could not be taken",
            metrics.ca_failures.clone(),
        );
        let name = "citadel_server_root_cert_expiry_timestamp";
        registry.register(name, "When the first of the roots expires, seconds since 1970", metrics.root_expiry.clone());
        let name = "citadel_server_cert_chain_expiry_timestamp";
        registry.register(name, "When the signing certificate expires, seconds since 1970", metrics.ca_expiry.clone());
        let name = "pilot_jwks_resolver_network_fetch_success";
        registry.register(name, "Key sets of issuers fetched", metrics.keys_fetched.clone());
        let name = "pilot_jwks_resolver_network_fetch_fail";
        registry.register(name, "Key sets of issuers that could not be fetched", metrics.keys_not_fetched.clone());
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// The page in Prometheus' (OpenMetrics) text form.
    pub fn page(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            // Writing to a String does not fail; an empty page would be seen by whoever scrapes.
            text.clear();
        }
        text
    }
}
