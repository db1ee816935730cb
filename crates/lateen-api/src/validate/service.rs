//! Rules for Kubernetes `Service`.

use std::collections::BTreeSet;

use super::check::Check;
use super::names;
use crate::kubernetes::Service;
use crate::kubernetes::service::{ServicePort, ServiceType};
use crate::meta::ObjectMeta;
use crate::object::Resource;
use crate::scalar::PortRef;

/// Where traffic is to stay: Kubernetes' names for it.
const DISTRIBUTIONS: [&str; 3] = ["PreferClose", "PreferSameZone", "PreferSameNode"];

/// Istio's older way to say so, on Services, ServiceEntries and namespaces; in any case.
const ANNOTATION: &str = "networking.istio.io/traffic-distribution";

pub(super) fn traffic_distribution(check: &mut Check<'_>, metadata: &ObjectMeta) {
    let Some(value) = metadata.annotations.get(ANNOTATION) else { return };
    if !DISTRIBUTIONS.iter().any(|known| known.eq_ignore_ascii_case(value)) {
        let message = format!("`{value}` is none of {}; traffic goes anywhere", DISTRIBUTIONS.join(", "));
        check.warn(format!("metadata.annotations.{ANNOTATION}"), message);
    }
}

pub(super) fn check(check: &mut Check<'_>, resource: &Resource<Service>) {
    let spec = &resource.spec;
    traffic_distribution(check, &resource.metadata);
    if let Some(value) = spec.traffic_distribution.as_deref().filter(|value| !DISTRIBUTIONS.contains(value)) {
        check.error("spec.trafficDistribution", format!("`{value}` is none of {}", DISTRIBUTIONS.join(", ")));
    }
    if spec.kind == ServiceType::ExternalName {
        match spec.external_name.as_str() {
            "" => check.error("spec.externalName", "a Service of type ExternalName needs `externalName`"),
            name => check.rule("spec.externalName", names::host(name)),
        }
    } else if spec.ports.is_empty() && !spec.is_headless() {
        check.error("spec.ports", "a Service needs at least one port");
    }
    if !matches!(spec.cluster_ip.as_str(), "" | "None") {
        check.rule("spec.clusterIP", names::ip(&spec.cluster_ip));
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        check_port(check, &field, port);
        if port.name.is_empty() && spec.ports.len() > 1 {
            check.error(format!("{field}.name"), "with several ports each needs a name");
        } else if !names.insert(port.name.as_str()) {
            check.error(format!("{field}.name"), format!("the port name `{}` is there a second time", port.name));
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        if !numbers.insert((port.port, protocol)) {
            check.error(format!("{field}.port"), format!("the port {}/{protocol} is there a second time", port.port));
        }
    }
}

fn check_port(check: &mut Check<'_>, field: &str, port: &ServicePort) {
    check.rule(format!("{field}.port"), names::port(u32::from(port.port)));
    if !port.name.is_empty() && !names::is_lower_label(&port.name) {
        check.error(format!("{field}.name"), format!("`{}` is not a port name", port.name));
    }
    match &port.target_port {
        Some(PortRef::Number(number)) => check.rule(format!("{field}.targetPort"), names::port(u32::from(*number))),
        Some(PortRef::Name(name)) => check.rule(format!("{field}.targetPort"), names::port_name(name)),
        None => {}
    }
    if let Some(protocol) = port.protocol.as_deref()
        && !matches!(protocol, "TCP" | "UDP" | "SCTP")
    {
        check.error(format!("{field}.protocol"), format!("`{protocol}` is none of TCP, UDP and SCTP"));
    }
}
