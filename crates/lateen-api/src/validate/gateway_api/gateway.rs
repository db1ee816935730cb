//! Rules for `GatewayClass`, `Gateway` and `ListenerSet`.

use std::collections::BTreeSet;

use super::{hostname, required};
use crate::gateway_api::gateway::{Listener, ListenerTls, Namespaces, NamespacesFrom, TlsMode};
use crate::gateway_api::references::ObjectReference;
use crate::gateway_api::{Gateway, GatewayClass, ListenerSet};
use crate::validate::check::Check;

pub(in super::super) fn check_class(check: &mut Check<'_>, class: &GatewayClass) {
    let name = &class.controller_name;
    let is_name = name.split_once('/').is_some_and(|(domain, path)| domain.contains('.') && !path.is_empty());
    if !is_name {
        let message = format!(
            "`{name}` is not the name of a controller: a domain and a path, such as lateen.dev/gateway-controller"
        );
        check.error("spec.controllerName", message);
    }
    if class.parameters_ref.is_some() {
        check.warn("spec.parametersRef", "a GatewayClass of Lateen has no parameters");
    }
}

pub(in super::super) fn check_gateway(check: &mut Check<'_>, gateway: &Gateway) {
    required(check, "spec.gatewayClassName".to_owned(), &gateway.gateway_class_name);
    let may_have_none = gateway.allowed_listeners.is_some();
    if gateway.listeners.is_empty() && !may_have_none {
        let help = "with `allowedListeners`, ListenerSets may bring them";
        check.error_help("spec.listeners", "a Gateway needs a listener", help);
    }
    listeners(check, &gateway.listeners, false);
    for (index, address) in gateway.addresses.iter().enumerate() {
        let field = format!("spec.addresses[{index}]");
        match address.kind.as_deref().unwrap_or("IPAddress") {
            "Hostname" if !address.value.is_empty() => hostname(check, format!("{field}.value"), &address.value),
            "Hostname" => {}
            "IPAddress" if address.value.is_empty() || address.value.parse::<std::net::IpAddr>().is_ok() => {}
            "IPAddress" => {
                let help = "for an existing Service, write `type: Hostname`";
                check.error_help(format!("{field}.value"), format!("`{}` is not an IP address", address.value), help);
            }
            other => check.error(
                format!("{field}.type"),
                format!("`{other}` is not a type of address that is known here: IPAddress, Hostname"),
            ),
        }
    }
    if let Some(allowed) = gateway.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref()) {
        namespaces(check, "spec.allowedListeners.namespaces", allowed);
    }
    let Some(tls) = &gateway.tls else { return };
    if let Some(reference) = tls.backend.as_ref().and_then(|backend| backend.client_certificate_ref.as_ref()) {
        object(check, "spec.tls.backend.clientCertificateRef", reference);
    }
    let ports = tls.frontend.iter().flat_map(|frontend| &frontend.per_port);
    let mut seen = BTreeSet::new();
    for (index, port) in ports.enumerate() {
        if !seen.insert(port.port) {
            let message = format!("port {} has TLS settings already", port.port);
            check.error(format!("spec.tls.frontend.perPort[{index}].port"), message);
        }
    }
}

pub(in super::super) fn check_listener_set(check: &mut Check<'_>, set: &ListenerSet) {
    required(check, "spec.parentRef.name".to_owned(), &set.parent_ref.name);
    if set.listeners.is_empty() {
        check.error("spec.listeners", "a ListenerSet needs a listener");
    }
    listeners(check, &set.listeners, true);
}

fn listeners(check: &mut Check<'_>, listeners: &[Listener], may_leave_port: bool) {
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for (index, one) in listeners.iter().enumerate() {
        let field = format!("spec.listeners[{index}]");
        required(check, format!("{field}.name"), &one.name);
        if !names.insert(&one.name) {
            check.error(format!("{field}.name"), format!("there is a listener `{}` already", one.name));
        }
        if !places.insert((one.port, one.protocol.as_str(), one.host())) {
            let message = "another listener has this port, protocol and hostname";
            check.error(field.clone(), message);
        }
        listener(check, &field, one, may_leave_port);
    }
}

fn listener(check: &mut Check<'_>, field: &str, listener: &Listener, may_leave_port: bool) {
    if listener.port == 0 && !(may_leave_port && matches!(listener.protocol.as_str(), "HTTP" | "HTTPS")) {
        check.error(format!("{field}.port"), "`port` is required: 1 to 65535");
    }
    required(check, format!("{field}.protocol"), &listener.protocol);
    let protocol = listener.protocol.as_str();
    if let Some(name) = listener.hostname.as_deref().filter(|name| !name.is_empty()) {
        hostname(check, format!("{field}.hostname"), name);
        if matches!(protocol, "TCP" | "UDP") {
            check.error(format!("{field}.hostname"), format!("a listener of protocol {protocol} has no hostname"));
        }
    }
    match (&listener.tls, protocol) {
        (Some(_), "HTTP" | "TCP" | "UDP") => {
            check.error(format!("{field}.tls"), format!("a listener of protocol {protocol} has no TLS settings"));
        }
        (Some(tls), "HTTPS") if tls.mode == Some(TlsMode::Passthrough) => {
            check.error(format!("{field}.tls.mode"), "TLS ends at a listener of protocol HTTPS: the mode is Terminate");
        }
        (Some(tls), _) => certificates(check, &format!("{field}.tls"), tls),
        (None, _) => {}
    }
    if let Some(allowed) = &listener.allowed_routes {
        if let Some(wanted) = &allowed.namespaces {
            namespaces(check, &format!("{field}.allowedRoutes.namespaces"), wanted);
        }
        for (index, kind) in allowed.kinds.iter().enumerate() {
            required(check, format!("{field}.allowedRoutes.kinds[{index}].kind"), &kind.kind);
        }
    }
}

fn certificates(check: &mut Check<'_>, field: &str, tls: &ListenerTls) {
    let ends = tls.mode.unwrap_or_default() == TlsMode::Terminate;
    if ends && tls.certificate_refs.is_empty() && tls.options.is_empty() {
        check.error(format!("{field}.certificateRefs"), "where TLS ends there must be a certificate");
    }
    for (index, reference) in tls.certificate_refs.iter().enumerate() {
        object(check, &format!("{field}.certificateRefs[{index}]"), reference);
    }
}

fn object(check: &mut Check<'_>, field: &str, reference: &ObjectReference) {
    required(check, format!("{field}.name"), &reference.name);
}

fn namespaces(check: &mut Check<'_>, field: &str, wanted: &Namespaces) {
    if wanted.from == Some(NamespacesFrom::Selector) && wanted.selector.is_none() {
        check.error(format!("{field}.selector"), "`from: Selector` needs a selector");
    }
}
