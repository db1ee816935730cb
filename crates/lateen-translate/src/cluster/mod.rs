//! Clusters: of every service that a proxy sees, of its own application's ports, and the fixed ones.

pub(crate) mod dynamic;
mod fixed;
mod inbound;
pub(crate) mod local;
mod on_demand;
pub(crate) mod outbound;
pub(crate) mod passed_on;
mod policy;
mod protocol;
mod proxy_protocol;
mod tls;

use std::sync::Arc;

use lateen_mesh::{ProxyKind, Service};

use crate::Named;
use crate::cache::{Cache, Input, List};
use crate::names;
use crate::route::destination::labels;
use crate::view::View;

pub(crate) use outbound::Discovery;

/// All clusters of a proxy.
pub(crate) fn all(view: &View<'_>, cache: &Cache) -> Vec<Arc<Named>> {
    let mut out = match &view.proxy.demanded {
        Some(hosts) => on_demand::of_services(view, cache, hosts),
        None => of_services(view, cache).to_vec(),
    };
    let config = view.mesh.config();
    let own =
        |cluster: &envoy_types::pb::envoy::config::cluster::v3::Cluster| Arc::new(Named::new(&cluster.name, cluster));
    let black_hole = cache.get("black hole", "", &[Arc::clone(config) as Input], || [own(&fixed::black_hole(config))]);
    out.extend(black_hole.iter().cloned());
    out.extend(local::cluster(view).as_ref().map(own));
    out.extend(passed_on::clusters(view).iter().map(own));
    if view.proxy.kind != ProxyKind::Gateway {
        let passing = cache.get("passthrough", "", &[Arc::clone(config) as Input], || {
            [own(&fixed::passthrough(config)), own(&fixed::inbound_passthrough(config))]
        });
        out.extend(passing.iter().cloned());
        out.extend(inbound::clusters(view).iter().map(own));
    }
    out
}

/// The clusters of all services, sorted by name: one list for all proxies that see the same services and rules.
fn of_services(view: &View<'_>, cache: &Cache) -> List {
    let mut inputs = seen(view);
    // Who is behind the services is part of some of the clusters.
    inputs.push(Arc::clone(view.mesh.standing()) as Input);
    let kind = match view.proxy.kind {
        ProxyKind::Gateway => "all clusters of a gateway",
        ProxyKind::None | ProxyKind::Sidecar => "all clusters of a sidecar",
    };
    // Clusters that hold endpoints have them in the order in which this client prefers them.
    cache.get(kind, &view.mesh.place_of(&view.proxy.workload), &inputs, || {
        let services = view.scope.services().iter().filter(|service| view.connects_to(service));
        let lists = services.map(|service| of_service(view, cache, service));
        let mut all: Vec<Arc<Named>> = lists.flat_map(|list| list.to_vec()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    })
}

/// What decides which clusters there are: services, rules, the configuration, and labels where rules look at them.
pub(crate) fn seen(view: &View<'_>) -> Vec<Input> {
    let mut inputs: Vec<Input> = vec![
        Arc::clone(view.scope.seen_services()) as Input,
        Arc::clone(view.scope.seen_rules()) as Input,
        Arc::clone(view.mesh.config()) as Input,
    ];
    if view.scope.depends_on_labels() {
        inputs.push(Arc::clone(&view.proxy.workload) as Input);
    }
    inputs
}

/// The clusters of a service, shared by all proxies for which the same rule holds.
fn of_service(view: &View<'_>, cache: &Cache, service: &Arc<Service>) -> List {
    let endpoints = view.mesh.endpoints(service);
    let mut inputs: Vec<Input> = vec![
        Arc::clone(service) as Input,
        Arc::clone(view.mesh.config()) as Input,
        Arc::clone(&endpoints.principals) as Input,
    ];
    let rule = view.scope.destination_rule(&service.host, labels(view));
    inputs.extend(rule.map(|rule| Arc::clone(rule) as Input));
    let mut name = service.host.to_string();
    if discovered_of(view, service).count() < outbound::names(service, rule.map(|rule| &**rule)).count() {
        // Some of the clusters hold endpoints, or depend on whether all of them take mTLS.
        inputs.push(Arc::clone(endpoints) as Input);
        name = name + "\n" + &view.mesh.place_of(&view.proxy.workload);
    }
    let kind = match view.proxy.kind {
        ProxyKind::Gateway => "clusters of a gateway",
        ProxyKind::None | ProxyKind::Sidecar => "clusters of a sidecar",
    };
    cache.get(kind, &name, &inputs, || {
        let clusters = outbound::clusters(view, service);
        clusters.iter().map(|cluster| Arc::new(Named::new(&cluster.name, cluster))).collect::<Vec<_>>()
    })
}

/// Names of the load assignments that are this proxy's alone: of its local cluster, and of services that it passes mesh mTLS on
/// to.
pub(crate) fn discovered_by_itself(view: &View<'_>) -> Vec<String> {
    let passed_on = passed_on::clusters(view).into_iter().filter_map(|cluster| cluster.eds_cluster_config);
    let passed_on = passed_on.map(|eds| eds.service_name);
    std::iter::once(local::LOCAL_CLUSTER.to_owned()).chain(passed_on).collect()
}

/// Names of the clusters whose endpoints come by discovery.
pub(crate) fn discovered(view: &View<'_>) -> Vec<String> {
    view.scope.services().iter().flat_map(|service| discovered_of(view, service)).collect()
}

/// Names of all clusters of a service.
pub(crate) fn names_of(view: &View<'_>, service: &Service) -> Vec<Arc<str>> {
    let rule = view.scope.destination_rule(&service.host, labels(view)).map(|rule| &**rule);
    let names = outbound::names(service, rule);
    names.map(|(port, subset)| names::outbound_cluster(port, subset, &service.host).into()).collect()
}

fn discovered_of<'a>(view: &'a View<'_>, service: &'a Service) -> impl Iterator<Item = String> + 'a {
    let rule = view.scope.destination_rule(&service.host, labels(view)).map(|rule| &**rule);
    outbound::names(service, rule)
        .filter(move |(port, subset)| outbound::discovery(view, service, *port, subset) == Discovery::Endpoints)
        .map(move |(port, subset)| names::outbound_cluster(port, subset, &service.host))
}
