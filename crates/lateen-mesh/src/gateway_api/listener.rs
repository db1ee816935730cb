//! One listener: the server that it becomes, and what its status says.

use lateen_api::gateway_api::GROUP;
use lateen_api::gateway_api::gateway::{Gateway, GatewayTls, Listener, RouteKind, TlsMode};
use lateen_api::meta::StringMap;
use lateen_api::networking::gateway::{GatewayPort, Server};
use lateen_api::{ObjectKey, Resource};

use super::condition::{Fault, Wanted};
use super::conflict::port_of;
use super::reference::GroupKind;
use super::{namespaces, tls};
use crate::inputs::Inputs;

/// Words of an east-west gateway of Istio's: what comes in by the name of a service goes to it as it is.
const NETWORK: &str = "topology.istio.io/network";
const NETWORK_PORT: &str = "networking.istio.io/gatewayPort";
const PROTOCOL: &str = "gateway.istio.io/listener-protocol";

/// Whose listener it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) labels: &'a StringMap,
    /// The Gateway itself, or the one that a set belongs to.
    pub(super) gateway: &'a Resource<Gateway>,
}

impl Owner<'_> {
    pub(super) fn is_set(&self) -> bool {
        self.key.kind == lateen_api::Kind::ListenerSet
    }

    pub(super) fn group_kind(&self) -> GroupKind<'static> {
        if self.is_set() { GroupKind::LISTENER_SET } else { GroupKind::GATEWAY }
    }
}

/// A listener that has been looked at.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) name: String,
    pub(super) port: u16,
    pub(super) protocol: String,
    /// As it is written; empty: all.
    pub(super) hostname: String,
    /// What it becomes; none where it cannot be anything.
    pub(super) server: Option<Server>,
    pub(super) is_valid: bool,
    /// Kinds of routes that may be bound to it.
    pub(super) kinds: Vec<RouteKind>,
    pub(super) conditions: Vec<Wanted>,
}

/// A listener that has no place beside others.
pub(super) fn conflicted(listener: &Listener, reason: &'static str) -> Read {
    let message = "Listener has a conflict with another listener attached to the same Gateway";
    let fault = Fault::new(reason, message);
    let (kinds, kinds_fault) = kinds(listener);
    let mut conditions = vec![
        Wanted::unless("Accepted", "", Some(&fault)),
        Wanted::unless("Programmed", "", Some(&fault)),
        Wanted { kind: "Conflicted", holds: true, reason: reason.to_owned(), message: message.to_owned() },
    ];
    conditions.extend(kinds_fault.map(|fault| Wanted::unless("ResolvedRefs", "", Some(&fault))));
    Read {
        name: listener.name.clone(),
        port: port_of(listener).unwrap_or(0),
        protocol: listener.protocol.clone(),
        hostname: listener.hostname.clone().unwrap_or_default(),
        server: None,
        is_valid: false,
        kinds,
        conditions,
    }
}

/// Any other.
pub(super) fn read(inputs: &Inputs, owner: Owner<'_>, listener: &Listener) -> Read {
    let port = if owner.is_set() { port_of(listener) } else { Some(listener.port) };
    let no_port = port.is_none().then(|| {
        let message = format!("protocol {} requires a port to be set", listener.protocol);
        Fault::new("UnsupportedProtocol", message)
    });
    let (port, protocol_fault) = (port.unwrap_or(0), protocol(&listener.protocol));
    let passes = passes_by_name(owner.labels, listener, port);
    let frontend = frontend(owner.gateway.spec.tls.as_ref(), port);
    let (settings, tls_fault) = match &listener.tls {
        None => (None, None),
        Some(wanted) => {
            let (settings, fault) = tls::settings(inputs, owner, wanted, frontend, passes);
            (Some(settings), fault)
        }
    };
    let mut accepted = tls_fault
        .as_ref()
        .filter(|fault| tls::is_about_clients(fault))
        .map(|fault| Fault::new("NoValidCACertificate", fault.message.clone()));
    accepted = protocol_fault.or(no_port).or(accepted);
    let mut programmed = tls_fault.as_ref().map(|_| Fault::new("Invalid", "Bad TLS configuration"));
    let has_no_tls = listener.tls.is_none() && matches!(listener.protocol.as_str(), "HTTPS" | "TLS");
    if has_no_tls && owner.is_set() {
        let message = format!("protocol is {} but no TLS section is defined", listener.protocol);
        accepted = Some(Fault::new("UnsupportedProtocol", message));
        programmed = Some(Fault::new("Invalid", "Bad TLS configuration"));
    }
    let is_valid = tls_fault.is_none()
        && accepted.as_ref().is_none_or(|fault| fault.reason != "UnsupportedProtocol")
        && !(has_no_tls && owner.is_set());
    let server = (!has_no_tls).then(|| Server {
        port: GatewayPort {
            name: "default".to_owned(),
            number: u32::from(port),
            protocol: listener.protocol.clone(),
            ..GatewayPort::default()
        },
        hosts: namespaces::hosts(inputs, &owner.key.namespace, listener.host(), listener.allowed_routes.as_ref()),
        tls: settings,
        ..Server::default()
    });
    let (kinds, kinds_fault) = kinds(listener);
    let none = "No errors found";
    let conditions = vec![
        Wanted::unless("Accepted", none, accepted.as_ref()),
        Wanted::unless("Programmed", none, programmed.as_ref()),
        Wanted { kind: "Conflicted", holds: false, reason: "NoConflicts".to_owned(), message: none.to_owned() },
        Wanted::unless("ResolvedRefs", none, kinds_fault.as_ref().or(tls_fault.as_ref())),
    ];
    Read {
        name: listener.name.clone(),
        port,
        protocol: listener.protocol.clone(),
        hostname: listener.hostname.clone().unwrap_or_default(),
        server,
        is_valid,
        kinds,
        conditions,
    }
}

fn protocol(name: &str) -> Option<Fault> {
    const KNOWN: &[&str] = &["HTTP", "HTTPS", "TLS", "TCP"];
    if KNOWN.contains(&name) {
        return None;
    }
    let upper = name.to_ascii_uppercase();
    let message = if name == "HBONE" {
        format!("protocol \"{name}\" is only supported for waypoint proxies")
    } else if KNOWN.contains(&upper.as_str()) {
        format!("protocol \"{name}\" is unsupported. hint: \"{upper}\" (uppercase) may be supported")
    } else {
        format!("protocol \"{name}\" is unsupported")
    };
    Some(Fault::new("UnsupportedProtocol", message))
}

fn passes_by_name(labels: &StringMap, listener: &Listener, port: u16) -> bool {
    let Some(settings) = &listener.tls else { return false };
    if settings.options.get(PROTOCOL).is_some_and(|word| word == "auto-passthrough") {
        return true;
    }
    let wanted = labels.get(NETWORK_PORT).map_or("15443", String::as_str);
    labels.contains_key(NETWORK) && port.to_string() == wanted
}

/// What clients must prove on a port.
fn frontend(tls: Option<&GatewayTls>, port: u16) -> Option<&lateen_api::gateway_api::gateway::Validation> {
    let frontend = tls?.frontend.as_ref()?;
    let own = frontend.per_port.iter().find(|settings| settings.port == port).map(|settings| &settings.tls);
    own.unwrap_or(&frontend.default).validation.as_ref()
}

/// The kinds of routes that a listener takes, and what is wrong with those that it is to take.
fn kinds(listener: &Listener) -> (Vec<RouteKind>, Option<Fault>) {
    let ends_tls = || listener.tls.as_ref().is_some_and(|tls| tls.mode == Some(TlsMode::Terminate));
    let by_protocol: &[&str] = match listener.protocol.as_str() {
        "HTTP" | "HTTPS" => &["HTTPRoute", "GRPCRoute"],
        "TCP" => &["TCPRoute"],
        "TLS" if ends_tls() => &["TLSRoute", "TCPRoute"],
        "TLS" => &["TLSRoute"],
        _ => &[],
    };
    let kind = |kind: &&str| RouteKind { group: Some(GROUP.to_owned()), kind: (*kind).to_owned() };
    let wanted = listener.allowed_routes.as_ref().map_or(&[][..], |allowed| &allowed.kinds);
    if wanted.is_empty() {
        return (by_protocol.iter().map(kind).collect(), None);
    }
    let is_wanted = |kind: &&&str| {
        wanted.iter().any(|one| one.kind == ***kind && one.group.as_deref().is_none_or(|group| group == GROUP))
    };
    let common: Vec<RouteKind> = by_protocol.iter().filter(is_wanted).map(kind).collect();
    let fault = (common.len() != wanted.len()).then(|| Fault::new("InvalidRouteKinds", "Invalid route kinds"));
    (common, fault)
}
