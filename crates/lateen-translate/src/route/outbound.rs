//! Route tables of a sidecar's outbound side: one per HTTP port, one per service with an undeclared protocol.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::route::v3 as route;
use lateen_mesh::{MESH, Resolution, Service, VirtualService, host};

use crate::names;
use crate::origin;
use crate::route::destination::{Target, labels};
use crate::route::route_match::Asker;
use crate::route::virtual_service::{self, Site};
use crate::route::{catch_all, default_route, table};
use crate::view::View;

/// The port on which a VirtualService may speak of hosts that no service has.
const PLAIN_HTTP: u16 = 80;

/// What a table is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TableName<'a> {
    /// `<port>`: all services with this port.
    Port(u16),
    /// `<host>:<port>`: one service, whatever the request's `Host`.
    Service(&'a str, u16),
}

impl<'a> TableName<'a> {
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        match name.rsplit_once(':') {
            Some((host, port)) => Some(Self::Service(host, port.parse().ok()?)),
            None => Some(Self::Port(name.parse().ok()?)),
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Port(port) | Self::Service(_, port) => port,
        }
    }
}

/// Whether some service that is seen has this table's port, so that listeners may name it.
pub(crate) fn is_of_a_service(view: &View<'_>, name: &str) -> bool {
    match TableName::parse(name) {
        // Names are compared too: `80` and `080` are one port and two names.
        Some(TableName::Port(port)) => {
            port.to_string() == name && view.scope.services().iter().any(|service| service.port(port).is_some())
        }
        Some(TableName::Service(host, port)) => {
            format!("{host}:{port}") == name
                && view.scope.service(host).is_some_and(|service| service.port(port).is_some())
        }
        None => false,
    }
}

/// The table of this name; empty when nothing asks for it.
pub(crate) fn build(view: &View<'_>, name: &str) -> route::RouteConfiguration {
    let Some(wanted) = TableName::parse(name) else { return table(name, Vec::new()) };
    let mut hosts = VirtualHosts::build(view, wanted.port());
    if let TableName::Service(host, _) = wanted {
        // A listener of one service's address: whoever calls there means the service.
        let own = hosts.into_iter().find(|built| built.domains.iter().any(|domain| domain == host));
        let own = own.map(|built| route::VirtualHost { domains: vec!["*".to_owned()], ..built });
        return table(name, own.into_iter().collect());
    }
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts.push(catch_all(view.cluster_for_unknown().as_deref()));
    table(name, hosts)
}

struct VirtualHosts<'a> {
    view: &'a View<'a>,
    port: u16,
    /// Services with this port that may be HTTP, by host; those that a VirtualService speaks for are taken out.
    services: BTreeMap<&'a str, &'a Arc<Service>>,
    /// Full names of all services with this port, which beat short forms of other services.
    known: HashSet<&'a str>,
    taken_domains: HashSet<String>,
    out: Vec<route::VirtualHost>,
}

impl<'a> VirtualHosts<'a> {
    fn build(view: &'a View<'a>, port: u16) -> Vec<route::VirtualHost> {
        let services: BTreeMap<&str, &Arc<Service>> = view
            .scope
            .services()
            .iter()
            .filter(|service| service.port(port).is_some_and(|port| port.protocol.may_be_http()))
            .map(|service| (&*service.host, service))
            .collect();
        let with_port = view.scope.services().iter().filter(|service| service.port(port).is_some());
        let known = with_port.map(|service| &*service.host).collect();
        let mut hosts = Self { view, port, services, known, taken_domains: HashSet::new(), out: Vec::new() };
        for rule in view.scope.virtual_services() {
            hosts.add_rule(rule);
        }
        for service in std::mem::take(&mut hosts.services).into_values() {
            hosts.add_service(service);
        }
        hosts.out
    }

    /// The oldest rule for a host has it; later ones lose it.
    fn add_rule(&mut self, rule: &'a VirtualService) {
        let site = Site {
            view: self.view,
            asker: Asker {
                labels: labels(self.view),
                namespace: &self.view.proxy.workload.namespace,
                gateway: MESH,
                port: self.port,
            },
            tls: false,
        };
        let (services, others) = self.hosts_of(rule);
        // Hosts that the registry does not know count on port 80, elsewhere only beside one that it knows.
        if services.is_empty() && self.port != PLAIN_HTTP {
            return;
        }
        let routes = virtual_service::routes(&site, rule);
        if routes.is_empty() {
            return;
        }
        for host in others {
            self.push(&host, vec![host.clone()], &[], routes.clone(), rule);
        }
        for service in services {
            self.services.remove(&*service.host);
            let (domains, short) = domains(self.view, service);
            self.push(&service.host, domains, &short, routes.clone(), rule);
        }
    }

    /// The services that a rule speaks for, and its hosts that are none.
    fn hosts_of(&self, rule: &VirtualService) -> (Vec<&'a Arc<Service>>, Vec<String>) {
        let mut services: Vec<&'a Arc<Service>> = Vec::new();
        let mut others = Vec::new();
        for own in &rule.hosts {
            if host::is_wildcard(own) {
                let covered: Vec<_> =
                    self.services.values().filter(|service| host::is_subset_of(&service.host, own)).collect();
                if covered.is_empty() {
                    others.push(own.clone());
                }
                services.extend(covered.into_iter().filter(|service| self.is_most_specific(rule, own, service)));
            } else if let Some(service) = self.services.get(own.as_str()) {
                services.push(service);
            } else if !self.known.contains(own.as_str()) {
                others.push(own.clone());
            }
        }
        (services, others)
    }

    /// Of several wildcard rules for a service the most specific counts, whatever their age; an exact one beats all.
    fn is_most_specific(&self, rule: &VirtualService, own: &str, service: &Service) -> bool {
        let better = |other: &str| host::is_subset_of(&service.host, other) && host::by_specificity(other, own).is_lt();
        let others = self.view.scope.virtual_services().iter().filter(|other| other.origin != rule.origin);
        !others.flat_map(|other| &other.hosts).any(|other| better(other))
    }

    /// A service that no rule speaks for.
    fn add_service(&mut self, service: &'a Arc<Service>) {
        if service.resolution == Resolution::Alias {
            return;
        }
        let cluster = names::outbound_cluster(self.port, "", &service.host);
        let target = Target { host: service.host.to_string(), port: self.port, subset: String::new() };
        let hash = target.hash_policy(self.view, true);
        let rule = self.view.scope.destination_rule(&service.host, labels(self.view));
        let mut origins = vec![&service.origin];
        origins.extend(rule.into_iter().flat_map(|rule| &rule.origins));
        let route = default_route(&cluster, hash, &origins);
        let (domains, short) = domains(self.view, service);
        self.add(&service.host, domains, &short, vec![route], &service.origin);
    }

    fn push(
        &mut self,
        host: &str,
        domains: Vec<String>,
        short: &[String],
        routes: Vec<route::Route>,
        rule: &VirtualService,
    ) {
        self.add(host, domains, short, routes, &rule.origin);
    }

    fn add(
        &mut self,
        host: &str,
        mut domains: Vec<String>,
        short: &[String],
        routes: Vec<route::Route>,
        origin: &lateen_mesh::Origin,
    ) {
        let (known, taken) = (&self.known, &mut self.taken_domains);
        domains.retain(|domain| {
            let is_anothers = short.contains(domain) && known.contains(domain.as_str());
            !is_anothers && taken.insert(domain.clone())
        });
        if domains.is_empty() {
            return;
        }
        self.out.push(route::VirtualHost {
            name: format!("{host}:{}", self.port),
            domains,
            routes,
            include_request_attempt_count: true,
            metadata: origin::metadata([origin]),
            ..route::VirtualHost::default()
        });
    }
}

/// The names under which a client may call a service, and which of them are short forms.
fn domains(view: &View<'_>, service: &Service) -> (Vec<String>, Vec<String>) {
    let mut all: Vec<String> = Vec::new();
    let mut short: Vec<String> = Vec::new();
    let aliases = view.scope.services().iter().filter(|alias| alias.alias_of.as_deref() == Some(&*service.host));
    for name in std::iter::once(&service.host).chain(aliases.map(|alias| &alias.host)) {
        all.push(name.to_string());
        short.push(format!("{name}."));
        short.extend(short_forms(view, name));
    }
    all.extend(short.iter().cloned());
    if service.is_headless() {
        let wildcards: Vec<String> = all.iter().map(|domain| format!("*.{domain}")).collect();
        all.extend(wildcards);
    }
    let vip = |ip: std::net::IpAddr| if ip.is_ipv6() { format!("[{ip}]") } else { ip.to_string() };
    all.extend(service.vips().map(vip));
    let mut seen = BTreeSet::new();
    all.retain(|domain| seen.insert(domain.clone()));
    (all, short)
}

/// `name.ns.svc`, `name.ns` and, in the same namespace, `name`.
fn short_forms(view: &View<'_>, name: &str) -> Vec<String> {
    let suffix = format!(".svc.{}", view.mesh.config().domain);
    let Some(qualified) = name.strip_suffix(&suffix) else { return Vec::new() };
    let mut out = vec![format!("{qualified}.svc"), qualified.to_owned()];
    if let Some((service, namespace)) = qualified.split_once('.')
        && namespace == &**view.scope.namespace()
    {
        out.push(service.to_owned());
    }
    out
}
