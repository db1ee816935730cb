//! Resources for gRPC's own clients (`xds:///reviews:9080`), which call services without a proxy beside them.
//!
//! Names and shapes are those of Istio's generator `grpc`: a listener of the name `host:port` that is asked for, which names
//! the route table `outbound|port||host`; its routes name clusters as sidecars have them. What gRPC does not know (gRFC A27,
//! A28, A29, A31, A32, A33, A42) is left out where it may be, and where it may not, as with TLS that only a proxy could
//! speak, there is no cluster, so that calls fail instead of going out another way. Nothing is sent that is not asked for.

mod cluster;

use std::sync::Arc;

use envoy_types::pb::envoy::config::listener::v3 as listener;
use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::envoy::extensions::filters::http::fault::v3::HttpFault;
use envoy_types::pb::envoy::extensions::filters::http::router::v3::Router;
use envoy_types::pb::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use lateen_mesh::{Service, host};

use crate::cache::Cache;
use crate::filters::http_connection_manager::{FAULT, ROUTER};
use crate::names::{self, OutboundCluster};
use crate::proto::{ads, http_filter};
use crate::route::{outbound, table};
use crate::view::View;
use crate::{Named, endpoint, origin, type_url, wire};

/// The resources of these names, as far as they exist.
pub(crate) fn named(view: &View<'_>, cache: &Cache, type_url: &str, names: &[String]) -> Vec<Arc<Named>> {
    let one = |name: &String| match type_url {
        type_url::LISTENER => listener(view, name).map(|listener| Arc::new(Named::new(name, &listener))),
        type_url::ROUTE => routes(view, name).map(|table| Arc::new(Named::new(name, &table))),
        type_url::CLUSTER => cluster::by_name(view, name).map(|cluster| Arc::new(Named::new(name, &cluster))),
        type_url::ENDPOINT => endpoint::by_name(view, cache, name),
        _ => None,
    };
    names.iter().filter_map(one).collect()
}

/// The service that a target means, `host:port`, by any of the names that clients in this namespace have for it.
fn service<'a>(view: &'a View<'_>, target: &str) -> Option<(&'a Arc<Service>, u16)> {
    let (name, port) = target.rsplit_once(':')?;
    let port = port.parse().ok()?;
    let domain = &view.mesh.config().domain;
    let full = [
        host::resolve(name, view.scope.namespace(), domain),
        format!("{name}.svc.{domain}"),
        format!("{name}.{domain}"),
    ];
    let found = full.iter().find_map(|host| view.scope.service(host))?;
    found.port(port).is_some_and(|port| port.protocol.may_be_http()).then_some((found, port))
}

fn listener(view: &View<'_>, target: &str) -> Option<listener::Listener> {
    let (service, port) = service(view, target)?;
    let routes =
        hcm::Rds { config_source: Some(ads()), route_config_name: names::outbound_cluster(port, "", &service.host) };
    let manager = hcm::HttpConnectionManager {
        http_filters: vec![http_filter(FAULT, &HttpFault::default()), http_filter(ROUTER, &Router::default())],
        route_specifier: Some(hcm::http_connection_manager::RouteSpecifier::Rds(routes)),
        ..hcm::HttpConnectionManager::default()
    };
    Some(listener::Listener {
        name: target.to_owned(),
        api_listener: Some(listener::ApiListener { api_listener: Some(wire::pack(&manager)) }),
        metadata: origin::metadata([&service.origin]),
        ..listener::Listener::default()
    })
}

fn routes(view: &View<'_>, name: &str) -> Option<route::RouteConfiguration> {
    let wanted = OutboundCluster::parse(name).filter(|wanted| wanted.subset.is_empty())?;
    let mut host = outbound::virtual_host(view, wanted.host, wanted.port)?;
    host.typed_per_filter_config.clear();
    for route in &mut host.routes {
        // gRPC refuses a table that configures a filter which it does not know.
        route.typed_per_filter_config.retain(|filter, _| filter == FAULT);
        if let Some(route::route::Action::Route(action)) = &mut route.action
            && let Some(route::route_action::ClusterSpecifier::WeightedClusters(weighted)) =
                &mut action.cluster_specifier
        {
            weighted.clusters.iter_mut().for_each(|cluster| cluster.typed_per_filter_config.clear());
        }
    }
    Some(table(name, vec![host]))
}
