//! Where a Gateway is reached: through which Services, on which ports, and by which addresses from outside.

use std::collections::BTreeSet;

use lateen_api::Resource;
use lateen_api::gateway_api::Gateway;
use lateen_api::gateway_api::status::StatusAddress;
use lateen_api::kubernetes::service::{ServiceType, outside_addresses};

use super::condition::{Fault, Wanted, list};
use crate::host;
use crate::mesh::Mesh;
use crate::services::Service;

/// What is shown of a Gateway without addresses from outside: `IPAddress`, `Hostname`; Istio's annotation.
const SHOWN: &str = "networking.istio.io/address-type";
/// A Service that was made for a Gateway.
const MANAGED: &str = "gateway.istio.io/managed";

/// Through what a Gateway is to be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) namespace: String,
    /// Full names of its Services.
    pub(super) hosts: Vec<String>,
    pub(super) ports: BTreeSet<u16>,
}

/// Through what it is.
#[derive(Debug, Clone, Default)]
pub(super) struct Reached {
    /// `host:port`.
    inside: BTreeSet<String>,
    inside_addresses: BTreeSet<String>,
    outside: BTreeSet<String>,
    /// Services that wait for an address from outside.
    pending: BTreeSet<String>,
    warnings: Vec<String>,
    is_unusable: bool,
}

impl Wish {
    pub(super) fn look(&self, mesh: &Mesh) -> Reached {
        let mut out = Reached::default();
        for name in &self.hosts {
            let of_host = mesh.services_of_host(name);
            match of_host.iter().find(|service| *service.namespace == *self.namespace) {
                Some(service) => self.ports.iter().for_each(|port| out.look(mesh, service, *port)),
                None => {
                    let elsewhere: BTreeSet<String> =
                        of_host.iter().map(|service| format!("\"{}\"", service.namespace)).collect();
                    let elsewhere: Vec<String> = elsewhere.into_iter().collect();
                    out.warn(if elsewhere.is_empty() {
                        format!("hostname \"{name}\" not found")
                    } else {
                        format!(
                            "hostname \"{name}\" not found in namespace \"{}\", but it was found in namespace(s) {}",
                            self.namespace,
                            elsewhere.join(", ")
                        )
                    });
                    out.is_unusable = true;
                }
            }
        }
        out.warnings.sort();
        out
    }
}

impl Reached {
    fn warn(&mut self, warning: String) {
        self.warnings.push(warning);
    }

    fn look(&mut self, mesh: &Mesh, service: &Service, port: u16) {
        let (name, endpoints) = (&service.host, mesh.endpoints(service));
        if !endpoints.port(port).is_empty() {
            self.inside.insert(format!("{name}:{port}"));
            self.inside_addresses.extend(service.addresses.iter().map(|address| address.addr().to_string()));
            let outside = mesh.kubernetes_service(&service.namespace, &service.name);
            let addresses = outside.map(outside_addresses);
            let addresses = addresses.unwrap_or_default();
            let is_balanced = outside.is_some_and(|resource| resource.spec.kind == ServiceType::LoadBalancer);
            if addresses.is_empty() && is_balanced && self.pending.insert(name.to_string()) {
                self.warn(format!("address pending for hostname \"{name}\""));
            }
            self.outside.extend(addresses);
        } else if endpoints.is_empty() {
            self.warn(format!("no instances found for hostname \"{name}\""));
        } else {
            let by_target =
                service.ports.iter().filter(|own| endpoints.port(own.number).iter().any(|it| it.port == port));
            let hints: BTreeSet<String> = by_target.map(|own| own.number.to_string()).collect();
            if !hints.is_empty() {
                let hints: Vec<String> = hints.into_iter().collect();
                self.warn(format!(
                    "port {port} not found for hostname \"{name}\" (hint: the service port should be specified, not the workload port. Did you mean one of these ports: [{}]?)",
                    hints.join(" ")
                ));
                self.is_unusable = true;
            } else if !service.labels.contains_key(MANAGED) || service.port(port).is_none() {
                // Else its endpoints are still to be told.
                self.warn(format!("port {port} not found for hostname \"{name}\""));
                self.is_unusable = true;
            }
        }
    }

    /// The condition `Programmed`.
    pub(super) fn programmed(&self, wish: &Wish) -> Wanted {
        let inside: Vec<String> = self.inside.iter().cloned().collect();
        let services = list(&inside);
        let fault = if wish.hosts.is_empty() {
            Some(Fault::new("UnsupportedAddress", "Failed to assign to any requested addresses"))
        } else if self.warnings.is_empty() {
            None
        } else {
            let warnings = self.warnings.join("; ");
            let message = if inside.is_empty() {
                format!("Failed to assign to any requested addresses: {warnings}")
            } else {
                format!(
                    "Assigned to service(s) {services}, but failed to assign to all requested addresses: {warnings}"
                )
            };
            Some(Fault::new(if self.is_unusable { "AddressNotUsable" } else { "AddressNotAssigned" }, message))
        };
        let message = if inside.is_empty() {
            "Resource programmed".to_owned()
        } else {
            format!("Resource programmed, assigned to service(s) {services}")
        };
        Wanted::unless("Programmed", &message, fault.as_ref())
    }

    /// By what it is reached from outside; else from inside, by name unless an annotation says otherwise.
    pub(super) fn addresses(&self, gateway: &Resource<Gateway>) -> Vec<StatusAddress> {
        let wanted = gateway.metadata.annotation(SHOWN).unwrap_or("Hostname");
        let mut values: Vec<String> = self.outside.iter().cloned().collect();
        if values.is_empty() {
            if wanted != "Hostname" {
                values.extend(self.inside_addresses.iter().cloned());
            }
            if wanted != "IPAddress" {
                let names = self.inside.iter().filter_map(|place| place.rsplit_once(':')).map(|(name, _)| name);
                for name in names.filter(|name| !self.pending.contains(*name)) {
                    if !values.iter().any(|known| known == name) {
                        values.push(name.to_owned());
                    }
                }
            }
        }
        values
            .into_iter()
            .map(|value| {
                let kind = if host::is_address(&value) { "IPAddress" } else { "Hostname" };
                StatusAddress { kind: Some(kind.to_owned()), value }
            })
            .collect()
    }
}
