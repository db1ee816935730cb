//! A connection arrives at workloads: at their proxies, or straight at their applications.

use std::net::SocketAddr;
use std::sync::Arc;

use lateen_engine::config::listener::Direction;
use lateen_mesh::{ProxyKind, Workload};

use super::Walk;
use super::connection::closed;
use super::telling::Telling;
use super::wire::{Payload, Wire};
use crate::capture;
use crate::journey::{Leg, Next, Outcome, Party, Role, Stage};

/// Labels that tell pods of one Deployment from those of another version of it, and say nothing else.
const MACHINE_LABELS: [&str; 3] =
    ["pod-template-hash", "controller-revision-hash", "statefulset.kubernetes.io/pod-name"];

impl Walk<'_> {
    /// At each of them, with their shares; the legs of equal workloads are told once.
    pub(super) fn arrive_at_all(&self, arriving: impl Iterator<Item = (f64, Wire)>, depth: usize) -> Vec<Next> {
        let mut groups: Vec<(String, Next)> = Vec::new();
        for (share, wire) in arriving {
            let workload = self.world.at_address(wire.local.ip());
            let key = workload.map_or_else(|| wire.local.to_string(), |workload| kind_of(workload, &wire));
            let name = workload
                .map_or_else(|| wire.local.to_string(), |workload| format!("{}.{}", workload.name, workload.namespace));
            match groups.iter_mut().find(|(known, _)| *known == key) {
                Some((_, known)) => {
                    known.share += share;
                    if !known.workloads.contains(&name) {
                        known.workloads.push(name);
                    }
                }
                None => {
                    let leg = match workload {
                        Some(workload) => self.arrive(workload, wire, depth),
                        None => leave(&wire),
                    };
                    groups.push((key, Next { share, workloads: vec![name], leg }));
                }
            }
        }
        groups.into_iter().map(|(_, next)| next).collect()
    }

    fn arrive(&self, workload: &Arc<Workload>, wire: Wire, depth: usize) -> Leg {
        let at = Party::of(workload, &self.world.mesh.config().trust_domain);
        let port = wire.local.port();
        let captured = match (workload.proxy, self.world.pod(workload)) {
            (ProxyKind::Gateway, _) => {
                return self.pass(Telling::new(Role::Gateway, at), workload, Direction::Outbound, wire, depth + 1);
            }
            (ProxyKind::None, _) => Err("it has no proxy".to_owned()),
            (ProxyKind::Sidecar, Some(pod)) => capture::inbound(pod, port),
            (ProxyKind::Sidecar, None) => Ok(()),
        };
        let mut telling = Telling::new(Role::Server, at);
        match captured {
            Ok(()) => self.pass(telling, workload, Direction::Inbound, wire, depth + 1),
            Err(why) => {
                telling.step(Stage::Capture, format!("{why}: the application gets it as it is"));
                telling.end(deliver(&wire, wire.local))
            }
        }
    }
}

/// What the application gets; mesh mTLS is nothing that it could take.
pub(super) fn deliver(wire: &Wire, to: SocketAddr) -> Outcome {
    match &wire.payload {
        Payload::Tls(hello, _) if hello.identity.is_some() => {
            closed(format!("the mesh's mutual TLS comes to an application without a proxy, at {to}"))
        }
        _ => Outcome::Delivered { to: to.to_string() },
    }
}

fn leave(wire: &Wire) -> Leg {
    let to = wire.local.to_string();
    let at = Party {
        name: to.clone(),
        namespace: String::new(),
        identity: String::new(),
        address: wire.local.ip().to_string(),
    };
    Telling::new(Role::Server, at).end(Outcome::Left { to })
}

/// Equal for workloads of which the same is true as far as a request goes.
fn kind_of(workload: &Workload, wire: &Wire) -> String {
    let labels = workload.labels.iter().filter(|(key, _)| !MACHINE_LABELS.contains(&key.as_str()));
    format!(
        "{} {} {} {:?} {} {} {:?}",
        workload.namespace,
        workload.owner,
        workload.service_account,
        workload.proxy,
        wire.local.port(),
        wire.hello().is_some(),
        labels.collect::<Vec<_>>(),
    )
}
