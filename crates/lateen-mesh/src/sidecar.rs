//! Istio's `Sidecar`, ready to be looked up: which ports of a workload are open and how, and what its proxy may reach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::networking::Sidecar;
use lateen_api::networking::destination_rule::ConnectionPool;
use lateen_api::networking::gateway::ServerTls;
use lateen_api::networking::sidecar::{
    CaptureMode, EgressListener as Written, IngressListener, OutboundMode as WrittenMode, SidecarPort,
};

use crate::config::OutboundMode;
use crate::host;
use crate::origin::Origin;
use crate::protocol::Protocol;
use crate::scope::are_chosen;
use crate::services::Service;
use crate::workloads::{Labels, selects};

/// A Sidecar object.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SidecarObject {
    pub(crate) namespace: Arc<str>,
    pub(crate) selector: Option<Labels>,
    pub(crate) outbound: Option<OutboundMode>,
    /// Where traffic to unknown destinations goes.
    pub(crate) egress_proxy: Option<EgressProxy>,
    /// `egress[].hosts` of all listeners; empty: everything.
    pub(crate) imports: Vec<Import>,
    /// The listeners that these hosts are called by.
    pub(crate) egress: Arc<[EgressListener]>,
    /// The ports that are open; none: those of the workload's services.
    pub(crate) ingress: Vec<Arc<Ingress>>,
    /// Limits for connections to the application, in place of a DestinationRule's.
    pub(crate) inbound_pool: Option<Arc<ConnectionPool>>,
    pub(crate) origin: Origin,
}

/// `Sidecar.ingress[]`: a port that is open towards the application.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingress {
    pub port: u16,
    pub protocol: Protocol,
    /// The address to listen on; empty: all.
    pub bind: String,
    /// The proxy opens the port itself: connections to it are not redirected (`captureMode: NONE`).
    pub opens_port: bool,
    /// Where the application is; none: where the client meant to go.
    pub endpoint: Option<AppEndpoint>,
    pub tls: Option<ServerTls>,
    pub pool: Option<Arc<ConnectionPool>>,
    /// At the line of the listener.
    pub origin: Origin,
}

/// `Sidecar.egress[]`: where the application calls some of what it may call.
#[derive(Debug, Clone, PartialEq)]
pub struct EgressListener {
    /// None: all ports of what is imported, but for those of other listeners.
    pub port: Option<(u16, Protocol)>,
    /// The address to listen on; empty: that of the service, or all.
    pub bind: String,
    /// The proxy opens the port itself: the application connects to it (`captureMode: NONE`).
    pub opens_port: bool,
    imports: Vec<Import>,
}

impl EgressListener {
    fn read(listener: &Written, own: &str) -> Option<Self> {
        let port = match &listener.port {
            None => None,
            Some(port) => Some(declared(port)?),
        };
        Some(Self {
            port,
            bind: listener.bind.clone(),
            opens_port: listener.capture_mode == CaptureMode::None,
            imports: listener.hosts.iter().filter_map(|host| Import::parse(host, own)).collect(),
        })
    }

    /// Whether it is for the service.
    pub fn takes(&self, service: &Service) -> bool {
        are_chosen(&self.imports, &service.namespace, |import| host::is_subset_of(&service.host, import))
    }

    /// Whether it differs from what there is without any.
    fn says_more(&self) -> bool {
        self.port.is_some() || !self.bind.is_empty() || self.opens_port
    }
}

/// `Sidecar.ingress[].defaultEndpoint`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppEndpoint {
    Loopback(IpAddr, u16),
    /// On the workload's own address.
    Own(u16),
    /// A Unix socket path.
    Unix(String),
}

impl AppEndpoint {
    /// Reads `127.0.0.1:port`, `0.0.0.0:port`, their IPv6 forms, or `unix://` and a path.
    fn parse(text: &str) -> Option<Self> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Some(Self::Unix(path.to_owned()));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok()?;
        Some(match host {
            "[::1]" => Self::Loopback(Ipv6Addr::LOCALHOST.into(), port),
            "0.0.0.0" | "[::]" => Self::Own(port),
            _ => Self::Loopback(Ipv4Addr::LOCALHOST.into(), port),
        })
    }
}

/// `Sidecar.outboundTrafficPolicy.egressProxy`, in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressProxy {
    pub host: String,
    pub port: u16,
    /// Empty: none.
    pub subset: String,
}

impl SidecarObject {
    /// Reads an object. What validation complains of is left out.
    pub(crate) fn read(resource: &Resource<Sidecar>, domain: &str) -> Self {
        let spec = &resource.spec;
        let hosts = spec.egress.iter().flat_map(|listener| &listener.hosts);
        let policy = spec.outbound_traffic_policy.as_ref();
        Self {
            namespace: resource.namespace().into(),
            selector: spec
                .workload_selector
                .as_ref()
                .map(|selector| selector.labels.clone())
                .filter(|labels| !labels.is_empty()),
            outbound: policy.map(|policy| match policy.mode {
                WrittenMode::AllowAny => OutboundMode::AllowAny,
                WrittenMode::RegistryOnly => OutboundMode::RegistryOnly,
            }),
            egress_proxy: policy.and_then(|policy| policy.egress_proxy.as_ref()).and_then(|proxy| {
                Some(EgressProxy {
                    host: host::resolve(&proxy.host, resource.namespace(), domain),
                    port: u16::try_from(proxy.port?.number).ok()?,
                    subset: proxy.subset.clone(),
                })
            }),
            imports: hosts.filter_map(|host| Import::parse(host, resource.namespace())).collect(),
            egress: egress_listeners(&spec.egress, resource.namespace()),
            ingress: (spec.ingress.iter().enumerate())
                .filter_map(|(at, listener)| {
                    let origin = Origin::of_field(resource, &format!("spec.ingress[{at}]"));
                    Some(Arc::new(Ingress::read(listener, origin)?))
                })
                .collect(),
            inbound_pool: spec.inbound_connection_pool.clone().map(Arc::new),
            origin: Origin::of(resource),
        }
    }

    /// Namespace and name.
    pub(crate) fn id(&self) -> (Arc<str>, Arc<str>) {
        (Arc::clone(&self.namespace), Arc::clone(&self.origin.name))
    }
}

/// None where all of them are what there is without any.
fn egress_listeners(written: &[Written], own: &str) -> Arc<[EgressListener]> {
    let all: Vec<_> = written.iter().filter_map(|listener| EgressListener::read(listener, own)).collect();
    if all.iter().any(EgressListener::says_more) { all.into() } else { Arc::default() }
}

impl Ingress {
    fn read(listener: &IngressListener, origin: Origin) -> Option<Self> {
        let (port, protocol) = declared(&listener.port)?;
        Some(Self {
            port,
            protocol,
            bind: listener.bind.clone(),
            opens_port: listener.capture_mode == CaptureMode::None,
            endpoint: Some(listener.default_endpoint.as_str())
                .filter(|text| !text.is_empty())
                .and_then(AppEndpoint::parse),
            tls: listener.tls.clone(),
            pool: listener.connection_pool.clone().map(Arc::new),
            origin,
        })
    }
}

/// Number and protocol of a Sidecar's port; without a protocol, its name decides, or the first bytes.
fn declared(port: &SidecarPort) -> Option<(u16, Protocol)> {
    let number = u16::try_from(port.number).ok()?;
    let protocol = match port.protocol.as_str() {
        "" => Protocol::of_service_port(None, None, Some(&port.name), number),
        written => Protocol::parse(written)?,
    };
    Some((number, protocol))
}

/// The Sidecar for a workload: the oldest that selects it, else its namespace's, else the root namespace's.
pub(crate) fn choose<'a>(
    sidecars: &'a [SidecarObject],
    root_namespace: &str,
    namespace: &str,
    labels: &Labels,
) -> Option<&'a SidecarObject> {
    let here = |sidecar: &&SidecarObject| *sidecar.namespace == *namespace;
    let selecting =
        |sidecar: &&SidecarObject| sidecar.selector.as_ref().is_some_and(|selector| selects(selector, labels));
    let for_all = |sidecar: &&SidecarObject| sidecar.selector.is_none();
    let own = || sidecars.iter().filter(here);
    own()
        .find(selecting)
        .or_else(|| own().find(for_all))
        .or_else(|| sidecars.iter().filter(for_all).find(|sidecar| *sidecar.namespace == *root_namespace))
}

/// One `ns/host` of a Sidecar's `egress`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// `None`: any.
    namespace: Option<String>,
    pub(crate) host: String,
    /// Takes away instead of adding.
    pub(crate) exclude: bool,
}

impl Import {
    /// Reads `ns/host` for a Sidecar of `own` namespace; the namespace may be `.`, `*`, or begin with `~`.
    fn parse(text: &str, own: &str) -> Option<Self> {
        let (namespace, host) = text.split_once('/')?;
        let (exclude, namespace) = match namespace.strip_prefix('~') {
            Some("") => (true, "*"),
            Some(rest) => (true, rest),
            None => (false, namespace),
        };
        let namespace = match namespace {
            "*" => None,
            "." => Some(own.to_owned()),
            named => Some(named.to_owned()),
        };
        Some(Self { namespace, host: host.to_ascii_lowercase(), exclude })
    }

    pub(crate) fn is_for(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|wanted| wanted == namespace)
    }
}
