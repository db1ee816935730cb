//! Route tables of a gateway proxy: the VirtualServices bound to its servers, merged by host.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3 as route;
use lateen_mesh::{GatewayServer, Origin, VirtualService, gateway_name};
use route::virtual_host::TlsRequirementType;

use crate::origin;
use crate::route::destination::labels;
use crate::route::route_match::{self, Asker};
use crate::route::table;
use crate::route::virtual_service::{self, Site};
use crate::view::View;

/// A virtual host in the making.
#[derive(Default)]
struct Host {
    routes: Vec<route::Route>,
    https_only: bool,
    origins: Vec<Origin>,
}

/// The table of this name; empty when no server asks for it (any more).
pub(crate) fn build(view: &View<'_>, name: &str) -> route::RouteConfiguration {
    let merged = view.mesh.gateway_of(&view.proxy.workload);
    let Some(servers) = merged.route_tables.get(name) else { return table(name, Vec::new()) };
    let port = servers.first().map_or(0, |server| server.server_port);
    let mut hosts: BTreeMap<String, Host> = BTreeMap::new();
    for server in servers {
        add_server(view, server, &mut hosts);
    }
    if hosts.is_empty() {
        // Servers without any rule: 404 for everybody.
        hosts.insert("*".to_owned(), Host::default());
    }
    let virtual_hosts = hosts.into_iter().map(|(host, built)| virtual_host(view, host, port, built)).collect();
    table(name, virtual_hosts)
}

fn add_server(view: &View<'_>, server: &GatewayServer, hosts: &mut BTreeMap<String, Host>) {
    for rule in view.mesh.virtual_services_of_gateway(&server.gateway, &view.proxy.workload.namespace) {
        let common = server.common_hosts(&rule.hosts, &rule.namespace);
        if common.is_empty() {
            continue;
        }
        let routes = routes(view, server, &rule);
        if routes.is_empty() {
            continue;
        }
        for host in common {
            let built = hosts.entry(host).or_default();
            // The routes of all rules for a host, oldest rule first.
            built.routes.extend(routes.iter().cloned());
            built.https_only |= server.redirects_to_https();
            built.origins.push(rule.origin.clone());
        }
    }
    if server.redirects_to_https() {
        for host in server.host_names() {
            let built = hosts.entry(host).or_default();
            built.https_only = true;
            built.origins.push(server.origin.clone());
        }
    }
}

fn routes(view: &View<'_>, server: &GatewayServer, rule: &VirtualService) -> Vec<route::Route> {
    debug_assert_eq!(gateway_name(&server.gateway, ""), server.gateway, "gateway names are full");
    let site = Site {
        view,
        asker: Asker {
            labels: labels(view),
            namespace: &view.proxy.workload.namespace,
            gateway: &server.gateway,
            port: server.server_port,
        },
        tls: server.is_tls(),
    };
    virtual_service::routes(&site, rule)
}

/// Routes that take every request come last; the others keep their order.
fn virtual_host(view: &View<'_>, host: String, port: u16, mut built: Host) -> route::VirtualHost {
    built.routes.sort_by_key(|route| route.r#match.as_ref().is_some_and(route_match::is_catch_all));
    built.origins.sort();
    built.origins.dedup();
    let require_tls = if built.https_only { TlsRequirementType::All } else { TlsRequirementType::None };
    route::VirtualHost {
        name: format!("{host}:{port}"),
        domains: vec![host],
        routes: built.routes,
        require_tls: require_tls as i32,
        include_request_attempt_count: view.tells_attempts(),
        metadata: origin::metadata(&built.origins),
        ..route::VirtualHost::default()
    }
}
