//! Route tables of a sidecar's outbound side: one per HTTP port, one per service with an undeclared protocol.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::route::v3 as route;
use lateen_api::networking::destination_rule::TlsMode;
use lateen_mesh::{EgressListener, MESH, Origin, Resolution, Service, VirtualService, host};

use crate::cache::{Cache, Input};
use crate::cluster::dynamic;
use crate::cluster::outbound::policy_of;
use crate::route::decorator::decorate;
use crate::route::destination::{Target, labels};
use crate::route::route_match::{self, Asker};
use crate::route::virtual_service::{self, Site};
use crate::route::{catch_all, default_route, encoded, everything, spliced};
use crate::view::View;
use crate::{Named, names, origin};

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

/// Whether some service that is seen, or a listener of a Sidecar, has this table's port, so that listeners may name it.
pub(crate) fn is_of_a_listener(view: &View<'_>, name: &str) -> bool {
    match TableName::parse(name) {
        // Names are compared too: `80` and `080` are one port and two names.
        Some(TableName::Port(port)) => {
            let declared = |listener: &EgressListener| listener.port.is_some_and(|(number, _)| number == port);
            port.to_string() == name
                && (view.scope.services().iter().any(|service| service.port(port).is_some())
                    || view.scope.egress_listeners().iter().any(declared))
        }
        Some(TableName::Service(host, port)) => {
            format!("{host}:{port}") == name
                && view.scope.service(host).is_some_and(|service| service.port(port).is_some())
        }
        None => false,
    }
}

/// The table of this name; empty when nothing asks for it.
///
/// Each virtual host is made once for all tables that have it; most differ from namespace to namespace in nothing.
pub(crate) fn build(view: &View<'_>, cache: &Cache, name: &str) -> Named {
    let Some(wanted) = TableName::parse(name) else { return spliced(name, &[]) };
    let drafts = Drafts::of(view, wanted);
    if let TableName::Service(host, _) = wanted {
        return spliced(name, own(drafts, host).map(|draft| draft.encode(view, cache)).as_slice());
    }
    let mut hosts: Vec<_> = drafts.iter().map(|draft| draft.encode(view, cache)).collect();
    hosts.sort_by(|a, b| a.name.cmp(&b.name));
    hosts.push(encoded(&catch_all(view.cluster_for_unknown_hosts(wanted.port()).as_deref(), view.tells_attempts())));
    spliced(name, &hosts)
}

/// Of the table of one service: the virtual host for all requests.
pub(crate) fn virtual_host(view: &View<'_>, host: &str, port: u16) -> Option<route::VirtualHost> {
    own(Drafts::of(view, TableName::Service(host, port)), host).map(|draft| draft.build(view))
}

/// A listener of one service's address: whoever calls there means the service.
fn own<'a>(drafts: Vec<Draft<'a>>, host: &str) -> Option<Draft<'a>> {
    let own = drafts.into_iter().find(|draft| draft.domains.iter().any(|domain| domain == host));
    own.map(|draft| Draft { domains: vec!["*".to_owned()], ..draft })
}

/// All virtual hosts that the table of a port could have.
pub(crate) fn drafts<'a>(view: &'a View<'a>, port: u16) -> Vec<Draft<'a>> {
    Drafts::of(view, TableName::Port(port))
}

/// A virtual host in the making.
pub(crate) struct Draft<'a> {
    host: String,
    port: u16,
    pub(crate) domains: Vec<String>,
    source: Source<'a>,
}

/// What a virtual host is for.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    Rule(&'a Arc<VirtualService>),
    /// A service that no rule speaks for.
    Service(&'a Arc<Service>),
}

impl Draft<'_> {
    fn encode(&self, view: &View<'_>, cache: &Cache) -> Arc<Named> {
        let mut name = format!("{}:{} {}", self.host, self.port, self.domains.join(" "));
        let mut inputs: Vec<Input> = vec![Arc::clone(view.mesh.config()) as Input];
        inputs.extend(view.own_settings());
        match self.source {
            Source::Service(service) => {
                inputs.push(Arc::clone(service) as Input);
                inputs.extend(seen_rule(view, &service.host));
            }
            Source::Rule(rule) => {
                inputs.push(Arc::clone(rule) as Input);
                for host in rule.destinations(&view.mesh.config().domain) {
                    inputs.extend(seen_destination(view, &host));
                }
                if rule.depends_on_namespace() {
                    name.push_str(" from ");
                    name.push_str(view.scope.namespace());
                }
                if rule.depends_on_labels() {
                    inputs.push(Arc::clone(&view.proxy.workload) as Input);
                }
            }
        }
        if self.service(view).is_some_and(|service| service.access.is_some()) {
            inputs.push(Arc::clone(&view.proxy.workload) as Input);
        }
        let made = cache.get("virtual host", &name, &inputs, || [encoded(&self.build(view))]);
        Arc::clone(&made[0])
    }

    /// The service that it is for, if there is one.
    fn service<'v>(&'v self, view: &'v View<'_>) -> Option<&'v Arc<Service>> {
        match self.source {
            Source::Service(service) => Some(service),
            Source::Rule(_) => view.scope.service(&self.host),
        }
    }

    pub(crate) fn build(&self, view: &View<'_>) -> route::VirtualHost {
        let refused = self.service(view).filter(|service| !view.may_call(service));
        let (routes, origin) = match (refused, self.source) {
            (Some(service), _) => (vec![denied(&service.origin)], &service.origin),
            (None, Source::Rule(rule)) => (virtual_service::routes(&site(view, self.port), rule), &rule.origin),
            (None, Source::Service(service)) => (vec![route_to(view, service, self.port)], &service.origin),
        };
        route::VirtualHost {
            name: format!("{}:{}", self.host, self.port),
            domains: self.domains.clone(),
            routes,
            include_request_attempt_count: view.tells_attempts(),
            metadata: origin::metadata([origin]),
            ..route::VirtualHost::default()
        }
    }
}

/// The answer to workloads that may not call the service, in the words of a server's own policy.
fn denied(origin: &Origin) -> route::Route {
    let body = core::DataSource {
        specifier: Some(core::data_source::Specifier::InlineString("RBAC: access denied".to_owned())),
        ..core::DataSource::default()
    };
    let refusal = route::DirectResponseAction { status: 403, body: Some(body), ..Default::default() };
    route::Route {
        name: "egress-denied".to_owned(),
        r#match: Some(everything()),
        metadata: origin::metadata([origin]),
        action: Some(route::route::Action::DirectResponse(refusal)),
        ..route::Route::default()
    }
}

/// What a route to this host depends on: its service, what that may stand for, and their rules.
fn seen_destination(view: &View<'_>, host: &str) -> Vec<Input> {
    let service = view.scope.service(host);
    let target = service.and_then(|service| service.alias_of.as_deref());
    let mut inputs: Vec<Input> = Vec::new();
    for host in [Some(host), target].into_iter().flatten() {
        inputs.extend(view.scope.service(host).map(|service| Arc::clone(service) as Input));
        inputs.extend(seen_rule(view, host));
    }
    inputs
}

fn seen_rule(view: &View<'_>, host: &str) -> Option<Input> {
    view.scope.destination_rule(host, labels(view)).map(|rule| Arc::clone(rule) as Input)
}

fn site<'a>(view: &'a View<'a>, port: u16) -> Site<'a> {
    let asker = Asker { labels: labels(view), namespace: view.scope.namespace(), gateway: MESH, port };
    Site { view, asker, tls: false }
}

/// The route to a service that no rule speaks for.
fn route_to(view: &View<'_>, service: &Service, port: u16) -> route::Route {
    let cluster = names::outbound_cluster(port, "", &service.host);
    let target = Target { host: service.host.to_string(), port, subset: String::new() };
    let hash = target.hash_policy(view, true);
    let rule = view.scope.destination_rule(&service.host, labels(view));
    let mut origins = vec![&service.origin];
    origins.extend(rule.into_iter().flat_map(|rule| &rule.origins));
    let mut route = default_route(view.mesh.config(), &cluster, hash, &origins);
    decorate(view, &mut route, "", port);
    if dynamic::is_dynamic(service) {
        let tls = policy_of(view, rule.map(|rule| &**rule), "", port).tls;
        let is_secure = tls.is_some_and(|tls| tls.mode != TlsMode::Disable);
        route.r#match.get_or_insert_default().headers.push(route_match::on_port(port, is_secure));
    }
    route
}

/// Who gets a virtual host, and under which names.
struct Drafts<'a> {
    view: &'a View<'a>,
    port: u16,
    /// Services with this port that may be HTTP, by host; those that a VirtualService speaks for are taken out.
    services: BTreeMap<&'a str, &'a Arc<Service>>,
    taken_domains: HashSet<String>,
    out: Vec<Draft<'a>>,
}

impl<'a> Drafts<'a> {
    fn of(view: &'a View<'a>, wanted: TableName<'_>) -> Vec<Draft<'a>> {
        let port = wanted.port();
        let may_be_http = |service: &&Arc<Service>| {
            service.port(port).is_some_and(|port| port.protocol.may_be_http()) && view.scope.is_called_on(service, port)
        };
        let services: BTreeMap<&str, &Arc<Service>> = match wanted {
            TableName::Port(_) => {
                view.scope.services().iter().filter(may_be_http).map(|service| (&*service.host, service)).collect()
            }
            // No other's virtual host could have its name.
            TableName::Service(host, _) => {
                let own = view.scope.service(host);
                let target = own.and_then(|own| view.scope.service(own.alias_of.as_deref()?));
                own.into_iter().chain(target).filter(may_be_http).map(|service| (&*service.host, service)).collect()
            }
        };
        let mut drafts = Self { view, port, services, taken_domains: HashSet::new(), out: Vec::new() };
        for rule in view.scope.virtual_services() {
            drafts.add_rule(rule);
        }
        for service in std::mem::take(&mut drafts.services).into_values() {
            if service.resolution != Resolution::Alias {
                drafts.add_service(service, Source::Service(service));
            }
        }
        drafts.out
    }

    /// Whether this is the full name of a service with this port, which beats short forms of other services.
    fn is_known(&self, host: &str) -> bool {
        self.view.scope.service(host).is_some_and(|service| service.port(self.port).is_some())
    }

    /// The oldest rule for a host has it; later ones lose it.
    fn add_rule(&mut self, rule: &'a Arc<VirtualService>) {
        let (services, others) = self.hosts_of(rule);
        // Hosts that the registry does not know count on port 80, elsewhere only beside one that it knows.
        if services.is_empty() && self.port != PLAIN_HTTP {
            return;
        }
        if !virtual_service::has_routes(&site(self.view, self.port), rule) {
            return;
        }
        for host in others {
            self.add(&host, vec![host.clone()], &[], Source::Rule(rule));
        }
        for service in services {
            self.services.remove(&*service.host);
            self.add_service(service, Source::Rule(rule));
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
            } else if !self.is_known(own) {
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

    fn add_service(&mut self, service: &'a Service, source: Source<'a>) {
        let (domains, short) = domains(self.view, service);
        self.add(&service.host, domains, &short, source);
    }

    fn add(&mut self, host: &str, mut domains: Vec<String>, short: &[String], source: Source<'a>) {
        domains.retain(|domain| {
            let is_anothers = short.contains(domain) && self.is_known(domain);
            !is_anothers && self.taken_domains.insert(domain.clone())
        });
        if !domains.is_empty() {
            self.out.push(Draft { host: host.to_owned(), port: self.port, domains, source });
        }
    }
}

/// The names under which a client may call a service, and which of them are short forms.
fn domains(view: &View<'_>, service: &Service) -> (Vec<String>, Vec<String>) {
    let mut all: Vec<String> = Vec::new();
    let mut short: Vec<String> = Vec::new();
    let aliases = view.scope.aliases_of(&service.host);
    for name in std::iter::once(&service.host).chain(aliases.iter().map(|alias| &alias.host)) {
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
