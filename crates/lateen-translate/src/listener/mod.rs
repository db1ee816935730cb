//! Listeners: of sidecars (outbound by service, inbound by port) and of gateways.

pub(crate) mod gateway;
pub(crate) mod inbound;
pub(crate) mod l4;
pub(crate) mod outbound;

use std::collections::BTreeSet;
use std::sync::Arc;

use lateen_mesh::{Protocol, ProxyKind, Resolution};

use crate::Named;
use crate::cache::{Cache, Input, List};
use crate::telemetry;
use crate::view::View;

/// All listeners of a proxy.
pub(crate) fn all(view: &View<'_>, cache: &Cache) -> Vec<Arc<Named>> {
    if view.proxy.kind == ProxyKind::Gateway {
        let listeners = gateway::listeners(view);
        return listeners.iter().map(|listener| Arc::new(Named::new(&listener.name, listener))).collect();
    }
    let mut out = outbound(view, cache).to_vec();
    out.extend(inbound::listeners(view).iter().map(|listener| Arc::new(Named::new(&listener.name, listener))));
    out
}

/// The outbound listeners are those of all sidecars with the same scope, unless something depends on the proxy itself.
fn outbound(view: &View<'_>, cache: &Cache) -> List {
    let mut inputs: Vec<Input> = vec![Arc::clone(view.scope) as Input, Arc::clone(view.mesh.config()) as Input];
    for service in view.scope.services().iter().filter(|service| service.is_headless()) {
        inputs.push(Arc::clone(view.mesh.endpoints(service)) as Input);
    }
    inputs.extend(telemetry::inputs(view));
    inputs.extend(view.own_settings());
    if l4::depends_on_proxy(view) {
        inputs.push(Arc::clone(&view.proxy.workload) as Input);
    }
    let kind = if view.asks_for_hosts() { "outbound listeners on demand" } else { "outbound listeners" };
    cache.get(kind, "", &inputs, || {
        let listeners = outbound::listeners(view);
        listeners.iter().map(|listener| Arc::new(Named::new(&listener.name, listener))).collect::<Vec<_>>()
    })
}

/// Names of the route tables that the proxy's listeners ask for.
pub(crate) fn route_tables(view: &View<'_>) -> Vec<String> {
    if view.proxy.kind == ProxyKind::Gateway {
        return gateway::served_tables(view);
    }
    let mut out = BTreeSet::new();
    for service in view.scope.services().iter().filter(|service| service.resolution != Resolution::Alias) {
        for port in &service.ports {
            match port.protocol {
                Protocol::Http | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb => {
                    out.insert(port.number.to_string());
                }
                Protocol::Sniffed => {
                    let own_address = service.is_headless() || service.vips().next().is_some();
                    let shared = !own_address || service.vips().count() < service.addresses.len();
                    if own_address {
                        out.insert(format!("{}:{}", service.host, port.number));
                    }
                    if shared {
                        out.insert(port.number.to_string());
                    }
                }
                _ => {}
            }
        }
    }
    let declared = view.scope.egress_listeners().iter().filter_map(|listener| listener.port);
    out.extend(declared.filter(|(_, protocol)| protocol.is_http()).map(|(number, _)| number.to_string()));
    out.into_iter().collect()
}
