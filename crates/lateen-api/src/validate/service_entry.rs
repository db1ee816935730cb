//! Rules for `ServiceEntry`: hosts, addresses, ports, and endpoints that fit the resolution.

use std::collections::BTreeSet;
use std::str::FromStr as _;

use ipnet::IpNet;

use super::check::Check;
use super::names::{self, Protocol};
use super::workload::Around;
use super::{metadata, workload};
use crate::networking::ServiceEntry;
use crate::networking::service_entry::Resolution;
use crate::object::Resource;

pub(super) fn check(check: &mut Check<'_>, resource: &Resource<ServiceEntry>) {
    let spec = &resource.spec;
    if spec.hosts.is_empty() {
        check.error("spec.hosts", "`hosts` is required and missing");
    }
    for (index, host) in spec.hosts.iter().enumerate() {
        match host.as_str() {
            "*" => check.error(format!("spec.hosts[{index}]"), "the host may not be `*`"),
            host => check.rule(format!("spec.hosts[{index}]"), names::wildcard_host(host)),
        }
    }
    super::service::traffic_distribution(check, &resource.metadata);
    addresses(check, spec);
    ports(check, spec);
    metadata::workload_selector(check, spec.workload_selector.as_ref());
    if spec.workload_selector.is_some() && !spec.endpoints.is_empty() {
        check.error("spec.workloadSelector", "only one of `workloadSelector` and `endpoints` may be set");
    }
    resolution(check, spec);
    let names: BTreeSet<&str> = spec.ports.iter().map(|port| port.name.as_str()).collect();
    let around = Around { ports: &names, names_allowed: spec.resolution != Resolution::Static };
    for (index, endpoint) in spec.endpoints.iter().enumerate() {
        workload::check_entry(check, &format!("spec.endpoints[{index}]"), endpoint, Some(&around));
    }
    several_hosts(check, spec);
    metadata::export_to(check, resource.namespace(), &spec.export_to, true);
}

fn addresses(check: &mut Check<'_>, spec: &ServiceEntry) {
    let blocks_allowed = matches!(spec.resolution, Resolution::None | Resolution::Static);
    for (index, address) in spec.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        check.rule(field.clone(), names::subnet(address));
        if IpNet::from_str(address).is_ok() && !blocks_allowed {
            check.error(field, format!("the CIDR block `{address}` needs resolution NONE or STATIC"));
        }
    }
}

fn ports(check: &mut Check<'_>, spec: &ServiceEntry) {
    if spec.ports.is_empty() {
        check.warn("spec.ports", "without ports no traffic is taken for this service");
    }
    let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        check.rule(format!("{field}.number"), names::port(port.number));
        match port.name.as_str() {
            "" => check.error(format!("{field}.name"), "`name` is required and missing"),
            name => check.rule(format!("{field}.name"), names::port_name(name)),
        }
        if !names.insert(&port.name) {
            check.error(format!("{field}.name"), format!("the port name `{}` is there a second time", port.name));
        }
        if !numbers.insert(port.number) {
            check.error(format!("{field}.number"), format!("the port {} is there a second time", port.number));
        }
        if !port.protocol.is_empty() && names::protocol(&port.protocol).is_none() {
            check.error(format!("{field}.protocol"), names::unknown_protocol(&port.protocol));
        }
        if let Some(target) = port.target_port.filter(|target| *target != 0) {
            check.rule(format!("{field}.targetPort"), names::port(target));
            if spec.resolution == Resolution::None {
                check.warn(format!("{field}.targetPort"), "`targetPort` has no effect with resolution NONE");
            }
        }
    }
}

fn resolution(check: &mut Check<'_>, spec: &ServiceEntry) {
    match spec.resolution {
        Resolution::None => {
            if !spec.endpoints.is_empty() {
                let help = "set `resolution` to STATIC or DNS";
                check.error_help("spec.endpoints", "resolution NONE takes no endpoints", help);
            }
            if spec.workload_selector.is_some() {
                check.warn("spec.workloadSelector", "`workloadSelector` has no effect with resolution NONE");
            }
        }
        Resolution::Static => {
            if spec.endpoints.is_empty() && spec.workload_selector.is_none() {
                check
                    .warn("spec.endpoints", "resolution STATIC without endpoints: there is nothing to send traffic to");
            }
        }
        Resolution::Dns | Resolution::DnsRoundRobin => dns(check, spec),
        Resolution::DynamicDns => dynamic_dns(check, spec),
    }
}

/// The proxy resolves what each request names: its host, or the server name of its TLS.
fn dynamic_dns(check: &mut Check<'_>, spec: &ServiceEntry) {
    for (index, host) in spec.hosts.iter().enumerate().filter(|(_, host)| !host.starts_with('*')) {
        let message = format!("resolution DYNAMIC_DNS is for wildcard hosts, `{host}` is none");
        check.error_help(format!("spec.hosts[{index}]"), message, "use resolution DNS");
    }
    for (name, present) in [
        ("endpoints", !spec.endpoints.is_empty()),
        ("addresses", !spec.addresses.is_empty()),
        ("workloadSelector", spec.workload_selector.is_some()),
    ] {
        if present {
            check.error(format!("spec.{name}"), format!("resolution DYNAMIC_DNS takes no {name}"));
        }
    }
    for (index, port) in spec.ports.iter().enumerate() {
        let field = format!("spec.ports[{index}]");
        if !matches!(names::protocol(&port.protocol), Some(Protocol::Http | Protocol::Tls)) {
            let message = "resolution DYNAMIC_DNS needs HTTP, HTTP2, GRPC or TLS: other protocols do not say for which host \
                           a connection is";
            check.error(format!("{field}.protocol"), message);
        }
        if port.target_port.is_some_and(|target| target != 0 && target != port.number) {
            let message =
                "`targetPort` has no effect with resolution DYNAMIC_DNS: requests go to the port that they name";
            check.error(format!("{field}.targetPort"), message);
        }
    }
}

fn dns(check: &mut Check<'_>, spec: &ServiceEntry) {
    if spec.endpoints.is_empty() {
        for (index, host) in spec.hosts.iter().enumerate().filter(|(_, host)| names::host(host).is_err()) {
            let help = "list endpoints, or use resolution NONE";
            let message = format!("`{host}` cannot be looked up in DNS, and there are no endpoints");
            check.error_help(format!("spec.hosts[{index}]"), message, help);
        }
    }
    if spec.resolution == Resolution::DnsRoundRobin && spec.endpoints.len() > 1 {
        check.error("spec.endpoints[1]", "resolution DNS_ROUND_ROBIN takes at most one endpoint");
    }
    if spec.workload_selector.is_some() {
        check.warn("spec.workloadSelector", "`workloadSelector` has no effect with resolution DNS");
    }
}

/// Several hosts are told apart by authority or SNI; plain TCP has neither.
fn several_hosts(check: &mut Check<'_>, spec: &ServiceEntry) {
    if spec.hosts.len() < 2 || spec.resolution == Resolution::None {
        return;
    }
    let told_apart = |protocol: &str| matches!(names::protocol(protocol), Some(Protocol::Http | Protocol::Tls));
    if let Some(index) = spec.ports.iter().position(|port| !told_apart(&port.protocol)) {
        let help = "give each host a ServiceEntry of its own, or declare HTTP or TLS";
        let message = "several hosts need HTTP or TLS ports: on other ports they cannot be told apart";
        check.error_help(format!("spec.ports[{index}].protocol"), message, help);
    }
}
