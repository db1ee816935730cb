//! Rules for `WorkloadEntry` and `WorkloadGroup`.

use std::collections::BTreeSet;

use super::check::Check;
use super::{metadata, names};
use crate::networking::{WorkloadEntry, WorkloadGroup};

/// What a ServiceEntry says about the endpoints in it.
pub(super) struct Around<'a> {
    pub(super) ports: &'a BTreeSet<&'a str>,
    /// False with resolution STATIC.
    pub(super) names_allowed: bool,
}

pub(super) fn check_entry(check: &mut Check<'_>, field: &str, entry: &WorkloadEntry, around: Option<&Around<'_>>) {
    let address = format!("{field}.address");
    match entry.address.as_str() {
        "" if entry.network.is_empty() => check.error(address, "`address` is required and missing"),
        "" => check.warn(address, format!("no address is given, only the network `{}`", entry.network)),
        text => match text.strip_prefix("unix://") {
            Some(path) => {
                check.rule(address, names::unix_path(path));
                if !entry.ports.is_empty() {
                    check.error(format!("{field}.ports"), "a Unix socket has no ports");
                }
                if around.is_some_and(|around| around.ports.len() != 1) {
                    check
                        .error(format!("{field}.address"), "with a Unix socket the service must have exactly one port");
                }
            }
            None if names::ip(text).is_ok() => {}
            None if around.is_some_and(|around| !around.names_allowed) => {
                let help = "host names need resolution DNS";
                check.error_help(address, format!("`{text}` is not an IP address"), help);
            }
            None => check.rule(address, names::host(text)),
        },
    }
    for (name, number) in &entry.ports {
        let place = format!("{field}.ports.{name}");
        check.rule(place.clone(), names::port_name(name));
        check.rule(place.clone(), names::port(*number));
        if around.is_some_and(|around| !around.ports.contains(name.as_str())) {
            check.error(place, format!("the service has no port named `{name}`"));
        }
    }
    metadata::labels(check, &format!("{field}.labels"), &entry.labels);
}

pub(super) fn check_group(check: &mut Check<'_>, group: &WorkloadGroup) {
    if let Some(found) = &group.metadata {
        metadata::labels(check, "spec.metadata.labels", &found.labels);
    }
    for (name, number) in &group.template.ports {
        check.rule(format!("spec.template.ports.{name}"), names::port_name(name));
        check.rule(format!("spec.template.ports.{name}"), names::port(*number));
    }
    metadata::labels(check, "spec.template.labels", &group.template.labels);
    let Some(probe) = &group.probe else { return };
    let ways = [probe.http_get.is_some(), probe.tcp_socket.is_some(), probe.exec.is_some(), probe.grpc.is_some()];
    if ways.iter().filter(|set| **set).count() != 1 {
        check.error("spec.probe", "a probe needs exactly one of httpGet, tcpSocket, exec and grpc");
    }
}
