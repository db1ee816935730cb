//! Routes of a sidecar's inbound side: everything goes to the application behind the port.

use envoy_types::pb::envoy::config::route::v3 as route;
use lateen_mesh::InboundPort;

use crate::origin;
use crate::proto::boolean;
use crate::route::{retry, set_timeout, to_cluster};
use crate::view::View;

/// The inline table of one inbound port; `service_port` is the service's number of it, 0 for undeclared ports.
pub(crate) fn table(
    view: &View<'_>,
    cluster: &str,
    service_port: u16,
    port: Option<&InboundPort>,
) -> route::RouteConfiguration {
    let host = port.and_then(|port| port.service.as_ref()).filter(|_| view.mesh.config().may_trace());
    let decorator = host.map(|service| route::Decorator {
        operation: format!("{}:{service_port}/*", service.host),
        ..route::Decorator::default()
    });
    let grpc = port.is_some_and(|port| port.protocol.is_grpc());
    let metadata = port.and_then(|port| origin::stable(port.origin()));
    let mut action = route::RouteAction {
        cluster_specifier: Some(to_cluster(cluster)),
        // A gRPC server may have seen what was sent before the reset.
        retry_policy: if grpc { None } else { retry::inbound(view.mesh.config()) },
        ..route::RouteAction::default()
    };
    set_timeout(&mut action, None);
    route::RouteConfiguration {
        name: cluster.to_owned(),
        virtual_hosts: vec![route::VirtualHost {
            name: format!("inbound|http|{service_port}"),
            domains: vec!["*".to_owned()],
            routes: vec![route::Route {
                name: "default".to_owned(),
                r#match: Some(crate::route::everything()),
                metadata: metadata.clone(),
                decorator,
                action: Some(route::route::Action::Route(action)),
                ..route::Route::default()
            }],
            metadata,
            ..route::VirtualHost::default()
        }],
        validate_clusters: Some(boolean(false)),
        ..route::RouteConfiguration::default()
    }
}
