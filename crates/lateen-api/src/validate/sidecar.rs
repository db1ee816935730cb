//! Rules for `Sidecar`.

use std::collections::BTreeSet;

use super::check::Check;
use super::{destination_rule, gateway, metadata, names, virtual_service};
use crate::networking::Sidecar;
use crate::networking::gateway::{ServerTls, ServerTlsMode};
use crate::networking::sidecar::{CaptureMode, EgressListener, IngressListener, OutboundMode, SidecarPort};
use crate::object::Resource;

pub(super) fn check(check: &mut Check<'_>, resource: &Resource<Sidecar>) {
    let spec = &resource.spec;
    metadata::workload_selector(check, spec.workload_selector.as_ref());
    let empty = spec.ingress.is_empty()
        && spec.egress.is_empty()
        && spec.outbound_traffic_policy.is_none()
        && spec.inbound_connection_pool.is_none();
    if empty {
        check.error(
            "spec",
            "an empty Sidecar: it needs one of ingress, egress, outboundTrafficPolicy, inboundConnectionPool",
        );
    }
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.ingress.iter().enumerate() {
        let field = format!("spec.ingress[{index}]");
        ingress(check, &field, listener);
        if !ports.insert(listener.port.number) {
            check.error(format!("{field}.port"), format!("the port {} is there a second time", listener.port.number));
        }
    }
    let mut ports = BTreeSet::new();
    for (index, listener) in spec.egress.iter().enumerate() {
        let field = format!("spec.egress[{index}]");
        egress(check, &field, listener);
        match &listener.port {
            None if index + 1 < spec.egress.len() => {
                check.error(field, "the egress listener without port must be the last, and the only one of its kind");
            }
            Some(port) if !ports.insert((port.number, &listener.bind)) => {
                check.error(format!("{field}.port"), format!("the port {} is there a second time", port.number));
            }
            _ => {}
        }
    }
    if let Some(pool) = &spec.inbound_connection_pool {
        destination_rule::connection_pool(check, "spec.inboundConnectionPool", pool);
    }
    if let Some(proxy) = spec.outbound_traffic_policy.as_ref().and_then(|policy| policy.egress_proxy.as_ref()) {
        let field = "spec.outboundTrafficPolicy.egressProxy";
        virtual_service::destination(check, field, proxy);
        if proxy.port.is_none() {
            check.error(format!("{field}.port"), "`port` is required and missing");
        }
        if spec.outbound_traffic_policy.as_ref().is_some_and(|policy| policy.mode != OutboundMode::AllowAny) {
            check.error(field, "`egressProxy` needs the mode ALLOW_ANY");
        }
    }
}

fn port(check: &mut Check<'_>, field: &str, port: &SidecarPort) {
    check.rule(format!("{field}.number"), names::port(port.number));
    if !port.name.is_empty() {
        check.rule(format!("{field}.name"), names::port_name(&port.name));
    }
    if !port.protocol.is_empty() && names::protocol(&port.protocol).is_none() {
        check.error(format!("{field}.protocol"), names::unknown_protocol(&port.protocol));
    }
    if port.target_port.is_some_and(|target| target > 0) {
        check.error(format!("{field}.targetPort"), "`targetPort` has no effect on a Sidecar");
    }
}

fn ingress(check: &mut Check<'_>, field: &str, listener: &IngressListener) {
    port(check, &format!("{field}.port"), &listener.port);
    if !listener.bind.is_empty() {
        check.rule(format!("{field}.bind"), names::ip(&listener.bind));
    }
    if !listener.default_endpoint.is_empty() {
        check.rule(format!("{field}.defaultEndpoint"), default_endpoint(&listener.default_endpoint));
    }
    if listener.capture_mode == CaptureMode::None && listener.default_endpoint.is_empty() {
        check.error(
            format!("{field}.defaultEndpoint"),
            "with `captureMode: NONE` the application is where `defaultEndpoint` says, which is missing",
        );
    }
    if let Some(tls) = &listener.tls {
        ingress_tls(check, field, listener, tls);
    }
    if let Some(pool) = &listener.connection_pool {
        destination_rule::connection_pool(check, &format!("{field}.connectionPool"), pool);
    }
}

/// TLS ends at the port, and by the settings' own word.
fn ingress_tls(check: &mut Check<'_>, field: &str, listener: &IngressListener, tls: &ServerTls) {
    gateway::server_tls(check, &format!("{field}.tls"), tls);
    if tls.https_redirect {
        check.error(format!("{field}.tls.httpsRedirect"), "`httpsRedirect` has no effect on a Sidecar");
    }
    if matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough) {
        let help = "leave `tls` out where the application ends TLS itself";
        check.error_help(format!("{field}.tls.mode"), "the port of a Sidecar cannot pass TLS through", help);
    }
    if names::protocol(&listener.port.protocol) != Some(names::Protocol::Tls) {
        check.error(format!("{field}.tls"), "a port with TLS settings has the protocol HTTPS or TLS");
    }
}

/// The application on this pod: by loopback, by the pod's address (`0.0.0.0`), or by a Unix socket.
fn default_endpoint(text: &str) -> names::Ruling {
    if let Some(path) = text.strip_prefix("unix://") {
        return names::unix_path(path);
    }
    let split = text.rsplit_once(':').map(|(host, port)| (host, port.parse::<u32>()));
    match split {
        Some(("" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]", Ok(number))) => names::port(number),
        _ => Err(format!(
            "`{text}` is not of the form 127.0.0.1:<port>, 0.0.0.0:<port>, [::1]:<port>, [::]:<port> or unix://<path>"
        )),
    }
}

fn egress(check: &mut Check<'_>, field: &str, listener: &EgressListener) {
    match (&listener.port, listener.bind.strip_prefix("unix://")) {
        (Some(port), Some(path)) if port.number == 0 => {
            check.rule(format!("{field}.bind"), names::unix_path(path));
        }
        (Some(found), _) => {
            port(check, &format!("{field}.port"), found);
            if !listener.bind.is_empty() {
                check.rule(format!("{field}.bind"), names::ip(&listener.bind));
            }
        }
        (None, _) => {}
    }
    if listener.hosts.is_empty() {
        check.error(format!("{field}.hosts"), "an egress listener needs at least one host");
    }
    for (index, host) in listener.hosts.iter().enumerate() {
        check.rule(format!("{field}.hosts[{index}]"), gateway::namespaced_host(host, false));
        if listener.hosts[..index].contains(host) {
            check.warn(format!("{field}.hosts[{index}]"), format!("`{host}` is there a second time"));
        }
    }
}
