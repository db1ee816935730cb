//! One `Egress` in the words of Istio's kinds.

use std::sync::Arc;

use lateen_api::meta::ObjectMeta;
use lateen_api::networking::destination_rule::{
    ClientTls, ConnectionPool, H2UpgradePolicy, HttpSettings, Subset, TlsMode, TrafficPolicy,
};
use lateen_api::networking::gateway::{GatewayPort, Server, ServerTls, ServerTlsMode};
use lateen_api::networking::service_entry::{Location, Resolution, ServicePort};
use lateen_api::networking::virtual_service::{
    Destination, HttpMatch, HttpRoute, HttpRouteDestination, L4Match, PortSelector, RouteDestination, TcpRoute,
    TlsMatch, TlsRoute,
};
use lateen_api::networking::{DestinationRule, Gateway, MatchLabels, ServiceEntry, VirtualService};
use lateen_api::policy::Egress;
use lateen_api::policy::egress::{EgressGateway, EgressPort, EgressProtocol, Origination, OriginationMode};
use lateen_api::scalar::StringMatch;
use lateen_api::security::AuthorizationPolicy;
use lateen_api::security::authorization_policy::{Action, Condition, From, Rule, Source};
use lateen_api::{KindSpec, Resource};

use super::Access;
use crate::config::MeshConfig;
use crate::host;
use crate::routing::virtual_service::MESH;

/// What names of made objects begin with: no name that somebody writes has a colon.
const PREFIX: &str = "egress:";

/// Where TLS is spoken, and where gateways let sidecars in, unless an object says otherwise.
const HTTPS: u32 = 443;

/// The objects that one Egress became.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(super) service_entries: Vec<Arc<Resource<ServiceEntry>>>,
    pub(super) destination_rules: Vec<Arc<Resource<DestinationRule>>>,
    pub(super) virtual_services: Vec<Arc<Resource<VirtualService>>>,
    pub(super) gateways: Vec<Arc<Resource<Gateway>>>,
    pub(super) authorization_policies: Vec<Arc<Resource<AuthorizationPolicy>>>,
    pub(super) access: Arc<Access>,
}

/// The name of the Egress that an object of this name was made of.
pub(crate) fn plain_name(name: &str) -> &str {
    let rest = name.strip_prefix(PREFIX).unwrap_or(name);
    rest.split_once(':').map_or(rest, |(name, _)| name)
}

pub(crate) fn expand(object: &Resource<Egress>, config: &MeshConfig) -> Parts {
    let through = object.spec.via.as_ref().map(|via| Through::of(&via.gateway, object.namespace(), config));
    let is_for_all = object.namespace() == config.root_namespace;
    let export_to = if is_for_all {
        vec!["*".to_owned()]
    } else {
        let of_gateway = through.as_ref().map(|through| through.namespace.clone());
        std::iter::once(".".to_owned()).chain(of_gateway).collect()
    };
    let place = through.as_ref().map(|through| (through.namespace.as_str().into(), through.labels.clone()));
    let access = Access::of(&object.spec, object.namespace(), is_for_all, place);
    let making = Making { object, export_to };
    let mut parts = Parts {
        service_entries: making.service_entries(),
        destination_rules: making.origination(),
        virtual_services: Vec::new(),
        gateways: Vec::new(),
        authorization_policies: Vec::new(),
        access: Arc::new(access),
    };
    if let (Some(through), [port, ..]) = (through, object.spec.ports.as_slice()) {
        parts.gateways.push(making.gateway(&through, port));
        parts.destination_rules.push(making.to_gateway(&through, port));
        let hosts = object.spec.hosts.iter().enumerate();
        parts.virtual_services.extend(hosts.map(|(index, host)| making.route(&through, port, index, host)));
        parts.authorization_policies.extend(making.policy(&through, &parts.access));
    }
    parts
}

/// The gateway in between.
struct Through {
    /// Full name of its Service.
    service: String,
    namespace: String,
    port: u32,
    labels: lateen_api::meta::StringMap,
}

impl Through {
    fn of(gateway: &EgressGateway, namespace: &str, config: &MeshConfig) -> Self {
        let service = host::resolve(&gateway.service, namespace, &config.domain);
        // `name.namespace.svc.domain`.
        let of_service = service.split('.').nth(1).unwrap_or(namespace).to_owned();
        Self {
            namespace: of_service,
            service,
            port: gateway.port.unwrap_or(HTTPS),
            labels: gateway.selector.match_labels.clone(),
        }
    }
}

struct Making<'a> {
    object: &'a Resource<Egress>,
    export_to: Vec<String>,
}

impl Making<'_> {
    /// An object that stands where the Egress does, and says by its `apiVersion` that it was made of one.
    fn make<K: KindSpec>(&self, namespace: &str, suffix: &str, spec: K) -> Arc<Resource<K>> {
        let name = format!("{PREFIX}{}{suffix}", self.object.name());
        let mut made = Resource::new(ObjectMeta::named(namespace, &name), spec, "");
        made.api_version.clone_from(&self.object.api_version);
        made.origin = self.object.origin.clone();
        made.age = self.object.age;
        Arc::new(made)
    }

    fn own<K: KindSpec>(&self, suffix: &str, spec: K) -> Arc<Resource<K>> {
        self.make(self.object.namespace(), suffix, spec)
    }

    /// One for the names, and one for the wildcards, whose names are resolved when requests name them.
    fn service_entries(&self) -> Vec<Arc<Resource<ServiceEntry>>> {
        let spec = &self.object.spec;
        let (wildcards, names): (Vec<String>, Vec<String>) =
            spec.hosts.iter().cloned().partition(|host| host::is_wildcard(host));
        let port = |port: &EgressPort, target_port: Option<u32>| ServicePort {
            number: port.number,
            protocol: port.protocol.name().to_owned(),
            name: format!("{}-{}", port.protocol.name().to_ascii_lowercase(), port.number),
            target_port,
        };
        let entry = |hosts: Vec<String>, resolution, target: Option<u32>| ServiceEntry {
            hosts,
            ports: spec.ports.iter().map(|own| port(own, target)).collect(),
            location: Location::MeshExternal,
            resolution,
            export_to: self.export_to.clone(),
            ..ServiceEntry::default()
        };
        let target = spec.tls.as_ref().map(|tls| tls.port.unwrap_or(HTTPS));
        let named = (!names.is_empty()).then(|| self.own("", entry(names, Resolution::Dns, target)));
        let wild =
            (!wildcards.is_empty()).then(|| self.own(":wildcards", entry(wildcards, Resolution::DynamicDns, None)));
        named.into_iter().chain(wild).collect()
    }

    /// TLS towards the hosts. What needs a Secret without a gateway is for the workloads that are selected alone.
    fn origination(&self) -> Vec<Arc<Resource<DestinationRule>>> {
        let spec = &self.object.spec;
        let Some(tls) = &spec.tls else { return Vec::new() };
        let selected = match spec.from.as_slice() {
            [caller] if spec.via.is_none() && !tls.credential_name.is_empty() => caller.selector.clone(),
            _ => None,
        };
        let export_to = if selected.is_some() { vec![".".to_owned()] } else { self.export_to.clone() };
        let rule = |(index, host): (usize, &String)| {
            let rule = DestinationRule {
                host: host.clone(),
                traffic_policy: Some(TrafficPolicy { tls: Some(client_tls(tls)), ..TrafficPolicy::default() }),
                export_to: export_to.clone(),
                workload_selector: selected.clone(),
                ..DestinationRule::default()
            };
            self.own(&format!(":{index}"), rule)
        };
        spec.hosts.iter().enumerate().map(rule).collect()
    }

    /// What a server name of the mesh mTLS to the gateway is, by which that knows for which host a connection is.
    fn server_name(host: &str) -> String {
        host.strip_prefix('*').map_or_else(|| host.to_owned(), |suffix| format!("any{suffix}"))
    }

    fn subset(&self, index: usize) -> String {
        format!("{PREFIX}{}:{index}", self.object.name())
    }

    /// The servers of the gateway that let sidecars in, one for each host.
    fn gateway(&self, through: &Through, port: &EgressPort) -> Arc<Resource<Gateway>> {
        let protocol = if port.protocol == EgressProtocol::Tls { "TLS" } else { "HTTPS" };
        let server = |(index, host): (usize, &String)| Server {
            port: GatewayPort {
                number: through.port,
                protocol: protocol.to_owned(),
                name: format!("egress-{index}"),
                target_port: None,
            },
            hosts: vec![host.clone()],
            tls: Some(ServerTls { mode: ServerTlsMode::IstioMutual, ..ServerTls::default() }),
            ..Server::default()
        };
        let servers = self.object.spec.hosts.iter().enumerate().map(server).collect();
        self.own("", Gateway { selector: through.labels.clone(), servers })
    }

    /// Mesh mTLS to the gateway, under the name of each host.
    fn to_gateway(&self, through: &Through, port: &EgressPort) -> Arc<Resource<DestinationRule>> {
        let speaks_h2 = matches!(port.protocol, EgressProtocol::Http2 | EgressProtocol::Grpc);
        let upgrade = HttpSettings { h2_upgrade_policy: Some(H2UpgradePolicy::Upgrade), ..HttpSettings::default() };
        let pool = ConnectionPool { http: Some(upgrade), ..ConnectionPool::default() };
        let subset = |(index, host): (usize, &String)| Subset {
            name: self.subset(index),
            traffic_policy: Some(TrafficPolicy {
                tls: Some(ClientTls {
                    mode: TlsMode::IstioMutual,
                    sni: Self::server_name(host),
                    ..ClientTls::default()
                }),
                connection_pool: speaks_h2.then(|| pool.clone()),
                ..TrafficPolicy::default()
            }),
            ..Subset::default()
        };
        let rule = DestinationRule {
            host: through.service.clone(),
            subsets: self.object.spec.hosts.iter().enumerate().map(subset).collect(),
            export_to: self.export_to.clone(),
            ..DestinationRule::default()
        };
        self.own("", rule)
    }

    /// From sidecars to the gateway, and from there to the host.
    fn route(&self, through: &Through, port: &EgressPort, index: usize, host: &str) -> Arc<Resource<VirtualService>> {
        let to = |host: &str, subset: String, port: u32| Destination {
            host: host.to_owned(),
            subset,
            port: Some(PortSelector { number: port }),
        };
        let gateway = format!("{}/{PREFIX}{}", self.object.namespace(), self.object.name());
        let to_gateway = to(&through.service, self.subset(index), through.port);
        let to_host = to(host, String::new(), port.number);
        let mut rule = VirtualService {
            hosts: vec![host.to_owned()],
            gateways: vec![MESH.to_owned(), gateway.clone()],
            export_to: self.export_to.clone(),
            ..VirtualService::default()
        };
        if port.protocol == EgressProtocol::Tls {
            rule.tls = vec![TlsRoute {
                matches: vec![TlsMatch {
                    sni_hosts: vec![host.to_owned()],
                    port: Some(port.number),
                    gateways: vec![MESH.to_owned()],
                    ..TlsMatch::default()
                }],
                route: vec![RouteDestination { destination: to_gateway, weight: 0 }],
            }];
            rule.tcp = vec![TcpRoute {
                matches: vec![L4Match { gateways: vec![gateway], ..L4Match::default() }],
                route: vec![RouteDestination { destination: to_host, weight: 0 }],
            }];
        } else {
            let http = |matches: HttpMatch, destination: Destination| HttpRoute {
                matches: vec![matches],
                route: vec![HttpRouteDestination { destination, ..HttpRouteDestination::default() }],
                ..HttpRoute::default()
            };
            let from_mesh =
                HttpMatch { gateways: vec![MESH.to_owned()], port: Some(port.number), ..HttpMatch::default() };
            let authority = host::is_wildcard(host).then(|| self.authority(port.number));
            let from_gateway = HttpMatch { gateways: vec![gateway], authority, ..HttpMatch::default() };
            rule.http = vec![http(from_mesh, to_gateway), http(from_gateway, to_host)];
        }
        self.own(&format!(":{index}"), rule)
    }

    /// Under a wildcard a request goes to the port that it names: that may be none but this one.
    fn authority(&self, port: u32) -> StringMatch {
        let usual = port == 80 || self.object.spec.tls.is_some();
        StringMatch::Regex(if usual { format!("[^:]+(:{port})?") } else { format!("[^:]+:{port}") })
    }

    /// Whom the gateway turns away.
    fn policy(&self, through: &Through, access: &Access) -> Option<Arc<Resource<AuthorizationPolicy>>> {
        let (not_namespaces, not_service_accounts) = access.identities()?;
        let source = Source { not_namespaces, not_service_accounts, ..Source::default() };
        let hosts = Condition {
            key: "connection.sni".to_owned(),
            values: self.object.spec.hosts.clone(),
            not_values: Vec::new(),
        };
        let policy = AuthorizationPolicy {
            selector: Some(MatchLabels { match_labels: through.labels.clone() }),
            action: Action::Deny,
            rules: vec![Rule { from: vec![From { source: Some(source) }], to: Vec::new(), when: vec![hosts] }],
            ..AuthorizationPolicy::default()
        };
        Some(self.make(&through.namespace, &format!(":{}", self.object.namespace()), policy))
    }
}

fn client_tls(tls: &Origination) -> ClientTls {
    ClientTls {
        mode: match tls.mode {
            OriginationMode::Simple => TlsMode::Simple,
            OriginationMode::Mutual => TlsMode::Mutual,
        },
        credential_name: tls.credential_name.clone(),
        ca_certificates: tls.ca_certificates.clone(),
        sni: tls.sni.clone(),
        subject_alt_names: tls.subject_alt_names.clone(),
        ..ClientTls::default()
    }
}
