//! `dynamic_resources` of a bootstrap: discovery from a server that is a cluster of the bootstrap.

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::bootstrap::v3::Bootstrap;
use envoy_types::pb::envoy::config::bootstrap::v3::bootstrap::DynamicResources;
use envoy_types::pb::envoy::config::core::v3::api_config_source::ApiType;
use envoy_types::pb::envoy::config::core::v3::config_source::ConfigSourceSpecifier;
use envoy_types::pb::envoy::config::core::v3::grpc_service::TargetSpecifier;
use envoy_types::pb::envoy::config::core::v3::{ApiConfigSource, ApiVersion, ConfigSource, GrpcService, Node};
use lateen_engine::config::cluster::{Cluster, UpstreamProtocol};
use lateen_engine::config::{Snapshot, cluster::Discovery};
use lateen_xds::client::{self, Backoff};
use lateen_xds::server::Variant;

use crate::config::{Applier, Dial, Subscriptions};

/// Discovery as a bootstrap describes it.
pub(super) struct Ads {
    node: Node,
    subscriptions: Subscriptions,
    cluster: Arc<Cluster>,
    authority: String,
    variant: Variant,
}

impl Ads {
    /// None without `dynamic_resources`.
    ///
    /// # Errors
    /// Everything in it that is wrong or not honoured.
    pub(super) fn from_xds(bootstrap: &Bootstrap, snapshot: &Snapshot) -> Result<Option<Self>, Vec<String>> {
        let Some(dynamic) = &bootstrap.dynamic_resources else { return Ok(None) };
        let mut complaints = Complaints::default();
        let subscriptions = subscriptions(dynamic, &mut complaints);
        let node = bootstrap.node.clone().unwrap_or_default();
        // Envoy: "node 'id' and 'cluster' are required".
        if node.id.is_empty() || node.cluster.is_empty() {
            complaints.add("node", "id and cluster are required for discovery");
        }
        let server = match &dynamic.ads_config {
            Some(config) => server(config, snapshot, &mut complaints),
            None => {
                complaints.add("dynamic_resources.ads_config", "is required");
                None
            }
        };
        match server {
            Some((cluster, authority, variant)) if complaints.0.is_empty() => {
                Ok(Some(Self { node, subscriptions, cluster, authority, variant }))
            }
            _ => Err(complaints.0),
        }
    }

    /// Keeps the configuration up to date from now on.
    pub(super) fn start(self, mut applier: Applier) {
        applier.subscribe(self.subscriptions);
        let dial = Dial::new(Arc::clone(applier.shared()), self.cluster, self.authority, self.variant);
        // Envoy's: `GrpcMuxContext`, 500 ms to 30 s.
        let backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        tokio::spawn(client::run(self.node, dial, applier, backoff));
    }
}

/// What is wrong, by field.
#[derive(Default)]
struct Complaints(Vec<String>);

impl Complaints {
    fn add(&mut self, field: &str, reason: &str) {
        self.0.push(format!("bootstrap: {field}: {reason}"));
    }

    fn refuse(&mut self, field: &str, set: bool) {
        if set {
            self.add(field, "is not supported");
        }
    }
}

fn subscriptions(dynamic: &DynamicResources, complaints: &mut Complaints) -> Subscriptions {
    complaints.refuse("dynamic_resources.lds_resources_locator", !dynamic.lds_resources_locator.is_empty());
    complaints.refuse("dynamic_resources.cds_resources_locator", !dynamic.cds_resources_locator.is_empty());
    let mut by_ads = |field: &str, source: Option<&ConfigSource>| {
        let Some(source) = source else { return false };
        if !matches!(source.config_source_specifier, Some(ConfigSourceSpecifier::Ads(_))) {
            complaints.add(&format!("dynamic_resources.{field}"), "only ads is supported");
        }
        true
    };
    Subscriptions {
        clusters: by_ads("cds_config", dynamic.cds_config.as_ref()),
        listeners: by_ads("lds_config", dynamic.lds_config.as_ref()),
    }
}

/// The cluster of the server, how it is addressed, and what it speaks.
fn server(
    config: &ApiConfigSource,
    snapshot: &Snapshot,
    complaints: &mut Complaints,
) -> Option<(Arc<Cluster>, String, Variant)> {
    let at = |name: &str| format!("dynamic_resources.ads_config.{name}");
    let variant = match config.api_type() {
        ApiType::DeltaGrpc => Variant::Delta,
        ApiType::Grpc => Variant::StateOfTheWorld,
        _ => {
            complaints.add(&at("api_type"), "must be GRPC or DELTA_GRPC");
            Variant::Delta
        }
    };
    if config.transport_api_version() != ApiVersion::V3 {
        complaints.add(&at("transport_api_version"), "must be V3");
    }
    complaints.refuse(&at("rate_limit_settings"), config.rate_limit_settings.is_some());
    complaints.refuse(&at("config_validators"), !config.config_validators.is_empty());
    complaints.refuse(&at("cluster_names"), !config.cluster_names.is_empty());
    let [service] = config.grpc_services.as_slice() else {
        complaints.add(&at("grpc_services"), "must be exactly one");
        return None;
    };
    let (cluster, authority) = target(service, snapshot, complaints)?;
    Some((cluster, authority, variant))
}

fn target(service: &GrpcService, snapshot: &Snapshot, complaints: &mut Complaints) -> Option<(Arc<Cluster>, String)> {
    let at = |name: &str| format!("dynamic_resources.ads_config.grpc_services[0].{name}");
    complaints.refuse(&at("initial_metadata"), !service.initial_metadata.is_empty());
    complaints.refuse(&at("retry_policy"), service.retry_policy.is_some());
    let Some(TargetSpecifier::EnvoyGrpc(envoy)) = &service.target_specifier else {
        complaints.add(&at("target_specifier"), "only envoy_grpc is supported");
        return None;
    };
    complaints.refuse(&at("envoy_grpc.retry_policy"), envoy.retry_policy.is_some());
    let Some(cluster) = snapshot.cluster(&envoy.cluster_name) else {
        complaints.add(&at("envoy_grpc.cluster_name"), &format!("there is no static cluster `{}`", envoy.cluster_name));
        return None;
    };
    if cluster.protocol != UpstreamProtocol::Http2 {
        complaints.add(&at("envoy_grpc.cluster_name"), &format!("`{}` does not speak HTTP/2", cluster.name));
    }
    if !matches!(cluster.discovery, Discovery::Static | Discovery::StrictDns(_) | Discovery::LogicalDns(_)) {
        complaints.add(&at("envoy_grpc.cluster_name"), &format!("`{}` must be of static or DNS type", cluster.name));
    }
    let authority = if envoy.authority.is_empty() { cluster.name.to_string() } else { envoy.authority.clone() };
    Some((Arc::clone(cluster), authority))
}

#[cfg(test)]
mod tests {
    use lateen_engine::config::Resources;

    use super::*;

    const CLUSTER: &str = "{name: xds, type: STATIC, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: \
        {'@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: \
        {http2_protocol_options: {}}}}, load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: \
        {socket_address: {address: 127.0.0.1, port_value: 1}}}}]}]}}";

    fn read(node: &str, dynamic: &str) -> Result<Option<Ads>, Vec<String>> {
        let text = format!("{{{node} dynamic_resources: {{{dynamic}}}, static_resources: {{clusters: [{CLUSTER}]}}}}");
        let bootstrap: Bootstrap = lateen_xds::json::from_yaml(&text).expect("it is a bootstrap");
        let mut resources = Resources::default();
        resources.load_static(&bootstrap).expect("the cluster is good");
        Ads::from_xds(&bootstrap, &resources.link(&Snapshot::default()))
    }

    const NODE: &str = "node: {id: n, cluster: c},";

    #[test]
    fn discovery_is_asked_for_what_the_bootstrap_says() {
        let ads = "ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}";
        let read = read(NODE, &format!("cds_config: {{ads: {{}}}}, {ads}")).expect("it is good").expect("it is there");
        assert!(read.subscriptions.clusters && !read.subscriptions.listeners);
        assert_eq!(
            (read.variant, read.authority.as_str(), &*read.cluster.name),
            (Variant::StateOfTheWorld, "xds", "xds")
        );
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_its_field() {
        let refused = |node: &str, dynamic: &str| read(node, dynamic).err().expect("it is refused").join("\n");
        let service = "grpc_services: [{envoy_grpc: {cluster_name: xds}}]";
        for (node, dynamic, complaint) in [
            (NODE, "cds_config: {ads: {}}".to_owned(), "dynamic_resources.ads_config: is required"),
            (NODE, "cds_config: {path_config_source: {path: /x}}".to_owned(), "cds_config: only ads is supported"),
            ("", format!("ads_config: {{api_type: GRPC, transport_api_version: V3, {service}}}"), "node: id and cluster"),
            (NODE, format!("ads_config: {{api_type: REST, transport_api_version: V3, {service}}}"), "must be GRPC or DELTA_GRPC"),
            (NODE, format!("ads_config: {{api_type: GRPC, {service}}}"), "transport_api_version: must be V3"),
            (
                NODE,
                "ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: no}}]}"
                    .to_owned(),
                "there is no static cluster `no`",
            ),
        ] {
            let found = refused(node, &dynamic);
            assert!(found.contains(complaint), "{dynamic}: {found}");
        }
    }
}
