//! What a cluster would add to a set of manifests: addresses of Services, and the Pods of Deployments, with sidecars.
//!
//! For looking at configuration where nothing runs (`lateen translate`, `lateen analyze`, tests). The same manifests
//! always get the same names and addresses.

use std::net::Ipv4Addr;

use lateen_api::kubernetes::{Deployment, Pod, PodStatus, pod_status::PodCondition, service::ServiceType};
use lateen_api::{Object, ObjectMeta, Resource};

/// First address of assumed Services (10.96.0.0/16).
const SERVICES: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 0);
/// First address of assumed Pods (10.244.0.0/16).
const PODS: Ipv4Addr = Ipv4Addr::new(10, 244, 0, 0);

/// The objects as they would be in a running mesh: Services have addresses, and every Deployment has its Pods
/// (`<name>-0`, `<name>-1`, …), ready and behind a proxy unless they opt out of it.
pub fn running(objects: &[Object]) -> Vec<Object> {
    let mut out = Vec::with_capacity(objects.len());
    let mut services = addresses(SERVICES);
    let mut pods = addresses(PODS);
    for object in objects {
        match object {
            Object::Service(resource) => {
                let mut resource = Resource::clone(resource);
                let spec = &mut resource.spec;
                if spec.cluster_ip.is_empty() && spec.kind != ServiceType::ExternalName {
                    spec.cluster_ip = services.next().map(|ip| ip.to_string()).unwrap_or_default();
                }
                out.push(Object::from(resource));
            }
            Object::Deployment(resource) => {
                out.push(object.clone());
                for replica in 0..resource.spec.replicas.unwrap_or(1) {
                    let Some(address) = pods.next() else { break };
                    out.push(Object::from(pod(resource, replica, address)));
                }
            }
            _ => out.push(object.clone()),
        }
    }
    out
}

/// The addresses after `base`, as far as a /16 reaches.
fn addresses(base: Ipv4Addr) -> impl Iterator<Item = Ipv4Addr> {
    let base = u32::from(base);
    (1..=0xfffe_u32).map(move |offset| Ipv4Addr::from(base + offset))
}

fn pod(deployment: &Resource<Deployment>, replica: u32, address: Ipv4Addr) -> Resource<Pod> {
    let template = &deployment.spec.template;
    let mut metadata = ObjectMeta::named(deployment.namespace(), &format!("{}-{replica}", deployment.name()));
    metadata.labels.clone_from(&template.metadata.labels);
    metadata.annotations.clone_from(&template.metadata.annotations);
    metadata.owner_references = vec![lateen_api::meta::OwnerReference {
        kind: "Deployment".to_owned(),
        name: deployment.name().to_owned(),
        ..Default::default()
    }];
    if metadata.labels.get("sidecar.istio.io/inject").is_none_or(|inject| inject != "false") {
        // What the injector leaves on a pod. A gateway ends mesh mTLS only where a Gateway of its has it do so.
        if metadata.annotation("inject.istio.io/templates") != Some("gateway") {
            metadata.labels.insert("security.istio.io/tlsMode".to_owned(), "istio".to_owned());
        }
        metadata.annotations.insert("sidecar.istio.io/status".to_owned(), "{}".to_owned());
    }
    let status = PodStatus {
        phase: "Running".to_owned(),
        pod_ip: address.to_string(),
        conditions: vec![PodCondition {
            kind: "Ready".to_owned(),
            status: "True".to_owned(),
            ..PodCondition::default()
        }],
        ..PodStatus::default()
    };
    let mut pod = Resource::new(metadata, Pod { spec: template.spec.clone(), status: Some(status) }, "");
    pod.origin = deployment.origin.clone();
    pod.age = deployment.age;
    pod
}
