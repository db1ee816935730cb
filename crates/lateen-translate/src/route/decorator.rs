//! What spans of a route's requests are called: where it leads, and by which path (Istio's `GetRouteOperation`).

use envoy_types::pb::envoy::config::route::v3 as route;
use route::route_action::ClusterSpecifier;
use route::route_match::PathSpecifier;

use crate::names::OutboundCluster;
use crate::view::View;

/// Names a route, where any proxy may trace: `host:port/path*` of the only destination, else of the rule.
pub(crate) fn decorate(view: &View<'_>, route: &mut route::Route, rule: &str, port: u16) {
    if !view.mesh.config().may_trace() {
        return;
    }
    let path = match route.r#match.as_ref().and_then(|conditions| conditions.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(PathSpecifier::Path(path)) => path.clone(),
        Some(PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".to_owned(),
    };
    let only = match &route.action {
        Some(route::route::Action::Route(action)) => match &action.cluster_specifier {
            Some(ClusterSpecifier::Cluster(name)) => OutboundCluster::parse(name),
            _ => None,
        },
        _ => None,
    };
    let operation = match only {
        Some(cluster) => format!("{}:{}{path}", cluster.host, cluster.port),
        None => format!("{rule}:{port}{path}"),
    };
    route.decorator = Some(route::Decorator { operation, ..route::Decorator::default() });
}
