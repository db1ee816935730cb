//! Gateways: the servers of all that select a workload, merged into the listeners of one proxy.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::networking::Gateway;
use lateen_api::networking::gateway::Server;

use crate::gateway_api::GatewayApi;
use crate::gateway_api::service::Pods;
use crate::host;
use crate::origin::Origin;
use crate::precedence::Age;
use crate::protocol::Protocol;
use crate::routing::virtual_service::MESH;
use crate::workloads::{Labels, Workload, selects};

/// The full name of a gateway that an object of `namespace` refers to: `mesh`, or `<namespace>/<name>`.
pub fn gateway_name(gateway: &str, namespace: &str) -> String {
    if gateway == MESH || gateway.contains('/') {
        gateway.strip_prefix("./").map_or_else(|| gateway.to_owned(), |name| format!("{namespace}/{name}"))
    } else {
        format!("{namespace}/{gateway}")
    }
}

/// A Gateway, ready to be looked up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct GatewayObject {
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) pods: Selected,
    pub(crate) servers: Vec<Arc<ServerObject>>,
    pub(crate) age: Age,
    pub(crate) origin: Origin,
}

/// Which pods serve it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Selected {
    /// Those with these labels, in any namespace.
    Labels(Labels),
    /// Those behind the Services of a Gateway of the Gateway API.
    Behind(Vec<Pods>),
}

impl Selected {
    fn fits(&self, workload: &Workload) -> bool {
        match self {
            Self::Labels(labels) => selects(labels, &workload.labels),
            Self::Behind(pods) => pods.iter().any(|pods| {
                pods.namespace == workload.namespace
                    && selects(&pods.labels, &workload.labels)
                    && pods.account.as_ref().is_none_or(|account| *account == workload.service_account)
            }),
        }
    }
}

/// One element of `Gateway.servers`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ServerObject {
    pub(crate) spec: Server,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) origin: Origin,
}

/// A server on the port where a proxy listens for it.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayServer {
    /// `<namespace>/<name>` of the Gateway.
    pub gateway: String,
    pub spec: Server,
    pub protocol: Protocol,
    /// The port as the Gateway has it, which is a Service's port.
    pub server_port: u16,
    /// The port that the proxy listens on.
    pub listener_port: u16,
    /// At the line of the server.
    pub origin: Origin,
    gateway_namespace: Arc<str>,
}

impl GatewayServer {
    /// TLS ends (or passes) here; `httpsRedirect` on a plaintext server is not TLS.
    pub fn is_tls(&self) -> bool {
        self.spec.tls.is_some() && !self.protocol.is_http()
    }

    /// Every host of the server is redirected to https.
    pub fn redirects_to_https(&self) -> bool {
        self.spec.tls.as_ref().is_some_and(|tls| tls.https_redirect)
    }

    /// TLS ends here and does not pass.
    pub fn ends_tls(&self) -> bool {
        self.is_tls() && self.spec.tls.as_ref().is_some_and(|tls| !passes_through(tls.mode))
    }

    /// Name of the table that holds its routes; `None` for servers that do not speak HTTP.
    pub fn route_table(&self) -> Option<String> {
        let bind = if self.spec.bind.is_empty() { String::new() } else { format!(".{}", self.spec.bind) };
        if self.protocol.is_http() {
            return Some(format!("http.{}{bind}", self.listener_port));
        }
        let (namespace, name) = self.gateway.split_once('/')?;
        (self.protocol == Protocol::Https && self.ends_tls())
            .then(|| format!("https.{}.{}.{name}.{namespace}{bind}", self.server_port, self.spec.port.name))
    }

    /// The part of a VirtualService's hosts that this server takes; the narrower name of each pair.
    pub fn common_hosts(&self, hosts: &[String], namespace: &str) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for own in self.hosts_for(namespace) {
            for other in hosts {
                if let Some(common) = host::intersection(&own, other)
                    && !out.iter().any(|known| known == common)
                {
                    out.push(common.to_owned());
                }
            }
        }
        out
    }

    /// Hosts without their namespace part, as server names and virtual hosts have them.
    pub fn host_names(&self) -> Vec<String> {
        self.spec.hosts.iter().map(|host| split(host).1.to_ascii_lowercase()).collect()
    }

    /// The hosts that rules of a namespace may use: `ns/host` is for one namespace, `./host` for the Gateway's own.
    fn hosts_for(&self, namespace: &str) -> Vec<String> {
        let open_to = |wanted: &str| match wanted {
            "*" => true,
            "." => namespace == &*self.gateway_namespace,
            named => namespace == named,
        };
        let hosts = self.spec.hosts.iter().map(|host| split(host));
        hosts.filter(|(wanted, _)| open_to(wanted)).map(|(_, host)| host.to_ascii_lowercase()).collect()
    }
}

/// `ns/host`, or `host` for all namespaces.
fn split(host: &str) -> (&str, &str) {
    host.split_once('/').unwrap_or(("*", host))
}

/// A server that another one keeps from being used.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedServer {
    pub server: Arc<GatewayServer>,
    /// Why, for the user.
    pub reason: String,
    /// The server that has the place.
    pub winner: Origin,
}

/// The listener of one port and bind address.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayListener {
    pub port: u16,
    /// Empty: all addresses.
    pub bind: String,
    /// Oldest first; all plaintext or all TLS.
    pub servers: Vec<Arc<GatewayServer>>,
}

/// Everything that one gateway proxy serves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct MergedGateway {
    pub listeners: Vec<GatewayListener>,
    /// By route table name: `http.<port>`, `https.<port>.<port name>.<gateway>.<namespace>`.
    pub route_tables: BTreeMap<String, Vec<Arc<GatewayServer>>>,
    pub rejected: Vec<RejectedServer>,
}

/// All gateways, oldest first.
pub(crate) fn read(resources: &[Arc<Resource<Gateway>>], gateway_api: &GatewayApi) -> Vec<GatewayObject> {
    let mut out: Vec<_> = resources
        .iter()
        .map(|resource| GatewayObject {
            name: resource.name().into(),
            namespace: resource.namespace().into(),
            pods: match gateway_api.pods(resource.namespace(), resource.name()).filter(|_| resource.made_of.is_some()) {
                Some(pods) => Selected::Behind(pods.to_vec()),
                None => Selected::Labels(resource.spec.selector.clone()),
            },
            servers: servers(resource),
            age: Age::new(resource.age, resource.name(), resource.namespace()),
            origin: Origin::of(resource),
        })
        .collect();
    out.sort_by(|a, b| a.age.cmp(&b.age));
    out
}

fn servers(resource: &Resource<Gateway>) -> Vec<Arc<ServerObject>> {
    let mut out = Vec::new();
    for (at, server) in resource.spec.servers.iter().enumerate() {
        // Validation complains about ports and protocols that there are not.
        let Ok(port) = u16::try_from(server.port.number) else { continue };
        let Some(protocol) = Protocol::parse(&server.port.protocol) else { continue };
        let origin = Origin::of_field(resource, &format!("spec.servers[{at}]"));
        out.push(Arc::new(ServerObject { spec: server.clone(), port, protocol, origin }));
    }
    out
}

/// Service ports of the workload behind which a gateway proxy stands, to its own ports.
pub(crate) type PortMap = HashMap<u16, u16>;

/// Merges the gateways that select a workload, oldest first.
pub(crate) fn merge(gateways: &[GatewayObject], workload: &Workload, ports: &PortMap) -> MergedGateway {
    let mut merged = MergedGateway::default();
    let mut tls_hosts: HashMap<(u16, String), HashSet<String>> = HashMap::new();
    for gateway in gateways.iter().filter(|gateway| gateway.pods.fits(workload)) {
        for object in &gateway.servers {
            let server = GatewayServer {
                gateway: format!("{}/{}", gateway.namespace, gateway.name),
                spec: object.spec.clone(),
                protocol: object.protocol,
                server_port: object.port,
                // A port that no Service of the workload has is taken as it is.
                listener_port: ports.get(&object.port).copied().unwrap_or(object.port),
                origin: object.origin.clone(),
                gateway_namespace: Arc::clone(&gateway.namespace),
            };
            merged.add(Arc::new(server), &mut tls_hosts);
        }
    }
    merged
}

impl MergedGateway {
    fn add(&mut self, server: Arc<GatewayServer>, tls_hosts: &mut HashMap<(u16, String), HashSet<String>>) {
        let place = (server.listener_port, server.spec.bind.clone());
        let table = server.route_table();
        let present = self.listeners.iter_mut().find(|listener| (listener.port, &listener.bind) == (place.0, &place.1));
        if let Some(first) = present.as_ref().and_then(|listener| listener.servers.first())
            && let Some(reason) = conflict(first, &server)
        {
            let winner = first.origin.clone();
            self.rejected.push(RejectedServer { server, reason, winner });
            return;
        }
        if server.is_tls() {
            let known = tls_hosts.entry(place.clone()).or_default();
            // Chains are told apart by name, whoever may use it.
            let names = server.host_names();
            if let Some(taken) = names.iter().find(|host| known.contains(*host)) {
                let reason = format!("host {taken} already has a TLS server on port {}", place.0);
                let winner = present
                    .and_then(|listener| {
                        listener
                            .servers
                            .iter()
                            .find(|other| other.host_names().contains(taken))
                            .map(|other| other.origin.clone())
                    })
                    .unwrap_or_else(|| server.origin.clone());
                self.rejected.push(RejectedServer { server, reason, winner });
                return;
            }
            known.extend(names);
        }
        if let Some(table) = table {
            self.route_tables.entry(table).or_default().push(Arc::clone(&server));
        }
        match present {
            Some(listener) => listener.servers.push(server),
            None => self.listeners.push(GatewayListener { port: place.0, bind: place.1, servers: vec![server] }),
        }
    }
}

/// Why two servers cannot share a port: one plaintext protocol only, and none beside TLS.
fn conflict(first: &GatewayServer, server: &GatewayServer) -> Option<String> {
    let both_tls = first.is_tls() && server.is_tls();
    let both_http = first.protocol.is_http() && server.protocol.is_http();
    (!both_tls && !both_http).then(|| {
        format!(
            "port {} already serves {:?}, which {:?} cannot be mixed with",
            server.listener_port, first.protocol, server.protocol
        )
    })
}

/// The TLS connection is not ended at the gateway.
pub fn passes_through(mode: lateen_api::networking::gateway::ServerTlsMode) -> bool {
    use lateen_api::networking::gateway::ServerTlsMode;
    matches!(mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_names_are_of_the_own_namespace_unless_they_say() {
        for (name, want) in [("mesh", "mesh"), ("web", "shop/web"), ("infra/web", "infra/web"), ("./web", "shop/web")] {
            assert_eq!(gateway_name(name, "shop"), want);
        }
    }
}
