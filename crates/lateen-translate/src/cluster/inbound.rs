//! Clusters of a sidecar's own application: one per declared port.

use std::net::Ipv4Addr;
use std::time::Duration;

use cluster::cluster::{ClusterDiscoveryType, DiscoveryType, LbPolicy};
use envoy_types::pb::envoy::config::cluster::v3 as cluster;
use envoy_types::pb::envoy::config::endpoint::v3 as endpoint;
use envoy_types::pb::envoy::extensions::upstreams::http::v3 as upstream;
use lateen_api::networking::destination_rule::ConnectionPool;
use lateen_mesh::{AppEndpoint, InboundPort, ServicePort, TargetPort, Workload};

use crate::cluster::{fixed, policy, protocol};
use crate::names::inbound_cluster;
use crate::origin;
use crate::proto::{bind_source, duration, pipe, socket_address};
use crate::view::View;

/// How long the one address behind an inbound cluster is kept unused: as good as for ever.
const SIXTY_DAYS: Duration = Duration::from_hours(60 * 24);

/// The clusters, by port.
pub(crate) fn clusters(view: &View<'_>) -> Vec<cluster::Cluster> {
    view.mesh.inbound_ports(&view.proxy.workload).iter().map(|port| build(view, port)).collect()
}

fn build(view: &View<'_>, port: &InboundPort) -> cluster::Cluster {
    let name = inbound_cluster(port.port);
    let config = view.mesh.config();
    let mut out = cluster::Cluster {
        alt_stat_name: format!("{name};"),
        name,
        connect_timeout: Some(duration(config.connect_timeout)),
        common_lb_config: Some(cluster::cluster::CommonLbConfig::default()),
        metadata: origin::stable(port.origin()),
        ..cluster::Cluster::default()
    };
    let loopback = AppEndpoint::Loopback(Ipv4Addr::LOCALHOST.into(), port.port);
    let usual = config.applications_on_loopback.then_some(&loopback);
    let endpoint = port.ingress.as_ref().map_or(usual, |ingress| ingress.endpoint.as_ref());
    lead_to(&mut out, endpoint, &view.proxy.workload);
    let mut http = upstream::HttpProtocolOptions {
        upstream_protocol_options: if port.protocol.is_http2() {
            Some(protocol::http2(Default::default()))
        } else if port.protocol.is_sniffed() {
            Some(protocol::as_downstream())
        } else {
            None
        },
        ..upstream::HttpProtocolOptions::default()
    };
    let declared = ServicePort {
        number: port.service_port,
        name: "".into(),
        protocol: port.protocol,
        target: TargetPort::Number(port.port),
    };
    let pool = pool(view, port);
    policy::upgrade(&mut http, pool.as_ref(), &declared, false);
    policy::connection_pool(&mut out, &mut http, pool.as_ref(), None, config);
    if http != upstream::HttpProtocolOptions::default() {
        http.upstream_protocol_options.get_or_insert_with(protocol::http1);
        out.typed_extension_protocol_options = protocol::extension(&http);
    }
    out
}

/// The server's side of the connection pool: what a Sidecar says, else the rule for the (first) service of the port, else the
/// mesh config.
fn pool(view: &View<'_>, port: &InboundPort) -> Option<ConnectionPool> {
    if let Some(pool) = &port.pool {
        return Some((**pool).clone());
    }
    let service = port.service.as_ref();
    let rule = service.and_then(|service| view.scope.destination_rule(&service.host, &lateen_mesh::Labels::new()));
    let own = rule.and_then(|rule| rule.policy(port.service_port).connection_pool);
    own.or_else(|| view.mesh.config().default_traffic_policy.connection_pool.clone())
}

/// To where the client meant to go, past the redirect rules; or to where a Sidecar says that the application is.
fn lead_to(out: &mut cluster::Cluster, endpoint: Option<&AppEndpoint>, workload: &Workload) {
    out.upstream_bind_config = Some(bind_source(fixed::INBOUND_SOURCE));
    let address = match endpoint {
        None => {
            out.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::OriginalDst as i32));
            out.lb_policy = LbPolicy::ClusterProvided as i32;
            out.cleanup_interval = Some(duration(SIXTY_DAYS));
            return;
        }
        Some(AppEndpoint::Unix(path)) => {
            out.upstream_bind_config = None;
            pipe(path)
        }
        Some(AppEndpoint::Loopback(ip, port)) => socket_address(&ip.to_string(), *port),
        Some(AppEndpoint::Own(port)) => {
            let own = workload.ip().map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string());
            socket_address(&own, *port)
        }
    };
    let endpoint = endpoint::LbEndpoint {
        host_identifier: Some(endpoint::lb_endpoint::HostIdentifier::Endpoint(endpoint::Endpoint {
            address: Some(address),
            ..endpoint::Endpoint::default()
        })),
        ..endpoint::LbEndpoint::default()
    };
    out.cluster_discovery_type = Some(ClusterDiscoveryType::Type(DiscoveryType::Static as i32));
    out.lb_policy = LbPolicy::RoundRobin as i32;
    out.load_assignment = Some(endpoint::ClusterLoadAssignment {
        cluster_name: out.name.clone(),
        endpoints: vec![endpoint::LocalityLbEndpoints {
            lb_endpoints: vec![endpoint],
            ..endpoint::LocalityLbEndpoints::default()
        }],
        ..endpoint::ClusterLoadAssignment::default()
    });
}
