//! Which resources of a proxy can differ between two meshes, told from what the meshes share and without making any.
//!
//! Saying too much costs a comparison; saying too little would leave a proxy with something old. So whatever is not known
//! to be the same counts as changed.

use std::sync::Arc;

use lateen_mesh::{Mesh, ProxyKind, Scope, Service, VirtualService};

use crate::view::{Dialect, ProxyView, View};
use crate::{cluster, secret, type_url};

/// Which resources of a type may differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changes {
    Nothing,
    /// These at most; as before, they exist or not.
    Named(Vec<Arc<str>>),
    Anything,
}

/// What may differ between what a proxy should have had and what it should have now.
pub fn changes(before: (&Mesh, &ProxyView), now: (&Mesh, &ProxyView), type_url: &str) -> Changes {
    let (mesh, proxy) = now;
    let same_proxy = Arc::ptr_eq(&proxy.workload, &before.1.workload)
        && (proxy.kind, proxy.unprivileged) == (before.1.kind, before.1.unprivileged);
    if !same_proxy || proxy.dialect == Dialect::Grpc || !Arc::ptr_eq(mesh.config(), before.0.config()) {
        return Changes::Anything;
    }
    let (scope, old) = (mesh.scope_of(&proxy.workload, proxy.kind), before.0.scope_of(&proxy.workload, proxy.kind));
    let view = View { mesh, proxy, scope: &scope };
    let case = Case { view: &view, before: before.0, old: &old };
    let same_demand = proxy.demanded == before.1.demanded;
    match type_url {
        type_url::ENDPOINT => case.endpoints(),
        // Of virtual hosts that are asked for, what their routes lead to.
        type_url::CLUSTER if view.asks_for_hosts() => unless(
            same_demand
                && case.has_same_routes()
                && case.sees_same_clusters()
                && case.has_same_ports()
                && case.has_same_policies(),
        ),
        type_url::CLUSTER => unless(case.sees_same_clusters() && case.has_same_ports()),
        type_url::LISTENER => unless(case.sees_same_listeners() && case.has_same_ports() && case.has_same_policies()),
        type_url::ROUTE | type_url::VIRTUAL_HOST => unless(case.has_same_routes()),
        type_url::SECRET => unless(case.has_same_secrets()),
        _ => Changes::Nothing,
    }
}

fn unless(nothing: bool) -> Changes {
    if nothing { Changes::Nothing } else { Changes::Anything }
}

struct Case<'a> {
    view: &'a View<'a>,
    before: &'a Mesh,
    old: &'a Arc<Scope>,
}

impl Case<'_> {
    fn is_gateway(&self) -> bool {
        self.view.proxy.kind == ProxyKind::Gateway
    }

    fn has_same_rules(&self) -> bool {
        self.view.mesh.has_same_rules(self.before)
    }

    /// The services that are seen, and the rules for them.
    fn sees_same_services(&self) -> bool {
        Arc::ptr_eq(self.view.scope.seen_services(), self.old.seen_services())
            && Arc::ptr_eq(self.view.scope.seen_rules(), self.old.seen_rules())
    }

    fn endpoints(&self) -> Changes {
        if !self.sees_same_services() {
            return Changes::Anything;
        }
        let mut names: Vec<_> =
            self.changed_services().flat_map(|service| cluster::names_of(self.view, service)).collect();
        if self.is_gateway() {
            let passed_on = self.changed_services().flat_map(|service| cluster::passed_on::names(self.view, service));
            names.extend(passed_on.map(Arc::from).collect::<Vec<_>>());
        }
        if !names.is_empty() {
            // It may be the proxy's own service.
            names.push(cluster::local::LOCAL_CLUSTER.into());
        }
        if names.is_empty() { Changes::Nothing } else { Changes::Named(names) }
    }

    /// The services whose endpoints have changed, as far as they are seen.
    fn changed_services(&self) -> impl Iterator<Item = &Arc<Service>> {
        let changed = self.view.mesh.endpoints_changed_since(self.before);
        changed.filter_map(|(namespace, host)| {
            self.view.scope.service(host).filter(|service| *service.namespace == *namespace)
        })
    }

    fn sees_same_clusters(&self) -> bool {
        let (mesh, before) = (self.view.mesh, self.before);
        self.sees_same_services()
            && (Arc::ptr_eq(mesh.standing(), before.standing())
                || self.changed_services().all(|service| mesh.stands_as_in(before, service)))
    }

    /// The ports of the proxy's own application; of a gateway, anything that it may serve.
    fn has_same_ports(&self) -> bool {
        if self.has_same_rules() {
            return true;
        }
        let of = |mesh: &Mesh| mesh.inbound_ports(&self.view.proxy.workload);
        !self.is_gateway() && of(self.view.mesh) == of(self.before)
    }

    /// A sidecar has secrets for ports on which TLS ends by a Sidecar object's word, and by rules for what it calls.
    fn has_same_secrets(&self) -> bool {
        let proxy = self.view.proxy;
        let serves = |mesh: &Mesh| !secret::settings(mesh, proxy).is_empty();
        let calls = |scope: &Scope| secret::client_settings(scope, proxy).next().is_some();
        let asks = |mesh: &Mesh, scope: &Scope| serves(mesh) || calls(scope);
        let nobody_asks = || !asks(self.view.mesh, self.view.scope) && !asks(self.before, self.old);
        self.has_same_rules() || (!self.is_gateway() && nobody_asks())
    }

    fn has_same_policies(&self) -> bool {
        let workload = &self.view.proxy.workload;
        let (mesh, before) = (self.view.mesh, self.before);
        self.has_same_rules()
            || (mesh.mtls(workload) == before.mtls(workload)
                && mesh.authorization(workload) == before.authorization(workload)
                && same(&mesh.request_authentications(workload), &before.request_authentications(workload))
                && same(&mesh.rate_limits(workload), &before.rate_limits(workload))
                && same(&mesh.telemetries(workload), &before.telemetries(workload)))
    }

    /// What outbound listeners are made of. Routes of HTTP are not in them.
    fn sees_same_listeners(&self) -> bool {
        let (scope, old) = (self.view.scope, self.old);
        let other_than_http = |rule: &&Arc<VirtualService>| !rule.tls.is_empty() || !rule.tcp.is_empty();
        let of = |scope: &Scope| -> Vec<Arc<VirtualService>> {
            scope.virtual_services().iter().filter(other_than_http).cloned().collect()
        };
        self.sees_same_clusters()
            && (Arc::ptr_eq(scope, old)
                || (scope.outbound_mode() == old.outbound_mode()
                    && scope.egress_proxy() == old.egress_proxy()
                    && scope.sidecar_origin() == old.sidecar_origin()
                    && same(&of(scope), &of(old))))
    }

    fn has_same_routes(&self) -> bool {
        Arc::ptr_eq(self.view.scope, self.old) && (!self.is_gateway() || self.has_same_rules())
    }
}

fn same<T>(a: &[Arc<T>], b: &[Arc<T>]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
}
