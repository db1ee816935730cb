//! Clusters of a service: one per port, and one more per port and subset of its destination rule.

use std::time::Duration;

use cluster::cluster::common_lb_config::{LocalityConfigSpecifier, LocalityWeightedLbConfig};
use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, DnsLookupFamily, EdsClusterConfig, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use lateen_api::networking::destination_rule::{PEAK_EWMA, SimpleLb, Subset, TrafficPolicy};
use lateen_mesh::{DestinationRule, Labels, Protocol, ProxyKind, Resolution, Service, ServicePort};

use crate::cluster::{dynamic, policy, protocol, proxy_protocol, tls};
use crate::endpoint::Spread;
use crate::proto::{ads, duration};
use crate::route::destination::labels;
use crate::view::View;
use crate::{endpoint, names, origin, secret};

/// Spreads the proxies' queries.
const DNS_JITTER: Duration = Duration::from_millis(100);

/// How a cluster comes by its endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Discovery {
    /// By endpoint discovery.
    Endpoints,
    /// From the destination address of each connection.
    OriginalDestination,
    /// The proxy resolves names; all answers.
    StrictDns,
    /// The proxy resolves a name; one answer per connection.
    LogicalDns,
    /// The proxy resolves what each request names.
    Dynamic,
}

/// The ports for which there are clusters.
pub(crate) fn ports(service: &Service) -> impl Iterator<Item = &ServicePort> {
    let alias = service.resolution == Resolution::Alias;
    service.ports.iter().filter(move |port| !alias && port.protocol != Protocol::Udp)
}

/// Port and subset (empty: none) of each of a service's clusters.
pub(crate) fn names<'a>(
    service: &'a Service,
    rule: Option<&'a DestinationRule>,
) -> impl Iterator<Item = (u16, &'a str)> {
    ports(service).flat_map(move |port| {
        let subsets = subsets_of(service, rule).map(|subset| subset.name.as_str());
        std::iter::once("").chain(subsets).map(|subset| (port.number, subset))
    })
}

/// Hosts that requests name have no labels, and so no subsets (Istio).
fn subsets_of<'a>(service: &Service, rule: Option<&'a DestinationRule>) -> impl Iterator<Item = &'a Subset> + use<'a> {
    let rule = rule.filter(|_| service.resolution != Resolution::Dynamic);
    rule.into_iter().flat_map(|rule| &rule.subsets)
}

/// How the cluster of a port and subset (empty: none) finds its endpoints.
pub(crate) fn discovery(view: &View<'_>, service: &Service, port: u16, subset: &str) -> Discovery {
    let rule = view.scope.destination_rule(&service.host, labels(view));
    discovery_with(view, service, &policy_of(view, rule.map(|rule| &**rule), subset, port))
}

/// What the rule says, and, in blocks that it leaves out, the mesh config.
pub(crate) fn policy_of(view: &View<'_>, rule: Option<&DestinationRule>, subset: &str, port: u16) -> TrafficPolicy {
    let mut policy = match rule {
        None => TrafficPolicy::default(),
        Some(rule) => match rule.subset(subset) {
            Some(subset) => rule.subset_policy(subset, port),
            None => rule.policy(port),
        },
    };
    let default = &view.mesh.config().default_traffic_policy;
    policy.connection_pool = policy.connection_pool.or_else(|| default.connection_pool.clone());
    policy.outlier_detection = policy.outlier_detection.or_else(|| default.outlier_detection.clone());
    policy
}

fn discovery_with(view: &View<'_>, service: &Service, policy: &TrafficPolicy) -> Discovery {
    if service.resolution == Resolution::Dynamic {
        return Discovery::Dynamic;
    }
    if policy.load_balancer.as_ref().and_then(|lb| lb.simple) == Some(SimpleLb::Passthrough) {
        return Discovery::OriginalDestination;
    }
    match service.resolution {
        Resolution::Endpoints | Resolution::Alias => Discovery::Endpoints,
        Resolution::Dns => Discovery::StrictDns,
        Resolution::DnsRoundRobin => Discovery::LogicalDns,
        Resolution::Dynamic => Discovery::Dynamic,
        // A gateway's clients did not choose an endpoint.
        Resolution::Passthrough if view.proxy.kind == ProxyKind::Gateway => Discovery::Endpoints,
        Resolution::Passthrough => Discovery::OriginalDestination,
    }
}

/// All clusters of a service.
pub(crate) fn clusters(view: &View<'_>, service: &Service) -> Vec<cluster::Cluster> {
    let rule = view.scope.destination_rule(&service.host, labels(view)).map(|rule| &**rule);
    let mut out = Vec::new();
    for port in ports(service) {
        out.extend(build(view, service, port, rule, None));
        for subset in subsets_of(service, rule) {
            out.extend(build(view, service, port, rule, Some(subset)));
        }
    }
    out
}

fn build(
    view: &View<'_>,
    service: &Service,
    port: &ServicePort,
    rule: Option<&DestinationRule>,
    subset: Option<&Subset>,
) -> Option<cluster::Cluster> {
    let subset_name = subset.map_or("", |subset| subset.name.as_str());
    let name = names::outbound_cluster(port.number, subset_name, &service.host);
    let policy = policy_of(view, rule, subset_name, port.number);
    let credential = policy.tls.as_ref().and_then(|tls| tls.credential());
    let has = |name: &str| rule.is_some_and(|rule| secret::is_given_to(view.proxy.kind, rule, name));
    if credential.is_some_and(|name| !has(name)) {
        // It has not what the TLS needs that is asked for. Without a cluster nothing is sent in the clear.
        return None;
    }
    let mut out = cluster::Cluster {
        alt_stat_name: format!("{name};"),
        connect_timeout: Some(duration(view.mesh.config().connect_timeout)),
        common_lb_config: Some(cluster::cluster::CommonLbConfig::default()),
        metadata: origin::stable(rule.into_iter().flat_map(|rule| &rule.origins).chain([&service.origin])),
        name,
        ..cluster::Cluster::default()
    };
    let how = discovery_with(view, service, &policy);
    let spread = Spread::of(view, service, &policy);
    set_discovery(view, &mut out, service, port, subset.map(|subset| &subset.labels), how, &spread)?;
    let mut http =
        upstream::HttpProtocolOptions { upstream_protocol_options: upstream_protocol(port), ..Default::default() };
    policy::apply(&mut out, &mut http, &policy, service, port, view.mesh.config());
    if let Some(zones) = spread.zone_aware() {
        out.common_lb_config.get_or_insert_default().locality_config_specifier =
            Some(LocalityConfigSpecifier::ZoneAwareLbConfig(zones));
    } else if spread.weighs() {
        out.common_lb_config.get_or_insert_default().locality_config_specifier =
            Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig::default()));
    }
    if rule.is_some_and(|rule| rule.peak_ewma) && out.lb_policy == LbPolicy::LeastRequest as i32 {
        origin::add(&mut out.metadata, "balancer", PEAK_EWMA);
    }
    if matches!(how, Discovery::OriginalDestination | Discovery::Dynamic) {
        out.lb_policy = LbPolicy::ClusterProvided as i32;
        out.lb_config = None;
    }
    let sni = names::mesh_sni(port.number, subset_name, &service.host);
    let principals = expected_principals(view, service);
    let members = view.mesh.endpoints(service).port(port.number);
    tls::apply(
        &mut out,
        &mut http,
        &tls::Situation {
            settings: policy.tls.as_ref(),
            service,
            port,
            sni: &sni,
            principals: &principals,
            has_no_endpoints: matches!(how, Discovery::OriginalDestination | Discovery::Dynamic),
            all_take_mesh_tls: !members.is_empty() && members.iter().all(|member| member.mesh_tls),
            automatic: view.mesh.config().enable_auto_mtls && !service.external,
            config: view.mesh.config(),
        },
    );
    if how == Discovery::Dynamic {
        dynamic::finish(&mut out, &mut http);
    }
    if let Some(settings) = policy.proxy_protocol {
        proxy_protocol::apply(&mut out, settings);
    }
    if http.upstream_protocol_options.is_some() {
        out.typed_extension_protocol_options = protocol::extension(&http);
    } else if http != upstream::HttpProtocolOptions::default() {
        // The message wants a protocol; HTTP/1.1 is what a cluster without options speaks.
        http.upstream_protocol_options = Some(protocol::http1());
        out.typed_extension_protocol_options = protocol::extension(&http);
    }
    Some(out)
}

/// HTTP/2 where declared; what the client speaks where nothing is declared.
fn upstream_protocol(port: &ServicePort) -> Option<upstream::http_protocol_options::UpstreamProtocolOptions> {
    if port.protocol.is_http2() {
        Some(protocol::http2(Default::default()))
    } else if port.protocol.is_sniffed() {
        Some(protocol::as_downstream())
    } else {
        None
    }
}

/// What a server must prove: the accounts behind the service, and what a service entry names.
pub(crate) fn expected_principals(view: &View<'_>, service: &Service) -> Vec<String> {
    let mut out: Vec<String> = view.mesh.endpoints(service).principals.to_vec();
    out.extend(service.subject_alt_names.iter().cloned());
    out.sort_unstable();
    out.dedup();
    out
}

/// `None` when there can be no such cluster: names to resolve, and none known.
fn set_discovery(
    view: &View<'_>,
    out: &mut cluster::Cluster,
    service: &Service,
    port: &ServicePort,
    subset: Option<&Labels>,
    how: Discovery,
    spread: &Spread<'_>,
) -> Option<()> {
    let kind = match how {
        Discovery::Dynamic => {
            out.cluster_discovery_type = Some(dynamic::discovery());
            return Some(());
        }
        Discovery::Endpoints => DiscoveryType::Eds,
        Discovery::OriginalDestination => DiscoveryType::OriginalDst,
        Discovery::StrictDns => DiscoveryType::StrictDns,
        Discovery::LogicalDns => DiscoveryType::LogicalDns,
    };
    out.cluster_discovery_type = Some(ClusterDiscoveryType::Type(kind as i32));
    match how {
        Discovery::Endpoints => {
            out.eds_cluster_config = Some(EdsClusterConfig { eds_config: Some(ads()), service_name: out.name.clone() });
        }
        Discovery::OriginalDestination | Discovery::Dynamic => {}
        Discovery::StrictDns | Discovery::LogicalDns => {
            let endpoints = view.mesh.endpoints(service);
            let members = endpoint::members(endpoints.port(port.number), subset);
            let assignment = endpoint::assignment(&out.name, &spread.groups(members));
            if assignment.endpoints.is_empty() {
                return None;
            }
            out.load_assignment = Some(assignment);
            set_dns(out, view.mesh.config());
        }
    }
    Some(())
}

#[expect(deprecated, reason = "the typed replacement of these fields is younger than proxies in use")]
fn set_dns(out: &mut cluster::Cluster, config: &lateen_mesh::MeshConfig) {
    out.dns_lookup_family = DnsLookupFamily::V4Only as i32;
    out.respect_dns_ttl = true;
    // Successes follow the TTL; this is for answers without one and for failures.
    out.dns_refresh_rate = Some(duration(config.dns_refresh_rate));
    out.dns_jitter = Some(duration(DNS_JITTER));
}
