//! CUSTOM policies whose authorizer cannot be asked: what they speak of is denied.

use std::collections::BTreeSet;

use lateen_api::Resource;
use lateen_api::extension_providers::ExtensionProvider;
use lateen_api::security::AuthorizationPolicy;
use lateen_api::security::authorization_policy::Action;

use super::codes::{INEFFECTIVE_SETTING, REFERENCED_RESOURCE_NOT_FOUND};
use super::{Findings, did_you_mean};
use crate::inputs::Inputs;
use crate::mesh::Mesh;

const FIELD: &str = "spec.provider.name";
/// What happens then.
const DENIED: &str = "what the policy speaks of is denied";

pub(super) fn check(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let custom = inputs.authorization_policies.iter().filter(|policy| policy.spec.action == Action::Custom);
    for policy in custom {
        let name = provider_of(&policy.spec);
        let known = &mesh.config().extension_providers;
        match known.iter().find(|provider| provider.name == name) {
            None => {
                let message = format!("the mesh config has no extension provider `{name}`: {DENIED}");
                let help = did_you_mean(name, known.iter().map(|provider| provider.name.as_str()));
                findings.add(policy, REFERENCED_RESOURCE_NOT_FOUND, FIELD, message, help);
            }
            Some(provider) => service(policy, provider, mesh, findings),
        }
    }
    several(inputs, mesh, findings);
}

fn provider_of(spec: &AuthorizationPolicy) -> &str {
    spec.provider.as_ref().map_or("", |provider| &provider.name)
}

fn service(policy: &Resource<AuthorizationPolicy>, provider: &ExtensionProvider, mesh: &Mesh, findings: &mut Findings) {
    let Some((wanted, port)) = provider.authorizer() else {
        let message = format!("the extension provider `{}` decides about no requests: {DENIED}", provider.name);
        return findings.add(policy, REFERENCED_RESOURCE_NOT_FOUND, FIELD, message, None);
    };
    let (namespace, host) = wanted.split_once('/').map_or((None, wanted), |(namespace, host)| (Some(namespace), host));
    let host = mesh.resolve_host(host, &mesh.config().root_namespace);
    let services = mesh.services_of_host(&host);
    let found = services.iter().find(|service| namespace.is_none_or(|namespace| namespace == &*service.namespace));
    let Some(service) = found else {
        let message =
            format!("the service `{wanted}` of the extension provider `{}` is unknown: {DENIED}", provider.name);
        let help = did_you_mean(&host, mesh.services().iter().map(|service| &*service.host));
        return findings.add(policy, REFERENCED_RESOURCE_NOT_FOUND, FIELD, message, help);
    };
    let port_of_service = u16::try_from(port).ok().and_then(|port| service.port(port));
    match port_of_service {
        None => {
            let message = format!(
                "the service `{}` of the extension provider `{}` has no port {port}: {DENIED}",
                service.host, provider.name
            );
            findings.add(policy, REFERENCED_RESOURCE_NOT_FOUND, FIELD, message, None);
        }
        Some(port) if provider.envoy_ext_authz_grpc.is_some() && !port.protocol.is_http2() => {
            let message = format!(
                "port {} of the service `{}` is not declared to speak gRPC, so that the extension provider `{}` cannot be asked",
                port.number, service.host, provider.name
            );
            let help = Some("name the port `grpc` or begin its name with `grpc-`".to_owned());
            findings.add(policy, INEFFECTIVE_SETTING, FIELD, message, help);
        }
        Some(_) => {}
    }
}

/// Policies with other authorizers for the same workload.
fn several(inputs: &Inputs, mesh: &Mesh, findings: &mut Findings) {
    let mut told = BTreeSet::new();
    for workload in mesh.workloads() {
        let policies = mesh.authorization(workload).custom;
        let names: BTreeSet<&str> = policies.iter().map(|policy| provider_of(&policy.spec)).collect();
        if names.len() < 2 {
            continue;
        }
        let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
        for policy in policies {
            let of_policy = |other: &&Resource<AuthorizationPolicy>| {
                other.name() == &*policy.name && other.namespace() == &*policy.namespace
            };
            let all = inputs.authorization_policies.iter().map(|resource| &**resource);
            if told.insert((policy.namespace.clone(), policy.name.clone()))
                && let Some(resource) = all.into_iter().find(of_policy)
            {
                let message = format!(
                    "policies for `{}` ask {}, and a workload has one authorizer: what they speak of is denied",
                    workload.name,
                    names.join(" and ")
                );
                findings.add(resource, INEFFECTIVE_SETTING, FIELD, message, None);
            }
        }
    }
}
