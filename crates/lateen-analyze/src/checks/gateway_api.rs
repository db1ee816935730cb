//! The Kubernetes Gateway API: CRDs that are too old, and policies that do not reach its gateways.

use crate::document::{items, labels, selects};
use crate::report::Report;
use crate::world::{EXTENSIONS, SECURITY, TELEMETRY, World};

/// The releases that brought the version of each kind that is read.
const MINIMUM: [(&str, Version); 4] = [
    ("grpcroutes.gateway.networking.k8s.io", Version(1, 1, 0)),
    ("backendtlspolicies.gateway.networking.k8s.io", Version(1, 4, 0)),
    ("tlsroutes.gateway.networking.k8s.io", Version(1, 5, 0)),
    ("tcproutes.gateway.networking.k8s.io", Version(1, 6, 0)),
];

/// Major, minor, patch; what follows (`-rc1`) does not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u64, u64, u64);

impl Version {
    fn read(text: &str) -> Option<Self> {
        let core = text.trim().trim_start_matches('v').split(['-', '+']).next()?;
        let mut numbers = core.split('.').map(|number| number.parse().ok());
        let major = numbers.next()??;
        let (minor, patch) = (numbers.next().unwrap_or(Some(0))?, numbers.next().unwrap_or(Some(0))?);
        numbers.next().is_none().then_some(Self(major, minor, patch))
    }
}

pub(super) fn versions(world: &World, report: &mut Report) {
    const ANNOTATION: &str = "gateway.networking.k8s.io/bundle-version";
    for document in world.each(EXTENSIONS, "CustomResourceDefinition") {
        let minimum = MINIMUM.iter().find(|(name, _)| *name == document.name);
        let (Some((_, minimum)), Some(written)) = (minimum, document.annotations.get(ANNOTATION)) else { continue };
        if Version::read(written).is_some_and(|installed| installed < *minimum) {
            let Version(major, minor, patch) = minimum;
            let message = format!("it is of release {written}; what is read came with {major}.{minor}.{patch}");
            report.add(document, "IST0176", &format!("metadata.annotations.{ANNOTATION}"), message);
        }
    }
}

/// The label of pods that run a Kubernetes Gateway.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

pub(super) fn selectors(world: &World, report: &mut Report) {
    let gateways: Vec<_> = world.workloads().filter(|workload| workload.labels.contains_key(GATEWAY_NAME)).collect();
    let policies = [
        (SECURITY, "AuthorizationPolicy"),
        (SECURITY, "RequestAuthentication"),
        (TELEMETRY, "Telemetry"),
        ("extensions.istio.io", "WasmPlugin"),
    ];
    for document in policies.into_iter().flat_map(|(group, kind)| world.each(group, kind)) {
        let spec = document.spec();
        if spec["targetRef"].is_object() || !items(&spec["targetRefs"]).is_empty() || !spec["selector"].is_object() {
            continue;
        }
        let wanted = labels(&spec["selector"]["matchLabels"]);
        for pod in &gateways {
            if pod.namespace() == document.namespace && selects(&wanted, pod.labels) {
                let gateway = pod.labels.get(GATEWAY_NAME).map_or("", String::as_str);
                let message = format!(
                    "it selects pods of the Kubernetes Gateway `{gateway}`, which takes policies by targetRefs"
                );
                report.add(document, "IST0166", "spec.selector", message);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Version;

    #[test]
    fn versions_compare_by_number() {
        assert!(Version::read("v1.10.0") > Version::read("v1.9.3"));
        assert!(Version::read("v1.5.0-rc.1") == Some(Version(1, 5, 0)));
        assert!(Version::read("1.4").is_some() && Version::read("dev").is_none() && Version::read("1.2.3.4").is_none());
    }
}
