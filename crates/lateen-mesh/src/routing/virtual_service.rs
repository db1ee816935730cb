//! VirtualServices with their names resolved and their delegates put in.

use std::collections::HashMap;
use std::sync::Arc;

use lateen_api::Resource;
use lateen_api::networking::VirtualService as Spec;
use lateen_api::networking::virtual_service::{HttpMatch, HttpRoute, TcpRoute, TlsRoute};

use crate::config::MeshConfig;
use crate::gateway_api::GatewayApi;
use crate::host;
use crate::origin::Origin;
use crate::precedence::Age;
use crate::routing::gateway::gateway_name;
use crate::visibility::ExportTo;

/// The reserved gateway name: all sidecars.
pub const MESH: &str = "mesh";

/// One HTTP rule.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpRule {
    pub route: HttpRoute,
    /// Namespace that short names in the rule belong to (a delegate's own).
    pub namespace: Arc<str>,
    /// At the line of the rule.
    pub origin: Origin,
}

/// A VirtualService, ready to be looked up.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualService {
    pub name: Arc<str>,
    pub namespace: Arc<str>,
    /// Full names, lower case.
    pub hosts: Vec<String>,
    /// `mesh` or `<namespace>/<name>`.
    pub gateways: Vec<String>,
    pub http: Vec<HttpRule>,
    pub tls: Vec<TlsRoute>,
    pub tcp: Vec<TcpRoute>,
    pub export_to: ExportTo,
    pub semantics: Semantics,
    pub age: Age,
    pub origin: Origin,
}

/// By whose rules its routes are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Semantics {
    Istio,
    /// Prefixes are of whole path segments, and what leads nowhere is answered with 500.
    GatewayApi,
}

impl VirtualService {
    pub fn is_on_mesh(&self) -> bool {
        self.gateways.iter().any(|gateway| gateway == MESH)
    }

    /// Whether one of its hosts is, or covers, this host.
    pub fn speaks_for(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| host::is_subset_of(host, own))
    }

    /// Whether some namespace sees both.
    pub(crate) fn meets(&self, other: &Self) -> bool {
        self.export_to.meets(&self.namespace, &other.export_to, &other.namespace)
    }

    /// Whether what it does depends on who asks, beyond the namespace.
    pub fn depends_on_labels(&self) -> bool {
        self.http.iter().flat_map(|rule| &rule.route.matches).any(|conditions| !conditions.source_labels.is_empty())
            || self.tls.iter().flat_map(|rule| &rule.matches).any(|conditions| !conditions.source_labels.is_empty())
            || self.tcp.iter().flat_map(|rule| &rule.matches).any(|conditions| !conditions.source_labels.is_empty())
    }

    /// Whether what it does to HTTP depends on the namespace of who asks.
    pub fn depends_on_namespace(&self) -> bool {
        let matches = self.http.iter().flat_map(|rule| &rule.route.matches);
        matches.into_iter().any(|conditions| !conditions.source_namespace.is_empty())
    }

    /// Full names of the hosts that it sends traffic to.
    pub fn destinations<'a>(&'a self, domain: &'a str) -> impl Iterator<Item = String> + 'a {
        let http = self.http.iter().flat_map(move |rule| {
            let routes = rule.route.route.iter().map(|destination| &destination.destination);
            let mirrors = rule.route.mirrors.iter().map(|mirror| &mirror.destination);
            routes
                .chain(&rule.route.mirror)
                .chain(mirrors)
                .map(move |destination| host::resolve(&destination.host, &rule.namespace, domain))
        });
        let tls = self.tls.iter().flat_map(|rule| &rule.route);
        let tcp = self.tcp.iter().flat_map(|rule| &rule.route);
        let layer4 = tls
            .chain(tcp)
            .map(move |destination| host::resolve(&destination.destination.host, &self.namespace, domain));
        // A backend of the Gateway API that leads nowhere has no host.
        let is_somewhere = |host: &String| !host.starts_with('.');
        http.chain(layer4).filter(is_somewhere)
    }
}

/// Has no hosts of its own: rules for others to delegate to.
pub(crate) fn is_delegate(spec: &Spec) -> bool {
    spec.hosts.is_empty()
}

/// All VirtualServices, oldest first. Delegates (those without hosts) are merged into their roots and do not appear.
pub(crate) fn read(
    resources: &[Arc<Resource<Spec>>],
    config: &MeshConfig,
    gateway_api: &GatewayApi,
) -> Vec<VirtualService> {
    let delegates: HashMap<(&str, &str), &Resource<Spec>> = resources
        .iter()
        .filter(|resource| is_delegate(&resource.spec))
        .map(|resource| ((resource.namespace(), resource.name()), &**resource))
        .collect();
    let mut out: Vec<_> = resources
        .iter()
        .filter(|resource| !is_delegate(&resource.spec))
        .map(|resource| resolve(resource, &delegates, config, gateway_api))
        .collect();
    out.sort_by(|a, b| a.age.cmp(&b.age));
    out
}

fn resolve(
    resource: &Resource<Spec>,
    delegates: &HashMap<(&str, &str), &Resource<Spec>>,
    config: &MeshConfig,
    gateway_api: &GatewayApi,
) -> VirtualService {
    let namespace = resource.namespace();
    let spec = &resource.spec;
    let gateways = if spec.gateways.is_empty() {
        vec![MESH.to_owned()]
    } else {
        spec.gateways.iter().map(|gateway| gateway_name(gateway, namespace)).collect()
    };
    let is_of_gateway_api = resource
        .made_of
        .as_ref()
        .is_some_and(|made_of| made_of.objects.first().is_some_and(|written| written.key.kind.is_gateway_api()));
    let own_only = [".".to_owned()];
    let is_consumer = is_of_gateway_api && gateway_api.is_consumer(namespace, resource.name());
    let export_to = if is_consumer { &own_only[..] } else { &spec.export_to };
    VirtualService {
        name: resource.name().into(),
        namespace: namespace.into(),
        hosts: spec.hosts.iter().map(|host| host::resolve(host, namespace, &config.domain)).collect(),
        gateways,
        http: http_rules(resource, delegates, config),
        tls: spec.tls.clone(),
        tcp: spec.tcp.clone(),
        export_to: ExportTo::parse(export_to, &config.default_virtual_service_export_to),
        semantics: if is_of_gateway_api { Semantics::GatewayApi } else { Semantics::Istio },
        age: Age::new(resource.age, resource.name(), namespace),
        origin: Origin::of(resource),
    }
}

fn http_rules(
    resource: &Resource<Spec>,
    delegates: &HashMap<(&str, &str), &Resource<Spec>>,
    config: &MeshConfig,
) -> Vec<HttpRule> {
    let mut out = Vec::new();
    for (at, route) in resource.spec.http.iter().enumerate() {
        let origin = Origin::of_field(resource, &format!("spec.http[{at}]"));
        let Some(delegate) = &route.delegate else {
            out.push(HttpRule { route: route.clone(), namespace: resource.namespace().into(), origin });
            continue;
        };
        let namespace = if delegate.namespace.is_empty() { resource.namespace() } else { delegate.namespace.as_str() };
        // A delegate that is missing, or that is not meant for this namespace, routes nothing.
        let Some(target) = delegates.get(&(namespace, delegate.name.as_str())) else { continue };
        let export_to = ExportTo::parse(&target.spec.export_to, &config.default_virtual_service_export_to);
        if export_to.reaches(namespace, resource.namespace()) {
            out.extend(delegated(route, target));
        }
    }
    out
}

/// The rules of a delegate under one rule of its root.
fn delegated(root: &HttpRoute, target: &Resource<Spec>) -> Vec<HttpRule> {
    let mut out = Vec::new();
    for (at, route) in target.spec.http.iter().enumerate() {
        // One level only: a delegate of a delegate does not count.
        if route.delegate.is_some() {
            continue;
        }
        let Some(matches) = merge_matches(&root.matches, &route.matches) else { continue };
        let route = HttpRoute { matches, delegate: None, ..inherit(root, route) };
        let origin = Origin::of_field(target, &format!("spec.http[{at}]"));
        out.push(HttpRule { route, namespace: target.namespace().into(), origin });
    }
    out
}

/// The delegate's fields win, the root's fill the gaps; names are joined.
fn inherit(root: &HttpRoute, delegate: &HttpRoute) -> HttpRoute {
    let name = match (root.name.as_str(), delegate.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (root, own) => format!("{root}-{own}"),
    };
    HttpRoute {
        name,
        rewrite: delegate.rewrite.clone().or_else(|| root.rewrite.clone()),
        direct_response: delegate.direct_response.clone().or_else(|| root.direct_response.clone()),
        timeout: delegate.timeout.or(root.timeout),
        retries: delegate.retries.clone().or_else(|| root.retries.clone()),
        fault: delegate.fault.clone().or_else(|| root.fault.clone()),
        mirror: delegate.mirror.clone().or_else(|| root.mirror.clone()),
        mirror_percent: delegate.mirror_percent.or(root.mirror_percent),
        mirror_percentage: delegate.mirror_percentage.or(root.mirror_percentage),
        mirrors: if delegate.mirrors.is_empty() { root.mirrors.clone() } else { delegate.mirrors.clone() },
        cors_policy: delegate.cors_policy.clone().or_else(|| root.cors_policy.clone()),
        headers: delegate.headers.clone().or_else(|| root.headers.clone()),
        ..delegate.clone()
    }
}

/// Each delegate match joined with each root match. `None` when some delegate match contradicts all root matches: the
/// rule is then dropped.
fn merge_matches(root: &[HttpMatch], delegate: &[HttpMatch]) -> Option<Vec<HttpMatch>> {
    if root.is_empty() {
        return Some(delegate.to_vec());
    }
    if delegate.is_empty() {
        return Some(root.to_vec());
    }
    let mut out = Vec::new();
    for own in delegate {
        let merged: Vec<_> = root.iter().filter_map(|outer| join(outer, own)).collect();
        if merged.is_empty() {
            return None;
        }
        out.extend(merged);
    }
    Some(out)
}

/// Both conditions at once; `None` when both set the same thing, which one match cannot say.
fn join(root: &HttpMatch, delegate: &HttpMatch) -> Option<HttpMatch> {
    let uri = join_uri(root, delegate)?;
    let both = |a: bool, b: bool| a && b;
    let conflict = both(root.scheme.is_some(), delegate.scheme.is_some() && root.scheme != delegate.scheme)
        || both(root.method.is_some(), delegate.method.is_some() && root.method != delegate.method)
        || both(root.authority.is_some(), delegate.authority.is_some() && root.authority != delegate.authority)
        || both(root.port.is_some(), delegate.port.is_some() && root.port != delegate.port)
        || clash(&root.headers, &delegate.headers)
        || clash(&root.without_headers, &delegate.without_headers)
        || clash(&root.query_params, &delegate.query_params)
        || clash(&root.source_labels, &delegate.source_labels)
        || both(
            !root.source_namespace.is_empty(),
            !delegate.source_namespace.is_empty() && root.source_namespace != delegate.source_namespace,
        );
    if conflict {
        return None;
    }
    let name = match (root.name.as_str(), delegate.name.as_str()) {
        ("", name) | (name, "") => name.to_owned(),
        (outer, own) => format!("{outer}-{own}"),
    };
    let mut out = delegate.clone();
    out.name = name;
    out.uri = uri;
    out.ignore_uri_case |= root.ignore_uri_case;
    out.scheme = out.scheme.or_else(|| root.scheme.clone());
    out.method = out.method.or_else(|| root.method.clone());
    out.authority = out.authority.or_else(|| root.authority.clone());
    out.port = out.port.or(root.port);
    fill(&mut out.headers, &root.headers);
    fill(&mut out.without_headers, &root.without_headers);
    fill(&mut out.query_params, &root.query_params);
    fill(&mut out.source_labels, &root.source_labels);
    if out.source_namespace.is_empty() {
        out.source_namespace.clone_from(&root.source_namespace);
    }
    // Only the root says on which gateways.
    out.gateways.clone_from(&root.gateways);
    Some(out)
}

/// The narrower of two path conditions; `None` when neither contains the other, or a regex is involved on both sides.
#[expect(clippy::option_option, reason = "no condition and no match are different answers")]
fn join_uri(root: &HttpMatch, delegate: &HttpMatch) -> Option<Option<lateen_api::scalar::StringMatch>> {
    use lateen_api::scalar::StringMatch::{Exact, Prefix};
    match (&root.uri, &delegate.uri) {
        (None, own) => Some(own.clone()),
        (outer, None) => Some(outer.clone()),
        (Some(Prefix(outer)), Some(Prefix(own) | Exact(own))) if own.starts_with(outer.as_str()) => {
            Some(delegate.uri.clone())
        }
        (outer, own) if outer == own => Some(own.clone()),
        _ => None,
    }
}

/// Whether both maps say different things about one key.
fn clash<V: PartialEq>(a: &std::collections::BTreeMap<String, V>, b: &std::collections::BTreeMap<String, V>) -> bool {
    a.iter().any(|(key, value)| b.get(key).is_some_and(|other| other != value))
}

fn fill<V: Clone>(into: &mut std::collections::BTreeMap<String, V>, from: &std::collections::BTreeMap<String, V>) {
    for (key, value) in from {
        into.entry(key.clone()).or_insert_with(|| value.clone());
    }
}
