//! The control plane's own metrics, under Istio's names (`pilot/pkg/xds/monitoring.go` and the like), and their page.

mod page;
mod process;

use std::sync::Arc;
use std::time::SystemTime;

use lateen_xds::type_url;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// One label with its value.
pub type Label = [(&'static str, String); 1];
pub type Counters = Family<Label, Counter>;
pub type Gauges = Family<Label, Gauge>;

/// What comes of a type of resources: `type="cds"`.
pub fn of_type(type_url: &str) -> Label {
    [("type", short(type_url).to_owned())]
}

/// A value of the label `type`.
pub fn of(value: &str) -> Label {
    [("type", value.to_owned())]
}

fn short(url: &str) -> &'static str {
    match url {
        type_url::CLUSTER => "cds",
        type_url::ENDPOINT => "eds",
        type_url::LISTENER => "lds",
        type_url::ROUTE => "rds",
        type_url::VIRTUAL_HOST => "vhds",
        type_url::SECRET => "sds",
        _ => "other",
    }
}

/// All of them. Cloning shares.
#[derive(Clone)]
pub struct Metrics {
    pub discovery: Discovery,
    pub certificates: Certificates,
    pub injection: Injection,
    pub services: Gauge,
    pub virtual_services: Gauge,
    pub keys_fetched: Counter,
    pub keys_not_fetched: Counter,
    registry: Arc<Registry>,
    started: SystemTime,
}

/// From changes of objects to what proxies have.
#[derive(Clone)]
pub struct Discovery {
    /// Proxies with a stream, by what version they call themselves.
    pub connected: Gauges,
    /// Changes of objects, by kind and `add`, `update` or `delete`.
    pub events: Family<[(&'static str, String); 2], Counter>,
    /// The same, by whether they are of services, of endpoints or of anything else.
    pub updates: Counters,
    /// Waves of changes, by what is in them.
    pub triggers: Counters,
    /// How long it takes to make the mesh of the objects, seconds.
    pub mesh_time: Histogram,
    /// How long it takes to make what a proxy is sent of a type, seconds.
    pub push_time: Family<Label, Histogram>,
    /// From a configuration being there to its being sent to a proxy, seconds.
    pub queue_time: Histogram,
    /// From a configuration being there to a proxy having it in force, seconds.
    pub convergence: Histogram,
    /// What was sent.
    pub pushes: Counters,
    /// Resources that proxies refused.
    pub rejects: Counters,
    /// Resources that a proxy refuses now, by the proxy: clusters, endpoints, listeners, routes.
    pub rejected: [Gauges; 4],
}

/// Types of resources, in the order of [`Discovery::rejected`].
pub const REJECTED: [&str; 4] = [type_url::CLUSTER, type_url::ENDPOINT, type_url::LISTENER, type_url::ROUTE];

#[derive(Clone, Default)]
pub struct Certificates {
    pub asked: Counter,
    pub issued: Counter,
    pub refused: Counter,
    /// Of those that were refused: who asked has not proved to be anybody.
    pub unauthenticated: Counter,
    /// The request is none.
    pub unreadable: Counter,
    /// The authority could not sign.
    pub unsigned: Counter,
    /// Changes of the authority's files that could not be taken.
    pub reload_failures: Counter,
    /// Seconds since 1970.
    pub root_expiry: Gauge,
    pub chain_expiry: Gauge,
}

#[derive(Clone)]
pub struct Injection {
    pub asked: Counter,
    pub injected: Counter,
    pub skipped: Counter,
    pub failed: Counter,
    /// Seconds.
    pub time: Histogram,
}

/// Istio's buckets of waits that proxies have, and of making a mesh.
const WAITS: [f64; 8] = [0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
const PUSHES: [f64; 8] = [0.01, 0.1, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0];
const MESHES: [f64; 7] = [0.005, 0.01, 0.1, 0.5, 1.0, 3.0, 5.0];
const INJECTIONS: [f64; 8] = [0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// With a registry of its own.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let discovery = Discovery::new(&mut registry);
        let certificates = Certificates::new(&mut registry);
        let injection = Injection::new(&mut registry);
        let (services, virtual_services) = (Gauge::default(), Gauge::default());
        registry.register("pilot_services", "Services in the mesh", services.clone());
        registry.register("pilot_virt_services", "Virtual services in the mesh", virtual_services.clone());
        let (keys_fetched, keys_not_fetched) = (Counter::default(), Counter::default());
        let name = "pilot_jwks_resolver_network_fetch_success_total";
        registry.register(name, "Key sets of issuers fetched", keys_fetched.clone());
        let name = "pilot_jwks_resolver_network_fetch_fail_total";
        registry.register(name, "Key sets of issuers that could not be fetched", keys_not_fetched.clone());
        let version = env!("CARGO_PKG_VERSION");
        let (build, info) =
            (Family::<[(&str, &str); 2], Gauge>::default(), Family::<[(&str, &str); 1], Gauge>::default());
        build.get_or_create(&[("component", "pilot"), ("tag", version)]).set(1);
        registry.register("istio_build", "What runs, and its version", build);
        info.get_or_create(&[("version", version)]).set(1);
        registry.register("pilot_info", "The control plane's version", info);
        let (registry, started) = (Arc::new(registry), SystemTime::now());
        Self {
            discovery,
            certificates,
            injection,
            services,
            virtual_services,
            keys_fetched,
            keys_not_fetched,
            registry,
            started,
        }
    }

    /// The page in Prometheus' text form, with the names as they are registered.
    pub fn page(&self) -> String {
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            // Writing to a String does not fail; an empty page would be seen by whoever scrapes.
            text.clear();
        }
        let mut page = page::classic(&text);
        process::append(&mut page, self.started);
        page
    }
}

impl Discovery {
    fn new(registry: &mut Registry) -> Self {
        let it = Self {
            connected: Family::default(),
            events: Family::default(),
            updates: Family::default(),
            triggers: Family::default(),
            mesh_time: Histogram::new(MESHES),
            push_time: Family::new_with_constructor(|| Histogram::new(PUSHES)),
            queue_time: Histogram::new(WAITS),
            convergence: Histogram::new(WAITS),
            pushes: Family::default(),
            rejects: Family::default(),
            rejected: std::array::from_fn(|_| Family::default()),
        };
        // There before anybody refuses anything: what rises is told by what it has risen from.
        for url in REJECTED {
            drop(it.rejects.get_or_create(&of_type(url)));
        }
        registry.register("pilot_xds", "Proxies connected by xDS", it.connected.clone());
        registry.register("pilot_k8s_cfg_events", "Changes of objects", it.events.clone());
        registry.register("pilot_inbound_updates", "Changes of objects, by what they concern", it.updates.clone());
        registry.register("pilot_push_triggers", "Waves of changes, by what is in them", it.triggers.clone());
        let name = "pilot_pushcontext_init_seconds";
        registry.register(name, "To make the mesh of the objects, seconds", it.mesh_time.clone());
        let name = "pilot_xds_push_time";
        registry.register(name, "To make what a proxy is sent of a type, seconds", it.push_time.clone());
        let name = "pilot_proxy_queue_time";
        registry.register(name, "From a configuration to its being sent to a proxy, seconds", it.queue_time.clone());
        let name = "pilot_proxy_convergence_time";
        registry.register(name, "From a configuration to a proxy having it in force, seconds", it.convergence.clone());
        registry.register("pilot_xds_pushes", "What was sent to proxies", it.pushes.clone());
        registry.register("pilot_total_xds_rejects", "Resources that proxies refused", it.rejects.clone());
        for (url, gauges) in REJECTED.into_iter().zip(&it.rejected) {
            let name = format!("pilot_xds_{}_reject", short(url));
            registry.register(name, "Resources that a proxy refuses now", gauges.clone());
        }
        it
    }
}

impl Certificates {
    fn new(registry: &mut Registry) -> Self {
        let it = Self::default();
        for (name, help, counter) in [
            ("citadel_server_csr_count", "Certificates asked for", &it.asked),
            ("citadel_server_success_cert_issuance_count", "Certificates issued", &it.issued),
            ("citadel_server_csr_refused_count", "Certificates refused, for any reason", &it.refused),
            ("citadel_server_authentication_failure_count", "Refused: nobody has asked", &it.unauthenticated),
            ("citadel_server_csr_parsing_err_count", "Refused: the request is none", &it.unreadable),
            ("citadel_server_csr_sign_err_count", "Refused: it could not be signed", &it.unsigned),
            (
                "lateen_ca_reload_failures_total",
                "Changes of the authority's files that could not be taken",
                &it.reload_failures,
            ),
        ] {
            registry.register(name, help, counter.clone());
        }
        let name = "citadel_server_root_cert_expiry_timestamp";
        registry.register(name, "When the first of the roots expires, seconds since 1970", it.root_expiry.clone());
        let name = "citadel_server_cert_chain_expiry_timestamp";
        registry.register(name, "When the signing certificate expires, seconds since 1970", it.chain_expiry.clone());
        it
    }
}

impl Injection {
    fn new(registry: &mut Registry) -> Self {
        let it = Self {
            asked: Counter::default(),
            injected: Counter::default(),
            skipped: Counter::default(),
            failed: Counter::default(),
            time: Histogram::new(INJECTIONS),
        };
        registry.register("sidecar_injection_requests_total", "Pods to be injected", it.asked.clone());
        registry.register("sidecar_injection_success_total", "Pods that were", it.injected.clone());
        registry.register("sidecar_injection_skip_total", "Pods that were left as they are", it.skipped.clone());
        registry.register("sidecar_injection_failure_total", "Pods that were refused", it.failed.clone());
        registry.register("sidecar_injection_time_seconds", "To inject a pod", it.time.clone());
        it
    }
}
