//! Rules for `VirtualService`: hosts and gateways, TLS and TCP routes, weights. HTTP routes have a file of their own.

use super::check::Check;
use super::{http_route, metadata, names};
use crate::networking::VirtualService;
use crate::networking::virtual_service::{Destination, L4Match, RouteDestination, TlsMatch};
use crate::object::Resource;

/// The reserved gateway name: all sidecars.
const MESH: &str = "mesh";

pub(super) fn check(check: &mut Check<'_>, resource: &Resource<VirtualService>) {
    let spec = &resource.spec;
    let is_delegate = spec.hosts.is_empty();
    if is_delegate {
        delegate(check, spec);
    }
    gateway_names(check, "spec.gateways", &spec.gateways);
    hosts(check, spec);
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        check.error("spec", "a VirtualService needs routes: one of http, tls and tcp");
    }
    let on_gateways_only = !spec.gateways.is_empty() && !spec.gateways.iter().any(|name| name == MESH);
    for (index, route) in spec.http.iter().enumerate() {
        let site = http_route::Site { is_delegate, on_gateways_only };
        http_route::check(check, &format!("spec.http[{index}]"), route, site);
    }
    for (index, route) in spec.tls.iter().enumerate() {
        let field = format!("spec.tls[{index}]");
        if route.matches.is_empty() {
            check.error(format!("{field}.match"), "a TLS route needs at least one match with sniHosts");
        }
        for (at, matches) in route.matches.iter().enumerate() {
            tls_match(check, &format!("{field}.match[{at}]"), matches, &spec.hosts);
        }
        layer4_destinations(check, &field, "TLS", &route.route);
    }
    for (index, route) in spec.tcp.iter().enumerate() {
        let field = format!("spec.tcp[{index}]");
        for (at, matches) in route.matches.iter().enumerate() {
            tcp_match(check, &format!("{field}.match[{at}]"), matches);
        }
        layer4_destinations(check, &field, "TCP", &route.route);
    }
    metadata::export_to(check, resource.namespace(), &spec.export_to, false);
}

/// Without hosts it can only be a delegate: HTTP routes that another VirtualService goes on with.
fn delegate(check: &mut Check<'_>, spec: &VirtualService) {
    if spec.http.is_empty() {
        let help = "only a delegate, which has HTTP routes and nothing else, goes without hosts";
        check.error_help("spec.hosts", "`hosts` is required and missing", help);
        return;
    }
    for (field, present) in
        [("gateways", !spec.gateways.is_empty()), ("tls", !spec.tls.is_empty()), ("tcp", !spec.tcp.is_empty())]
    {
        if present {
            let message =
                format!("a VirtualService without hosts is a delegate, and a delegate may not have `{field}`");
            check.error(format!("spec.{field}"), message);
        }
    }
}

fn hosts(check: &mut Check<'_>, spec: &VirtualService) {
    let on_mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|name| name == MESH);
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        if host == "*" && on_mesh {
            let help = "list the hosts, or bind the VirtualService to gateways only";
            check.error_help(field, "the host `*` is not allowed on the mesh gateway", help);
            continue;
        }
        check.rule(field.clone(), names::wildcard_host_or_ip(host));
        let twin = spec.hosts[..index].iter().find(|other| names::covers(other, host) || names::covers(host, other));
        if let Some(other) = twin {
            check.error(field, format!("the hosts `{other}` and `{host}` overlap"));
        }
    }
}

/// `name`, or `namespace/name`; the old form `name.namespace.svc…` still works.
pub(super) fn gateway_names(check: &mut Check<'_>, field: &str, gateways: &[String]) {
    for (index, gateway) in gateways.iter().enumerate() {
        let place = format!("{field}[{index}]");
        match gateway.split_once('/') {
            Some((namespace, name)) => {
                let namespace_fits = namespace == "." || names::is_label(namespace);
                if !namespace_fits || !names::is_label(name) {
                    check.error(place, format!("`{gateway}` is not a gateway: <namespace>/<name>"));
                }
            }
            None => {
                if let Some((name, rest)) = gateway.split_once('.') {
                    let namespace = rest.split('.').next().unwrap_or_default();
                    let message = format!("`{gateway}` is an old way to name a gateway, prefer `{namespace}/{name}`");
                    check.warn(place.clone(), message);
                }
                check.rule(place, names::host(gateway));
            }
        }
    }
}

fn tls_match(check: &mut Check<'_>, field: &str, matches: &TlsMatch, hosts: &[String]) {
    if matches.sni_hosts.is_empty() {
        check.error(format!("{field}.sniHosts"), "a TLS match needs at least one of sniHosts");
    }
    for (index, sni) in matches.sni_hosts.iter().enumerate() {
        let place = format!("{field}.sniHosts[{index}]");
        if names::ip(sni).is_ok() {
            check.warn(place, format!("`{sni}` is an address; few clients send one as SNI"));
            continue;
        }
        if let Err(reason) = names::wildcard_host(sni) {
            check.error(place, reason);
        } else if !hosts.iter().any(|host| names::covers(host, sni)) {
            check.error(
                place,
                format!("the SNI host `{sni}` is not among the hosts of the VirtualService ({})", hosts.join(", ")),
            );
        }
    }
    subnets(check, field, &matches.destination_subnets);
    match_site(check, field, matches.port, &matches.gateways, &matches.source_namespace);
    metadata::labels(check, &format!("{field}.sourceLabels"), &matches.source_labels);
}

fn tcp_match(check: &mut Check<'_>, field: &str, matches: &L4Match) {
    subnets(check, field, &matches.destination_subnets);
    match_site(check, field, matches.port, &matches.gateways, &matches.source_namespace);
    metadata::labels(check, &format!("{field}.sourceLabels"), &matches.source_labels);
    if !matches.source_subnet.is_empty() {
        check.warn(format!("{field}.sourceSubnet"), "`sourceSubnet` has no effect");
    }
}

fn subnets(check: &mut Check<'_>, field: &str, subnets: &[String]) {
    for (index, subnet) in subnets.iter().enumerate() {
        check.rule(format!("{field}.destinationSubnets[{index}]"), names::subnet(subnet));
    }
}

/// The conditions that all kinds of match have: port, gateways, namespace of the client.
pub(super) fn match_site(check: &mut Check<'_>, field: &str, port: Option<u32>, gateways: &[String], namespace: &str) {
    if let Some(port) = port.filter(|port| *port != 0) {
        check.rule(format!("{field}.port"), names::port(port));
    }
    gateway_names(check, &format!("{field}.gateways"), gateways);
    if !namespace.is_empty() && !names::is_label(namespace) {
        check.error(format!("{field}.sourceNamespace"), format!("`{namespace}` is not the name of a namespace"));
    }
}

fn layer4_destinations(check: &mut Check<'_>, field: &str, what: &str, route: &[RouteDestination]) {
    if route.is_empty() {
        check.error(format!("{field}.route"), format!("a {what} route needs a destination"));
    }
    for (index, entry) in route.iter().enumerate() {
        destination(check, &format!("{field}.route[{index}].destination"), &entry.destination);
    }
    let weighted: Vec<_> = route.iter().map(|entry| (entry.weight, &entry.destination)).collect();
    weights(check, &format!("{field}.route"), &weighted);
}

pub(super) fn destination(check: &mut Check<'_>, field: &str, destination: &Destination) {
    let host = format!("{field}.host");
    match destination.host.as_str() {
        "" => check.error(host, "`host` is required and missing"),
        "*" => check.error(host, "a destination may not be `*`"),
        name => check.rule(host, names::wildcard_host_or_ip(name)),
    }
    if !destination.subset.is_empty() && !names::is_label(&destination.subset) {
        check.error(format!("{field}.subset"), format!("`{}` is not the name of a subset", destination.subset));
    }
    if let Some(port) = destination.port {
        check.rule(format!("{field}.port.number"), names::port(port.number));
    }
}

/// Weights are shares of their sum (Istio's rule), none negative, not all 0. A sum other than 100 is legal and seldom meant.
pub(super) fn weights(check: &mut Check<'_>, field: &str, route: &[(i32, &Destination)]) {
    let mut negative = false;
    for (index, (weight, _)) in route.iter().enumerate() {
        if *weight < 0 {
            negative = true;
            check.error(format!("{field}[{index}].weight"), format!("the weight {weight} is negative"));
        }
    }
    let total: i64 = route.iter().map(|(weight, _)| i64::from(*weight)).sum();
    if negative || route.is_empty() {
        return;
    }
    if let [(weight, _)] = route {
        if !matches!(weight, 0 | 100) {
            let message = format!("the weight {weight} has no effect: a single destination gets all traffic");
            check.warn(format!("{field}[0].weight"), message);
        }
    } else if total == 0 {
        check.error(field, "the weights of all destinations are 0");
    } else if total != 100 {
        check.warn(field, format!("the weights add up to {total}, not 100; {}", shares(route, total)));
    }
}

/// `reviews (v1) gets 33.3 %, reviews (v2) gets 66.7 %`.
fn shares(route: &[(i32, &Destination)], total: i64) -> String {
    let share = |(weight, destination): &(i32, &Destination)| {
        let subset = match destination.subset.as_str() {
            "" => String::new(),
            subset => format!(" ({subset})"),
        };
        let tenths = (i64::from(*weight) * 2000 / total + 1) / 2;
        let percent =
            if tenths % 10 == 0 { format!("{}", tenths / 10) } else { format!("{}.{}", tenths / 10, tenths % 10) };
        format!("{}{subset} gets {percent} %", destination.host)
    };
    route.iter().map(share).collect::<Vec<_>>().join(", ")
}
