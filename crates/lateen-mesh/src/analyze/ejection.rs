//! Outlier detection that ejects nobody: of so few endpoints, one is more than the share that may be out. Envoy's default of 10 % is
//! Istio's, so that this is what small services get whose rules say no more.

use lateen_api::Resource;
use lateen_api::networking::DestinationRule;

use super::Findings;
use super::codes::EJECTS_NOBODY;
use super::locality::{Policy, policies};
use crate::host;
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::services::{Resolution, Service};
use crate::workloads::selects;

/// The share that may be out where a rule says nothing, in percent (`OutlierDetection.max_ejection_percent`).
const DEFAULT: usize = 10;

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    for resource in inputs.destination_rules.iter() {
        for policy in policies(&resource.spec) {
            tell(resource, mesh, &policy, findings);
        }
    }
}

fn tell(resource: &Resource<DestinationRule>, mesh: &Mesh, policy: &Policy<'_>, findings: &mut Findings) {
    let Some(detection) = &policy.policy.outlier_detection else { return };
    let field = format!("{}.outlierDetection", policy.field);
    let (percent, field) = match usize::try_from(detection.max_ejection_percent) {
        Ok(percent @ 1..) => (percent, format!("{field}.maxEjectionPercent")),
        _ => (DEFAULT, field),
    };
    let name = mesh.resolve_host(&resource.spec.host, resource.namespace());
    let concerned = mesh
        .services()
        .iter()
        .filter(|service| service.resolution != Resolution::Passthrough && host::is_subset_of(&service.host, &name));
    for service in concerned {
        let endpoints = endpoints(mesh, service, policy);
        // One endpoint alone is better left where it is.
        if endpoints > 1 && endpoints * percent < 100 {
            let message = format!(
                "no endpoint of `{}` is ever ejected: one of {endpoints} is more than the {percent} % that may be",
                service.host
            );
            let least = 100_usize.div_ceil(endpoints);
            let help = format!("set `maxEjectionPercent` to {least} or more, so that one of {endpoints} may be");
            findings.add(resource, EJECTS_NOBODY, &field, message, Some(help));
            return;
        }
    }
}

/// How many a client balances over, on the port that has most.
fn endpoints(mesh: &Mesh, service: &Service, policy: &Policy<'_>) -> usize {
    let all = mesh.endpoints(service);
    let of = |number| {
        let members = all.port(number).iter();
        members
            .filter(|member| policy.subset.is_none_or(|subset| selects(&subset.labels, &member.workload.labels)))
            .count()
    };
    service.ports.iter().map(|port| of(port.number)).max().unwrap_or_default()
}
