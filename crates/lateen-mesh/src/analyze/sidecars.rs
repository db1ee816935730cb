//! Sidecars: TLS settings that the mesh's own mTLS leaves no room for, and an egress proxy that there is not.

use lateen_api::Resource;
use lateen_api::networking::Sidecar;

use super::codes::{INEFFECTIVE_SETTING, REFERENCED_RESOURCE_NOT_FOUND};
use super::{Findings, did_you_mean};
use crate::inputs::Inputs;
use crate::mesh::Mesh;
use crate::peers::MtlsMode;

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    for resource in inputs.sidecars.iter() {
        tls(resource, mesh, findings);
        egress_proxy(resource, mesh, findings);
    }
}

/// A port ends either the mesh's mTLS or a Sidecar's TLS; where policy asks for the first, the second has no effect.
fn tls(resource: &Resource<Sidecar>, mesh: &Mesh, findings: &mut Findings) {
    for (at, listener) in resource.spec.ingress.iter().enumerate().filter(|(_, listener)| listener.tls.is_some()) {
        let concerned = mesh.workloads().find(|workload| {
            let here = |origin: &crate::Origin| origin.key() == resource.key();
            let is_under = mesh.sidecar_origin(workload).is_some_and(here);
            let mode = |port| mesh.mtls(workload).mode(port);
            is_under && u16::try_from(listener.port.number).is_ok_and(|port| mode(port) != MtlsMode::Disable)
        });
        if let Some(workload) = concerned {
            let message = format!(
                "`tls` has no effect while port {} of {}/{} takes the mesh's mTLS",
                listener.port.number, workload.namespace, workload.name
            );
            let help = format!(
                "set `portLevelMtls: {{\"{}\": {{mode: DISABLE}}}}` in a PeerAuthentication for the workload",
                listener.port.number
            );
            findings.add(resource, INEFFECTIVE_SETTING, &format!("spec.ingress[{at}].tls"), message, Some(help));
        }
    }
}

fn egress_proxy(resource: &Resource<Sidecar>, mesh: &Mesh, findings: &mut Findings) {
    let policy = resource.spec.outbound_traffic_policy.as_ref();
    let Some(proxy) = policy.and_then(|policy| policy.egress_proxy.as_ref()) else { return };
    let host = mesh.resolve_host(&proxy.host, resource.namespace());
    let port = proxy.port.and_then(|port| u16::try_from(port.number).ok());
    let services = mesh.services_of_host(&host);
    if services.is_empty() {
        let message = format!("there is no service `{host}`: traffic to unknown destinations gets 503");
        let help = did_you_mean(&host, mesh.services().iter().map(|service| &*service.host));
        findings.add(
            resource,
            REFERENCED_RESOURCE_NOT_FOUND,
            "spec.outboundTrafficPolicy.egressProxy.host",
            message,
            help,
        );
    } else if let Some(port) = port
        && services.iter().all(|service| service.port(port).is_none())
    {
        let message = format!("`{host}` has no port {port}: traffic to unknown destinations gets 503");
        let field = "spec.outboundTrafficPolicy.egressProxy.port.number";
        findings.add(resource, REFERENCED_RESOURCE_NOT_FOUND, field, message, None);
    }
}
