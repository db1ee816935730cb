//! Ports of Services that do not say their protocol.

use serde_json::Value;

use crate::document::{items, scalar, text};
use crate::report::Report;
use crate::world::{CORE, World, is_control_plane};

/// What a port's name may begin with, or appProtocol say.
const PROTOCOLS: [&str; 11] =
    ["tcp", "udp", "grpc", "grpc-web", "http", "http_proxy", "http2", "https", "tls", "mongo", "redis"];
/// appProtocols that Kubernetes has names for.
const APP_PROTOCOLS: [&str; 3] = ["kubernetes.io/h2c", "kubernetes.io/ws", "kubernetes.io/wss"];
/// Ports of servers that speak first, which count as TCP whatever they say: SMTP, DNS, MySQL, MongoDB.
const WELL_KNOWN: [u64; 4] = [25, 53, 3306, 27017];
/// Values of the label on what is made for Kubernetes Gateways.
const GATEWAY_CONTROLLERS: [&str; 3] =
    ["istio.io-gateway-controller", "istio.io-mesh-controller", "istio.io-eastwest-controller"];

pub(super) fn check(world: &World, report: &mut Report) {
    for service in world.each(CORE, "Service").filter(|service| !is_control_plane(service)) {
        let managed = service.labels.get("gateway.istio.io/managed").map_or("", String::as_str);
        if GATEWAY_CONTROLLERS.contains(&managed) {
            continue;
        }
        let is_external = text(&service.spec()["type"]) == "ExternalName";
        for (index, port) in items(&service.spec()["ports"]).iter().enumerate() {
            let name = text(&port["name"]);
            let field = format!("spec.ports[{index}]");
            let number = &port["port"];
            if is_external && (!says_protocol(port) || name == "tcp") {
                let message = format!("port {number} counts as plain TCP: it takes all traffic to that port");
                report.add(service, "IST0150", &field, message);
            } else if !says_protocol(port) {
                let message = format!(
                    "port {number} (name `{name}`, targetPort `{}`) does not say its protocol",
                    scalar(&port["targetPort"])
                );
                report.add(service, "IST0118", &field, message);
            }
        }
    }
}

fn says_protocol(port: &Value) -> bool {
    if text(&port["protocol"]) == "UDP" {
        return true;
    }
    let declared = port["appProtocol"].as_str();
    if declared.is_some_and(|declared| APP_PROTOCOLS.contains(&declared)) {
        return true;
    }
    let name = declared.unwrap_or_else(|| text(&port["name"])).to_ascii_lowercase();
    let first = name.split('-').next().unwrap_or_default();
    name.starts_with("grpc-web")
        || PROTOCOLS.contains(&first)
        || first == "mysql"
        || port["port"].as_u64().is_some_and(|number| WELL_KNOWN.contains(&number))
}
