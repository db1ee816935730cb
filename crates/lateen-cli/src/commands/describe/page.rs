//! Descriptions for people.

use std::fmt::Write as _;

use super::{Place, Pod, Policy, Port, Routes, Rule, ServicePage};
use crate::commands::columns::columns;

pub(super) fn pod(pod: &Pod) -> String {
    let ready = if pod.ready { "ready" } else { "not ready" };
    let proxy = match pod.proxy {
        "none" => "no proxy: the mesh does nothing for it".to_owned(),
        proxy => format!("{proxy} proxy"),
    };
    let mut out = format!("{}.{}: {ready}, {proxy}\nidentity {}\n", pod.name, pod.namespace, pod.identity);
    if pod.ports.is_empty() {
        out += "\nNo service has a port of it.\n";
    } else {
        let rows: Vec<Vec<String>> = pod.ports.iter().map(port).collect();
        let _ = writeln!(out, "\n{}", columns(&["PORT", "PROTOCOL", "SERVICE", "MUTUAL TLS", "BY"], &rows));
    }
    if pod.policies.is_empty() {
        out += "\nNo policy holds for it: every request is allowed.\n";
    } else {
        let row = |policy: &Policy| vec![policy.action.to_owned(), told(&policy.place)];
        let rows: Vec<Vec<String>> = pod.policies.iter().map(row).collect();
        let _ = writeln!(out, "\n{}", columns(&["POLICY", "OBJECT"], &rows));
    }
    for own in &pod.services {
        let _ = write!(out, "\n{}", of_service(own, "in this workload", "not in this workload"));
    }
    out
}

pub(super) fn service(service: &ServicePage) -> String {
    of_service(service, "", "no endpoints")
}

fn of_service(service: &ServicePage, some: &str, none: &str) -> String {
    let mut out = format!("service {}  {}\n", service.host, told(&service.object));
    for port in &service.ports {
        let name = if port.name.is_empty() { String::new() } else { format!(" {}", port.name) };
        let endpoints = match port.endpoints {
            0 => "no endpoints".to_owned(),
            1 => "1 endpoint".to_owned(),
            count => format!("{count} endpoints"),
        };
        let _ = writeln!(out, "  port {}{name}: {}, {endpoints}", port.number, port.protocol);
    }
    for rule in &service.rules {
        out += &destination_rule(rule, some, none);
    }
    for routes in &service.routes {
        out += &virtual_service(routes);
    }
    if service.rules.is_empty() && service.routes.is_empty() {
        out += "  no rule speaks of it: all endpoints of a port share its requests\n";
    }
    out
}

fn destination_rule(rule: &Rule, some: &str, none: &str) -> String {
    let mut out = String::new();
    for object in &rule.objects {
        let wide = if rule.host.is_empty() { String::new() } else { format!(" for {}", rule.host) };
        let policy = if rule.has_policy { "" } else { ", no traffic policy of its own" };
        let _ = writeln!(out, "  {}{wide}{policy}", told(object));
    }
    for subset in &rule.subsets {
        let members = match (subset.members, some) {
            (0, _) => none.to_owned(),
            (1, "") => "1 endpoint".to_owned(),
            (count, "") => format!("{count} endpoints"),
            (_, some) => some.to_owned(),
        };
        let _ = writeln!(out, "    subset {}: {members}", subset.name);
    }
    out
}

fn virtual_service(routes: &Routes) -> String {
    let counted = [("HTTP", routes.http), ("TLS", routes.tls), ("TCP", routes.tcp)];
    let rules: Vec<String> = counted
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(what, count)| format!("{count} {what} rule{}", if *count == 1 { "" } else { "s" }))
        .collect();
    let by = match &routes.gateways[..] {
        [mesh] if mesh == lateen_mesh::MESH => String::new(),
        gateways => format!(" by {}", gateways.join(", ")),
    };
    let whose = if routes.leads_here {
        format!(", sends requests for {} here", routes.hosts.join(", "))
    } else {
        String::new()
    };
    format!("  {}: {}{by}{whose}\n", told(&routes.object), rules.join(", "))
}

fn port(port: &Port) -> Vec<String> {
    let by = port.mtls_by.as_ref().map_or_else(|| "default".to_owned(), told);
    let service = if port.service.is_empty() { "-".to_owned() } else { port.service.clone() };
    vec![port.port.to_string(), port.protocol.clone(), service, port.mtls.to_owned(), by]
}

fn told(place: &Place) -> String {
    if place.at.is_empty() { place.object.clone() } else { format!("{} ({})", place.object, place.at) }
}
