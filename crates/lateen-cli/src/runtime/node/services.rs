//! ClusterIPs and cluster names: from services and pods to the node's rules and the DNS server's table.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use lateen_api::kubernetes::Service;
use lateen_api::kubernetes::service::{ServicePort, ServiceType};
use lateen_api::scalar::PortRef;
use lateen_api::selector::is_subset;
use lateen_intercept::dns::{Answer, Forwarder, Names, Server};
use lateen_intercept::service_nat::{NodeRules, Transport};
use tokio::sync::watch;

use super::Node;
use super::cluster::{Cluster, Stored};
use super::network::{NODE_ADDRESS, pod_net, service_net};
use super::registry::PodHandle;
use crate::runtime::messages::Event;
use crate::runtime::{CLUSTER_DOMAIN, SYSTEM_NAMESPACE};

/// Names under which proxies look for the control plane.
const CONTROL_PLANE: [&str; 2] = ["lateend", "istiod"];

/// Starts the DNS server of the node; the sender replaces its table.
pub(super) async fn start_dns(node: &Arc<Node>) -> anyhow::Result<watch::Sender<Arc<Names>>> {
    let (sender, receiver) = watch::channel(Arc::new(names(&Cluster::default(), &[])));
    let outside = node.outside.clone();
    let forwarder: Forwarder = Arc::new(move |name| {
        let outside = outside.clone();
        Box::pin(async move { outside.resolve(name).await })
    });
    let address = SocketAddr::from((NODE_ADDRESS, 53));
    let server = Server::bind(address, receiver, forwarder).await.context("start the DNS server of the node")?;
    tokio::spawn(server.run());
    Ok(sender)
}

/// Starts keeping rules and names up to date.
pub(super) fn start(
    node: &Arc<Node>,
    mut cluster: watch::Receiver<Arc<Cluster>>,
    dns: watch::Sender<Arc<Names>>,
    egress: u16,
) {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let mut changes = node.pods.changes();
        let mut in_force = None;
        loop {
            let now = Arc::clone(&cluster.borrow_and_update());
            changes.mark_unchanged();
            let pods = node.pods.all();
            dns.send_replace(Arc::new(names(&now, &pods)));
            let wanted = rules(&now, &pods, egress);
            if in_force.as_ref() != Some(&wanted) {
                match apply(wanted.clone()).await {
                    Ok(()) => in_force = Some(wanted),
                    Err(error) => {
                        node.tell(Event::Problem { text: format!("cannot set the rules of services: {error:#}") });
                        tokio::time::sleep(Duration::from_secs(1)).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                changed = cluster.changed() => if changed.is_err() { return },
                changed = changes.changed() => if changed.is_err() { return },
            }
        }
    });
}

async fn apply(rules: NodeRules) -> anyhow::Result<()> {
    Ok(tokio::task::spawn_blocking(move || rules.apply()).await??)
}

fn rules(cluster: &Cluster, pods: &[Arc<PodHandle>], egress: u16) -> NodeRules {
    let mut services = BTreeMap::new();
    for service in cluster.services.values() {
        let Ok(address) = service.spec.cluster_ip.parse::<Ipv4Addr>() else { continue };
        for port in &service.spec.ports {
            let transport = match port.protocol.as_deref() {
                None | Some("TCP") => Transport::Tcp,
                Some("UDP") => Transport::Udp,
                Some(_) => continue,
            };
            let endpoints = endpoints(service, port, pods);
            services.insert((SocketAddrV4::new(address, port.port), transport), endpoints);
        }
    }
    NodeRules {
        service_net: service_net(),
        pod_net: pod_net(),
        node: NODE_ADDRESS,
        egress_port: Some(egress),
        services,
    }
}

fn endpoints(service: &Stored<Service>, port: &ServicePort, pods: &[Arc<PodHandle>]) -> BTreeSet<SocketAddrV4> {
    let mut endpoints = BTreeSet::new();
    for pod in backing(service, pods) {
        let number = match &port.target_port {
            None => Some(port.port),
            Some(PortRef::Number(number)) => Some(*number),
            Some(PortRef::Name(name)) => pod.live().named_ports.get(name).copied(),
        };
        endpoints.extend(number.map(|number| SocketAddrV4::new(pod.address, number)));
    }
    endpoints
}

/// The pods that a service sends to now.
fn backing<'a>(service: &'a Stored<Service>, pods: &'a [Arc<PodHandle>]) -> impl Iterator<Item = &'a Arc<PodHandle>> {
    let Service { selector, publish_not_ready_addresses, .. } = &service.spec;
    pods.iter().filter(move |pod| {
        !selector.is_empty()
            && pod.key.namespace == service.metadata.namespace
            && is_subset(selector, &pod.labels)
            && (pod.is_ready() || *publish_not_ready_addresses)
    })
}

fn names(cluster: &Cluster, pods: &[Arc<PodHandle>]) -> Names {
    let mut names = Names::new(CLUSTER_DOMAIN);
    for name in CONTROL_PLANE {
        // Both the whole name and the one that Istio's own configuration uses.
        let short = format!("{name}.{SYSTEM_NAMESPACE}.svc");
        names.insert(&short, Answer::Addresses(vec![NODE_ADDRESS]));
        names.insert(&format!("{short}.{CLUSTER_DOMAIN}"), Answer::Addresses(vec![NODE_ADDRESS]));
    }
    for ((namespace, name), service) in &cluster.services {
        let full = format!("{name}.{namespace}.svc.{CLUSTER_DOMAIN}");
        match service.spec.cluster_ip.parse::<Ipv4Addr>() {
            _ if service.spec.kind == ServiceType::ExternalName => {
                names.insert(&full, Answer::Alias(service.spec.external_name.clone()));
            }
            Ok(address) => names.insert(&full, Answer::Addresses(vec![address])),
            // Headless: its pods, and each of them by name.
            Err(_) if service.spec.is_headless() => {
                let addresses = backing(service, pods).map(|pod| pod.address).collect();
                for pod in backing(service, pods) {
                    names.insert(&format!("{}.{full}", pod.key.name), Answer::Addresses(vec![pod.address]));
                }
                names.insert(&full, Answer::Addresses(addresses));
            }
            Err(_) => {}
        }
    }
    names
}
