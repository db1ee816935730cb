//! Endpoints: where the ports of a service are actually reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::build::keep;
use crate::config::MeshConfig;
use crate::mesh::{ByNamespace, Id, Member};
use crate::policy::Policies;
use crate::services::{Registry, Resolution, Service, ServicePort, TargetPort};
use crate::workloads::{Address, Labels, Workload, WorkloadKind, selects};

/// One place that answers for one port of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub address: Address,
    pub port: u16,
    /// Speaks mesh mTLS on this port: it has a proxy, and its policy does not switch mTLS off.
    pub mesh_tls: bool,
    pub workload: Arc<Workload>,
}

/// The endpoints of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceEndpoints {
    ports: BTreeMap<u16, Vec<Endpoint>>,
    /// SPIFFE ids of everything behind the service, sorted: what a client must expect.
    pub principals: Arc<Vec<String>>,
}

impl ServiceEndpoints {
    /// The endpoints of a service port, in a stable order.
    pub fn port(&self, number: u16) -> &[Endpoint] {
        self.ports.get(&number).map_or(&[], Vec::as_slice)
    }

    pub fn is_empty(&self) -> bool {
        self.ports.values().all(Vec::is_empty)
    }

    /// There are endpoints on this port, and each of them takes mesh mTLS.
    pub fn all_take_mesh_tls(&self, number: u16) -> bool {
        let members = self.port(number);
        !members.is_empty() && members.iter().all(|member| member.mesh_tls)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Endpoint> {
        self.ports.values().flatten()
    }
}

/// The endpoints that service entries list, by namespace and name of the entry.
pub(crate) type InlineEndpoints = BTreeMap<Id, Vec<Arc<Workload>>>;

/// What endpoints are found among.
pub(crate) struct Candidates<'a> {
    pub(crate) config: &'a MeshConfig,
    pub(crate) policies: &'a Policies,
    pub(crate) workloads: &'a ByNamespace<Member>,
    pub(crate) inline: &'a InlineEndpoints,
}

impl Candidates<'_> {
    /// The endpoints of one service, sharing with those before what is the same.
    pub(crate) fn endpoints_after(
        &self,
        service: &Service,
        before: Option<&Arc<ServiceEndpoints>>,
    ) -> Arc<ServiceEndpoints> {
        let mut found = self.endpoints(service);
        // The same names behind it, even if the endpoints are others: clusters need not change.
        if let Some(before) = before
            && before.principals == found.principals
        {
            found.principals = Arc::clone(&before.principals);
        }
        keep(found, before)
    }

    /// The endpoints of one service.
    fn endpoints(&self, service: &Service) -> ServiceEndpoints {
        let mut members: Vec<&Arc<Workload>> = Vec::new();
        if let Some(selector) = &service.selector {
            members.extend(self.selected(service, selector));
        }
        if service.registry == Registry::ServiceEntry {
            let key = (Arc::clone(&service.namespace), Arc::clone(&service.name));
            members.extend(self.inline.get(&key).into_iter().flatten());
        }
        // Also of those that are not ready: what to expect of a service must not change with every restart.
        let mut principals: Vec<String> = members.iter().filter_map(|member| self.principal(member)).collect();
        principals.sort_unstable();
        principals.dedup();
        members.retain(|member| member.ready || service.publish_not_ready);
        let ports = service.ports.iter().map(|port| (port.number, self.on_port(service, port, &members))).collect();
        ServiceEndpoints { ports, principals: Arc::new(principals) }
    }

    /// Workloads of the service's own namespace with its labels.
    fn selected<'a>(&'a self, service: &Service, selector: &'a Labels) -> impl Iterator<Item = &'a Arc<Workload>> {
        let own = self.workloads.get(&service.namespace).into_iter().flat_map(|own| own.values());
        own.map(|member| &member.workload).filter(move |workload| selects(selector, &workload.labels))
    }

    fn on_port(&self, service: &Service, port: &ServicePort, members: &[&Arc<Workload>]) -> Vec<Endpoint> {
        let mut out: Vec<Endpoint> = members
            .iter()
            .filter_map(|member| {
                let number = target_port(port, member)?;
                Some(Endpoint {
                    address: member.addresses.first()?.clone(),
                    port: number,
                    mesh_tls: member.mesh_tls && self.policies.is_called_by_tls(member, number),
                    workload: Arc::clone(member),
                })
            })
            .collect();
        if out.is_empty() && self.is_its_own_endpoint(service) {
            out.push(self.own_endpoint(service, port));
        }
        out.sort_by(|a, b| (&a.address, a.port).cmp(&(&b.address, b.port)));
        out.dedup_by(|a, b| a.address == b.address && a.port == b.port);
        out
    }

    /// A DNS service entry that lists no endpoints is reached under its own name.
    fn is_its_own_endpoint(&self, service: &Service) -> bool {
        let key = (Arc::clone(&service.namespace), Arc::clone(&service.name));
        service.registry == Registry::ServiceEntry
            && matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin)
            && service.selector.is_none()
            && self.inline.get(&key).is_none_or(Vec::is_empty)
            && !crate::host::is_wildcard(&service.host)
    }

    fn own_endpoint(&self, service: &Service, port: &ServicePort) -> Endpoint {
        let workload = Workload::of_host(service);
        let number = target_port(port, &workload).unwrap_or(port.number);
        Endpoint {
            address: Address::Host(Arc::clone(&service.host)),
            port: number,
            mesh_tls: false,
            workload: Arc::new(workload),
        }
    }

    /// The identity that a member proves. Endpoints without a service account have none.
    fn principal(&self, member: &Workload) -> Option<String> {
        (!member.service_account.is_empty()).then(|| {
            format!("spiffe://{}/ns/{}/sa/{}", self.config.trust_domain, member.namespace, member.service_account)
        })
    }
}

/// The workload's number of a service port. A named port that the workload does not have gives none; for entries the
/// name of the service port itself may be mapped (`WorkloadEntry.ports`).
pub(crate) fn target_port(port: &ServicePort, workload: &Workload) -> Option<u16> {
    if workload.kind != WorkloadKind::Pod
        && let Some(number) = workload.ports.get(&*port.name)
    {
        return Some(*number);
    }
    match &port.target {
        TargetPort::Number(number) => Some(*number),
        TargetPort::Name(name) => workload.ports.get(&**name).copied(),
    }
}
