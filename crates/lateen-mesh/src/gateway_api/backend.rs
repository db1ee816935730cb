//! Where a route sends traffic: backends as destinations, and those that lead nowhere.

use lateen_api::gateway_api::BackendRef;
use lateen_api::networking::virtual_service::{Destination, PortSelector, RouteDestination};

use super::Services;
use super::condition::Fault;
use super::reference::{GroupKind, ISTIO, MULTICLUSTER, is_granted};
use crate::host;
use crate::inputs::Inputs;

/// What backends are looked for among, and by whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backends<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) services: &'a Services<'a>,
    pub(super) domain: &'a str,
    /// Group and kind of the route.
    pub(super) from: GroupKind<'a>,
    /// Its namespace.
    pub(super) namespace: &'a str,
    /// References to other namespaces need a grant; those of routes in the mesh do not.
    pub(super) needs_grants: bool,
}

/// A destination that there is, or one of no cluster, which answers with an error, and why.
type Found = (Destination, Option<Fault>);

impl Backends<'_> {
    /// The destination of a reference.
    ///
    /// # Errors
    /// The reference says something that no route may say.
    pub(super) fn destination(&self, to: &BackendRef) -> Result<Found, Fault> {
        let kind = GroupKind::of(to.group.as_deref(), to.kind.as_deref(), GroupKind::SERVICE);
        let namespace = to.namespace.as_deref().unwrap_or(self.namespace);
        if self.needs_grants
            && namespace != self.namespace
            && !is_granted(self.inputs, self.from, self.namespace, kind, (namespace, &to.name))
        {
            let message = format!(
                "backendRef {}/{namespace} not accessible to a {} in namespace \"{}\" (missing a ReferenceGrant?)",
                to.name, self.from.kind, self.namespace
            );
            return Ok((Destination::default(), Some(Fault::new("RefNotPermitted", message))));
        }
        let is_import = kind == GroupKind { group: MULTICLUSTER, kind: "ServiceImport" };
        let (name, exists) = if kind == GroupKind::SERVICE || is_import {
            if to.name.contains('.') && !is_import {
                let message = "service name invalid; the name of the Service must be used, not the hostname.";
                return Err(Fault::new("InvalidDestination", message));
            }
            let exists = self.services.contains_key(&(namespace, to.name.as_str()));
            (host::service_fqdn(&to.name, namespace, self.domain), exists)
        } else if kind == (GroupKind { group: ISTIO, kind: "Hostname" }) {
            if to.namespace.is_some() {
                return Err(Fault::new("InvalidDestination", "namespace may not be set with Hostname type"));
            }
            (to.name.clone(), self.knows_host(&to.name, namespace))
        } else {
            let written = |part: &Option<String>| part.clone().unwrap_or_default();
            let message = format!(
                "referencing unsupported backendRef: group \"{}\" kind \"{}\"",
                written(&to.group),
                written(&to.kind)
            );
            return Ok((Destination::default(), Some(Fault::new("InvalidKind", message))));
        };
        let Some(port) = to.port else {
            return Err(Fault::new("InvalidDestination", "port is required in backendRef"));
        };
        let fault = (!exists).then(|| Fault::new("BackendNotFound", format!("backend({name}) not found")));
        let port = Some(PortSelector { number: u32::from(port) });
        Ok((Destination { host: name, port, ..Destination::default() }, fault))
    }

    fn knows_host(&self, name: &str, namespace: &str) -> bool {
        let mut entries = self.inputs.service_entries.iter().filter(|entry| entry.namespace() == namespace);
        entries.any(|entry| entry.spec.hosts.iter().any(|known| known.eq_ignore_ascii_case(name)))
            || name.split_once('.').is_some_and(|(service, _)| {
                host::service_fqdn(service, namespace, self.domain) == name
                    && self.services.contains_key(&(namespace, service))
            })
    }

    /// The weighted destinations of a TLS or TCP route.
    ///
    /// # Errors
    /// A reference says something that no route may say.
    pub(super) fn stream(&self, refs: &[BackendRef]) -> Result<(Vec<RouteDestination>, Option<Fault>), Fault> {
        if refs.iter().map(BackendRef::share).sum::<i32>() == 0 {
            return Ok((vec![nowhere()], None));
        }
        let (mut out, mut fault) = (Vec::new(), None);
        let shares = shares(refs.iter().map(BackendRef::share));
        for (reference, weight) in refs.iter().zip(shares) {
            let Some(weight) = weight else { continue };
            let (destination, wrong) = self.destination(reference)?;
            fault = wrong.or(fault);
            out.push(RouteDestination { destination, weight });
        }
        Ok((out, fault))
    }
}

/// The weights of backends: none for those that get nothing, and for an only one none is needed.
pub(super) fn shares(written: impl Iterator<Item = i32> + Clone) -> Vec<Option<i32>> {
    let is_only = written.clone().filter(|share| *share != 0).count() == 1;
    written.map(|share| (share != 0).then_some(if is_only { 0 } else { share })).collect()
}

/// A destination that there never is: connections are closed.
fn nowhere() -> RouteDestination {
    let destination = Destination {
        host: "internal.cluster.local".to_owned(),
        subset: "zero-weight".to_owned(),
        port: Some(PortSelector { number: 65535 }),
    };
    RouteDestination { destination, weight: 0 }
}
