//! Clusters: of every service that a proxy sees, of its own application's ports, and the fixed ones.

mod fixed;
mod inbound;
mod outbound;
mod policy;
mod protocol;
mod tls;

use std::sync::Arc;

use lateen_mesh::{ProxyKind, Service};

use crate::Named;
use crate::cache::{Cache, Input};
use crate::names;
use crate::route::destination::labels;
use crate::view::View;

pub(crate) use outbound::Discovery;

/// All clusters of a proxy.
pub(crate) fn all(view: &View<'_>, cache: &Cache) -> Vec<Arc<Named>> {
    let mut out: Vec<Arc<Named>> = Vec::new();
    for service in view.scope.services() {
        out.extend(of_service(view, cache, service).iter().cloned());
    }
    let config = view.mesh.config();
    let own =
        |cluster: &envoy_types::pb::envoy::config::cluster::v3::Cluster| Arc::new(Named::new(&cluster.name, cluster));
    out.push(own(&fixed::black_hole(config)));
    if view.proxy.kind != ProxyKind::Gateway {
        out.push(own(&fixed::passthrough(config)));
        out.push(own(&fixed::inbound_passthrough(config)));
        out.extend(inbound::clusters(view).iter().map(own));
    }
    out
}

/// The clusters of a service, shared by all proxies for which the same rule holds.
fn of_service(view: &View<'_>, cache: &Cache, service: &Arc<Service>) -> Arc<[Arc<Named>]> {
    let endpoints = view.mesh.endpoints(service);
    let mut inputs: Vec<Input> = vec![
        Arc::clone(service) as Input,
        Arc::clone(view.mesh.config()) as Input,
        Arc::clone(&endpoints.principals) as Input,
    ];
    let rule = view.scope.destination_rule(&service.host, labels(view));
    inputs.extend(rule.map(|rule| Arc::clone(rule) as Input));
    let discovered = discovered_of(view, service);
    if discovered.len() < outbound::names(service, rule.map(|rule| &**rule)).count() {
        // Some of the clusters hold endpoints, or depend on whether all of them take mTLS.
        inputs.push(Arc::clone(endpoints) as Input);
    }
    let kind = match view.proxy.kind {
        ProxyKind::Gateway => "clusters of a gateway",
        ProxyKind::None | ProxyKind::Sidecar => "clusters of a sidecar",
    };
    cache.get(view.mesh, kind, &service.host, inputs, || {
        outbound::clusters(view, service).iter().map(|cluster| Named::new(&cluster.name, cluster)).collect()
    })
}

/// Names of the clusters whose endpoints come by discovery.
pub(crate) fn discovered(view: &View<'_>) -> Vec<String> {
    view.scope.services().iter().flat_map(|service| discovered_of(view, service)).collect()
}

fn discovered_of(view: &View<'_>, service: &Service) -> Vec<String> {
    let rule = view.scope.destination_rule(&service.host, labels(view)).map(|rule| &**rule);
    outbound::names(service, rule)
        .filter(|(port, subset)| outbound::discovery(view, service, *port, subset) == Discovery::Endpoints)
        .map(|(port, subset)| names::outbound_cluster(port, subset, &service.host))
        .collect()
}
