//! Clusters of a sidecar that asks for its virtual hosts one by one: those that something else than a virtual host may lead
//! to, and those that the hosts lead to that it has asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use lateen_mesh::{EgressListener, Service};

use super::{of_service, outbound, seen};
use crate::Named;
use crate::cache::{Cache, Input, List};
use crate::filters::rate_limit;
use crate::filters::rbac::custom;
use crate::names::outbound_cluster;
use crate::route::destination::labels;
use crate::route::on_demand;
use crate::telemetry;
use crate::view::View;

pub(super) fn of_services(view: &View<'_>, cache: &Cache, hosts: &[Arc<str>]) -> Vec<Arc<Named>> {
    let hosts = on_demand::by_names(view, cache, hosts.iter().map(|name| &**name));
    let mut wanted = on_demand::clusters(&hosts);
    wanted.extend(view.cluster_for_unknown());
    wanted.extend(rate_limit::clusters(view.mesh, &view.proxy.workload));
    wanted.extend(custom::clusters(view));
    wanted.extend(telemetry::clusters(view));
    let all = super::of_services(view, cache);
    let of_name = |name: &String| all.binary_search_by(|cluster| (*cluster.name).cmp(name)).ok().map(|at| &all[at]);
    let always = always(view, cache);
    let both = always.iter().chain(wanted.iter().filter_map(of_name));
    let by_name: BTreeMap<&str, &Arc<Named>> = both.map(|cluster| (&*cluster.name, cluster)).collect();
    by_name.into_values().cloned().collect()
}

/// Those that listeners lead to.
fn always(view: &View<'_>, cache: &Cache) -> List {
    let mut inputs = seen(view);
    inputs.push(Arc::clone(view.scope) as Input);
    inputs.push(Arc::clone(view.mesh.standing()) as Input);
    cache.get("clusters of listeners", &view.mesh.place_of(&view.proxy.workload), &inputs, || {
        let layer4 = layer4_destinations(view);
        let of = |service: &Arc<Service>| {
            let rule = view.scope.destination_rule(&service.host, labels(view)).map(|rule| &**rule);
            let is_led_to = |port: u16| {
                let by_routes_alone = service.port(port).is_some_and(|port| port.protocol.is_http());
                !by_routes_alone || layer4.contains(&*service.host) || is_called_by_bytes(view, service)
            };
            let names: BTreeSet<String> = outbound::names(service, rule)
                .filter(|(port, _)| is_led_to(*port))
                .map(|(port, subset)| outbound_cluster(port, subset, &service.host))
                .collect();
            let clusters = if names.is_empty() { Vec::new() } else { of_service(view, cache, service).to_vec() };
            clusters.into_iter().filter(move |cluster| names.contains(&*cluster.name))
        };
        let services = view.scope.services().iter().filter(|service| view.connects_to(service));
        services.flat_map(of).collect::<Vec<_>>()
    })
}

/// The hosts to which rules send connections by their bytes or server names.
fn layer4_destinations(view: &View<'_>) -> BTreeSet<String> {
    let rules = view.scope.virtual_services().iter().filter(|rule| !rule.tls.is_empty() || !rule.tcp.is_empty());
    rules.flat_map(|rule| rule.destinations(&view.mesh.config().domain)).collect()
}

/// Whether a listener of a Sidecar passes the service's bytes on, whatever the protocol of its port.
fn is_called_by_bytes(view: &View<'_>, service: &Service) -> bool {
    let by_bytes = |listener: &&EgressListener| listener.port.is_some_and(|(_, protocol)| !protocol.is_http());
    view.scope.egress_listeners().iter().filter(by_bytes).any(|listener| listener.takes(service))
}
