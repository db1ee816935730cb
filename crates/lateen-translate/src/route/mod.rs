//! Route tables: which request goes to which cluster.

pub(crate) mod decorator;
pub(crate) mod destination;
pub(crate) mod gateway;
pub(crate) mod headers;
pub(crate) mod inbound;
pub(crate) mod on_demand;
pub(crate) mod outbound;
pub(crate) mod retry;
pub(crate) mod route_match;
pub(crate) mod virtual_service;

use std::sync::Arc;
use std::time::Duration;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf;
use lateen_mesh::{MeshConfig, Origin, ProxyKind};

use crate::Named;
use crate::cache::{Cache, Input};
use crate::proto::{boolean, duration, no_timeout, uint32};
use crate::route::outbound::TableName;
use crate::view::View;
use crate::{origin, type_url, wire};

/// Answers of up to this many bytes can be written into a route (`directResponse`).
const MAX_DIRECT_RESPONSE: u32 = 1024 * 1024;

/// The route table of this name, for this proxy.
pub(crate) fn by_name(view: &View<'_>, cache: &Cache, name: &str) -> Option<Arc<Named>> {
    if view.proxy.kind == ProxyKind::Gateway {
        let table = gateway::build(view, name);
        let is_gone = table.virtual_hosts.is_empty();
        return Some(Arc::new(if is_gone { Named::standing_in(name, &table) } else { Named::new(name, &table) }));
    }
    if view.asks_for_hosts() && matches!(TableName::parse(name), Some(TableName::Port(_))) {
        return Some(Arc::new(on_demand::empty_table(name)));
    }
    let make = || [Arc::new(outbound::build(view, cache, name))];
    if !outbound::is_of_a_listener(view, name) {
        // Nobody else asks for it: whoever makes names up shall not fill the cache with them.
        return make().into_iter().next();
    }
    // Sidecars with the same scope share their tables, unless a rule looks at the client's labels.
    let mut inputs: Vec<Input> = vec![Arc::clone(view.scope) as Input, Arc::clone(view.mesh.config()) as Input];
    if view.scope.depends_on_labels() {
        inputs.push(Arc::clone(&view.proxy.workload) as Input);
    }
    inputs.extend(view.own_settings());
    cache.get("outbound routes", name, &inputs, make).first().cloned()
}

/// Matches every request.
pub(crate) fn everything() -> route::RouteMatch {
    route::RouteMatch {
        path_specifier: Some(route::route_match::PathSpecifier::Prefix("/".to_owned())),
        ..route::RouteMatch::default()
    }
}

pub(crate) fn to_cluster(name: &str) -> route::route_action::ClusterSpecifier {
    route::route_action::ClusterSpecifier::Cluster(name.to_owned())
}

/// Sets a route's timeout: none by default (not Envoy's 15 s). A `grpc-timeout` header counts, capped by the timeout.
pub(crate) fn set_timeout(action: &mut route::RouteAction, timeout: Option<Duration>) {
    let timeout: protobuf::Duration = timeout.map_or_else(no_timeout, duration);
    action.timeout = Some(timeout);
    #[expect(deprecated, reason = "Istio's proxies honour this field and treat its replacement differently")]
    {
        action.max_grpc_timeout = Some(timeout);
    }
}

/// The route of a service that no VirtualService speaks for.
pub(crate) fn default_route(
    config: &MeshConfig,
    cluster: &str,
    hash: Option<route::route_action::HashPolicy>,
    origins: &[&Origin],
) -> route::Route {
    let mut action = route::RouteAction {
        cluster_specifier: Some(to_cluster(cluster)),
        retry_policy: retry::policy(config, None, false),
        hash_policy: hash.into_iter().collect(),
        ..route::RouteAction::default()
    };
    set_timeout(&mut action, None);
    route::Route {
        name: "default".to_owned(),
        r#match: Some(everything()),
        metadata: origin::metadata(origins.iter().copied()),
        action: Some(route::route::Action::Route(action)),
        ..route::Route::default()
    }
}

/// A table with what all tables have in common.
pub(crate) fn table(name: &str, virtual_hosts: Vec<route::VirtualHost>) -> route::RouteConfiguration {
    route::RouteConfiguration {
        name: name.to_owned(),
        virtual_hosts,
        // A route may name a cluster that does not exist (yet): 503 with flag NC, not a refused table.
        validate_clusters: Some(boolean(false)),
        max_direct_response_body_size_bytes: Some(uint32(MAX_DIRECT_RESPONSE)),
        ignore_port_in_host_matching: true,
        ..route::RouteConfiguration::default()
    }
}

/// Number of the field `virtual_hosts` of a table.
const VIRTUAL_HOSTS: u32 = 2;

/// A virtual host, encoded as a field of its table.
pub(crate) fn encoded(host: &route::VirtualHost) -> Arc<Named> {
    let mut field = Vec::new();
    wire::put_message(VIRTUAL_HOSTS, &wire::encode(host), &mut field);
    Arc::new(Named::of_pieces(&host.name, type_url::VIRTUAL_HOST, Box::new([field.into()])))
}

/// A table of virtual hosts that are encoded already: the bytes of [`table`], without decoding or copying a host.
pub(crate) fn spliced(name: &str, hosts: &[Arc<Named>]) -> Named {
    let name_alone = route::RouteConfiguration { name: name.to_owned(), ..route::RouteConfiguration::default() };
    // Fields stand in the order of their numbers: the name, the hosts, and the rest.
    let pieces = std::iter::once(wire::encode(&name_alone).into())
        .chain(hosts.iter().flat_map(|host| host.pieces.iter().cloned()))
        .chain([wire::encode(&table("", Vec::new())).into()]);
    Named::of_pieces(name, type_url::ROUTE, pieces.collect())
}

/// The last virtual host of a sidecar's table: unknown hosts go to this cluster, or get 502.
pub(crate) fn catch_all(cluster: Option<&str>, tells_attempts: bool) -> route::VirtualHost {
    let (name, action) = if let Some(cluster) = cluster {
        let mut action =
            route::RouteAction { cluster_specifier: Some(to_cluster(cluster)), ..route::RouteAction::default() };
        set_timeout(&mut action, None);
        ("allow_any", route::route::Action::Route(action))
    } else {
        let refused = route::DirectResponseAction { status: 502, ..route::DirectResponseAction::default() };
        ("block_all", route::route::Action::DirectResponse(refused))
    };
    route::VirtualHost {
        name: name.to_owned(),
        domains: vec!["*".to_owned()],
        routes: vec![route::Route {
            name: name.to_owned(),
            r#match: Some(everything()),
            action: Some(action),
            ..route::Route::default()
        }],
        include_request_attempt_count: tells_attempts,
        ..route::VirtualHost::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spliced_table_has_the_bytes_of_the_whole() {
        let hosts = [catch_all(Some("some"), true), catch_all(None, false)];
        let encoded = hosts.each_ref().map(encoded);
        for count in 0..=2 {
            let whole = Named::new("80", &table("80", hosts[..count].to_vec()));
            let spliced = spliced("80", &encoded[..count]);
            assert_eq!((spliced.to_any(), spliced.version), (whole.to_any(), whole.version));
        }
    }
}
