//! Where a route sends requests: cluster names, and the hash policy that the cluster's load balancer needs.

use envoy_types::pb::envoy::config::route::v3 as route;
use lateen_api::networking::destination_rule::ConsistentHash;
use lateen_api::networking::virtual_service::Destination;
use lateen_mesh::Labels;
use route::route_action::{HashPolicy, hash_policy};

use crate::names;
use crate::proto::duration;
use crate::view::View;

/// A destination with everything about it settled.
pub(crate) struct Target {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) subset: String,
}

impl Target {
    /// Settles a destination of a rule in `namespace`, on a listener for `listener_port`.
    ///
    /// A port left out is the service's only one, else the listener's. An alias stands for what it names.
    pub(crate) fn of(view: &View<'_>, destination: &Destination, namespace: &str, listener_port: u16) -> Self {
        if destination.host.is_empty() {
            // Of a route of the Gateway API whose backend leads nowhere.
            return Self { host: String::new(), port: listener_port, subset: String::new() };
        }
        let mut host = view.mesh.resolve_host(&destination.host, namespace);
        let service = view.scope.service(&host);
        if let Some(target) = service.and_then(|service| service.alias_of.as_ref()) {
            host = target.to_string();
        }
        let named = destination.port.and_then(|port| u16::try_from(port.number).ok()).filter(|port| *port != 0);
        let only = || {
            view.scope.service(&host).and_then(|service| match service.ports.as_slice() {
                [port] => Some(port.number),
                _ => None,
            })
        };
        let port = named.or_else(only).unwrap_or(listener_port);
        Self { host, port, subset: destination.subset.clone() }
    }

    pub(crate) fn cluster(&self) -> String {
        if self.host.is_empty() {
            return names::UNKNOWN_SERVICE.to_owned();
        }
        names::outbound_cluster(self.port, &self.subset, &self.host)
    }

    /// The hash policy that the destination's rule asks for. `explicit_port`: the route names the port itself, which
    /// is when settings of a port count (Istio).
    pub(crate) fn hash_policy(&self, view: &View<'_>, explicit_port: bool) -> Option<HashPolicy> {
        let rule = view.scope.destination_rule(&self.host, labels(view))?;
        let port = explicit_port.then_some(self.port);
        hash_policy(rule.consistent_hash(&self.subset, port)?)
    }
}

pub(crate) fn labels<'a>(view: &View<'a>) -> &'a Labels {
    &view.proxy.workload.labels
}

/// Envoy's form of a consistent hash's key.
pub(crate) fn hash_policy(hash: &ConsistentHash) -> Option<HashPolicy> {
    use hash_policy::PolicySpecifier;
    let specifier = if let Some(name) = &hash.http_header_name {
        PolicySpecifier::Header(hash_policy::Header { header_name: name.clone(), ..hash_policy::Header::default() })
    } else if let Some(cookie) = &hash.http_cookie {
        PolicySpecifier::Cookie(hash_policy::Cookie {
            name: cookie.name.clone(),
            path: cookie.path.clone(),
            ttl: cookie.ttl.map(|ttl| duration(ttl.0)),
            attributes: cookie
                .attributes
                .iter()
                .map(|attribute| hash_policy::CookieAttribute {
                    name: attribute.name.clone(),
                    value: attribute.value.clone(),
                })
                .collect(),
        })
    } else if let Some(source_ip) = hash.use_source_ip {
        PolicySpecifier::ConnectionProperties(hash_policy::ConnectionProperties { source_ip })
    } else {
        PolicySpecifier::QueryParameter(hash_policy::QueryParameter { name: hash.http_query_parameter_name.clone()? })
    };
    Some(HashPolicy { policy_specifier: Some(specifier), ..HashPolicy::default() })
}
