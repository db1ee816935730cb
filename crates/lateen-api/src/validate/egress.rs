//! Rules for `Egress`.

use std::collections::BTreeSet;

use super::check::Check;
use super::{metadata, names};
use crate::policy::Egress;
use crate::policy::egress::{Caller, EgressGateway, EgressProtocol, Origination, OriginationMode};

pub(super) fn check(check: &mut Check<'_>, spec: &Egress) {
    hosts(check, spec);
    ports(check, spec);
    for (index, caller) in spec.from.iter().enumerate() {
        from(check, &format!("spec.from[{index}]"), caller);
    }
    if let Some(tls) = &spec.tls {
        origination(check, spec, tls);
    }
    if let Some(via) = &spec.via {
        gateway(check, spec, &via.gateway);
    }
}

fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

fn hosts(check: &mut Check<'_>, spec: &Egress) {
    if spec.hosts.is_empty() {
        check.error("spec.hosts", "`hosts` is required and missing");
    }
    let mut seen = BTreeSet::new();
    for (index, host) in spec.hosts.iter().enumerate() {
        let field = format!("spec.hosts[{index}]");
        if host == "*" {
            let help = "whether workloads may go anywhere is the mesh's and the Sidecars' `outboundTrafficPolicy`";
            check.error_help(field, "the host may not be `*`", help);
            continue;
        }
        check.rule(field.clone(), names::wildcard_host(host));
        if !seen.insert(host.to_ascii_lowercase()) {
            check.error(field, format!("the host `{host}` is there a second time"));
        }
    }
}

fn ports(check: &mut Check<'_>, spec: &Egress) {
    if spec.ports.is_empty() {
        check.error("spec.ports", "`ports` is required and missing");
    }
    let mut seen = BTreeSet::new();
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        check.rule(format!("{field}.number"), names::port(port.number));
        if !seen.insert(port.number) {
            check.error(format!("{field}.number"), format!("the port {} is there a second time", port.number));
        }
        if port.protocol == EgressProtocol::Tls && spec.tls.is_some() {
            let help = "`tls` is for what comes in the clear; leave it out, or declare HTTP";
            check.error_help(format!("{field}.protocol"), "what comes in TLS already cannot be put in TLS", help);
        }
    }
    if spec.via.is_some() && spec.ports.len() > 1 {
        let help = "write an Egress for each port, with different hosts or gateways";
        check.error_help("spec.ports[1]", "through a gateway one port goes, which it cannot tell from others", help);
    }
}

fn from(check: &mut Check<'_>, field: &str, caller: &Caller) {
    let set = [
        ("namespaces", !caller.namespaces.is_empty()),
        ("serviceAccounts", !caller.service_accounts.is_empty()),
        ("selector", caller.selector.is_some()),
    ];
    if set.iter().filter(|(_, set)| *set).count() != 1 {
        let help = "entries of `from` are alternatives";
        check.error_help(field, "exactly one of `namespaces`, `serviceAccounts` and `selector` is needed", help);
    }
    for (index, namespace) in caller.namespaces.iter().enumerate() {
        if !names::is_lower_label(namespace) {
            check.error(format!("{field}.namespaces[{index}]"), format!("`{namespace}` is no name of a namespace"));
        }
    }
    for (index, account) in caller.service_accounts.iter().enumerate() {
        let good = |name: &str| !name.is_empty() && name.split('.').all(names::is_lower_label);
        let is_good = match account.split_once('/') {
            Some((namespace, name)) => names::is_lower_label(namespace) && good(name),
            None => good(account),
        };
        if !is_good {
            let message = format!("`{account}` is neither `name` nor `namespace/name` of a service account");
            check.error(format!("{field}.serviceAccounts[{index}]"), message);
        }
    }
    if let Some(selector) = &caller.selector {
        metadata::selector_labels(check, &format!("{field}.selector"), "matchLabels", &selector.match_labels);
        if selector.match_labels.is_empty() {
            check.error(format!("{field}.selector"), "the selector is empty: leave `from` out to let everybody call");
        }
    }
}

fn origination(check: &mut Check<'_>, spec: &Egress, tls: &Origination) {
    if let Some(port) = tls.port {
        check.rule("spec.tls.port", names::port(port));
        if port != 443 && spec.hosts.iter().any(|host| is_wildcard(host)) {
            check.error("spec.tls.port", "under a wildcard, TLS goes to 443: the port is the request's to say");
        }
    }
    if tls.mode == OriginationMode::Mutual && tls.credential_name.is_empty() {
        check.error("spec.tls.credentialName", "the mode MUTUAL needs `credentialName`");
    }
    if !tls.credential_name.is_empty() && !tls.ca_certificates.is_empty() {
        check.error("spec.tls.caCertificates", "`caCertificates` may not stand beside `credentialName`");
    }
    let is_selected = matches!(spec.from.as_slice(), [Caller { selector: Some(_), .. }]);
    if !tls.credential_name.is_empty() && spec.via.is_none() && !is_selected {
        let help = "choose the workloads by a single `from` with a `selector`, or go through a gateway";
        let message = "without a gateway every workload that calls is given the Secret, and `from` does not say which";
        check.error_help("spec.tls.credentialName", message, help);
    }
}

fn gateway(check: &mut Check<'_>, spec: &Egress, gateway: &EgressGateway) {
    let field = "spec.via.gateway";
    match gateway.service.as_str() {
        "" => check.error(format!("{field}.service"), "`service` is required and missing"),
        service => check.rule(format!("{field}.service"), names::host(service)),
    }
    if let Some(port) = gateway.port {
        check.rule(format!("{field}.port"), names::port(port));
    }
    let labels = &gateway.selector.match_labels;
    metadata::selector_labels(check, &format!("{field}.selector"), "matchLabels", labels);
    if labels.is_empty() {
        check.error(
            format!("{field}.selector.matchLabels"),
            "the labels of the gateway's pods are required and missing",
        );
    }
    for (index, _) in spec.from.iter().enumerate().filter(|(_, caller)| caller.selector.is_some()) {
        let help = "name the service account that these workloads run as";
        let message = "a gateway knows who calls by its service account, not by its labels";
        check.error_help(format!("spec.from[{index}].selector"), message, help);
    }
    let passes = spec.ports.iter().any(|port| port.protocol == EgressProtocol::Tls);
    for (index, _) in spec.hosts.iter().enumerate().filter(|(_, host)| passes && is_wildcard(host)) {
        let help = "name the hosts, or have the gateway begin TLS: `protocol: HTTP` and `tls`";
        let message = "TLS of a workload's own comes to the gateway in mesh mTLS, where it cannot see for which of the names \
                       under a wildcard it is";
        check.error_help(format!("spec.hosts[{index}]"), message, help);
    }
}
