//! Annotations of Istio on what Kubernetes runs: the ones that there are, where each belongs, and what it may say.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::document::{Document, items};
use crate::report::Report;
use crate::world::{APPS, CORE, World};

/// An annotation of Istio (`istio.io/api/annotation`).
struct Known {
    name: &'static str,
    deprecated: bool,
    /// Kinds that it has an effect on; empty: all.
    kinds: &'static [&'static str],
}

const fn of(name: &'static str, kinds: &'static [&'static str]) -> Known {
    Known { name, deprecated: false, kinds }
}

const fn old(name: &'static str, kinds: &'static [&'static str]) -> Known {
    Known { name, deprecated: true, kinds }
}

const POD: &[&str] = &["Pod"];
const SERVICE: &[&str] = &["Service"];
const GATEWAY: &[&str] = &["Gateway"];
const WORKLOAD_ENTRY: &[&str] = &["WorkloadEntry"];
const INJECT: &str = "sidecar.istio.io/inject";

const KNOWN: &[Known] = &[
    of("prometheus.istio.io/merge-metrics", POD),
    old("alpha.istio.io/kubernetes-serviceaccounts", SERVICE),
    old("alpha.istio.io/canonical-serviceaccounts", SERVICE),
    of("networking.istio.io/exportTo", SERVICE),
    old(INJECT, POD),
    of("sidecar.istio.io/rewriteAppHTTPProbers", POD),
    old("sidecar.istio.io/discoveryAddress", POD),
    of("sidecar.istio.io/proxyImage", POD),
    of("sidecar.istio.io/proxyImageType", POD),
    of("sidecar.istio.io/proxyCPU", POD),
    of("sidecar.istio.io/proxyCPULimit", POD),
    of("sidecar.istio.io/proxyMemory", POD),
    of("sidecar.istio.io/proxyMemoryLimit", POD),
    of("sidecar.istio.io/interceptionMode", POD),
    of("sidecar.istio.io/bootstrapOverride", POD),
    old("sidecar.istio.io/statsInclusionPrefixes", POD),
    old("sidecar.istio.io/statsInclusionSuffixes", POD),
    old("sidecar.istio.io/statsInclusionRegexps", POD),
    of("sidecar.istio.io/statsHistogramBuckets", POD),
    of("sidecar.istio.io/statsFlushInterval", POD),
    of("sidecar.istio.io/statsEvictionInterval", POD),
    of("sidecar.istio.io/statsHistogramBins", POD),
    old("sidecar.istio.io/statsCompression", POD),
    of("sidecar.istio.io/userVolume", POD),
    of("sidecar.istio.io/userVolumeMount", POD),
    of("sidecar.istio.io/logLevel", POD),
    of("sidecar.istio.io/componentLogLevel", POD),
    of("sidecar.istio.io/agentLogLevel", POD),
    of("sidecar.istio.io/nativeSidecar", POD),
    old("sidecar.istio.io/extraStatTags", POD),
    of("status.sidecar.istio.io/port", POD),
    of("readiness.status.sidecar.istio.io/initialDelaySeconds", POD),
    of("readiness.status.sidecar.istio.io/periodSeconds", POD),
    of("readiness.status.sidecar.istio.io/failureThreshold", POD),
    of("readiness.status.sidecar.istio.io/applicationPorts", POD),
    of("traffic.istio.io/nodeSelector", SERVICE),
    of("traffic.sidecar.istio.io/includeOutboundIPRanges", POD),
    of("traffic.sidecar.istio.io/excludeOutboundIPRanges", POD),
    of("traffic.sidecar.istio.io/includeInboundPorts", POD),
    of("traffic.sidecar.istio.io/excludeInboundPorts", POD),
    of("traffic.sidecar.istio.io/excludeInterfaces", POD),
    of("traffic.sidecar.istio.io/includeOutboundPorts", POD),
    of("traffic.sidecar.istio.io/excludeOutboundPorts", POD),
    old("traffic.sidecar.istio.io/kubevirtInterfaces", POD),
    of("istio.io/reroute-virtual-interfaces", POD),
    of("kubernetes.io/ingress.class", &["Ingress"]),
    of("galley.istio.io/analyze-suppress", &[]),
    of("proxy.istio.io/config", POD),
    of("proxy.istio.io/overrides", POD),
    of("inject.istio.io/templates", POD),
    of("istio.io/dry-run", &["AuthorizationPolicy"]),
    of("istio.io/autoRegistrationGroup", WORKLOAD_ENTRY),
    of("istio.io/workloadController", WORKLOAD_ENTRY),
    of("istio.io/connectedAt", WORKLOAD_ENTRY),
    of("istio.io/disconnectedAt", WORKLOAD_ENTRY),
    of("topology.istio.io/controlPlaneClusters", &["Namespace"]),
    of("ambient.istio.io/redirection", POD),
    of("ambient.istio.io/waypoint-inbound-binding", &["GatewayClass", "Gateway"]),
    of("ambient.istio.io/bypass-inbound-capture", POD),
    of("ambient.istio.io/dns-capture", POD),
    of("gateway.istio.io/service-account", GATEWAY),
    of("gateway.istio.io/name-override", GATEWAY),
    of("networking.istio.io/service-type", GATEWAY),
    of("networking.istio.io/traffic-distribution", &["Namespace", "Service", "ServiceEntry"]),
    of("istio.io/use-waypoint-canary-weight", &["Service", "ServiceEntry", "Namespace"]),
];

/// Those that are past their first phase.
const SETTLED: [&str; 5] = [
    INJECT,
    "traffic.istio.io/nodeSelector",
    "kubernetes.io/ingress.class",
    "proxy.istio.io/config",
    "ambient.istio.io/redirection",
];

/// What the injector itself writes where a node's plugin redirects the traffic.
const WRITTEN_BY_INJECTORS: [&str; 4] = [
    "sidecar.istio.io/interceptionMode",
    "traffic.sidecar.istio.io/includeInboundPorts",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "traffic.sidecar.istio.io/includeOutboundIPRanges",
];

/// What controllers write themselves.
const WRITTEN_BY_CONTROLLERS: [&str; 3] =
    ["sidecar.istio.io/status", "gateway.istio.io/controller-version", "istio.io/rev"];

const KINDS: [(&str, &str); 4] = [(CORE, "Namespace"), (CORE, "Service"), (CORE, "Pod"), (APPS, "Deployment")];

pub(super) fn check(world: &World, report: &mut Report) {
    for document in KINDS.into_iter().flat_map(|(group, kind)| world.each(group, kind)) {
        for (name, value) in written(document) {
            annotation(document, name, value, report);
        }
    }
}

/// The annotations of Istio that somebody has written.
fn written(document: &Document) -> impl Iterator<Item = (&str, &str)> {
    let own = document.annotations.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    own.filter(|(name, _)| is_istio(name) && !WRITTEN_BY_CONTROLLERS.contains(name))
}

pub(super) fn alpha(world: &World, report: &mut Report) {
    for document in KINDS.into_iter().flat_map(|(group, kind)| world.each(group, kind)) {
        let inits = items(&document.spec()["initContainers"]);
        let by_plugin = document.kind == "Pod" && !inits.iter().any(|container| container["name"] == "istio-init");
        for (name, _) in written(document) {
            let is_known = KNOWN.iter().any(|known| known.name == name);
            let is_injected = by_plugin && WRITTEN_BY_INJECTORS.contains(&name);
            if is_known && !SETTLED.contains(&name) && !is_injected {
                let message = format!("annotation `{name}` belongs to a feature in its alpha phase");
                report.add(document, "IST0136", &format!("metadata.annotations.{name}"), message);
            }
        }
    }
}

fn is_istio(name: &str) -> bool {
    name == "kubernetes.io/ingress.class"
        || name.split_once('/').is_some_and(|(domain, _)| domain == "istio.io" || domain.ends_with(".istio.io"))
}

fn annotation(document: &Document, name: &str, value: &str, report: &mut Report) {
    let field = format!("metadata.annotations.{name}");
    let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
        let names: Vec<&str> = KNOWN.iter().map(|known| known.name).collect();
        let help = lateen_api::similar::did_you_mean(name, &names).map(|name| format!("did you mean `{name}`?"));
        report.add_with_help(document, "IST0108", &field, format!("there is no annotation `{name}`"), help);
        return;
    };
    // Who has written the label as well knows.
    if known.deprecated && !(name == INJECT && document.labels.contains_key(INJECT)) {
        let instead = if name == INJECT { "; the label of the same name has taken its place" } else { "" };
        report.add(document, "IST0135", &field, format!("annotation `{name}` is out of date{instead}"));
    }
    if known.kinds.is_empty() {
        return;
    }
    if !known.kinds.contains(&document.kind.as_str()) {
        let kinds = known.kinds.join(", ");
        let message = format!("annotation `{name}` has no effect on a {}, only on {kinds}", document.kind);
        let help = (document.kind == "Deployment" && known.kinds == POD)
            .then(|| "put it under spec.template.metadata.annotations".to_owned());
        report.add_with_help(document, "IST0107", &field, message, help);
    } else if let Err(reason) = valid(name, value) {
        report.add(document, "IST0125", &field, format!("`{value}` is no value of annotation `{name}`: {reason}"));
    }
}

/// Whether a pod with this value would be injected.
fn valid(name: &str, value: &str) -> Result<(), String> {
    match name {
        "sidecar.istio.io/interceptionMode" => match value {
            "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
            _ => Err("it may be REDIRECT, TPROXY or NONE".to_owned()),
        },
        "status.sidecar.istio.io/port" => port(value),
        "readiness.status.sidecar.istio.io/initialDelaySeconds"
        | "readiness.status.sidecar.istio.io/periodSeconds"
        | "readiness.status.sidecar.istio.io/failureThreshold" => {
            value.parse::<u32>().map(drop).map_err(|_| "it must be a whole number".to_owned())
        }
        "traffic.sidecar.istio.io/includeOutboundIPRanges" if value == "*" => Ok(()),
        "traffic.sidecar.istio.io/includeOutboundIPRanges" | "traffic.sidecar.istio.io/excludeOutboundIPRanges" => {
            listed(value, range)
        }
        "traffic.sidecar.istio.io/includeInboundPorts" if value == "*" => Ok(()),
        "traffic.sidecar.istio.io/includeInboundPorts"
        | "traffic.sidecar.istio.io/excludeInboundPorts"
        | "traffic.sidecar.istio.io/excludeOutboundPorts" => listed(value, port),
        "traffic.sidecar.istio.io/excludeInterfaces"
        | "traffic.sidecar.istio.io/kubevirtInterfaces"
        | "istio.io/reroute-virtual-interfaces" => listed(value, interface),
        "prometheus.istio.io/merge-metrics" => match value.to_ascii_lowercase().as_str() {
            "true" | "false" | "t" | "f" | "1" | "0" => Ok(()),
            _ => Err("it may be true or false".to_owned()),
        },
        "sidecar.istio.io/proxyCPU"
        | "sidecar.istio.io/proxyMemory"
        | "sidecar.istio.io/proxyCPULimit"
        | "sidecar.istio.io/proxyMemoryLimit" => quantity(value),
        "proxy.istio.io/config" => match lateen_api::yaml::documents(value).into_iter().next() {
            None => Ok(()),
            Some(Ok(node)) if matches!(node.value, lateen_api::yaml::Value::Mapping(_)) => Ok(()),
            Some(Ok(_)) => Err("it must be a map of settings".to_owned()),
            Some(Err(error)) => Err(error.message),
        },
        _ => Ok(()),
    }
}

fn listed(value: &str, one: fn(&str) -> Result<(), String>) -> Result<(), String> {
    match value.trim() {
        "" => Ok(()),
        value => value.split(',').try_for_each(one),
    }
}

fn port(text: &str) -> Result<(), String> {
    text.trim().parse::<u16>().map(drop).map_err(|_| format!("`{text}` is no port"))
}

fn range(text: &str) -> Result<(), String> {
    match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(_), _) => Ok(()),
        (_, Ok(address)) => {
            Err(format!("`{text}` is an address, write {address}/{}", if address.is_ipv4() { 32 } else { 128 }))
        }
        _ => Err(format!("`{text}` is no range of addresses")),
    }
}

/// As Linux names interfaces: up to 15 characters, neither blanks nor slashes.
fn interface(text: &str) -> Result<(), String> {
    let is_good =
        (1..=15).contains(&text.len()) && !text.contains(|letter: char| letter == '/' || letter.is_whitespace());
    if is_good { Ok(()) } else { Err(format!("`{text}` is no name of an interface")) }
}

/// A Kubernetes quantity: a number with a decimal or binary suffix, or an exponent.
fn quantity(text: &str) -> Result<(), String> {
    const SUFFIXES: [&str; 17] =
        ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "K"];
    let end = text.find(|letter: char| letter.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let is_exponent = suffix.starts_with(['e', 'E']) && suffix[1..].parse::<i8>().is_ok();
    let is_suffix = suffix != "K" && SUFFIXES.contains(&suffix);
    let is_number = number.parse::<f64>().is_ok_and(f64::is_finite);
    if is_number && (is_suffix || is_exponent) {
        Ok(())
    } else {
        Err("it must be a quantity like 100m or 128Mi".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{quantity, valid};

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for good in ["1", "100m", "0.5", "128Mi", "1e3", "2G"] {
            assert!(quantity(good).is_ok(), "{good}");
        }
        for bad in ["", "100x", "m", "1 Mi", "-", "1K"] {
            assert!(quantity(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_those_that_the_injector_takes() {
        let outbound = "traffic.sidecar.istio.io/includeOutboundIPRanges";
        assert!(
            valid(outbound, "*").is_ok()
                && valid(outbound, "10.0.0.0/8,fd00::/8").is_ok()
                && valid(outbound, "").is_ok()
        );
        assert!(valid(outbound, "10.0.0.1").unwrap_err().contains("10.0.0.1/32"));
        assert!(valid("status.sidecar.istio.io/port", "70000").is_err());
        assert!(valid("proxy.istio.io/config", "concurrency: 2").is_ok());
        assert!(valid("proxy.istio.io/config", "concurrency").is_err());
    }
}
